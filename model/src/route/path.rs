//! Path normalisation (decisions 14): what is matched is, byte for byte, what is forwarded.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A path in the one form that is matched and forwarded. The query is not part of it.
///
/// - `%XX` of an unreserved character (RFC 3986, 2.3) is decoded, other escapes stay, their digits in upper case;
/// - `.` and `..` segments are removed, also where the dots were encoded; `//` is kept;
/// - `"`, `<`, `>`, `[`, `]`, `^`, `` ` ``, `{`, `|` and `}`, which browsers send although RFC 3986 has no place for them
///   in a path, are encoded, so that an origin meets RFC 3986 only and one spelling;
/// - everything else is kept (RFC 3986's `pchar` and `/`) or refused, see [`InvalidPath`].
///
/// Parsing makes one allocation, the one the request keeps; [`normalise`] makes none for a path already in this form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NormalPath(Box<str>);

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Does not start with `/`.
    #[error("a path starts with /")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("a % in a path is followed by two hexadecimal digits")]
    Escape,
    /// NUL, `%00`.
    #[error("a path has no NUL")]
    Nul,
    /// `%2F`, unless the route allows it; or, whatever the route allows, `%2F` beside a `.` or `..`, which an origin that
    /// decodes it would climb.
    #[error("a path has no encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("a path has no backslash")]
    Backslash,
    /// A control character, space, `#`, `?`, or a byte above 0x7e.
    #[error("a path has visible ASCII characters only")]
    Character,
    /// `..` above the root.
    #[error("a path does not climb above /")]
    AboveRoot,
}

impl NormalPath {
    /// Normalises a request's path. `%2F` is kept as it is; see [`NormalPath::has_encoded_slash`].
    ///
    /// # Errors
    /// See [`InvalidPath`]. A plain `EncodedSlash` is the caller's to decide by route; here it means one beside dots.
    pub fn parse(path: &str) -> Result<Self, InvalidPath> {
        normalise(path).map(|path| Self(path.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with `to` in the place of the prefix `from`, whose trailing slashes mean nothing; nothing where it is not
    /// under `from`. Both sides of the seam are whole segments, so the result is normal again.
    pub fn with_prefix(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(from.0.trim_end_matches('/'))?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let path = format!("{}{rest}", to.0.trim_end_matches('/'));
        Some(Self(if path.is_empty() { "/".into() } else { path.into() }))
    }

    /// Whether `%2F` stands in it.
    pub fn has_encoded_slash(&self) -> bool {
        self.0.contains("%2F")
    }
}

impl TryFrom<String> for NormalPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::parse(&text)
    }
}

impl From<NormalPath> for String {
    fn from(path: NormalPath) -> Self {
        path.0.into()
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for NormalPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Normalises a path as [`NormalPath`] says; borrows where nothing had to change.
///
/// # Errors
/// See [`NormalPath::parse`].
pub fn normalise(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    if !path.starts_with('/') {
        return Err(InvalidPath::NotAbsolute);
    }
    let (escaped, decided) = match rewritten_at(path.as_bytes())? {
        None => (Cow::Borrowed(path), path.contains('%')),
        Some(start) => (Cow::Owned(rewrite(path, start)?), true),
    };
    if decided && hides_dots(&escaped) {
        return Err(InvalidPath::EncodedSlash);
    }
    if has_dot_segment(&escaped) { remove_dot_segments(&escaped).map(Cow::Owned) } else { Ok(escaped) }
}

/// What becomes of a byte that stands in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Keep,
    Percent,
    Encode,
    Refuse(InvalidPath),
}

const fn class(byte: u8) -> Class {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Keep,
        b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => {
            Class::Keep
        }
        b'%' => Class::Percent,
        b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
        0 => Class::Refuse(InvalidPath::Nul),
        b'\\' => Class::Refuse(InvalidPath::Backslash),
        _ => Class::Refuse(InvalidPath::Character),
    }
}

/// One load per byte instead of a chain of comparisons: this runs on every byte of every request's path.
const CLASSES: [Class; 256] = {
    let mut classes = [Class::Keep; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = class(byte as u8);
        byte += 1;
    }
    classes
};

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The place of the first byte that is not yet in normal form, dots aside.
fn rewritten_at(path: &[u8]) -> Result<Option<usize>, InvalidPath> {
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        match CLASSES[usize::from(*byte)] {
            Class::Keep => at += 1,
            Class::Percent => {
                let digits = path.get(at + 1..at + 3).unwrap_or_default();
                let value = escape(digits)?;
                if is_unreserved(value) || digits.iter().any(u8::is_ascii_lowercase) {
                    return Ok(Some(at));
                }
                at += 3;
            }
            Class::Encode => return Ok(Some(at)),
            Class::Refuse(why) => return Err(why),
        }
    }
    Ok(None)
}

/// Copies what is in normal form, and brings the rest into it.
fn rewrite(path: &str, start: usize) -> Result<String, InvalidPath> {
    let mut out = String::with_capacity(path.len() + 8);
    out.push_str(path.get(..start).unwrap_or_default());
    let mut rest = path.as_bytes().get(start..).unwrap_or_default();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match CLASSES[usize::from(*byte)] {
            Class::Keep => out.push(char::from(*byte)),
            Class::Percent => {
                let (digits, after) = rest.split_at_checked(2).ok_or(InvalidPath::Escape)?;
                let value = escape(digits)?;
                rest = after;
                if is_unreserved(value) { out.push(char::from(value)) } else { push_escape(&mut out, value) }
            }
            Class::Encode => push_escape(&mut out, *byte),
            Class::Refuse(why) => return Err(why),
        }
    }
    Ok(out)
}

fn escape(digits: &[u8]) -> Result<u8, InvalidPath> {
    let &[high, low] = digits else { return Err(InvalidPath::Escape) };
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(InvalidPath::Escape);
    match u8::try_from(digit(high)? * 16 + digit(low)?) {
        Ok(0) => Err(InvalidPath::Nul),
        Ok(b'\\') => Err(InvalidPath::Backslash),
        Ok(value) => Ok(value),
        Err(_) => Err(InvalidPath::Escape),
    }
}

fn push_escape(out: &mut String, value: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(value >> 4)]));
    out.push(char::from(DIGITS[usize::from(value & 15)]));
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

fn has_dot_segment(path: &str) -> bool {
    path.contains("/.") && path.split('/').any(is_dots)
}

/// A segment such as `..%2Fadmin`, which is one name to us and a climb to whoever decodes the slash.
fn hides_dots(path: &str) -> bool {
    path.contains("%2F")
        && path.split('/').any(|segment| segment.contains("%2F") && segment.split("%2F").any(is_dots))
}

/// RFC 3986, 5.2.4, except that climbing above the root is an error, not forgiven.
fn remove_dot_segments(path: &str) -> Result<String, InvalidPath> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or(InvalidPath::AboveRoot)?;
                out.truncate(parent);
            }
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
        // `/a/.` and `/a/b/..` are the directory `/a/`.
        if is_dots(segment) && segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
