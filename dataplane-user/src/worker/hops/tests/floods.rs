//! Clients and origins that send frames which ask for nothing.

use model::snapshot::Protocols;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Duration;

use super::bench::{Bench, answering, local, origin, read_all, read_head};
use crate::worker::http::guard::Flood;
use crate::worker::refusal::Reason;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `:method: GET`, `:scheme: https`, `:path: /` and `:authority: a.test`, nothing of it for the table (RFC 7541).
pub(super) const GET: &[u8] = &[0x82, 0x87, 0x84, 1, 6, b'a', b'.', b't', b'e', b's', b't'];
/// The same with POST.
const POST: &[u8] = &[0x83, 0x87, 0x84, 1, 6, b'a', b'.', b't', b'e', b's', b't'];
/// END_STREAM and END_HEADERS.
pub(super) const WHOLE: u8 = 5;
pub(super) const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends and reads at once until the connection ends, which it must.
async fn talk(stream: DuplexStream, bytes: Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let write = async { drop(writer.write_all(&bytes).await) };
    let read = async { drop(reader.read_to_end(&mut answer).await) };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(write, read) })
        .await
        .expect("the connection lives on");
    answer
}

/// The error code of the last GOAWAY.
fn goaway(mut bytes: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(rest[4..8].try_into().unwrap()));
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    code
}

/// HEADERS with a name of 10 bytes and a value of 4,000 for the table, then the table's entry again and again.
fn bomb(stream: u32) -> Vec<u8> {
    let mut block = GET.to_vec();
    block.extend_from_slice(&[0x40, 10]);
    block.extend_from_slice(b"x-bomb-bom");
    block.extend_from_slice(&[0x7f, 0xa1, 0x1e]);
    block.extend_from_slice(&[b'a'; 4000]);
    block.extend_from_slice(&[0xbe; 8000]);
    frame(1, WHOLE, stream, &block)
}

#[test]
fn each_kind_of_flood_ends_its_connection_and_is_counted() {
    let opened = frame(1, END_HEADERS, 1, POST);
    let times = |frame: Vec<u8>, times: usize| [&opened[..], &frame.repeat(times)].concat();
    let many = |frame: Vec<u8>| times(frame, 3000);
    let streams = |each: &dyn Fn(u32) -> Vec<u8>| (1..9000).step_by(2).flat_map(each).collect::<Vec<u8>>();
    let continued = [frame(1, 0, 1, GET), frame(9, 0, 1, &[0x90]).repeat(100)].concat();
    let resets = streams(&|id| [frame(1, WHOLE, id, GET), frame(3, 0, id, &[0, 0, 0, 8])].concat());
    // Each stream's window grows beyond what a window may be: our error to reset, the client's to make.
    let overflows =
        streams(&|id| [frame(1, WHOLE, id, GET), frame(8, 0, id, &[0x7f, 0xff, 0xff, 0xff])].concat());
    for (flood, bytes) in [
        (Flood::Settings, many(frame(4, 0, 0, b""))),
        (Flood::Ping, many(frame(6, 0, 0, &[0; 8]))),
        (Flood::Reset, resets),
        (Flood::Priority, many(frame(2, 0, 1, &[0, 0, 0, 0, 16]))),
        (Flood::WindowUpdate, many(frame(8, 0, 0, &[0, 0, 0, 1]))),
        (Flood::Empty, many(frame(0, 0, 1, b""))),
        (Flood::Other, many(frame(0xfa, 0, 0, b"grease"))),
        (Flood::Continuation, continued),
        (Flood::HeaderList, bomb(1)),
        (Flood::StreamError, overflows),
        (Flood::SmallData, times(frame(0, 0, 1, b"x"), 70_000)),
    ] {
        local(|| async move {
            // An origin that never says its settings: nothing of any body is taken.
            let address = origin(|_, mut stream| async move { drop(read_all(&mut stream).await) }).await;
            let bench = Bench::with(&[address], |snapshot| {
                snapshot.origin_groups[0].protocols = Protocols::Http2;
                snapshot.origin_groups[0].connect_timeout_ms = 10_000;
            });
            let stream = bench.connect_as(64 * 1024, true, None);
            let answer = talk(stream, [PREFACE, &bytes].concat()).await;
            assert_eq!(goaway(&answer), Some(11), "{flood:?}: ENHANCE_YOUR_CALM");
            assert_eq!(*bench.log.floods.borrow(), [flood]);
            assert_eq!(*bench.log.refused.borrow(), [Reason::Http2Abuse]);
        });
    }
}

