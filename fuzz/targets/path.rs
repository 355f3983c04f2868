//! A request's path is normalised or refused; what is normalised stays as it is and has nothing left to climb with.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use model::route::{NormalPath, normalise};

fuzz_target!(|path: &str| {
    let Ok(once) = NormalPath::parse(path) else { return };
    let text = once.as_str();
    assert!(matches!(normalise(text), Ok(Cow::Borrowed(again)) if again == text));
    assert!(text.starts_with('/') && !text.split('/').any(|segment| segment == "." || segment == ".."));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte)));
});
