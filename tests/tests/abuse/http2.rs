//! HTTP/2: floods of every kind of frame, header bombs, windows that never open, and honest clients that look a little like it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_tests::abuse::{Siege, attackers};
use sallyport_tests::client::{Connection, Dial};
use sallyport_tests::h2client::{connect, frame, frames};
use sallyport_tests::stage::HOST;
use serde_json::json;

/// Attackers' threads.
const THREADS: usize = 2;
/// How long each attacks.
const ATTACK: Duration = Duration::from_secs(4);
/// An attacker that is not cut off by then never will be.
const CUT_WITHIN: Duration = Duration::from_secs(10);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
const END_HEADERS: u8 = 4;

/// A header block for `path`: nothing of it for the table (RFC 7541).
fn request(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x87, 1, HOST.len() as u8];
    block.extend_from_slice(HOST.as_bytes());
    block.extend_from_slice(&[4, path.len() as u8]);
    block.extend_from_slice(path.as_bytes());
    block
}

fn get(path: &str) -> Vec<u8> {
    request(0x82, path)
}

fn dial(siege: &Siege) -> Dial {
    let mut dial = siege.dial().patience(Duration::from_secs(5));
    dial.tls = siege.stage.front_ca.client(&["h2"]);
    dial
}

/// Says `bytes` until the other side hears no more.
fn say(connection: &mut Connection, bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|piece| connection.send(piece).is_ok())
}

fn floods(siege: &Siege, kind: &str) -> f64 {
    siege.product.metric("sallyport_http2_floods_total", &format!("kind=\"{kind}\""))
}

/// Every attacker opens connections, says this on each, and opens another when it is cut off.
fn flood(kind: &str, bytes: &[u8]) {
    let siege = Siege::new(&format!("abuse-h2-{kind}"), json!({ "headerBytes": 16_384 }));
    let dial = dial(&siege);
    let (before, floods_before) = (siege.count("http2-abuse"), floods(&siege, kind));
    let (seen, ()) = siege.endure(|| {
        attackers(&siege.stage.clients, THREADS, |_| {
            let until = Instant::now() + ATTACK;
            while Instant::now() < until {
                let mut connection = dial.open().expect("handshake");
                // Again and again, until it is cut off: it must be. What it has said by then is the kernel's buffers' and the
                // scheduler's matter.
                let begun = Instant::now();
                let mut heard = say(&mut connection, PREFACE);
                while heard {
                    assert!(begun.elapsed() < CUT_WITHIN, "{kind}: never cut off");
                    heard = say(&mut connection, bytes);
                }
            }
        });
    });
    siege.counted("http2-abuse", before, THREADS);
    let ended = floods(&siege, kind) - floods_before;
    assert!(ended >= THREADS as f64, "{kind}: {ended} connections ended for it");
    println!("abuse-h2-{kind}: {ended} connections ended");
    // A connection's buffers and what one header list may be, for every attacker and the connections that are parting.
    seen.unaffected().grew_at_most(THREADS as u64 * (2 << 20));
}

/// Frames behind a request whose body is to come.
fn behind_an_upload(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = frame(1, END_HEADERS, 1, &request(0x83, "/upload"));
    [head, frame(kind, 0, stream, payload).repeat(3000)].concat()
}

/// Every stream anew.
fn streams(each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (1..8000).step_by(2).flat_map(each).collect()
}

#[test]
fn settings() {
    flood("settings", &behind_an_upload(4, 0, b"\0\x04\0\0\xff\xff"));
}

#[test]
fn pings() {
    flood("ping", &behind_an_upload(6, 0, &[0; 8]));
}

#[test]
fn priorities() {
    flood("priority", &behind_an_upload(2, 1, &[0, 0, 0, 0, 16]));
}

#[test]
fn windows_opened_by_a_byte() {
    flood("window-update", &behind_an_upload(8, 0, &[0, 0, 0, 1]));
}

#[test]
fn empty_frames() {
    flood("empty", &behind_an_upload(0, 1, b""));
}

#[test]
fn unknown_frames() {
    flood("other", &behind_an_upload(0xfa, 0, &[0; 100]));
}

#[test]
fn rapid_resets() {
    flood("reset", &streams(|id| [frame(1, WHOLE, id, &get("/")), frame(3, 0, id, &[0, 0, 0, 8])].concat()));
}

#[test]
fn resets_that_we_are_made_to_send() {
    let window = [0x7f, 0xff, 0xff, 0xff];
    flood("stream-error", &streams(|id| [frame(1, WHOLE, id, &get("/")), frame(8, 0, id, &window)].concat()));
}

#[test]
fn continuations() {
    let head = frame(1, 0, 1, &get("/"));
    flood("continuation", &[head, frame(9, 0, 1, &[0x90]).repeat(100)].concat());
}

#[test]
fn header_bombs() {
    // 4,000 bytes for the table, then a byte for each time they are meant.
    let mut block = get("/");
    block.extend_from_slice(&[0x40, 6]);
    block.extend_from_slice(b"x-bomb");
    block.extend_from_slice(&[0x7f, 0xa1, 0x1e]);
    block.extend_from_slice(&[b'a'; 4000]);
    block.extend_from_slice(&[0xbe; 8000]);
    flood("header-list", &frame(1, WHOLE, 1, &block));
}