#[test]
fn a_flood_by_one_who_does_not_read_ends_too() {
    local(|| async {
        let (address, _) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let bench = Bench::new(&[address]);
        let mut stream = bench.connect_as(4096, true, None);
        // Each is answered, and the answers stay where they are.
        let pings = frame(6, 0, 0, &[0; 8]).repeat(10_000);
        let bytes = [PREFACE, &frame(1, WHOLE, 1, GET), &pings].concat();
        let write = stream.write_all(&bytes);
        assert!(tokio::time::timeout(Duration::from_millis(500), write).await.is_err(), "all of it was read");
        drop(stream);
    });
}

#[test]
fn empty_pieces_of_bodies_end_no_connection() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            while let Some(head) = read_head(&mut stream).await {
                assert!(head.starts_with("POST"), "{head}");
                // The chunk and the last one.
                let mut body = [0; 11];
                stream.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"1\r\nx\r\n0\r\n\r\n");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut stream = bench.connect_as(64 * 1024, true, None);
        stream.write_all(PREFACE).await.unwrap();
        // Two of them a request: more than the h2 crate takes in a connection's life.
        for id in (1..401).step_by(2) {
            let body =
                [frame(0, 0, id, b""), frame(0, 0, id, b"x"), frame(0, 0, id, b""), frame(0, 1, id, b"")];
            stream.write_all(&[frame(1, END_HEADERS, id, POST), body.concat()].concat()).await.unwrap();
            // Each is answered before the next, so that there are never too many.
            while bench.log.exchanges.borrow().len() < id as usize / 2 + 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let told = bench.told(200).await;
        assert!(told.iter().all(|told| (told.status, told.refusal) == (200, None)), "{told:?}");
    });
}

#[test]
fn no_header_block_may_be_a_bomb() {
    local(|| async {
        let (address, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let bench = Bench::new(&[address]);
        let mut stream = bench.connect_as(64 * 1024, true, None);
        // Within what h2 takes and beyond what we do: each time 40 references to an entry of a kilobyte.
        let mut first = GET.to_vec();
        first.extend_from_slice(&[0x40, 6]);
        first.extend_from_slice(b"x-bomb");
        first.extend_from_slice(&[0x7f, 0xe9, 0x06]);
        first.extend_from_slice(&[b'a'; 1000]);
        let again = [GET, &[0xbe; 40]].concat();
        let mut bytes = [PREFACE, &frame(1, WHOLE, 1, &first)].concat();
        for id in (3..203).step_by(2) {
            bytes.extend(frame(1, WHOLE, id, &again));
        }
        // The table cut down and let grow again, as often as one block may.
        let resized = [&[0x20, 0x3f, 0xe1, 0x1f][..], GET].concat();
        bytes.extend(frame(1, WHOLE, 203, &resized));
        stream.write_all(&bytes).await.unwrap();
        let told = bench.told(102).await;
        assert_eq!(told.iter().filter(|told| told.refusal == Some(Reason::HeaderTooLarge)).count(), 100);
        assert_eq!(told.iter().filter(|told| told.status == 200).count(), 2);
        assert_eq!(seen.borrow().len(), 2);
    });
}

/// An HTTP/2 origin of frames: it says `bytes` behind its settings, once there is a request.
async fn raw_origin(bytes: Vec<u8>) -> Bench {
    let bytes = std::rc::Rc::new(bytes);
    let address = origin(move |_, mut stream| {
        let bytes = std::rc::Rc::clone(&bytes);
        async move {
            stream.write_all(&[frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat()).await.unwrap();
            // The request's head is there when anything is behind the preface and the answer to our settings.
            let mut seen = vec![0; 1024];
            let mut all = 0;
            while all < PREFACE.len() + 60 {
                all += stream.read(&mut seen).await.unwrap();
            }
            let _ = stream.write_all(&bytes).await;
            read_all(&mut stream).await;
        }
    })
    .await;
    Bench::with(&[address], |snapshot| snapshot.origin_groups[0].protocols = Protocols::Http2)
}

#[test]
fn an_origins_empty_frames_are_no_part_of_its_answer() {
    local(|| async {
        let pieces = [frame(0, 0, 1, b"x"), frame(0, 0, 1, b"").repeat(3)].concat().repeat(200);
        let bench =
            raw_origin([frame(1, END_HEADERS, 1, &[0x88]), pieces, frame(0, 1, 1, b"")].concat()).await;
        let answer = bench.ask("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].sent, told[0].refusal), (200, 200, None));
    });
}

#[test]
fn an_origin_that_floods_is_cut_off() {
    local(|| async {
        let bench = raw_origin(frame(6, 0, 0, &[0; 8]).repeat(5000)).await;
        let answer = bench.ask("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::OriginGone));
    });
}
