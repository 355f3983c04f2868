//! Protocols that a connection may change to after an HTTP request (RFC 9110, 7.8; RFC 8441).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A protocol's name, in lower case: a token, with a version where the protocol has one (`name/version`).
///
/// HTTP and TLS themselves are no upgrades here: behind such a change requests would travel that nobody has judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Protocol(Box<str>);

/// Why a text is no [`Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProtocol {
    /// Not a token of RFC 9110, or longer than 64.
    #[error("a protocol is 1 to 64 letters, digits and -_.+, such as websocket or name/1.0")]
    Token,
    /// HTTP or TLS under another name.
    #[error("requests behind a change to HTTP or TLS would pass by every rule; this cannot be allowed")]
    Unjudged,
}

/// Names of protocols that carry requests of their own.
const UNJUDGED: [&str; 6] = ["h2c", "h2", "http", "https", "tls", "connect-udp"];

impl Protocol {
    /// WebSocket (RFC 6455).
    pub const WEBSOCKET: &'static str = "websocket";

    /// WebSocket (RFC 6455).
    pub fn websocket() -> Self {
        Self(Self::WEBSOCKET.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        let token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
        };
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if text.len() > 64 || !token(name) || version.is_some_and(|version| !token(version)) {
            return Err(InvalidProtocol::Token);
        }
        if UNJUDGED.iter().any(|unjudged| name.eq_ignore_ascii_case(unjudged)) {
            return Err(InvalidProtocol::Unjudged);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl TryFrom<String> for Protocol {
    type Error = InvalidProtocol;

    fn try_from(text: String) -> Result<Self, InvalidProtocol> {
        text.parse()
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> Self {
        protocol.0.into()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What routes allow that do not say otherwise.
pub fn usual() -> Vec<Protocol> {
    vec![Protocol::websocket()]
}

/// Whether a list is what routes allow that do not say otherwise.
pub fn is_usual(protocols: &[Protocol]) -> bool {
    matches!(protocols, [only] if only.as_str() == Protocol::WEBSOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_lower_case_and_never_http_or_tls() {
        for (text, parsed) in [
            ("WebSocket", Ok("websocket")),
            ("foo/1.2", Ok("foo/1.2")),
            ("", Err(InvalidProtocol::Token)),
            ("a b", Err(InvalidProtocol::Token)),
            ("a,b", Err(InvalidProtocol::Token)),
            ("a/", Err(InvalidProtocol::Token)),
            ("a/1/2", Err(InvalidProtocol::Token)),
            ("a\r\nb", Err(InvalidProtocol::Token)),
            ("H2C", Err(InvalidProtocol::Unjudged)),
            ("HTTP/2.0", Err(InvalidProtocol::Unjudged)),
            ("TLS/1.2", Err(InvalidProtocol::Unjudged)),
        ] {
            let result = text.parse::<Protocol>();
            assert_eq!(result.as_ref().map(Protocol::as_str).map_err(|why| *why), parsed, "{text:?}");
        }
        assert!("x".repeat(65).parse::<Protocol>().is_err());
        assert!(is_usual(&usual()) && !is_usual(&[]));
    }
}
