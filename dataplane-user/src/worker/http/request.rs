//! The one strict model of a request. HTTP/1.1 heads are parsed here; HTTP/2's arrive as fields and meet the same checks.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use model::header::FieldName;
use model::route::{Asked, NormalPath};

use super::authority::Authority;
use super::fields::{Field, Fields, Known, Span, connection_options};
use super::negotiate::is_grpc;
use super::scan::{Scan, Unscannable};
use super::upgrade::{Offer, handshake_field};
use crate::worker::refusal::Reason;

/// More fields than this are refused whatever `headerCount` says: the parser's table lives on the stack.
pub const MOST_FIELDS: usize = 256;

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

/// Checks what a head says as a whole.
///
/// # Errors
/// The reason it is refused.
pub fn check(mut raw: Raw) -> Result<Request, Reason> {
    let options = connection_options(&raw.text, &mut raw.list).map_err(|_too_many| Reason::HeaderTooLarge)?;
    let method = Method::of(raw.method.of(&raw.text));
    if method == Method::Connect {
        return Err(Reason::ConnectRefused);
    }
    if raw.protocol.is_some() {
        let text = &raw.text;
        for field in raw.list.iter_mut().filter(|field| handshake_field(field.name.of(text))) {
            field.hop = true;
        }
    }
    let target = target(&raw, method)?;
    let authority = authority(&raw, target.authority)?;
    let framing = match framing(&raw)? {
        // HTTP/2 says by END_STREAM what HTTP/1.1 origins want to read of a method that should have content.
        Framing::None if raw.version == Version::Http2 && matches!(method, Method::Put | Method::Other) => {
            Framing::Length(0)
        }
        // HTTP/1.1 has trailers behind chunks only.
        Framing::Length(1..) if raw.version == Version::Http2 && has(&raw, Known::Trailer) => {
            Framing::Chunked
        }
        framing @ (Framing::None | Framing::Length(_) | Framing::Chunked | Framing::Close) => framing,
    };
    let upgrade = options.upgrade && raw.version == Version::Http11 && has(&raw, Known::Upgrade);
    let (offer, framing) = offer(&raw, upgrade, framing)?;
    let expect_continue = expectation(&raw)?;
    let te_trailers = values(&raw, Known::Te)
        .any(|te| te.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers")));
    let keep_alive = match raw.version {
        Version::Http10 => options.keep_alive && !options.close,
        Version::Http11 | Version::Http2 => !options.close,
    };
    let path = std::str::from_utf8(target.path).map_err(|_not_ascii| Reason::BadPath)?;
    let path = NormalPath::parse(path).map_err(|_invalid| Reason::BadPath)?;
    let query = target.query.map(|query| Span::within(&raw.text, query));
    let sent = Span::within(&raw.text, target.sent);
    Ok(Request {
        method,
        method_text: raw.method,
        path,
        asterisk: target.asterisk,
        query,
        sent,
        authority,
        asked: None,
        version: raw.version,
        framing,
        keep_alive,
        expect_continue,
        te_trailers,
        offer,
        fields: Fields::new(raw.text, raw.list),
    })
}

/// An upgrade, and how the request is framed that asks for it. One with a body is an ordinary request: that it asks for
/// an upgrade too may be ignored (RFC 9110, 7.8). What follows an extended CONNECT is no body.
fn offer(raw: &Raw, upgrade: bool, framing: Framing) -> Result<(Offer, Framing), Reason> {
    let Some(protocol) = raw.protocol else {
        let bodiless = matches!(framing, Framing::None | Framing::Length(0));
        return Ok((if upgrade && bodiless { Offer::Upgrade } else { Offer::None }, framing));
    };
    if has(raw, Known::ContentLength) {
        return Err(Reason::AmbiguousFraming);
    }
    Ok((Offer::Connect(protocol), Framing::None))
}

struct Target<'a> {
    authority: Option<&'a [u8]>,
    sent: &'a [u8],
    path: &'a [u8],
    query: Option<&'a [u8]>,
    asterisk: bool,
}

