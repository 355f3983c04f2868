//! Abuse of the handshake and of TLS after it: long ClientHellos, tickets and names that nobody knows, half a handshake,
//! renegotiation, key updates.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use sallyport_tests::abuse::{PORT, Siege, attackers};
use sallyport_tests::client::{Dial, ended};
use sallyport_tests::hello::{client_hello, garbage_tickets, records};
use sallyport_tests::stage::{HOST, NODE4};
use serde_json::json;

const THREADS: usize = 4;
const EACH: usize = 20;
const ALL: usize = THREADS * EACH;
/// Between two connections of one attacker.
const BETWEEN: Duration = Duration::from_millis(25);
const HANDSHAKE_MS: u64 = 1500;
const HANDSHAKE_BYTES: usize = 16 * 1024;

/// Sends this as the beginning of a handshake on every connection, keeps them all until the other side ends them, and says how
/// many it answered with a handshake message.
fn begin(siege: &Siege, bytes: &[u8]) -> usize {
    let dial = siege.dial();
    let answered = std::sync::atomic::AtomicUsize::new(0);
    attackers(&siege.stage.clients, THREADS, |_| {
        let open = |_| {
            let mut tcp = dial.tcp().expect("connect");
            // The other side may have had enough before it is all sent.
            let _ = tcp.write_all(bytes);
            std::thread::sleep(BETWEEN);
            tcp
        };
        let held: Vec<_> = (0..EACH).map(open).collect();
        for mut tcp in held {
            let mut heard = Vec::new();
            let _ = tcp.read_to_end(&mut heard);
            answered.fetch_add(usize::from(heard.first() == Some(&22)), std::sync::atomic::Ordering::Relaxed);
        }
    });
    answered.into_inner()
}

#[test]
fn giant_client_hellos() {
    let limits = json!({ "handshakeMs": HANDSHAKE_MS, "handshakeBytes": HANDSHAKE_BYTES });
    let siege = Siege::new("abuse-hellos", limits);
    // What rustls would take: 60,000 bytes of an extension that nobody knows.
    let giant = client_hello(HOST, &[(0xfafa, vec![0; 60_000])]);
    // The most that is held while it is waited for: all but the end, in records of a byte each.
    let crumbs = records(&giant[..HANDSHAKE_BYTES / 6 - 100], 1);
    let (failed, late) = (siege.count("handshake-failed"), siege.count("handshake-timeout"));
    let (seen, _) = siege.endure(|| {
        assert_eq!(begin(&siege, &records(&giant, 16 * 1024)), 0, "answered");
        assert_eq!(begin(&siege, &crumbs), 0, "answered");
    });
    siege.counted("handshake-failed", failed, ALL);
    siege.counted("handshake-timeout", late, ALL);
    // A buffer that doubles, and what rustls has of a connection that begins.
    seen.unaffected().grew_at_most((ALL * (2 * HANDSHAKE_BYTES + 16 * 1024)) as u64);
}

#[test]
fn half_a_handshake() {
    let siege = Siege::new("abuse-half", json!({ "handshakeMs": HANDSHAKE_MS }));
    let late = siege.count("handshake-timeout");
    let hello = records(&client_hello(HOST, &[]), 16 * 1024);
    let (seen, answered) = siege.endure(|| begin(&siege, b"") + begin(&siege, &hello));
    assert_eq!(answered, ALL, "a whole ClientHello is answered");
    siege.counted("handshake-timeout", late, 2 * ALL);
    seen.unaffected().grew_at_most((ALL * 32 * 1024) as u64);
}

#[test]
fn tickets_nobody_issued() {
    const TICKETS: usize = 300;
    let siege = Siege::new("abuse-tickets", json!({ "handshakeMs": HANDSHAKE_MS }));
    let late = siege.count("handshake-timeout");
    let hello = records(&client_hello(HOST, &[garbage_tickets(TICKETS)]), 16 * 1024);
    let (seen, answered) = siege.endure(|| begin(&siege, &hello));
    assert_eq!(answered, ALL, "tickets of somebody else are no error");
    siege.counted("handshake-timeout", late, ALL);
    // Tickets are sealed and given away, never kept: what remains is half a handshake.
    seen.unaffected().grew_at_most((ALL * (64 + 32) * 1024) as u64);
}

#[test]
fn names_nobody_has() {
    let siege = Siege::new("abuse-names", json!({}));
    let dial = siege.dial();
    let refuse = |name: String| {
        let refused = Dial { name, ..dial.clone() }.open().expect_err("no certificate");
        assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    };
    let before = siege.count("no-certificate");
    let (seen, ()) = siege.endure(|| {
        attackers(&siege.stage.clients, THREADS, |thread| {
            for name in 0..2 * EACH {
                refuse(format!("{name}.{thread}.a-name-of-some-length-that-nobody-has.example"));
                std::thread::sleep(2 * BETWEEN);
            }
        });
    });
    siege.counted("no-certificate", before, 2 * ALL);
    for (text, what) in [(siege.product.metrics(), "metrics"), (siege.product.log(), "log")] {
        assert!(!text.is_empty() && !text.contains("nobody-has"), "a client's names in the {what}");
    }
    seen.unaffected().grew_at_most(0);
}

#[test]
fn renegotiation() {
    const ROUNDS: usize = 6;
    let siege = Siege::new("abuse-again", json!({}));
    let before = siege.count("broken-tls");
    let (connect, space) = (format!("{NODE4}:{PORT}"), &siege.stage.clients);
    let (seen, ()) = siege.endure(|| {
        attackers(space, THREADS, |_| {
            for _ in 0..ROUNDS {
                let again = format!(
                    "(echo R; sleep 0.5) | timeout 5 openssl s_client -connect {connect} -servername {HOST} -tls1_2"
                );
                let output = Command::new("sh").args(["-c", &again]).output().expect("openssl");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(said.contains("RENEGOTIATING"), "{said}");
                assert!(said.contains("unexpected message") || said.contains("unexpected_message"), "{said}");
            }
        });
    });
    siege.counted("broken-tls", before, ROUNDS * THREADS);
    seen.unaffected().grew_at_most(0);
}

#[test]
fn key_updates() {
    let siege = Siege::new("abuse-keys", json!({}));
    // Those that come before the handshake is over belong to it.
    let refused = || siege.count("broken-tls") + siege.count("handshake-failed");
    let before = refused();
    let dial = siege.dial();
    let (seen, ()) = siege.endure(|| {
        attackers(&siege.stage.clients, THREADS, |_| {
            for _ in 0..EACH {
                let mut connection = dial.open().expect("handshake");
                let refused = (0..10_000).find_map(|_| connection.rekey().err());
                assert!(refused.is_some_and(|error| ended(&error)), "ten thousand key updates");
                std::thread::sleep(4 * BETWEEN);
            }
        });
    });
    assert_eq!(refused() - before, ALL as f64);
    seen.unaffected().grew_at_most(0);
}
