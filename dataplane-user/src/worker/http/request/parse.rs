//! Bytes -> [`Raw`]: an HTTP/1.1 head taken apart, and what its fields mean.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

use super::{HeadBounds, Raw, Version};
use crate::worker::http::fields::{Field, Known, Span};
use crate::worker::http::scan::{Scan, Unscannable};
use crate::worker::refusal::Reason;

/// More fields than this are refused whatever `headerCount` says: the parser's table lives on the stack.
pub const MOST_FIELDS: usize = 256;

/// Takes a request head from the front of `input` when it is all there.
///
/// # Errors
/// The reason it is refused.
pub fn take(input: &mut BytesMut, scan: &mut Scan, bounds: &HeadBounds) -> Result<Option<Raw>, Reason> {
    let range = match scan.head(input, bounds.bytes) {
        Ok(Some(range)) => range,
        Ok(None) => return Ok(None),
        Err(Unscannable::BareLf | Unscannable::EmptyLines) => return Err(Reason::MalformedRequest),
        Err(Unscannable::FirstLineTooLong) => return Err(Reason::TargetTooLong),
        Err(Unscannable::TooLong) => return Err(Reason::HeaderTooLarge),
    };
    *scan = Scan::default();
    let mut text = input.split_to(range.end);
    let _ = text.split_to(range.start);
    parse(text.freeze(), bounds).map(Some)
}

fn parse(text: Bytes, bounds: &HeadBounds) -> Result<Raw, Reason> {
    let mut table = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let end = match parsed.parse_with_uninit_headers(&text, &mut table) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Err(Reason::MalformedRequest),
        Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeaderTooLarge),
        Err(httparse::Error::Version) => return Err(Reason::UnsupportedVersion),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token,
        ) => return Err(Reason::MalformedRequest),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reason::MalformedRequest);
    };
    if end != text.len() {
        return Err(Reason::MalformedRequest);
    }
    if target.len() > bounds.target {
        return Err(Reason::TargetTooLong);
    }
    if parsed.headers.len() > bounds.fields {
        return Err(Reason::HeaderTooLarge);
    }
    let list =
        parsed.headers.iter().map(|header| field(&text, header.name.as_bytes(), header.value)).collect();
    let (method, target) = (Span::within(&text, method.as_bytes()), Span::within(&text, target.as_bytes()));
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    Ok(Raw { list, method, target, authority: None, protocol: None, version, ended: false, text })
}

/// A field of a trailer section: what we say in the head is not said again by somebody else behind the body, where some
/// origins would merge it with the head.
pub fn trailer(text: &[u8], name: &[u8], value: &[u8]) -> Field {
    let field = field(text, name, value);
    Field { hop: field.hop || field.known.ours() || Known::of_earlier_hops(name), ..field }
}

/// A field of a head, with its meaning.
pub fn field(text: &[u8], name: &[u8], value: &[u8]) -> Field {
    let known = Known::of(name);
    let hop = known.hop_by_hop() || known == Known::Other && Known::disguised(name);
    Field { known, hop, name: Span::within(text, name), value: Span::within(text, value) }
}
