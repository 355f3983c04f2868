//! Any JSON is an object that comes back as it was written, or has at least one problem.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::draft::parse;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let Ok(document) = serde_json::from_slice::<Value>(text) else { return };
    match parse(&document) {
        Ok(object) => assert_eq!(parse(object.to_value()).as_ref(), Ok(&object)),
        Err(problems) => assert!(!problems.is_empty()),
    }
});