fn target(raw: &Raw, method: Method) -> Result<Target<'_>, Reason> {
    let text = raw.target.of(&raw.text);
    if text == b"*" {
        let asterisk = Target { authority: None, sent: b"", path: b"/", query: None, asterisk: true };
        return if method == Method::Options { Ok(asterisk) } else { Err(Reason::MalformedRequest) };
    }
    if !text.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'#') {
        return Err(Reason::BadPath);
    }
    let (authority, rest) = match text.first() {
        Some(b'/') => (None, text),
        _ if raw.version == Version::Http2 => return Err(Reason::BadPath),
        _ => absolute(text)?,
    };
    let (path, query) = match rest.iter().position(|byte| *byte == b'?') {
        Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
        None => (rest, None),
    };
    let asterisk = authority.is_some() && path.is_empty() && query.is_none() && method == Method::Options;
    Ok(Target { authority, sent: rest, path: if path.is_empty() { b"/" } else { path }, query, asterisk })
}

fn absolute(text: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Reason> {
    let scheme = |name: &[u8]| {
        text.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
            .then(|| text.get(name.len()..))
    };
    let rest =
        scheme(b"https://").or_else(|| scheme(b"http://")).flatten().ok_or(Reason::MalformedRequest)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || authority.contains(&b'@') {
        Err(Reason::BadHost)
    } else {
        Ok((Some(authority), path))
    }
}

fn authority(raw: &Raw, absolute: Option<&[u8]>) -> Result<Authority, Reason> {
    let mut hosts = values(raw, Known::Host);
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Reason::BadHost),
        (host, _) => host.map(|host| Authority::parse(host).ok_or(Reason::BadHost)).transpose()?,
    };
    let target = absolute.or_else(|| raw.authority.map(|span| span.of(&raw.text)));
    let target = target.map(|authority| Authority::parse(authority).ok_or(Reason::BadHost)).transpose()?;
    match (host, target) {
        (Some(host), Some(target)) if host != target => Err(Reason::BadHost),
        // RFC 9112, 3.2: an HTTP/1.1 request without Host is refused even when its target has an authority.
        (None, Some(_)) if raw.version == Version::Http11 => Err(Reason::BadHost),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(Reason::BadHost),
    }
}

fn framing(raw: &Raw) -> Result<Framing, Reason> {
    let length =
        content_length(values(raw, Known::ContentLength)).map_err(|_ambiguous| Reason::AmbiguousFraming)?;
    let mut codings = values(raw, Known::TransferEncoding);
    match (codings.next(), codings.next(), length) {
        (None, _, Some(0)) if raw.ended => Ok(Framing::Length(0)),
        (None, _, Some(_)) if raw.ended => Err(Reason::AmbiguousFraming),
        (None, _, None) if raw.ended => Ok(Framing::None),
        (None, _, None) if raw.version == Version::Http2 => Ok(Framing::Chunked),
        (None, _, None) => Ok(Framing::None),
        (None, _, Some(length)) => Ok(Framing::Length(length)),
        (Some(_), _, _) if raw.version != Version::Http11 => Err(Reason::UnsupportedVersion),
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(Reason::AmbiguousFraming),
        (Some(coding), None, None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(_), None, None) => Err(Reason::UnsupportedCoding),
    }
}

/// A Content-Length that can be read in one way only.
pub struct Ambiguous;

/// The one Content-Length: a single field, digits only.
pub fn content_length<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, Ambiguous> {
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.is_empty() || value.len() > 18 {
        return Err(Ambiguous);
    }
    let digit = |sum: u64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'));
    value.iter().try_fold(0, digit).map(Some).ok_or(Ambiguous)
}

fn expectation(raw: &Raw) -> Result<bool, Reason> {
    let mut expected = false;
    for value in values(raw, Known::Expect) {
        if raw.version == Version::Http10 {
            continue;
        }
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reason::ExpectationFailed);
        }
        expected = true;
    }
    Ok(expected)
}

fn values(raw: &Raw, known: Known) -> impl Iterator<Item = &[u8]> {
    raw.list.iter().filter(move |field| field.known == known).map(|field| field.value.of(&raw.text))
}

fn has(raw: &Raw, known: Known) -> bool {
    raw.list.iter().any(|field| field.known == known)
}
