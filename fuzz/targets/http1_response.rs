//! A response off the wire: the same under every split, and what is written of it for a client is one response that reads
//! as it did.
//!
//! The first byte says after how many bytes, again and again, the rest is cut; its lowest bit says whether HEAD was asked.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sallyport_node::worker::http::request::{Framing, Method};
use sallyport_node::worker::http::response::{self, Malformed, Response};
use sallyport_node::worker::http::scan::Scan;
use sallyport_node::worker::http::write::{Connection, Delimit, response_head};

fn read(pieces: &mut dyn Iterator<Item = &[u8]>, method: Method) -> Result<Option<Response>, Malformed> {
    let (mut input, mut scan) = (BytesMut::new(), Scan::default());
    for piece in pieces {
        input.extend_from_slice(piece);
        if let Some(response) = response::take(&mut input, &mut scan, method)? {
            return Ok(Some(response));
        }
    }
    Ok(None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let method = if cut & 1 == 1 { Method::Head } else { Method::Get };
    let whole = read(&mut [bytes].into_iter(), method);
    let split = read(&mut bytes.chunks(usize::from(*cut).max(1)), method);
    assert_eq!(format!("{whole:?}"), format!("{split:?}"));
    let Ok(Some(response)) = whole else { return };
    if method == Method::Head {
        assert!(matches!(response.framing, Framing::None | Framing::Close) || response.status == 101);
    }
    let delimit = match response.framing {
        Framing::None => response.declared.map_or(Delimit::None, Delimit::Declared),
        Framing::Length(length) => Delimit::Length(length),
        Framing::Chunked => Delimit::Chunked,
        Framing::Close => Delimit::Close,
    };
    if response.status == 101 || response.status < 200 && delimit != Delimit::None {
        return;
    }
    let mut written = BytesMut::new();
    response_head(&mut written, response.status, &response.fields, delimit, Connection::Unsaid, None);
    let again =
        response::take(&mut written, &mut Scan::default(), method).expect("our own head").expect("whole");
    assert!(written.is_empty(), "something follows the head");
    assert_eq!(
        (again.status, again.framing, again.declared),
        (response.status, response.framing, response.declared)
    );
});
