//! More memory in use than the node may have: new connections are refused first, then new requests, what is under way never.

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use sallyport_tests::abuse::Siege;
use sallyport_tests::client::{Connection, Dial, ended};
use sallyport_tests::h2client::{frame, frames};
use sallyport_tests::objects;
use sallyport_tests::stage::HOST;
use serde_json::{Value, json};

/// The host whose origin nobody reaches.
const HOLD: &str = "hold.walk.test";
const MIB: usize = 1 << 20;
const LIMIT: usize = 64 * MIB;
const CONNECTIONS: usize = 24;
/// For each connection: what its window allows, in streams of a window each.
const STREAMS: u32 = 4;

/// A connection whose uploads wait in the node for their origin.
struct Uploader {
    connection: Connection,
    begun: u32,
}

impl Uploader {
    /// Connects, and waits until the windows are open.
    fn open(dial: &Dial) -> Self {
        let mut connection = dial.open().expect("handshake");
        let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat();
        connection.send(&hello).expect("a preface");
        let (mut read, mut some) = (Vec::new(), [0; 1024]);
        // Its settings and the connection's window; the answer to ours may come between.
        while [4, 8].iter().any(|wanted| frames(&read).iter().all(|(kind, ..)| kind != wanted)) {
            let count = connection.stream().read(&mut some).expect("settings and a window");
            assert!(count > 0, "closed: {:?}", frames(&read));
            read.extend_from_slice(&some[..count]);
        }
        connection.send(&frame(4, 1, 0, b"")).expect("the answer to its settings");
        Self { connection, begun: 0 }
    }

    /// Sends another stream's window full.
    fn fill(&mut self) {
        let stream = 2 * self.begun + 1;
        self.begun += 1;
        let mut block = vec![0x83, 0x87, 0x84, 1, HOLD.len() as u8];
        block.extend_from_slice(HOLD.as_bytes());
        self.connection.send(&frame(1, 4, stream, &block)).expect("a head");
        for _ in 0..MIB / (16 * 1024) {
            self.connection.send(&frame(0, 0, stream, &[0; 16 * 1024])).expect("what the window allows");
        }
    }
}

/// A node near its limit, and what it says of itself.
struct Node {
    siege: Siege,
}

impl Node {
    fn new() -> Self {
        let siege = Siege::with_flags("abuse-memory", json!({}), &["--memory-limit", "64M"]);
        // Nobody has this address: packets to it lead nowhere.
        let mut group =
            objects::origin_group("hold", &["https://10.99.1.200:8443".to_owned()], "origins", HOLD);
        group["spec"]["connectTimeoutMs"] = json!(60_000);
        siege.product.applied(siege.api.apply(&[group, objects::route("hold", &[HOLD], "front", "hold")]));
        let neighbour = ["neigh", "replace", "10.99.1.200", "lladdr", "02:00:00:00:00:99", "dev", "c0"];
        siege.stage.node.run("ip", &neighbour);
        Self { siege }
    }

    fn refuses(&self, what: &str) -> bool {
        self.siege.product.metric("sallyport_overload", &format!("refuses=\"{what}\"")) > 0.0
    }

    fn used(&self) -> usize {
        self.siege.product.metric("sallyport_memory_bytes", "") as usize
    }

    fn say(&self, when: &str) {
        println!("abuse-memory: {:.1} MiB {when}", self.used() as f64 / MIB as f64);
    }

