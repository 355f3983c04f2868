//! Slow heads, slow bodies, slow readers: who takes as long as it can over every byte.

use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sallyport_tests::abuse::{Siege, attackers};
use sallyport_tests::client::{Connection, Dial};
use sallyport_tests::stage::HOST;
use serde_json::json;

/// Attackers' threads, and connections of each.
const THREADS: usize = 4;
const EACH: usize = 20;
const ALL: usize = THREADS * EACH;

/// Between two connections of one attacker: what is looked at is what they hold, not what their handshakes cost.
const BETWEEN: Duration = Duration::from_millis(25);

/// The limits' time, and for how long an attacker drips.
const LIMIT_MS: u64 = 1500;
const DRIPPING: Duration = Duration::from_millis(LIMIT_MS + 1000);
/// Between two bytes of one connection.
const DRIP: Duration = Duration::from_millis(100);

/// Every attacker opens its connections, sends `first` on each, and then does `drip` to each of them over and over.
fn drip(siege: &Siege, dial: &Dial, first: &[u8], drip: impl Fn(&mut Connection) + Sync) -> Vec<Connection> {
    let all = Mutex::new(Vec::new());
    attackers(&siege.stage.clients, THREADS, |_| {
        let open = |_| {
            let mut connection = dial.open().expect("handshake");
            connection.send(first).expect("the first bytes");
            std::thread::sleep(BETWEEN);
            (Instant::now(), connection)
        };
        let mut held: Vec<_> = (0..EACH).map(open).collect();
        let until = Instant::now() + DRIPPING;
        while Instant::now() < until {
            // Not into a connection that the other side has closed: what it said last could not be read any more.
            let fresh = held.iter_mut().filter(|(opened, _)| opened.elapsed() < DRIPPING);
            fresh.for_each(|(_, connection)| drip(connection));
            std::thread::sleep(DRIP);
        }
        all.lock().expect("connections").extend(held.into_iter().map(|(_, connection)| connection));
    });
    all.into_inner().expect("connections")
}

/// One more byte, taken or not.
fn one_byte(connection: &mut Connection) {
    let _ = connection.send(b"a");
}

/// Every connection was answered with this status and then closed.
fn answered(connections: Vec<Connection>, status: u16) {
    for mut connection in connections {
        let answer = connection.answer().expect("an answer");
        assert!(answer.status == status && answer.closes(), "{} {}", answer.status, answer.text());
    }
}

#[test]
fn slow_headers() {
    const HEADER: usize = 16 * 1024;
    let siege = Siege::new("abuse-heads", json!({ "headerMs": LIMIT_MS, "headerBytes": HEADER }));
    let before = siege.count("header-timeout");
    // As much as may be kept of a head, and then no end of it.
    let mut head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Long: ").into_bytes();
    head.resize(HEADER - 100, b'a');
    let (seen, held) = siege.endure(|| drip(&siege, &siege.dial(), &head, one_byte));
    answered(held, 408);
    siege.counted("header-timeout", before, ALL);
    // The head in a buffer that doubles as it grows, and a connection's own state.
    seen.unaffected().grew_at_most((ALL * (2 * HEADER + 16 * 1024)) as u64);
}

#[test]
fn slow_bodies() {
    // Every byte arrives long before the stall: only the rate ends it.
    let siege = Siege::new("abuse-bodies", json!({ "stallMs": LIMIT_MS, "bodyBytesPerSecond": 240 }));
    let before = siege.count("body-timeout");
    let head = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n");
    let (seen, held) = siege.endure(|| drip(&siege, &siege.dial(), head.as_bytes(), one_byte));
    answered(held, 408);
    siege.counted("body-timeout", before, ALL);
    // Two connections with their state each; a body is kept nowhere.
    seen.unaffected().grew_at_most((ALL * 48 * 1024) as u64);
}

#[test]
fn slow_readers() {
    let siege = Siege::new("abuse-readers", json!({ "stallMs": LIMIT_MS, "bodyBytesPerSecond": 10_000 }));
    let before = siege.count("body-timeout");
    let head = format!("GET /bulk HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    // A thousand bytes a second of an answer that never ends, and little room for more.
    let dial = Dial { unread: Some(4096), ..siege.dial() };
    let sip = |connection: &mut Connection| drop(connection.stream().read(&mut [0; 100]));
    let (seen, _held) = siege.endure(|| drip(&siege, &dial, head.as_bytes(), sip));
    siege.counted("body-timeout", before, ALL);
    // A piece of the answer, once in clear and once sealed, beside two connections' state.
    seen.unaffected().grew_at_most((ALL * (2 * 64 + 48) * 1024) as u64);
}
