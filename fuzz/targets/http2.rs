//! A request of HTTP/2, as the h2 crate hands it over: refused, or written for an HTTP/1.1 origin as exactly one request
//! that reads as it did.
//!
//! The first byte's lowest bit says whether the stream ends with the head. Then lines: method, path, authority, protocol,
//! and a field each.
#![no_main]

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Request, Uri};
use libfuzzer_sys::fuzz_target;
use model::transform::Scheme;
use sallyport_node::worker::http::fields::Known;
use sallyport_node::worker::http::h2::raw;
use sallyport_node::worker::http::request::{self, Framing, HeadBounds};
use sallyport_node::worker::http::scan::Scan;
use sallyport_node::worker::http::upgrade::{Offer, choose};
use sallyport_node::worker::http::write::{Forwarding, request_head};

const BOUNDS: HeadBounds = HeadBounds { bytes: 4096, fields: 32, target: 1024 };

fn parts(data: &[u8]) -> Option<http::request::Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (method, path, authority, protocol) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let mut uri = Uri::builder();
    if !authority.is_empty() {
        uri = uri.scheme("https").authority(authority);
    }
    let mut request = Request::builder().method(method).uri(uri.path_and_query(path).build().ok()?);
    if !protocol.is_empty() {
        request = request.extension(h2::ext::Protocol::from(std::str::from_utf8(protocol).ok()?));
    }
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_lowercase(&line[..at]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let Some(parts) = parts(data) else { return };
    let Ok(request) = raw(&parts, first & 1 == 1, &BOUNDS).and_then(request::check) else { return };
    let allowed = model::upgrade::usual();
    let Ok(upgrade) = choose(&request, &allowed) else { return };
    let client = std::net::Ipv6Addr::LOCALHOST.into();
    let forwarding = Forwarding {
        client,
        trusted: first & 2 == 2,
        scheme: Scheme::Http,
        port: 443,
        request_id: "0",
        upgrade: upgrade.as_ref(),
    };
    let mut written = BytesMut::new();
    request_head(&mut written, &request, &forwarding);
    let bounds = HeadBounds { bytes: 1 << 16, fields: 256, target: 4096 };
    let again = request::take(&mut written, &mut Scan::default(), &bounds).expect("our own head");
    let again = request::check(again.expect("a whole head")).expect("our own head");
    assert!(written.is_empty(), "something follows the head");
    assert_eq!(
        (&again.authority, &again.path, again.framing),
        (&request.authority, &request.path, request.framing)
    );
    assert_eq!(again.query_bytes(), request.query_bytes());
    assert_eq!(again.offer == Offer::Upgrade, upgrade.is_some());
    assert!(again.fields.values(Known::Cookie).count() <= 1, "cookies are one");
    assert!(upgrade.is_none() || again.framing == Framing::None);
});
