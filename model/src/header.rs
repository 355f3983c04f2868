//! Header fields that operators write: types that cannot hold what would end a line or a message.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A field name (RFC 9110, 5.1): a token of at most 256 characters, as it was typed. HTTP compares it without case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(Box<str>);

/// Why a text is no [`FieldName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a header's name has 1 to 256 letters, digits or any of !#$%&'*+-.^_`|~")]
pub struct InvalidFieldName;

/// A field value: visible ASCII, with spaces and tabs inside, of 1 to 4,096 bytes (Gateway API's bound on `HTTPHeader`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldValue(Box<str>);

/// Why a text is no [`FieldValue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFieldValue {
    /// Empty, or longer than 4,096 bytes.
    #[error("a header's value has 1 to 4096 characters")]
    Length,
    /// White space at its ends, which HTTP does not carry.
    #[error("a header's value neither starts nor ends with white space")]
    Edges,
    /// A line end, a NUL, another control character, or a character that is not ASCII.
    #[error("a header's value has visible ASCII characters, spaces and tabs only; write others encoded")]
    Character,
}

/// Why operators may not write a field: this node needs to be the only one who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reserved {
    /// `Host`.
    #[error("Host decides where a request goes; change it with urlRewrite.hostname")]
    Host,
    /// `Content-Length`, `Transfer-Encoding`, `Trailer`, `Expect`.
    #[error(
        "it says where a message ends, and a wrong one lets a request hide in another; it is written from the body itself"
    )]
    Framing,
    /// `Connection`, `TE`, `Upgrade`, ... (RFC 9110, 7.6.1).
    #[error("it belongs to one connection and is written for each anew")]
    Connection,
    /// `Forwarded`, `X-Forwarded-*`, `X-Request-Id`, `Via`.
    #[error(
        "it tells the way a message took, and is trusted because only this node writes it (trustedPrefixes of the listener says who else may)"
    )]
    Trust,
}

impl FieldName {
    /// The name as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is this field.
    pub fn is(&self, name: &[u8]) -> bool {
        self.0.as_bytes().eq_ignore_ascii_case(name)
    }

    /// Whether some server reads `name` as this field: those of CGI's kind take `_` for `-`.
    pub fn reads_as(&self, name: &[u8]) -> bool {
        let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        self.0.len() == name.len() && self.0.bytes().zip(name).all(|(own, byte)| plain(&own) == plain(byte))
    }

    /// Why the field may not be written by operators, if so. `_` counts as `-`: servers of CGI's kind read both alike.
    pub fn reserved(&self) -> Option<Reserved> {
        let plain = self.0.to_ascii_lowercase().replace('_', "-");
        match plain.as_str() {
            "host" => Some(Reserved::Host),
            "content-length" | "transfer-encoding" | "trailer" | "expect" => Some(Reserved::Framing),
            "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" | "http2-settings" => {
                Some(Reserved::Connection)
            }
            "forwarded" | "via" | "x-request-id" => Some(Reserved::Trust),
            plain if plain.starts_with("x-forwarded-") => Some(Reserved::Trust),
            _ => None,
        }
    }
}

impl FieldValue {
    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for FieldName {
    type Err = InvalidFieldName;

    fn from_str(text: &str) -> Result<Self, InvalidFieldName> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=256).contains(&text.len()) && text.bytes().all(token) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidFieldName)
        }
    }
}

impl std::str::FromStr for FieldValue {
    type Err = InvalidFieldValue;

    fn from_str(text: &str) -> Result<Self, InvalidFieldValue> {
        if !(1..=4096).contains(&text.len()) {
            Err(InvalidFieldValue::Length)
        } else if text.trim_matches([' ', '\t']).len() != text.len() {
            Err(InvalidFieldValue::Edges)
        } else if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidFieldValue::Character)
        }
    }
}

impl TryFrom<String> for FieldName {
    type Error = InvalidFieldName;

    fn try_from(text: String) -> Result<Self, InvalidFieldName> {
        text.parse()
    }
}

impl TryFrom<String> for FieldValue {
    type Error = InvalidFieldValue;

    fn try_from(text: String) -> Result<Self, InvalidFieldValue> {
        text.parse()
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0.into()
    }
}

impl From<FieldValue> for String {
    fn from(value: FieldValue) -> Self {
        value.0.into()
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ends_a_line_or_a_name_gets_in() {
        for name in ["", "a b", "a:", "a\r", "a\n", "ä", "a\0", "(", &"a".repeat(257)] {
            assert_eq!(name.parse::<FieldName>(), Err(InvalidFieldName), "{name:?}");
        }
        for value in ["", " a", "a\t", "a\r\nb: c", "a\nb", "a\rb", "a\0b", "\u{7f}", "ä", &"a".repeat(4097)]
        {
            assert!(value.parse::<FieldValue>().is_err(), "{value:?}");
            assert!(serde_json::from_value::<FieldValue>(value.into()).is_err(), "{value:?}");
        }
        assert!("max-age=1; \"a\tb\", c".parse::<FieldValue>().is_ok());
    }

    #[test]
    fn framing_and_trust_are_ours() {
        let reserved = |name: &str| name.parse::<FieldName>().unwrap().reserved();
        for (name, why) in [
            ("host", Some(Reserved::Host)),
            ("Content_Length", Some(Reserved::Framing)),
            ("TE", Some(Reserved::Connection)),
            ("x_forwarded-For", Some(Reserved::Trust)),
            ("X-Forwarded-Anything", Some(Reserved::Trust)),
            ("Via", Some(Reserved::Trust)),
            ("X-Forwarded", None),
            ("Set-Cookie", None),
        ] {
            assert_eq!(reserved(name), why, "{name}");
        }
    }
}
