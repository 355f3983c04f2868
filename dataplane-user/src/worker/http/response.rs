//! The one strict model of a response, and the parser of HTTP/1.1 origins' heads: as strict as for requests, because
//! whoever controls an origin must not be able to speak in the name of another one.

use std::mem::MaybeUninit;

use bytes::BytesMut;

use super::fields::{Fields, Known, connection_options};
use super::request::{Framing, MOST_FIELDS, Method, content_length, field};
use super::scan::Scan;

/// The largest response head taken from an origin.
pub const HEAD_BYTES: usize = 64 * 1024;

/// A response head.
#[derive(Debug)]
pub struct Response {
    /// 100 to 999.
    pub status: u16,
    /// All fields as sent.
    pub fields: Fields,
    /// How the body is delimited on the origin's connection.
    pub framing: Framing,
    /// The length the head declares, also where no body follows (HEAD, 304).
    pub declared: Option<u64>,
    /// Whether the origin would take another request on the connection.
    pub keep_alive: bool,
}

impl Response {
    /// 100 to 199, but 101, behind which no other response follows.
    pub fn informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// The response breaks HTTP or our bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes a response head from the front of `input` when it is all there.
///
/// # Errors
/// It is malformed.
pub fn take(input: &mut BytesMut, scan: &mut Scan, request: Method) -> Result<Option<Response>, Malformed> {
    let Some(range) = scan.head(input, HEAD_BYTES).map_err(|_unscannable| Malformed)? else {
        return Ok(None);
    };
    *scan = Scan::default();
    let text = input.split_to(range.end).freeze();
    if range.start != 0 {
        return Err(Malformed);
    }
    let mut table = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let end = match config.parse_response_with_uninit_headers(&mut parsed, &text, &mut table) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
    };
    let (Some(status @ 100..), Some(minor)) = (parsed.code, parsed.version) else { return Err(Malformed) };
    if end != text.len() {
        return Err(Malformed);
    }
    let mut list: Vec<_> =
        parsed.headers.iter().map(|header| field(&text, header.name.as_bytes(), header.value)).collect();
    let options = connection_options(&text, &mut list).map_err(|_too_many| Malformed)?;
    let fields = Fields::new(text, list);
    let (framing, declared) = framing(&fields, status, minor, request)?;
    let keep_alive = if minor == 0 { options.keep_alive && !options.close } else { !options.close };
    Ok(Some(Response {
        status,
        fields,
        framing,
        declared,
        keep_alive: keep_alive && framing != Framing::Close,
    }))
}

fn framing(
    fields: &Fields,
    status: u16,
    minor: u8,
    request: Method,
) -> Result<(Framing, Option<u64>), Malformed> {
    let declared = content_length(fields.values(Known::ContentLength)).map_err(|_ambiguous| Malformed)?;
    let mut codings = fields.values(Known::TransferEncoding);
    let coding = match (codings.next(), codings.next()) {
        (None, _) => false,
        // A coding that we did not ask for is not ours to forward.
        (Some(coding), None)
            if minor == 1 && declared.is_none() && coding.eq_ignore_ascii_case(b"chunked") =>
        {
            true
        }
        (Some(_), _) => return Err(Malformed),
    };
    let framing = match status {
        101 if coding || declared.is_some() => return Err(Malformed),
        // Whatever follows belongs to the other protocol. Whether one was asked for is the connection's to know.
        101 => Framing::Close,
        100..=199 | 204 | 304 => Framing::None,
        _ if request == Method::Head => Framing::None,
        _ if coding => Framing::Chunked,
        _ => declared.map_or(Framing::Close, Framing::Length),
    };
    Ok((framing, declared))
}
