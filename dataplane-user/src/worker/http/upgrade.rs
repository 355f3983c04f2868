//! Changes to another protocol: HTTP/1.1's `Upgrade` (RFC 9110, 7.8) and HTTP/2's extended CONNECT (RFC 8441), both
//! forwarded as an `Upgrade`, and the proof that an origin means its 101.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::upgrade::Protocol;

use super::fields::{Fields, Known, Span};
use super::request::{Method, Request};
use super::response::Response;
use crate::worker::refusal::Reason;

/// How a client asks for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It does not.
    None,
    /// By the `Upgrade` field of a request without a body.
    Upgrade,
    /// By `:protocol` on HTTP/2.
    Connect(Span),
}

/// An upgrade that the route allows.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade<'a> {
    /// The one protocol that is offered to the origin.
    pub protocol: &'a Protocol,
    /// WebSocket's key.
    pub key: Option<Key>,
    /// Whether the key is ours, because HTTP/2 has none.
    pub ours: bool,
}

const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";
/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A `Sec-WebSocket-Key`: sixteen bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 24]);

impl Key {
    fn fresh() -> Result<Self, Reason> {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_no_randomness| Reason::UpgradeRefused)?;
        let mut key = [0; 24];
        // Sixteen bytes fill twenty-four exactly.
        let _ = STANDARD.encode_slice(nonce, &mut key);
        Ok(Self(key))
    }

    /// RFC 6455, 4.2.1: exactly one, of sixteen bytes.
    fn of(fields: &Fields) -> Result<Self, Reason> {
        let text = only(fields, KEY).ok_or(Reason::MalformedRequest)?;
        let key = <[u8; 24]>::try_from(text).map_err(|_length| Reason::MalformedRequest)?;
        let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        match key.split_last_chunk::<2>() {
            Some((digits, b"==")) if digits.iter().all(base64) => Ok(Self(key)),
            Some(_) | None => Err(Reason::MalformedRequest),
        }
    }

    /// As text.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the origin must answer.
    pub fn accept(&self) -> String {
        STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&self.0[..], GUID].concat()))
    }
}

/// The upgrade to ask the origin for: the first the client names that the route allows.
///
/// # Errors
/// A WebSocket, or any protocol over HTTP/2, that the route does not allow: its client can do nothing with another
/// answer. A WebSocket handshake that breaks RFC 6455.
pub fn choose<'a>(request: &Request, allowed: &'a [Protocol]) -> Result<Option<Upgrade<'a>>, Reason> {
    let find = |token: &[u8]| allowed.iter().find(|one| token.eq_ignore_ascii_case(one.as_str().as_bytes()));
    let protocol = match request.offer {
        Offer::None => return Ok(None),
        Offer::Connect(span) => find(span.of(request.fields.text())),
        Offer::Upgrade => tokens(&request.fields).find_map(find),
    };
    let Some(protocol) = protocol else {
        let websocket = |token: &[u8]| token.eq_ignore_ascii_case(Protocol::WEBSOCKET.as_bytes());
        let hopeless = request.offer != Offer::Upgrade || tokens(&request.fields).any(websocket);
        return if hopeless { Err(Reason::UpgradeRefused) } else { Ok(None) };
    };
    let ours = matches!(request.offer, Offer::Connect(_));
    let key = match protocol.as_str() == Protocol::WEBSOCKET {
        false => None,
        true if ours => Some(Key::fresh()?),
        true if request.method != Method::Get => return Err(Reason::MalformedRequest),
        true => Some(Key::of(&request.fields)?),
    };
    Ok(Some(Upgrade { protocol, key, ours }))
}

/// Whether a 101 is the one that was asked for: exactly the protocol offered, and WebSocket's proof (RFC 6455, 4.1).
pub fn accepted(upgrade: &Upgrade<'_>, response: &Response) -> bool {
    let mut tokens = tokens(&response.fields);
    let protocol = match (tokens.next(), tokens.next()) {
        (Some(token), None) => token.eq_ignore_ascii_case(upgrade.protocol.as_str().as_bytes()),
        (_, _) => false,
    };
    let proof = match &upgrade.key {
        Some(key) => only(&response.fields, ACCEPT) == Some(key.accept().as_bytes()),
        None => true,
    };
    protocol && proof
}

/// Whether a name belongs to WebSocket's handshake over HTTP/1.1 alone (RFC 8441, 5).
pub fn handshake_field(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(KEY) || name.eq_ignore_ascii_case(ACCEPT)
}

fn tokens(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields.values(Known::Upgrade).flat_map(split).filter(|token| !token.is_empty())
}

fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn only<'a>(fields: &'a Fields, wanted: &'static [u8]) -> Option<&'a [u8]> {
    let mut found = fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(wanted));
    match (found.next(), found.next()) {
        (Some((_, _, value)), None) => Some(value),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_of_rfc_6455() {
        assert_eq!(Key(*b"dGhlIHNhbXBsZSBub25jZQ==").accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let fresh = Key::fresh().unwrap();
        assert_eq!(STANDARD.decode(fresh.bytes()).unwrap().len(), 16);
        assert_ne!(fresh, Key::fresh().unwrap());
    }
}