/// Opens `streams` requests for a body without end on each of a few connections, with this first window, and waits.
fn stall(name: &str, window: u32, read: bool) {
    const CONNECTIONS: usize = 2;
    const STREAMS: u32 = 20;
    let siege = Siege::new(name, json!({ "stallMs": 1500 }));
    let mut dial = dial(&siege);
    dial.unread = (!read).then_some(4096);
    let before = siege.count("body-timeout");
    let (seen, ()) = siege.endure(|| {
        attackers(&siege.stage.clients, THREADS, |_| {
            let settings = frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
            let mut first = [&PREFACE[..24], &settings].concat();
            first.extend(frame(8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes()));
            let open = |_| {
                let mut connection = dial.open().expect("handshake");
                connection.send(&first).expect("windows");
                for at in 0..STREAMS {
                    connection.send(&frame(1, WHOLE, 2 * at + 1, &get("/bulk"))).expect("a request");
                    // What is looked at is what they hold, not what their origin connections' handshakes cost.
                    std::thread::sleep(Duration::from_millis(30));
                }
                connection
            };
            let held: Vec<_> = (0..CONNECTIONS).map(open).collect();
            std::thread::sleep(Duration::from_millis(3000));
            drop(held);
        });
    });
    siege.counted("body-timeout", before, THREADS * CONNECTIONS * STREAMS as usize);
    // What is held for a client that takes nothing: 6 MiB of answers, and a piece for each origin's connection.
    let each = if window == 0 { 1 << 20 } else { 6 << 20 };
    let origins = u64::from(STREAMS) * (64 << 10);
    seen.unaffected().grew_at_most((THREADS * CONNECTIONS) as u64 * (each + origins));
}

#[test]
fn windows_that_never_open() {
    stall("abuse-h2-closed", 0, true);
}

#[test]
fn windows_of_a_byte() {
    stall("abuse-h2-byte", 1, true);
}

#[test]
fn open_windows_and_nobody_who_reads() {
    stall("abuse-h2-deaf", 0x7fff_ffff, false);
}

#[test]
fn the_last_stream_there_is() {
    let siege = Siege::new("abuse-h2-last", json!({}));
    let dial = dial(&siege);
    siege.stage.clients.inside(|| {
        let mut connection = dial.open().expect("handshake");
        let bytes = [PREFACE, &frame(1, WHOLE, 0x7fff_ffff, &get("/"))].concat();
        connection.send(&bytes).expect("the last request");
        std::thread::sleep(Duration::from_millis(300));
        connection.send(&frame(1, WHOLE, 1, &get("/"))).expect("one more");
        let mut all = Vec::new();
        // The end may come without its last word.
        let _ = std::io::Read::read_to_end(connection.stream(), &mut all);
        let frames = frames(&all);
        let answered = frames.iter().any(|(kind, _, stream, _)| (*kind, *stream) == (1, 0x7fff_ffff));
        let goaway = frames.iter().find(|(kind, ..)| *kind == 7).map(|(.., payload)| payload[7]);
        assert_eq!((answered, goaway), (true, Some(1)), "{frames:?}");
        assert_eq!(siege.dial().get(HOST, "/").expect("others go on").status, 200);
    });
}

/// Requests that are refused at once, with bodies that never end: their answers are whole, and their streams are free
/// again after the two seconds for which a client may still be sending.
#[test]
fn refused_requests_without_end() {
    const CONNECTIONS: usize = 5;
    const STREAMS: u32 = 128;
    let siege = Siege::new("abuse-h2-refused", json!({}));
    let dial = dial(&siege);
    let before = siege.count("no-route");
    let mut block = vec![0x83, 0x87, 0x84, 1, 17];
    block.extend_from_slice(b"nowhere.walk.test");
    let (seen, ()) = siege.endure(|| {
        attackers(&siege.stage.clients, THREADS, |_| {
            let open = |_| {
                let mut connection = dial.open().expect("handshake");
                connection.send(PREFACE).expect("the preface");
                for id in (1..2 * STREAMS).step_by(2) {
                    // All of them together are within the first window of a connection.
                    let piece = frame(0, 0, id, &[7; 400]);
                    connection.send(&[frame(1, END_HEADERS, id, &block), piece].concat()).expect("a request");
                }
                (Instant::now(), connection)
            };
            for (began, mut connection) in (0..CONNECTIONS).map(open).collect::<Vec<_>>() {
                let (mut read, mut more) = (Vec::new(), [0; 16 * 1024]);
                let of = |read: &[u8], wanted: fn(u8, u8) -> bool| {
                    frames(read).iter().filter(|(kind, flags, ..)| wanted(*kind, *flags)).count()
                };
                while of(&read, |kind, _| kind == 3) < STREAMS as usize {
                    assert!(began.elapsed() < Duration::from_secs(10), "streams are held");
                    let count = std::io::Read::read(connection.stream(), &mut more).expect("more");
                    assert!(
                        count > 0,
                        "closed: {:?}",
                        frames(&read).into_iter().rfind(|(kind, ..)| *kind == 7)
                    );
                    read.extend_from_slice(&more[..count]);
                }
                let resets = frames(&read).into_iter().filter(|(kind, ..)| *kind == 3);
                assert!(resets.map(|(.., code)| code).all(|code| code == [0; 4]), "a reset is an error");
                assert_eq!(of(&read, |kind, flags| kind == 0 && flags & 1 == 1), STREAMS as usize);
            }
        });
    });
    siege.counted("no-route", before, THREADS * CONNECTIONS * STREAMS as usize);
    // A stream that is read on from keeps what any open one does, and none of its body.
    seen.unaffected().grew_at_most((THREADS * CONNECTIONS) as u64 * (1 << 20));
}

