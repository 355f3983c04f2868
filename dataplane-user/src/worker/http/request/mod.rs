//! The one strict model of a request, whichever version it came with.
//!
//! In: bytes of an HTTP/1.1 head (`parse`) or HTTP/2's fields (`super::h2`), each as a [`Raw`]. Out, by one set of checks (`check`):
//! a [`Request`].

mod check;
mod parse;

use bytes::Bytes;
use model::header::FieldName;
use model::route::{Asked, NormalPath};

use super::authority::Authority;
use super::fields::{Field, Fields, Known, Span};
use super::negotiate::is_grpc;
use super::upgrade::Offer;

pub use check::{Ambiguous, check, content_length};
pub use parse::{MOST_FIELDS, field, take, trailer};

/// Bounds on a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadBounds {
    /// Bytes of the head.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
    /// Bytes of the target.
    pub target: usize,
}

/// The version a message was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// By chunks, or by HTTP/2's END_STREAM.
    Chunked,
    /// By the end of the connection (responses only).
    Close,
}

/// Methods whose meaning matters to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    Get,
    Head,
    Options,
    Put,
    Delete,
    Trace,
    Connect,
    /// POST, PATCH and all others: nothing is assumed of them.
    Other,
}

impl Method {
    /// Which method a token is.
    pub fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Whether doing it twice is the same as doing it once (RFC 9110, 9.2.2).
    pub fn idempotent(self) -> bool {
        !matches!(self, Self::Other | Self::Connect)
    }
}

/// A request head that passed every check which needs no configuration but bounds.
#[derive(Debug, Clone)]
pub struct Request {
    /// All fields as sent.
    pub fields: Fields,
    /// The method's meaning.
    pub method: Method,
    /// The method's token.
    pub method_text: Span,
    /// Normalised path; `/` for `OPTIONS *`.
    pub path: NormalPath,
    /// Whether the target was `*`.
    pub asterisk: bool,
    /// Behind the `?`, without it.
    pub query: Option<Span>,
    /// Path and query as they were sent; empty where the target had neither.
    pub sent: Span,
    /// Whom it is for.
    pub authority: Authority,
    /// Whom the client asked for, where a rewrite made it for somebody else.
    pub asked: Option<Authority>,
    /// The version it came with.
    pub version: Version,
    /// Its body.
    pub framing: Framing,
    /// Whether the client would send another on the connection.
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expect_continue: bool,
    /// `TE: trailers`.
    pub te_trailers: bool,
    /// Another protocol that the client would rather speak.
    pub offer: Offer,
}

impl Request {
    /// The method's token.
    pub fn method_bytes(&self) -> &[u8] {
        self.method_text.of(self.fields.text())
    }

    /// Whom the client asked for.
    pub fn asked(&self) -> &Authority {
        self.asked.as_ref().unwrap_or(&self.authority)
    }

    /// Whether it is gRPC: HTTP/2 with its media type.
    pub fn grpc(&self) -> bool {
        self.version == Version::Http2
            && self.method == Method::Other
            && self.fields.values(Known::ContentType).any(is_grpc)
    }

    /// Path and query, byte for byte as they were sent.
    pub fn sent_bytes(&self) -> &[u8] {
        self.sent.of(self.fields.text())
    }

    /// The query's bytes.
    pub fn query_bytes(&self) -> Option<&[u8]> {
        self.query.map(|span| span.of(self.fields.text()))
    }
}

impl Asked for Request {
    fn method(&self) -> &[u8] {
        self.method_bytes()
    }

    fn header(&self, name: &FieldName) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |(field, own, _)| !field.hop && name.is(own))
            .map(|(_, _, value)| value)
    }

    fn query(&self) -> Option<&[u8]> {
        self.query_bytes()
    }
}

/// What the parser found before it was checked.
pub struct Raw {
    /// The buffer.
    pub text: Bytes,
    /// Its fields.
    pub list: Vec<Field>,
    /// Method token.
    pub method: Span,
    /// Target as sent; for HTTP/2 `:path`.
    pub target: Span,
    /// HTTP/2's `:authority`.
    pub authority: Option<Span>,
    /// HTTP/2's `:protocol`.
    pub protocol: Option<Span>,
    /// Version.
    pub version: Version,
    /// Whether the stream ended with the head (HTTP/2).
    pub ended: bool,
}
