//! In which form a client wants to be refused: RFC 9110, 12.5.1, over the few forms we have.

use super::fields::Known;
use super::request::{Method, Request, Version};

/// The forms of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A page.
    Html,
    /// RFC 9457.
    Json,
    /// Lines.
    Plain,
    /// Status and message in the head, for a client that looks nowhere else.
    Grpc,
}

/// What is offered, best first where the client does not mind.
const OFFERED: [(Form, &[&str]); 3] = [
    (Form::Plain, &["text/plain"]),
    (Form::Html, &["text/html"]),
    (Form::Json, &["application/problem+json", "application/json"]),
];

/// What the client prefers. Whoever sent a request that could not be read gets a page: it is most often a browser with
/// too many cookies.
pub fn form(request: Option<&Request>) -> Form {
    let Some(request) = request else { return Form::Html };
    // gRPC calls are POSTs. What is asked with another method is refused with its own status: a cache would keep a success.
    if request.method == Method::Other && request.fields.values(Known::ContentType).any(is_grpc) {
        return Form::Grpc;
    }
    let mut best = (Rank::default(), Form::Plain);
    for (form, types) in OFFERED {
        let ranks = types.iter().filter_map(|one| rank(request, one));
        let Some(rank) = ranks.max() else { continue };
        if rank > best.0 {
            best = (rank, form);
        }
    }
    best.1
}

/// `application/grpc`, alone or with a message format (`+proto`); not gRPC-Web, which has its own framing.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let (start, rest) = content_type.split_at_checked(GRPC.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// Whether trailers alone can answer: HTTP/2 ends the stream with the head, HTTP/1.1 needs a length.
pub fn ends_with_head(request: Option<&Request>) -> bool {
    request.is_some_and(|request| request.version == Version::Http2)
}

/// Quality in thousandths, how exactly the range names the type, and how early it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    quality: u16,
    precision: u8,
    early: std::cmp::Reverse<usize>,
}

/// The most exact range that holds for a media type decides its quality; nothing where none does or it is 0.
fn rank(request: &Request, media_type: &str) -> Option<Rank> {
    let ranges = request.fields.values(Known::Accept).flat_map(|value| value.split(|byte| *byte == b','));
    let mut found: Option<Rank> = None;
    for (place, range) in ranges.enumerate() {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let Some(precision) = parts.next().and_then(|range| precision(range, media_type)) else { continue };
        let quality = parts.find_map(quality).unwrap_or(1000);
        let rank = Rank { quality, precision, early: std::cmp::Reverse(place) };
        if found.is_none_or(|found| precision > found.precision) {
            found = Some(rank);
        }
    }
    found.filter(|rank| rank.quality > 0)
}

fn precision(range: &[u8], media_type: &str) -> Option<u8> {
    let (kind, _) = media_type.split_once('/')?;
    match range {
        b"*/*" => Some(1),
        range if range.eq_ignore_ascii_case(media_type.as_bytes()) => Some(3),
        range => {
            let wild = range.strip_suffix(b"/*")?;
            wild.eq_ignore_ascii_case(kind.as_bytes()).then_some(2)
        }
    }
}

/// `q=0.123`; anything else that begins so counts as nothing wanted less than everything (RFC 9110, 12.4.2).
fn quality(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return Some(0),
    };
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(3);
    let thousandths = digits
        .into_iter()
        .try_fold(0_u16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')));
    match (whole, thousandths) {
        (b'1', Some(0)) => Some(1000),
        (b'0', Some(thousandths)) => Some(thousandths),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::http::request::{HeadBounds, check, take};
    use crate::worker::http::scan::Scan;

    fn preferred(fields: &str) -> Form {
        asked("GET", fields)
    }

    fn asked(method: &str, fields: &str) -> Form {
        let head = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        let bounds = HeadBounds { bytes: 4096, fields: 20, target: 100 };
        let raw = take(&mut head.as_bytes().into(), &mut Scan::default(), &bounds).unwrap().unwrap();
        form(Some(&check(raw).unwrap()))
    }

    #[test]
    fn accept_decides() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Form::Html),
            ("application/json, text/plain, */*", Form::Json),
            ("text/plain, application/json", Form::Plain),
            ("*/*", Form::Plain),
            ("", Form::Plain),
            ("application/*", Form::Json),
            ("text/*;q=0.5, application/problem+json;q=0.6", Form::Json),
            ("text/html;q=0.2, application/json;q=0.3", Form::Json),
            ("TEXT/HTML ; Q=1.0 , application/json;q=0.999", Form::Html),
            ("*/*, text/plain;q=0", Form::Html),
            ("text/html;level=1;q=0.1, application/json;q=0.2", Form::Json),
            ("text/html;q=2, application/json;q=0.1", Form::Json),
            ("text/html;q=0.1234, application/json;q=0.001", Form::Json),
            ("image/png", Form::Plain),
            ("text/plain;q=0, text/html;q=0, application/*;q=0", Form::Plain),
            (",,;q=1,/", Form::Plain),
        ] {
            assert_eq!(preferred(&format!("Accept: {accept}\r\n")), expected, "{accept}");
        }
        assert_eq!(preferred("Accept: text/html;q=0.1\r\nAccept: application/json\r\n"), Form::Json);
        assert_eq!(preferred(""), Form::Plain);
        assert_eq!(form(None), Form::Html);
    }

    #[test]
    fn grpc_says_so_by_its_content_type() {
        for (kind, expected) in [
            ("application/grpc", Form::Grpc),
            ("Application/gRPC+proto", Form::Grpc),
            ("application/grpc; charset=x", Form::Grpc),
            ("application/grpc-web", Form::Plain),
            ("application/grpcx", Form::Plain),
            ("application/json", Form::Plain),
        ] {
            let field = format!("Content-Type: {kind}\r\n");
            assert_eq!(asked("POST", &field), expected, "{kind}");
            // A success that nobody else may store, or take for the answer to a page.
            for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
                assert_eq!(asked(method, &field), Form::Plain, "{method} {kind}");
            }
        }
    }
}