    /// Fills windows, one after the other, until this is refused.
    fn fill_until_refused(&self, what: &str, uploaders: &mut [Uploader]) {
        let room = |uploader: &&mut Uploader| uploader.begun < STREAMS;
        while !self.refuses(what) {
            let next = uploaders.iter_mut().find(room);
            next.unwrap_or_else(|| panic!("{what} not refused at {} bytes", self.used())).fill();
            // The node looks ten times a second.
            let looked = Instant::now() + Duration::from_millis(150);
            while Instant::now() < looked && !self.refuses(what) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// What `sallyport-node status` and the console say of it: for how many threads connections and requests are refused.
    fn is_told(&self, connections: bool, requests: bool) {
        sallyport_tests::eventually("status and console tell", Duration::from_secs(10), || {
            let program = self.siege.product.program("sallyport-node");
            let run_dir = self.siege.product.dir().join("state/run");
            let said = |more: &[&str]| {
                let output =
                    Command::new(&program).arg("status").arg("--run-dir").arg(&run_dir).args(more).output();
                String::from_utf8(output.expect("the node's program").stdout).expect("text")
            };
            let (words, json) = (said(&[]), said(&["--json"]));
            let of_node: Value = serde_json::from_str(&json).map_err(|error| format!("{error}: {json}"))?;
            let of_console = self.siege.api.get("/api/v1/status")["nodes"][0]["overload"].clone();
            for overload in [&of_node["overload"], &of_console] {
                let refuses = |what: &str| overload[what].as_u64().is_some_and(|threads| threads > 0);
                let why = overload["why"].as_str().unwrap_or_default();
                let named = !connections || why.contains("of 64 MiB of memory used");
                if (refuses("connections"), refuses("requests"), named) != (connections, requests, true) {
                    return Err(format!("node {}, console {of_console}", of_node["overload"]));
                }
            }
            let line =
                words.lines().find(|line| line.starts_with("overload  new connections are refused by"));
            match line {
                Some(line) if line.contains("and new requests by") == requests && connections => Ok(()),
                None if !connections => Ok(()),
                other => Err(format!("{other:?} in {words}")),
            }
        });
    }

    fn a_new_connection_is_refused(&self) {
        let error = self.siege.dial().open().map(drop).expect_err("a new connection");
        assert!(ended(&error), "{error}");
    }
}

#[test]
fn memory_near_its_limit() {
    let node = Node::new();
    let siege = &node.siege;
    let (connections, requests) = (siege.count("overloaded-connection"), siege.count("overloaded"));
    let mut dial = siege.dial();
    dial.tls = siege.stage.front_ca.client(&["h2"]);
    siege.stage.clients.inside(|| {
        let mut kept = siege.dial().open().expect("handshake");
        let mut under_way = siege.dial().open().expect("handshake");
        let endless = format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        under_way.send(endless.as_bytes()).expect("a request");
        assert_eq!(under_way.head().expect("an answer").0, 200);
        let mut uploaders: Vec<_> = (0..CONNECTIONS).map(|_| Uploader::open(&dial)).collect();
        node.say("before");
        assert!(!node.refuses("connections") && !node.refuses("requests"));
        node.is_told(false, false);

        node.fill_until_refused("connections", &mut uploaders);
        node.say("when connections were refused");
        assert!(!node.refuses("requests"), "both at once, at {} bytes", node.used());
        assert!(node.used() >= LIMIT / 100 * 80, "{} bytes", node.used());
        node.a_new_connection_is_refused();
        node.is_told(true, false);
        assert_eq!(kept.get(HOST, "/").expect("on the connection there was").status, 200);

        node.fill_until_refused("requests", &mut uploaders);
        node.say("when requests were refused");
        let answer = kept.get(HOST, "/").expect("an answer");
        assert_eq!((answer.status, answer.field("retry-after"), answer.closes()), (503, Some("2"), false));
        node.a_new_connection_is_refused();
        node.is_told(true, true);
        assert!(under_way.chunk().expect("what is under way").is_some());
        // What one look more may have let in, and nothing beyond.
        assert!(node.used() <= LIMIT + 8 * MIB, "{} bytes", node.used());

        drop(uploaders);
        sallyport_tests::eventually("nothing is refused", Duration::from_secs(5), || {
            let refused = node.refuses("connections") || node.refuses("requests");
            if refused { Err(format!("{} bytes", node.used())) } else { Ok(()) }
        });
        node.say("afterwards");
        node.is_told(false, false);
        assert_eq!(siege.dial().get(HOST, "/").expect("a new connection").status, 200);
        assert_eq!(kept.get(HOST, "/").expect("on the connection there was").status, 200);
        assert!(under_way.chunk().expect("what is under way").is_some());
    });
    siege.counted("overloaded-connection", connections, 2);
    siege.counted("overloaded", requests, 1);
}