/// What honest clients do that looks like an attack from afar: none of it ends a connection.
#[test]
fn honest_clients_meet_no_limit() {
    let siege = Siege::new("abuse-h2-honest", json!({}));
    let dial = dial(&siege);
    let before = siege.count("http2-abuse");
    siege.stage.clients.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (mut requests, mut pings) = connect(dial.target, &dial.tls).await.expect("HTTP/2");
            // A ping for each answer, as gRPC sends to measure the path.
            for at in 0..3000 {
                requests = requests.ready().await.expect("the connection goes on");
                let (answer, _) = requests.send_request(to("/"), true).expect("a request");
                let answer = answer.await.expect("an answer");
                assert_eq!(answer.status(), 200, "{at}");
                pings.ping(h2::Ping::opaque()).await.expect("a pong");
            }
            // An upload in pieces of a byte, beside a download whose windows are opened for each piece that is read.
            requests = requests.ready().await.expect("the connection goes on");
            let (answer, mut body) = requests.send_request(post("/upload"), false).expect("an upload");
            for _ in 0..20_000 {
                body.reserve_capacity(1);
                while body.capacity() == 0 {
                    std::future::poll_fn(|cx| body.poll_capacity(cx)).await.expect("open").expect("a window");
                }
                body.send_data(Bytes::from_static(b"x"), false).expect("a byte");
                tokio::task::yield_now().await;
            }
            body.send_data(Bytes::new(), true).expect("the end");
            assert_eq!(answer.await.expect("an answer").status(), 200);
            requests = requests.ready().await.expect("the connection goes on");
            let (answer, _) = requests.send_request(to("/bulk"), true).expect("a download");
            let mut body = answer.await.expect("an answer").into_body();
            let mut read = 0;
            while read < 16 << 20 {
                let piece = body.data().await.expect("more").expect("a piece");
                read += piece.len();
                body.flow_control().release_capacity(piece.len()).expect("a window");
            }
        });
    });
    assert_eq!(siege.count("http2-abuse"), before);
}

/// Opens three times as many streams as it may have, over and over, and asks again for what was refused.
#[test]
fn a_client_that_opens_too_many_streams_is_served() {
    const STREAMS: usize = 16;
    const WANTED: usize = 1000;
    let siege = Siege::new("abuse-h2-many", json!({ "streams": STREAMS }));
    let dial = dial(&siege);
    let before = siege.count("http2-abuse");
    let (mut answered, mut refused) = (0, 0);
    siege.stage.clients.inside(|| {
        let mut connection = dial.open().expect("handshake");
        connection.send(PREFACE).expect("the preface");
        let (mut ids, mut read) = ((1..).step_by(2), Vec::new());
        while answered < WANTED {
            let heads = ids.by_ref().take(3 * STREAMS).flat_map(|id| frame(1, WHOLE, id, &get("/")));
            connection.send(&heads.collect::<Vec<u8>>()).expect("requests");
            let mut over = 0;
            while over < 3 * STREAMS {
                let mut more = [0; 16 * 1024];
                let count = std::io::Read::read(connection.stream(), &mut more).expect("more");
                assert!(count > 0, "closed after {answered} answers and {refused} refusals");
                read.extend_from_slice(&more[..count]);
                let mut whole = 0;
                for (kind, flags, _, payload) in frames(&read) {
                    whole += 9 + payload.len();
                    match kind {
                        0 | 1 if flags & 1 == 1 => answered += 1,
                        3 if payload == [0, 0, 0, 7] => refused += 1,
                        3 | 7 => panic!("{kind} {payload:?} after {answered} answers and {refused} refusals"),
                        _ => {}
                    }
                    over += usize::from(kind == 3 || kind < 2 && flags & 1 == 1);
                }
                read.drain(..whole);
            }
        }
    });
    println!("abuse-h2-many: {answered} answers, {refused} refusals on one connection");
    assert!(refused > STREAMS * 10, "{refused} refusals are no overshoot");
    assert_eq!(siege.count("http2-abuse"), before);
}

fn to(path: &str) -> http::Request<()> {
    http::Request::get(format!("https://{HOST}{path}")).body(()).expect("a request")
}

fn post(path: &str) -> http::Request<()> {
    http::Request::post(format!("https://{HOST}{path}")).body(()).expect("a request")
}
