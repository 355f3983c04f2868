//! More handshakes than the node can do: they are refused first, and whoever is connected notices nothing.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sallyport_tests::abuse::{Siege, attackers};
use sallyport_tests::client::{Connection, Dial};
use sallyport_tests::h2client::frame;
use sallyport_tests::objects;
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

/// Uploads to an origin that nobody reaches: what the windows allow waits in the node's memory.
fn upload(dial: &Dial, host: &str) -> Option<Connection> {
    const STREAMS: u32 = 4;
    let mut block = vec![0x83, 0x87, 0x84, 1, host.len() as u8];
    block.extend_from_slice(host.as_bytes());
    let mut connection = dial.open().ok()?;
    // The settings that ours answer are on their way already.
    let hello =
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b""), &frame(4, 1, 0, b"")].concat();
    connection.send(&hello).ok()?;
    for stream in 0..STREAMS {
        connection.send(&frame(1, 4, 2 * stream + 1, &block)).ok()?;
        for _ in 0..64 {
            connection.send(&frame(0, 0, 2 * stream + 1, &[0; 16 * 1024])).ok()?;
        }
    }
    Some(connection)
}

#[test]
fn memory_near_its_limit() {
    const HOLD: &str = "hold.walk.test";
    const LIMIT: u64 = 48 << 20;
    let siege = Siege::with_flags("abuse-memory", json!({}), &["--memory-limit", "48M"]);
    // Nobody has this address: packets to it lead nowhere.
    let mut group = objects::origin_group("hold", &["https://10.99.1.200:8443".to_owned()], "origins", HOLD);
    group["spec"]["connectTimeoutMs"] = json!(20_000);
    siege.product.applied(siege.api.apply(&[group, objects::route("hold", &[HOLD], "front", "hold")]));
    let neighbour = ["neigh", "replace", "10.99.1.200", "lladdr", "02:00:00:00:00:99", "dev", "c0"];
    siege.stage.node.run("ip", &neighbour);
    let refuses = |what: &str| siege.product.metric("sallyport_overload", &format!("refuses=\"{what}\""));
    let used = || siege.product.metric("sallyport_memory_bytes", "");
    let mut dial = siege.dial();
    dial.tls = siege.stage.front_ca.client(&["h2"]);
    let (connections, requests) = (siege.count("overloaded-connection"), siege.count("overloaded"));
    siege.stage.clients.inside(|| {
        let mut kept = siege.dial().open().expect("handshake");
        assert_eq!(kept.get(HOST, "/").expect("an answer before").status, 200);
        println!("abuse-memory: {} MiB before", used() as u64 >> 20);
        // Side by side, so that one look at the memory is not enough to stop them all.
        let held: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        siege.stage.clients.enter();
                        upload(&dial, HOLD)
                    })
                })
                .collect();
            all.into_iter().filter_map(|one| one.join().expect("an uploader")).collect()
        });
        sallyport_tests::eventually("requests are refused", Duration::from_secs(5), || {
            if refuses("requests") > 0.0 { Ok(()) } else { Err(format!("{} bytes", used())) }
        });
        println!("abuse-memory: {} MiB held by {} connections", used() as u64 >> 20, held.len());
        let answer = kept.get(HOST, "/").expect("an answer");
        assert_eq!((answer.status, answer.field("retry-after"), answer.closes()), (503, Some("2"), false));
        assert!(siege.dial().get(HOST, "/").is_err(), "a new connection");
        // What the windows allow to those that came before, and nothing more.
        assert!(used() <= (LIMIT + (48 << 20)) as f64, "{} bytes", used());
        drop(held);
        sallyport_tests::eventually("served as before", Duration::from_secs(10), || {
            let answer = siege.dial().get(HOST, "/").map_err(|error| format!("{error}, {} bytes", used()))?;
            if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
        });
        assert_eq!(kept.get(HOST, "/").expect("on the connection there was").status, 200);
        println!("abuse-memory: {} MiB afterwards", used() as u64 >> 20);
    });
    siege.counted("overloaded-connection", connections, 1);
    siege.counted("overloaded", requests, 1);
}
