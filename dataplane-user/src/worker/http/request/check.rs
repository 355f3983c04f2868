//! [`Raw`] -> [`Request`]: what a head must be as a whole, the same for HTTP/1.1 and HTTP/2.

use model::route::NormalPath;

use super::{Framing, Method, Raw, Request, Version};
use crate::worker::http::authority::Authority;
use crate::worker::http::fields::{Fields, Known, Span, connection_options};
use crate::worker::http::upgrade::{Offer, handshake_field};
use crate::worker::refusal::Reason;

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
