//! Prefixes in documents that others publish: JSON of any shape, CSV, or a line each.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::net::{InvalidPrefix, Prefix};

mod table;

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
        why: NotPrefix,
    },
    /// The first line has no prefix, and something that could be meant as one, so that it is no heading either.
    #[error(
        "line {line}: {text:?} is neither a prefix nor a heading: {why}; begin a heading with #, or name its column as the key"
    )]
    First {
        /// Where.
        line: usize,
        /// What stands there.
        text: String,
        /// Why it is no prefix.
        why: NotPrefix,
    },
    /// Quotes that are not those of RFC 4180, or a line break inside of them.
    #[error(
        "line {0}: a field that begins with \" must end with \" in the same line, right before the next separator; \
         a \" inside of it is written twice"
    )]
    Quotes(usize),
    /// The table has no column of this name.
    #[error("line {line}: there is no column {key:?}; name one that is there, or leave the key out")]
    Column {
        /// Where the heading is.
        line: usize,
        /// The name.
        key: String,
    },
    /// Nothing in it.
    #[error("there is no prefix in it{0}")]
    Empty(String),
}

/// Why a text of a list is no prefix. Stricter than a [`Prefix`] itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPrefix {
    /// It is no [`Prefix`].
    #[error(transparent)]
    Invalid(#[from] InvalidPrefix),
    /// An octet of an IPv4 address or the length begins with a zero.
    #[error("a number in it begins with 0, which some tools read as octal; write it without")]
    LeadingZero,
}

impl NotPrefix {
    /// Whether it may be a note as well: no address at all, or one with something else behind a slash.
    fn is_other_text(self) -> bool {
        matches!(self, Self::Invalid(InvalidPrefix::Syntax | InvalidPrefix::Length(_)))
    }
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
        false => table::in_lines(text, key, &mut found)?,
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
        Value::String(text) if counts => match strictly(text.trim()) {
            Ok(prefix) => put(found, prefix),
            Err(why) if key.is_none() && why.is_other_text() => Ok(()),
            Err(why) => Err(no_prefix(path.trim_start_matches('.').to_owned(), text, why)),
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

/// Without a leading zero, unlike what is stored: those that were written with one must still load.
fn strictly(text: &str) -> Result<Prefix, NotPrefix> {
    let part = |part: &str| match part.trim_start_matches('0') {
        _ if !part.bytes().all(|byte| byte.is_ascii_digit()) => part.to_owned(),
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (address, length) = text.split_once('/').map_or((text, None), |(at, length)| (at, Some(length)));
    // Groups of IPv6 may have leading zeros (RFC 4291, section 2.2).
    let address = match address.contains(':') {
        true => address.to_owned(),
        false => address.split('.').map(part).collect::<Vec<_>>().join("."),
    };
    let plain = length.map_or_else(|| address.clone(), |length| format!("{address}/{}", part(length)));
    match plain.parse::<Prefix>() {
        Err(why) => Err(NotPrefix::Invalid(why)),
        Ok(_) if plain != text => Err(NotPrefix::LeadingZero),
        Ok(prefix) => Ok(prefix),
    }
}

fn no_prefix(place: String, text: &str, why: NotPrefix) -> InvalidList {
    InvalidList::NoPrefix { place, text: shown(text), why }
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests;
