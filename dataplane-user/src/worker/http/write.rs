//! Serialises heads: every byte that leaves comes from the typed model.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use model::transform::Scheme;

use super::fields::{Field, Fields, Known};
use super::request::{Framing, Request, Version};
use super::upgrade::Upgrade;

/// What is said of the client to origins.
#[derive(Debug, Clone, Copy)]
pub struct Forwarding<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// Whether what the client itself says of earlier hops is believed.
    pub trusted: bool,
    /// How the client came.
    pub scheme: Scheme,
    /// The port the client connected to.
    pub port: u16,
    /// This request's id.
    pub request_id: &'a str,
    /// The protocol the origin is asked to change to.
    pub upgrade: Option<&'a Upgrade<'a>>,
}

/// Where the fields of a head are written.
pub trait FieldSink {
    /// Begins a field; its value is appended to what this answers.
    fn name(&mut self, name: &[u8]) -> &mut BytesMut;
    /// Ends it.
    fn end(&mut self);
}

/// HTTP/1.1's field lines.
struct Lines<'a>(&'a mut BytesMut);

impl FieldSink for Lines<'_> {
    fn name(&mut self, name: &[u8]) -> &mut BytesMut {
        self.0.put_slice(name);
        self.0.put_slice(b": ");
        self.0
    }

    fn end(&mut self) {
        self.0.put_slice(b"\r\n");
    }
}

/// Writes a request head for an HTTP/1.1 origin.
pub fn request_head(out: &mut BytesMut, request: &Request, forwarding: &Forwarding<'_>) {
    out.reserve(request.fields.text().len() + 384);
    out.put_slice(request.method_bytes());
    out.put_u8(b' ');
    out.put_slice(if request.asterisk { b"*" } else { request.path.as_str().as_bytes() });
    if let Some(query) = request.query_bytes() {
        out.put_u8(b'?');
        out.put_slice(query);
    }
    out.put_slice(b" HTTP/1.1\r\nHost: ");
    put(out, &request.authority);
    out.put_slice(b"\r\n");
    request_fields(&mut Lines(out), request, forwarding);
    match (forwarding.upgrade, request.te_trailers) {
        (Some(upgrade), _) => put_upgrade(out, upgrade),
        (None, true) => out.put_slice(b"TE: trailers\r\nConnection: TE\r\n"),
        (None, false) => {}
    }
    match request.framing {
        Framing::None | Framing::Close => {}
        Framing::Length(length) => put_length(out, length),
        Framing::Chunked => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    out.put_slice(b"\r\n");
}

fn put_upgrade(out: &mut BytesMut, upgrade: &Upgrade<'_>) {
    put_field(out, b"Connection", b"Upgrade");
    put_field(out, b"Upgrade", upgrade.protocol.as_str().as_bytes());
    if let Some(key) = upgrade.key.as_ref().filter(|_| upgrade.ours) {
        put_field(out, b"Sec-WebSocket-Key", key.bytes());
    }
}

/// The fields of a request to an origin that do not belong to the connection or the framing: the same for every version.
pub fn request_fields(to: &mut impl FieldSink, request: &Request, forwarding: &Forwarding<'_>) {
    let theirs = |field: Field, name: &[u8]| {
        !field.hop
            && !rewritten(field.known)
            // Of those that we do not write ourselves nothing takes the place.
            && (forwarding.trusted || !Known::of_earlier_hops(name))
    };
    for (field, name, value) in request.fields.iter() {
        if theirs(field, name) {
            to.name(name).put_slice(value);
            to.end();
        }
    }
    forwarded(to, request, forwarding);
    let via: &[u8] = if request.version == Version::Http2 { b"2.0 sallyport" } else { b"1.1 sallyport" };
    to.name(b"Via").put_slice(via);
    to.end();
    if request.expect_continue {
        to.name(b"Expect").put_slice(b"100-continue");
        to.end();
    }
}

/// Fields of a request that are written anew rather than copied.
fn rewritten(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::ContentLength
            | Known::Expect
            | Known::Forwarded
            | Known::ForwardedFor
            | Known::ForwardedProto
            | Known::ForwardedHost
            | Known::ForwardedPort
            | Known::RequestId
    )
}

