//! Connections and requests without end: idle ones, too many from one address, requests sent before the answers are read.

use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sallyport_tests::abuse::{PORT, Siege, attackers};
use sallyport_tests::client::Dial;
use sallyport_tests::stage::{CLIENT6, FOE6, HOST, target6};
use serde_json::json;

const THREADS: usize = 4;

/// How HTTP/2 begins (RFC 9113, 3.4): the preface and a SETTINGS frame without settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn idle_connections() {
    const PLACES: usize = 160;
    const EACH: usize = 70;
    let siege = Siege::new("abuse-idle", json!({ "connections": PLACES }));
    let (evicted, refused) = (siege.count("idle-evicted"), siege.count("too-many-connections"));
    let http1 = siege.dial();
    let http2 = Dial { tls: siege.stage.front_ca.client(&["h2"]), ..siege.dial() };
    // HTTP/1.1 without a request, HTTP/2 without a preface, and with one but no stream.
    let ways: [(&Dial, &[u8]); THREADS] = [(&http1, b""), (&http2, b""), (&http2, PREFACE), (&http1, b"")];
    // More than there are places, and not within the second that no connection is ended in.
    let (seen, held) = siege.endure(|| {
        let held = Mutex::new(Vec::new());
        attackers(&siege.stage.clients, THREADS, |thread| {
            let (dial, first) = ways[thread];
            for _ in 0..EACH {
                let mut connection = dial.open().expect("a place");
                connection.send(first).expect("the first bytes");
                held.lock().expect("connections").push(connection);
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        held.into_inner().expect("connections")
    });
    siege.counted("idle-evicted", evicted, THREADS * EACH - PLACES);
    assert_eq!(siege.count("too-many-connections"), refused, "somebody was locked out");
    let open = siege.product.metric("sallyport_connections", "listener=\"siege\"");
    assert!(open <= PLACES as f64, "{open} open");
    drop(held);
    // A connection without a request: its TLS state and two tasks.
    seen.unaffected().grew_at_most((PLACES * 24 * 1024) as u64);
}

#[test]
fn connections_without_a_handshake() {
    const PLACES: usize = 160;
    const EACH: usize = 70;
    // Long before the handshakes are too late.
    let siege = Siege::new("abuse-mute", json!({ "connections": PLACES, "handshakeMs": 60_000 }));
    let (evicted, refused) = (siege.count("idle-evicted"), siege.count("too-many-connections"));
    let dial = siege.dial();
    let (seen, held) = siege.endure(|| {
        let held = Mutex::new(Vec::new());
        attackers(&siege.stage.clients, THREADS, |_| {
            for _ in 0..EACH {
                held.lock().expect("connections").push(dial.tcp().expect("a place"));
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        held.into_inner().expect("connections")
    });
    siege.counted("idle-evicted", evicted, THREADS * EACH - PLACES);
    assert_eq!(siege.count("too-many-connections"), refused, "somebody was locked out");
    drop(held);
    seen.unaffected().grew_at_most((PLACES * 24 * 1024) as u64);
}

#[test]
fn connections_from_one_address() {
    const EACH: usize = 25;
    const PLACES: usize = 40;
    let siege = Siege::new("abuse-address", json!({ "connectionsPerAddress": PLACES }));
    let before = siege.count("too-many-from-address");
    // Two addresses of one IPv6 network are one client; one of IPv4 is another.
    let v4 = siege.dial();
    let v6 = |from: std::net::Ipv6Addr| Dial { target: target6(PORT), ..siege.dial().from(from.into()) };
    let ways = [v4.clone(), v4, v6(FOE6), v6(CLIENT6)];
    let (seen, held) = siege.endure(|| {
        let held = Mutex::new(Vec::new());
        attackers(&siege.stage.clients, THREADS, |thread| {
            let opened: Vec<_> = (0..EACH)
                .filter_map(|_| {
                    std::thread::sleep(Duration::from_millis(60));
                    ways[thread].open().ok()
                })
                .collect();
            held.lock().expect("connections").extend(opened);
        });
        held.into_inner().expect("connections")
    });
    assert_eq!(held.len(), 2 * PLACES, "on all threads together");
    siege.counted("too-many-from-address", before, THREADS * EACH - 2 * PLACES);
    seen.unaffected().grew_at_most((2 * PLACES * 24 * 1024) as u64);
}

#[test]
fn requests_before_the_answers_are_read() {
    const EACH: usize = 8;
    const STALL_MS: u64 = 1500;
    let limits = json!({ "stallMs": STALL_MS, "requestsPerConnection": 2000 });
    let siege = Siege::new("abuse-pipeline", limits);
    let before = siege.count("body-timeout");
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    // Answers that repeat the request, and little room for them, so that they are soon in the way; and a client that goes on as
    // long as it can.
    let long = format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nX-Long: {}\r\n\r\n", "a".repeat(4000));
    let many = long.repeat(16);
    let dial = Dial { unread: Some(4096), ..siege.dial().patience(Duration::from_millis(300)) };
    let (seen, _held) = siege.endure(|| {
        let held = Mutex::new(Vec::new());
        attackers(&siege.stage.clients, THREADS, |_| {
            let open = |_| {
                std::thread::sleep(Duration::from_millis(25));
                dial.open().expect("handshake")
            };
            let mut opened: Vec<_> = (0..EACH).map(open).collect();
            let until = Instant::now() + Duration::from_millis(STALL_MS + 2000);
            while Instant::now() < until {
                opened.iter_mut().for_each(|connection| drop(connection.send(many.as_bytes())));
                std::thread::sleep(Duration::from_millis(50));
            }
            held.lock().expect("connections").extend(opened);
        });
        held.into_inner().expect("connections")
    });
    siege.counted("body-timeout", before, THREADS * EACH);
    // What was read ahead, one answer, and it sealed.
    seen.unaffected().grew_at_most((THREADS * EACH * 3 * 64 * 1024) as u64);

    // Who reads gets what the limit allows, and then an end in order.
    let mut connection = siege.stage.clients.inside(|| siege.dial().open().expect("handshake"));
    connection.send(request.repeat(2500).as_bytes()).expect("requests");
    let closes: Vec<bool> = (0..2000).map(|_| connection.answer().expect("an answer").closes()).collect();
    assert!(closes.iter().rev().skip(1).all(|closes| !closes) && closes.last() == Some(&true));
    assert_eq!(connection.stream().read(&mut [0; 10]).expect("an end in order"), 0);
}
