//! More handshakes than the node can do: they are refused first, and whoever is connected notices nothing.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sallyport_tests::abuse::{Siege, attackers};
use sallyport_tests::client::Dial;
use sallyport_tests::stage::HOST;
use serde_json::json;

const THREADS: usize = 4;
const FLOOD: Duration = Duration::from_secs(5);

/// A client's first flight, for use again and again: each time the node makes its keys and signs.
fn hello(dial: &Dial) -> Vec<u8> {
    let name = rustls_pki_types::ServerName::try_from(HOST).expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::clone(&dial.tls), name).expect("a client");
    let mut flight = Vec::new();
    session.write_tls(&mut flight).expect("its hello");
    flight
}

/// Connects from `sources` in turn, as fast as it goes, says its hello and leaves.
fn flood(siege: &Siege, sources: &[Ipv4Addr]) -> u64 {
    let (dial, sent) = (siege.dial().patience(Duration::from_secs(2)), AtomicU64::new(0));
    let hello = hello(&dial);
    attackers(&siege.stage.clients, THREADS, |index| {
        let until = Instant::now() + FLOOD;
        for at in index.. {
            if Instant::now() > until {
                break;
            }
            let dial = dial.clone().from(sources[at % sources.len()].into());
            let said = dial.tcp().and_then(|mut stream| stream.write_all(&hello));
            sent.fetch_add(u64::from(said.is_ok()), Ordering::Relaxed);
        }
    });
    sent.into_inner()
}

fn endure(name: &str, sources: impl Fn(&Siege) -> Vec<Ipv4Addr>) {
    let siege = Siege::new(name, json!({}));
    let sources = sources(&siege);
    let before = siege.count("overloaded-connection");
    let (seen, sent) = siege.endure(|| flood(&siege, &sources));
    let refused = siege.count("overloaded-connection") - before;
    println!(
        "{name}: {} hellos a second from {} addresses, {refused} refused",
        sent / FLOOD.as_secs(),
        sources.len()
    );
    assert!(sent > 1000 * FLOOD.as_secs(), "{sent} hellos are no flood");
    siege.counted("overloaded-connection", before, 1);
    // Those in line, of each thread, and what rustls holds of each.
    seen.established_unaffected().grew_at_most(128 << 20);
    sallyport_tests::eventually("new connections are taken again", Duration::from_secs(5), || {
        let answer = siege.stage.clients.inside(|| siege.dial().get(HOST, "/"));
        answer.map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn a_flood_of_handshakes_from_one_address() {
    endure("abuse-hellos-one", |_| vec![sallyport_tests::stage::FOE4]);
}

#[test]
fn a_flood_of_handshakes_from_many_addresses() {
    endure("abuse-hellos-many", |siege| {
        let sources: Vec<_> = (100..150).map(|last| Ipv4Addr::new(10, 99, 1, last)).collect();
        for source in &sources {
            siege.stage.clients.ip(&format!("address add {source}/24 dev c0"));
        }
        sources
    });
}
