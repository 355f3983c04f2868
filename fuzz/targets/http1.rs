//! A request off the wire: the same under every split, and what is written of it for an origin is one request that reads
//! as it did.
//!
//! The first byte says after how many bytes, again and again, the rest is cut.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use model::transform::Scheme;
use sallyport_node::worker::http::body::BodyReader;
use sallyport_node::worker::http::fields::Known;
use sallyport_node::worker::http::request::{self, Framing, HeadBounds, Request};
use sallyport_node::worker::http::scan::Scan;
use sallyport_node::worker::http::write::{Forwarding, request_head};
use sallyport_node::worker::refusal::Reason;

const BOUNDS: HeadBounds = HeadBounds { bytes: 4096, fields: 32, target: 1024 };

type Read = Result<Option<(Request, BytesMut)>, Reason>;

/// The head, and what was read behind it.
fn read(pieces: &mut dyn Iterator<Item = &[u8]>) -> Read {
    let (mut input, mut scan) = (BytesMut::new(), Scan::default());
    for piece in pieces {
        input.extend_from_slice(piece);
        if let Some(raw) = request::take(&mut input, &mut scan, &BOUNDS)? {
            return Ok(Some((request::check(raw)?, input)));
        }
    }
    Ok(None)
}

/// The body's bytes and whether it ended; how much was left behind it.
fn body(framing: Framing, pieces: &mut dyn Iterator<Item = &[u8]>) -> Option<(Vec<u8>, bool)> {
    let (mut reader, mut all) = (BodyReader::new(framing), Vec::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let decoded = reader.decode(&mut piece).ok()?;
        assert!(decoded.produced <= decoded.consumed && decoded.consumed <= piece.len());
        assert!(reader.done() || decoded.consumed == piece.len());
        all.extend_from_slice(&piece[..decoded.produced]);
        if reader.done() {
            break;
        }
    }
    Some((all, reader.done()))
}

fn shown(read: &Read) -> String {
    match read {
        Ok(Some((request, _))) => format!("{request:?}"),
        Ok(None) => "more".to_owned(),
        Err(reason) => reason.name().to_owned(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    let whole = read(&mut [bytes].into_iter());
    assert_eq!(shown(&whole), shown(&read(&mut bytes.chunks(cut))));
    let Ok(Some((request, rest))) = whole else { return };
    let once = body(request.framing, &mut [&rest[..]].into_iter());
    assert_eq!(once, body(request.framing, &mut rest.chunks(cut)));

    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let forwarding = Forwarding {
        client,
        trusted: false,
        scheme: Scheme::Https,
        port: 443,
        request_id: "0",
        upgrade: None,
    };
    let mut written = BytesMut::new();
    request_head(&mut written, &request, &forwarding);
    let bounds = HeadBounds { bytes: 1 << 16, fields: 256, target: 4096 };
    let again = request::take(&mut written, &mut Scan::default(), &bounds).expect("our own head");
    let again = request::check(again.expect("a whole head")).expect("our own head");
    assert!(written.is_empty(), "something follows the head");
    assert_eq!(
        (again.framing, &again.authority, &again.path),
        (request.framing, &request.authority, &request.path)
    );
    assert_eq!((again.method_bytes(), again.query_bytes()), (request.method_bytes(), request.query_bytes()));
    assert_eq!(again.asterisk, request.asterisk);
    for hop in [Known::Upgrade, Known::KeepAlive, Known::ProxyConnection, Known::Http2Settings] {
        assert!(again.fields.values(hop).next().is_none(), "{hop:?} got through");
    }
});