fn forwarded(to: &mut impl FieldSink, request: &Request, forwarding: &Forwarding<'_>) {
    let said = |known| request.fields.values(known).filter(|_| forwarding.trusted);
    let out = to.name(b"X-Forwarded-For");
    for value in said(Known::ForwardedFor) {
        out.put_slice(value);
        out.put_slice(b", ");
    }
    put(out, &forwarding.client);
    to.end();
    let scheme = forwarding.scheme.as_str();
    to.name(b"X-Forwarded-Proto").put_slice(said(Known::ForwardedProto).next().unwrap_or(scheme.as_bytes()));
    to.end();
    let out = to.name(b"X-Forwarded-Host");
    match said(Known::ForwardedHost).next() {
        Some(host) => out.put_slice(host),
        None => put(out, request.asked()),
    }
    to.end();
    let out = to.name(b"X-Forwarded-Port");
    match said(Known::ForwardedPort).next() {
        Some(port) => out.put_slice(port),
        None => put(out, &forwarding.port),
    }
    to.end();
    let out = to.name(b"Forwarded");
    for value in said(Known::Forwarded) {
        out.put_slice(value);
        out.put_slice(b", ");
    }
    match forwarding.client {
        IpAddr::V4(address) => put(out, &format_args!("for={address}")),
        IpAddr::V6(address) => put(out, &format_args!("for=\"[{address}]\"")),
    }
    put(out, &format_args!(";host=\"{}\";proto={scheme}", request.asked()));
    to.end();
    to.name(b"X-Request-Id").put_slice(forwarding.request_id.as_bytes());
    to.end();
}

/// How a response's body is delimited towards an HTTP/1.1 client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimit {
    /// No body and nothing said of one.
    None,
    /// No body, but this length is declared (HEAD, 304).
    Declared(u64),
    /// This many bytes follow.
    Length(u64),
    /// Chunks follow.
    Chunked,
    /// The end of the connection ends it.
    Close,
}

/// What is said of the connection to an HTTP/1 client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection<'a> {
    /// Nothing: HTTP/1.1 goes on.
    Unsaid,
    /// It ends with this response.
    Close,
    /// It goes on, which HTTP/1.0 must be told.
    KeepAlive,
    /// It goes on in this protocol.
    Upgrade(&'a str),
}

/// What this node adds to a final response.
#[derive(Debug, Clone, Copy)]
pub struct Added<'a> {
    /// For where the origin sent no Date.
    pub date: &'a [u8],
    /// This request's id.
    pub request_id: &'a str,
}

/// Writes a response head for an HTTP/1.1 client. `added` is absent on informational responses.
pub fn response_head(
    out: &mut BytesMut,
    status: u16,
    fields: &Fields,
    delimit: Delimit,
    connection: Connection<'_>,
    added: Option<&Added<'_>>,
) {
    out.reserve(fields.text().len() + 192);
    put(out, &format_args!("HTTP/1.1 {status} {}\r\n", phrase(status)));
    let mut dated = false;
    for (field, name, value) in fields.iter() {
        dated |= field.known == Known::Date;
        if forwarded_field(field.known, field.hop) {
            put_field(out, name, value);
        }
    }
    if let Some(added) = added {
        if !dated {
            put_field(out, b"Date", added.date);
        }
        out.put_slice(b"Via: 1.1 sallyport\r\n");
        put_field(out, b"X-Request-Id", added.request_id.as_bytes());
    }
    match delimit {
        Delimit::None | Delimit::Close => {}
        Delimit::Declared(length) | Delimit::Length(length) => put_length(out, length),
        Delimit::Chunked => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    match connection {
        Connection::Unsaid => {}
        Connection::Close => out.put_slice(b"Connection: close\r\n"),
        Connection::KeepAlive => out.put_slice(b"Connection: keep-alive\r\n"),
        Connection::Upgrade(protocol) => {
            put_field(out, b"Connection", b"Upgrade");
            put_field(out, b"Upgrade", protocol.as_bytes());
        }
    }
    out.put_slice(b"\r\n");
}

/// Whether a response's field is copied to the client.
pub fn forwarded_field(known: Known, hop: bool) -> bool {
    !hop && !matches!(known, Known::ContentLength | Known::RequestId)
}

/// Writes the end of a chunked body.
pub fn last_chunk(out: &mut BytesMut, trailers: Option<&Fields>) {
    out.put_slice(b"0\r\n");
    for (field, name, value) in trailers.iter().flat_map(|fields| fields.iter()) {
        if !field.hop {
            put_field(out, name, value);
        }
    }
    out.put_slice(b"\r\n");
}

/// Writes what stands before a chunk's data.
pub fn chunk_size(out: &mut BytesMut, length: usize) {
    put(out, &format_args!("{length:x}\r\n"));
}

fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn put_length(out: &mut BytesMut, length: u64) {
    put(out, &format_args!("Content-Length: {length}\r\n"));
}

fn put(out: &mut BytesMut, value: &impl std::fmt::Display) {
    // Writing to a growing buffer cannot fail.
    let _ = write!(out, "{value}");
}

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}
