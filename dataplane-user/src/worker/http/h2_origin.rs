//! The origin's side of HTTP/2: heads between the one message model and the `h2` crate's.

use bytes::{BufMut, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method as Token};

use super::fields::{Fields, Known, Span};
use super::request::{Framing, MOST_FIELDS, Method, Request, content_length, field};
use super::response::{HEAD_BYTES, Malformed, Response};
use super::write::{FieldSink, Forwarding, request_fields};

/// Fields collected in one buffer, which their values share.
#[derive(Default)]
struct Collected {
    text: BytesMut,
    list: Vec<(Span, Span)>,
    name: Span,
    value_at: usize,
}

impl FieldSink for Collected {
    fn name(&mut self, name: &[u8]) -> &mut BytesMut {
        self.name = Span::new(self.text.len(), name.len());
        self.text.put_slice(name);
        self.value_at = self.text.len();
        &mut self.text
    }

    fn end(&mut self) {
        self.list.push((self.name, Span::new(self.value_at, self.text.len().saturating_sub(self.value_at))));
    }
}

/// A request head for an HTTP/2 origin (RFC 9113, 8.3.1); nothing where a part of it cannot be said in HTTP/2. `https`
/// is the scheme of the leg to the origin.
pub(crate) fn request(
    request: &Request,
    forwarding: &Forwarding<'_>,
    https: bool,
) -> Option<http::Request<()>> {
    let mut collected = Collected {
        text: BytesMut::with_capacity(request.fields.text().len() + 384),
        list: Vec::with_capacity(request.fields.len() + 12),
        ..Collected::default()
    };
    request_fields(&mut collected, request, forwarding);
    let text = collected.text.freeze();
    let mut headers = HeaderMap::with_capacity(collected.list.len() + 2);
    for (name, value) in &collected.list {
        let value = HeaderValue::from_maybe_shared(value.share(&text)).ok()?;
        headers.append(HeaderName::from_bytes(name.of(&text)).ok()?, value);
    }
    if request.te_trailers {
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    if let Framing::Length(length) = request.framing {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut head = http::Request::new(());
    *head.method_mut() = Token::from_bytes(request.method_bytes()).ok()?;
    *head.uri_mut() = uri(request, https)?;
    *head.headers_mut() = headers;
    Some(head)
}

fn uri(request: &Request, https: bool) -> Option<Uri> {
    let mut path = BytesMut::with_capacity(request.path.as_str().len() + 64);
    path.put_slice(if request.asterisk { b"*" } else { request.path.as_str().as_bytes() });
    if let Some(query) = request.query_bytes() {
        path.put_u8(b'?');
        for byte in query {
            // What RFC 3986 has no place for in a query, and `http` refuses, is said in its encoded form.
            match byte {
                b'"' => path.put_slice(b"%22"),
                b'<' => path.put_slice(b"%3C"),
                b'>' => path.put_slice(b"%3E"),
                _ => path.put_u8(*byte),
            }
        }
    }
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::from_maybe_shared(request.authority.to_string()).ok()?);
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path.freeze()).ok()?);
    Uri::from_parts(parts).ok()
}

/// A response head of an HTTP/2 origin, final or informational. `ended`: no body follows.
///
/// # Errors
/// It breaks HTTP or our bounds.
pub(crate) fn response(
    status: u16,
    headers: &HeaderMap,
    method: Method,
    ended: bool,
) -> Result<Response, Malformed> {
    let fields = fields(headers).ok_or(Malformed)?;
    let declared = content_length(fields.values(Known::ContentLength)).map_err(|_ambiguous| Malformed)?;
    let framing = match (status, declared) {
        // Upgrades do not exist in HTTP/2 (RFC 9113, 8.6).
        (101, _) => return Err(Malformed),
        (100..=199 | 204 | 304, _) => Framing::None,
        _ if method == Method::Head => Framing::None,
        (_, Some(length)) => Framing::Length(length),
        (_, None) if ended => Framing::Length(0),
        (_, None) => Framing::Chunked,
    };
    Ok(Response { status, fields, framing, declared, keep_alive: true })
}

fn fields(headers: &HeaderMap) -> Option<Fields> {
    let size = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if size > HEAD_BYTES || headers.len() > MOST_FIELDS {
        return None;
    }
    Fields::copied(headers, field)
}
