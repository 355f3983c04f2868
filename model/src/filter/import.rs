//! Prefixes in documents that others publish: JSON of any shape, CSV, or a line each.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::net::Prefix;

/// A longer text is not read.
pub const MOST_BYTES: usize = 8 * 1024 * 1024;
/// More prefixes are refused.
pub const MOST_PREFIXES: usize = 100_000;

/// Why a document gives no prefixes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidList {
    /// Longer than [`MOST_BYTES`].
    #[error("the text has {0} bytes, and {MOST_BYTES} are the most")]
    Bytes(usize),
    /// More than [`MOST_PREFIXES`].
    #[error("there are more than {MOST_PREFIXES} prefixes; split the list")]
    Prefixes,
    /// Begins as JSON and is none.
    #[error("line {line}, column {column}: this is not JSON; what begins with {{ or [ must be")]
    Json {
        /// Where.
        line: usize,
        /// Where in it.
        column: usize,
    },
    /// A line, or a text under the key, that has no prefix.
    #[error("{place}: {text:?} is no prefix: {why}")]
    NoPrefix {
        /// `line 7`, or `prefixes[3].ip_prefix`.
        place: String,
        /// What stands there.
        text: String,
        /// Why it is none.
        why: crate::net::InvalidPrefix,
    },
    /// The table has no column of this name.
    #[error("line 1: there is no column {0:?}; name one that is there, or leave the key out")]
    Column(String),
    /// Nothing in it.
    #[error("there is no prefix in it{0}")]
    Empty(String),
}

/// The prefixes of a document, sorted, each once. With a key, JSON gives the texts that stand under it at any depth, and a table
/// the column of that name, and all of them must be prefixes; without, whatever is a prefix counts.
///
/// # Errors
/// See [`InvalidList`].
pub fn prefixes_in(text: &str, key: Option<&str>) -> Result<Vec<Prefix>, InvalidList> {
    if text.len() > MOST_BYTES {
        return Err(InvalidList::Bytes(text.len()));
    }
    let text = text.trim_start_matches('\u{feff}');
    let mut found = BTreeSet::new();
    match text.trim_start().starts_with(['{', '[']) {
        true => {
            let document: Value = serde_json::from_str(text)
                .map_err(|why| InvalidList::Json { line: why.line(), column: why.column() })?;
            in_json(&document, key, key.is_none(), "", &mut found)?;
        }
        false => in_lines(text, key, &mut found)?,
    }
    if found.is_empty() {
        let under = key.map(|key| format!(" under the key {key:?}")).unwrap_or_default();
        return Err(InvalidList::Empty(under));
    }
    Ok(found.into_iter().collect())
}

fn put(found: &mut BTreeSet<Prefix>, prefix: Prefix) -> Result<(), InvalidList> {
    found.insert(prefix);
    if found.len() > MOST_PREFIXES { Err(InvalidList::Prefixes) } else { Ok(()) }
}

/// `counts`: whether what stands here is under the key. serde_json's own bound on depth is the bound here.
fn in_json(
    value: &Value,
    key: Option<&str>,
    counts: bool,
    path: &str,
    found: &mut BTreeSet<Prefix>,
) -> Result<(), InvalidList> {
    match value {
        Value::String(text) if counts => match (text.trim().parse(), key) {
            (Ok(prefix), _) => put(found, prefix),
            (Err(why), Some(_)) => Err(no_prefix(path.trim_start_matches('.').to_owned(), text, why)),
            (Err(_), None) => Ok(()),
        },
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| in_json(item, key, counts, &format!("{path}[{index}]"), found)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            let counts = counts || key == Some(name.as_str());
            in_json(item, key, counts, &format!("{path}.{name}"), found)
        }),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Blank lines and those that begin with `#` or `;` are skipped; the first line may be a heading.
