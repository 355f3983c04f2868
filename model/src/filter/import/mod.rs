//! Prefixes in documents that others publish: JSON of any shape, CSV, or a line each.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::net::{InvalidPrefix, Prefix};

mod json;
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
        true => json::in_json(text, key, &mut found)?,
        false => table::in_lines(text, key, &mut found)?,
    }
    if found.is_empty() {
        let under = key.map(|key| format!(" under the key {:?}", shown(key))).unwrap_or_default();
        return Err(InvalidList::Empty(under));
    }
    Ok(found.into_iter().collect())
}

fn put(found: &mut BTreeSet<Prefix>, prefix: Prefix) -> Result<(), InvalidList> {
    found.insert(prefix);
    if found.len() > MOST_PREFIXES { Err(InvalidList::Prefixes) } else { Ok(()) }
}

/// Without a leading zero, unlike what is stored: those that were written with one must still load. However long the text is,
/// only what may be an address or a length is copied.
fn strictly(text: &str) -> Result<Prefix, NotPrefix> {
    let (address, length) = text.split_once('/').map_or((text, None), |(at, length)| (at, Some(length)));
    let address = without_zeros(address).ok_or(InvalidPrefix::Syntax)?;
    let plain = match length.map(number) {
        None => address,
        // No length is longer than three digits; what is no number is refused as a longer one would be.
        Some(length) => Cow::Owned(format!("{address}/{}", if length.len() > 3 { "-" } else { length })),
    };
    match plain.parse::<Prefix>() {
        Err(why) => Err(NotPrefix::Invalid(why)),
        Ok(_) if plain != text => Err(NotPrefix::LeadingZero),
        Ok(prefix) => Ok(prefix),
    }
}

/// An address as it would be without leading zeros; nothing where it is too long for one, or nothing in it parts its numbers.
fn without_zeros(address: &str) -> Option<Cow<'_, str>> {
    /// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`, `255.255.255.255`.
    const LONGEST: (usize, usize) = (45, 15);
    // Groups of IPv6 may have leading zeros (RFC 4291, section 2.2).
    if address.contains(':') {
        return (address.len() <= LONGEST.0).then_some(Cow::Borrowed(address));
    }
    if !address.contains('.') {
        return None;
    }
    let mut plain = String::with_capacity(LONGEST.1);
    for part in address.split('.').map(number) {
        if plain.len() + part.len() > LONGEST.1 {
            return None;
        }
        plain.extend([part, "."]);
    }
    plain.pop();
    Some(Cow::Owned(plain))
}

/// A decimal number without leading zeros; anything else as it is.
fn number(text: &str) -> &str {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text;
    }
    match text.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

fn no_prefix(place: String, text: &str, why: NotPrefix) -> InvalidList {
    InvalidList::NoPrefix { place, text: shown(text), why }
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
