//! A list that others publish gives prefixes, sorted and each once, which read again as they are; or it is refused in few words.
//! JSON gives what its tree gives.
//!
//! The first line is the key, and none where it is empty.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use model::filter::{InvalidList, MOST_BYTES, MOST_PREFIXES, prefixes_in};
use model::net::Prefix;
use serde_json::Value;

/// Every text that counts, of fields with one name those of the last.
fn texts<'a>(value: &'a Value, key: Option<&str>, counts: bool, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) if counts => found.push(text.trim()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, counts, found)),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| texts(item, key, counts || key == Some(name), found))
        }
        _ => {}
    }
}

fuzz_target!(|data: &str| {
    let (key, text) = data.split_once('\n').unwrap_or(("", data));
    let key = Some(key).filter(|key| !key.is_empty());
    let list = prefixes_in(text, key);
    let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']);
    let tree = is_json.then(|| serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')));
    match &list {
        Ok(prefixes) => {
            assert!(text.len() <= MOST_BYTES && (1..=MOST_PREFIXES).contains(&prefixes.len()));
            assert!(prefixes.is_sorted_by(|one, next| one < next));
            let lines: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
            assert_eq!(prefixes_in(&lines.join("\n"), None).as_ref(), Ok(prefixes));
            let json = serde_json::json!({ "key": lines }).to_string();
            assert_eq!(prefixes_in(&json, Some("key")).as_ref(), Ok(prefixes));
        }
        Err(why) => assert!(why.to_string().len() < 4_000, "{why}"),
    }
    match tree {
        Some(Ok(tree)) => {
            let mut counting = Vec::new();
            texts(&tree, key, key.is_none(), &mut counting);
            let all: BTreeSet<Prefix> = counting.iter().filter_map(|text| text.parse().ok()).collect();
            match list {
                Ok(prefixes) => assert_eq!(prefixes, all.into_iter().collect::<Vec<_>>()),
                Err(InvalidList::Empty(_)) => assert!(all.is_empty()),
                Err(why) => assert!(matches!(why, InvalidList::NoPrefix { .. }), "{why}"),
            }
        }
        Some(Err(error)) => {
            let (line, column) = (error.line(), error.column());
            assert_eq!(list, Err(InvalidList::Json { line, column }));
        }
        None => assert!(!matches!(list, Err(InvalidList::Json { .. }))),
    }
});
