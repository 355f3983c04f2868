//! Listeners without TLS: what is answered in clear text. Requests are sent on to HTTPS or refused; beside that there are
//! paths for those who cannot speak TLS, or must not yet: load balancers that ask for health, ACME servers that ask for a
//! proof. Routes are reached without TLS by named peers only, with HTTP/2 from the first byte on (h2c; RFC 9113, 3.3).

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::net::Prefix;
use crate::route::NormalPath;

/// What a listener without TLS does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClearText {
    /// What every request gets that nothing below serves.
    pub answer: OpenAnswer,
    /// Answers 200 while the node serves and 503 while it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<NormalPath>,
    /// An origin group of this snapshot that answers ACME's http-01 challenges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme_origin_group: Option<Name>,
    /// Peers that reach the listener's routes, with h2c. Empty: there are no routes here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub h2c_prefixes: Vec<Prefix>,
}

impl ClearText {
    /// Whether routes may be carried: somebody may reach them.
    pub fn carries_routes(&self) -> bool {
        !self.h2c_prefixes.is_empty()
    }
}

/// What a request in clear text gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum OpenAnswer {
    /// 308 to the same host and target over HTTPS.
    Redirect {
        /// The port there.
        port: u16,
    },
    /// A refusal.
    Refuse,
}

/// Where ACME servers look for the proof that a host is ours (RFC 8555, 8.3).
pub const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Not a token: empty, or with characters outside of base64url's alphabet (RFC 8555, 8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidToken;

/// The token of the http-01 challenge that a path asks for; nothing where it asks for none.
pub fn challenge(path: &NormalPath) -> Option<Result<&str, InvalidToken>> {
    let token = path.as_str().strip_prefix(CHALLENGES)?;
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let valid = !token.is_empty() && token.bytes().all(of_alphabet);
    Some(if valid { Ok(token) } else { Err(InvalidToken) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_base64url() {
        let challenge = |path: &str| challenge(&NormalPath::parse(path).unwrap()).map(|token| token.is_ok());
        for (path, expected) in [
            ("/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", Some(true)),
            ("/.well-known/acme-challenge/a_-Z9", Some(true)),
            // Normal form has decoded what needs no escape.
            ("/.well-known/x/../acme-challenge/%61", Some(true)),
            ("/.well-known/acme-challenge/", Some(false)),
            ("/.well-known/acme-challenge/a=", Some(false)),
            ("/.well-known/acme-challenge/a/b", Some(false)),
            ("/.well-known/acme-challenge/a%2Fb", Some(false)),
            ("/.well-known/acme-challenge/a.b", Some(false)),
            ("/.well-known/acme-challenge", None),
            ("/.well-known/acme-challenges/a", None),
            ("/a/.well-known/acme-challenge/a", None),
        ] {
            assert_eq!(challenge(path), expected, "{path}");
        }
    }
}