fn in_lines(text: &str, key: Option<&str>, found: &mut BTreeSet<Prefix>) -> Result<(), InvalidList> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', ';'])).peekable();
    let column = match (key, lines.peek()) {
        (Some(key), Some((_, heading))) => {
            let column = fields(heading).position(|field| field.eq_ignore_ascii_case(key));
            lines.next();
            Some(column.ok_or_else(|| InvalidList::Column(key.to_owned()))?)
        }
        _ => None,
    };
    let mut first = column.is_none();
    for (number, line) in lines {
        let heading = std::mem::take(&mut first) && line.contains(|c: char| c.is_ascii_alphabetic());
        let text = match column {
            Some(column) => fields(line).nth(column).unwrap_or_default(),
            None => fields(line).find(|field| field.parse::<Prefix>().is_ok()).unwrap_or(line),
        };
        match text.parse() {
            Ok(prefix) => put(found, prefix)?,
            Err(crate::net::InvalidPrefix::Syntax) if heading => {}
            Err(why) => return Err(no_prefix(format!("line {number}"), text, why)),
        }
    }
    Ok(())
}

/// What stands between commas, semicolons and white space, without quotes.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    let separator: &[char] = if line.contains([',', ';', '\t']) { &[',', ';', '\t'] } else { &[' '] };
    line.split(separator).map(|field| field.trim().trim_matches('"').trim())
}

fn no_prefix(place: String, text: &str, why: crate::net::InvalidPrefix) -> InvalidList {
    InvalidList::NoPrefix { place, text: text.chars().take(60).collect(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, key: Option<&str>) -> Result<Vec<String>, String> {
        let found = prefixes_in(text, key).map_err(|why| why.to_string())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn json_of_any_shape() {
        let text = r#"{"syncToken": "1", "prefixes": [{"ip_prefix": "192.0.2.0/24", "region": "GLOBAL"},
            {"ip_prefix": "192.0.2.0/24"}], "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32"}], "origin": "10.0.0.0/8"}"#;
        assert_eq!(read(text, None).unwrap(), ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
        assert_eq!(read(text, Some("ip_prefix")).unwrap(), ["192.0.2.0/24"]);
        assert_eq!(
            read(text, Some("prefixes")).unwrap_err().split(':').next().unwrap(),
            "prefixes[0].region"
        );
        assert_eq!(read(text, Some("x")).unwrap_err(), "there is no prefix in it under the key \"x\"");
        assert!(read("{\n\"a\": }", None).unwrap_err().starts_with("line 2, column"));
    }

    #[test]
    fn tables_and_lists() {
        let table = "prefix,comment\n\"192.0.2.0/24\", one\n# nothing\n\n2001:db8::/32,two\n";
        for key in [None, Some("Prefix")] {
            assert_eq!(read(table, key).unwrap(), ["192.0.2.0/24", "2001:db8::/32"]);
        }
        assert!(read(table, Some("net")).unwrap_err().contains("no column \"net\""));
        assert_eq!(
            read("192.0.2.7\r\n198.51.100.0/24 ; SBL1\n", None).unwrap(),
            ["192.0.2.7/32", "198.51.100.0/24"]
        );
        assert_eq!(
            read("192.0.2.0/24\n192.0.2.9/24\n", None).unwrap_err(),
            "line 2: \"192.0.2.9/24\" is no prefix: the address has bits set behind its /length; write 192.0.2.0/24"
        );
        assert!(
            read("192.0.2.0/24\nexample.com\n", None).unwrap_err().starts_with("line 2: \"example.com\"")
        );
        assert_eq!(read(" \n", None).unwrap_err(), "there is no prefix in it");
    }

    #[test]
    fn too_much_is_refused() {
        let many =
            (0..=MOST_PREFIXES as u32).map(|n| std::net::Ipv4Addr::from_bits(n << 8).to_string() + "/24\n");
        assert_eq!(prefixes_in(&many.collect::<String>(), None), Err(InvalidList::Prefixes));
        let long = " ".repeat(MOST_BYTES + 1);
        assert_eq!(prefixes_in(&long, None), Err(InvalidList::Bytes(MOST_BYTES + 1)));
    }
}
