//! Who is sending: known senders send known numbers; table, drafts and drop counters say the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use dataplane_ebpf::reason::Reason;
use sallyport_tests::api::Api;
use sallyport_tests::frames;
use sallyport_tests::objects;
use sallyport_tests::origin::Origin;
use sallyport_tests::product::Product;
use sallyport_tests::stage::{CLIENT4, FOE6, NODE4, NODE6, ORIGINS4, Stage};
use sallyport_tests::{eventually, probe};
use serde_json::{Value, json};

/// Two that nobody answers: their SYNs are all they send.
const SILENT: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 1, 102), Ipv4Addr::new(10, 99, 1, 103)];
/// How many SYNs each of them sends to the listener.
const SYNS: [u64; 2] = [40, 25];
/// Datagrams to a port without a listener, over IPv4 and IPv6.
const DATAGRAMS: [u64; 2] = [30, 20];
/// Nobody listens there.
const UDP_PORT: u16 = 5000;
/// What a datagram carries.
const PAYLOAD: [u8; 10] = [7; 10];
/// The node tells every ten seconds.
const TOLD: Duration = Duration::from_secs(40);

struct Senders {
    product: Product,
    api: Api,
    _origin: Origin,
    stage: Stage,
}

impl Senders {
    fn new() -> Self {
        let stage = Stage::new("sources");
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        eventually("the packet filter is on", Duration::from_secs(12), || {
            let status = product.node_status()?;
            let features = status["features"].as_array().cloned().unwrap_or_default();
            let on = features.iter().any(|one| one["name"] == "xdp:c0" && one["on"] == true);
            if on { Ok(()) } else { Err(format!("{features:?}")) }
        });
        Self { product, api, _origin: origin, stage }
    }

    /// Every sender sends what it is known to send, once.
    fn send(&self) {
        let link = self.stage.link();
        for (source, count) in SILENT.into_iter().zip(SYNS) {
            let syn = |number: u64| {
                let (port, sequence) = (40_000 + u16::try_from(number).unwrap(), 1000 * number as u32);
                let (from, to) = (SocketAddrV4::new(source, port), SocketAddrV4::new(NODE4, 443));
                let packet = frames::ipv4(source, NODE4, 0, 6, &frames::syn(from, to, sequence));
                link.frame(0x0800, &packet)
            };
            frames::send(&self.stage.clients, "c0", &(0..count).map(syn).collect::<Vec<_>>());
        }
        let ways: [(IpAddr, IpAddr); 2] = [(CLIENT4.into(), NODE4.into()), (FOE6.into(), NODE6.into())];
        self.stage.clients.inside(|| {
            for ((from, to), count) in ways.into_iter().zip(DATAGRAMS) {
                // Not connected, so that it is not told that nobody listens.
                let socket = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
                for _ in 0..count {
                    socket.send_to(&PAYLOAD, SocketAddr::new(to, UDP_PORT)).unwrap();
                }
            }
        });
    }

    /// Waits until the API says exactly this of what a source sent to a port: packets, bytes, SYNs, drops.
    fn told(&self, source: IpAddr, what: &str, sums: [u64; 4]) -> Value {
        eventually(&format!("{source} sent {sums:?} to {what}"), TOLD, || {
            let answer = self.api.get("/api/v1/sources?top=0");
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let of = items.iter().find(|item| item["source"] == source.to_string());
            let to = of.and_then(|of| of["to"].as_array()?.iter().find(|to| to["what"] == what).cloned());
            let to = to.ok_or_else(|| answer.to_string())?;
            let names = ["packets", "bytes", "syns", "drops"];
            if names.iter().zip(sums).all(|(name, sum)| to[name] == sum) {
                Ok(to)
            } else {
                Err(to.to_string())
            }
        })
    }

    /// What the table must say after `rounds` of sending, of which `denied` met the draft's rule.
    fn table(&self, rounds: u64, denied: u64) {
        let sums = |count: u64, frame: u64, syns: u64, drops: u64| {
            [count * rounds, count * rounds * frame, syns * rounds, drops * denied]
        };
        let [first, second] = SYNS;
        let to = self.told(SILENT[0].into(), "TCP 443", sums(first, 54, first, first));
        assert_eq!((&to["listener"], &to["address"]), (&json!("https"), &json!(NODE4.to_string())));
        self.told(SILENT[1].into(), "TCP 443", sums(second, 54, second, 0));
        let (udp, [v4, v6]) = (format!("UDP {UDP_PORT}"), DATAGRAMS);
        let to = self.told(CLIENT4.into(), &udp, sums(v4, 14 + 20 + 8 + 10, 0, 0));
        assert_eq!(to["listener"], Value::Null);
        self.told(FOE6.into(), &udp, sums(v6, 14 + 40 + 8 + 10, 0, v6));
        let answer = self.api.get("/api/v1/sources");
        let record = &answer["nodes"][0]["record"];
        assert_eq!((&record["oneIn"], &record["others"]["packets"]), (&json!(1), &json!(0)), "{answer}");
        // The command line says the same.
        let (ok, out, err) = self.product.cli(&["sources", "--sort", "syns", "--top", "1"]);
        assert!(ok, "{err}");
        let source = out.lines().find(|line| line.starts_with(&SILENT[0].to_string())).unwrap_or_default();
        assert_eq!(source.split_whitespace().nth(3), Some(&*(first * rounds).to_string()), "{out}");
        assert!(source.ends_with(&format!(": {NODE4} TCP 443 (listener https)")), "{out}");
        assert!(
            out.contains("one packet in 1 looked at") && out.contains("more: --top 0 shows all"),
            "{out}"
        );
    }

    /// What a draft would have done; nothing is published.
    fn effect(&self, body: Value) -> Value {
        let before = self.api.revisions();
        let (status, answer) = self.api.call("POST", "/api/v1/apply", Some(&body)).unwrap();
        assert_eq!(status, 200, "{answer}");
        assert_eq!(self.api.revisions(), before);
        answer["effect"].clone()
    }

    fn draft(&self, object: &Value) -> Value {
        self.effect(json!({ "objects": [object], "dryRun": true }))
    }
}

fn deny() -> Value {
    objects::packet_filter("draft", "Deny", &[SILENT[0].to_string(), FOE6.to_string()])
}

#[test]
fn a_draft_says_what_it_would_have_dropped_and_then_drops_it() {
    let mut senders = Senders::new();
    let (ok, out, err) = senders.product.cli(&["sources", "--node", "nobody"]);
    assert!(!ok && out.is_empty() && err.contains("there is no node named nobody"), "{out}{err}");
    senders.send();
    senders.table(1, 0);

    // A rule that is not there yet: what it would drop of what passes today, by listener with its routes, and by source.
    let count = |packets: u64, sources: u64| json!({ "packets": packets, "sources": sources });
    let both = SYNS[0] + DATAGRAMS[1];
    let effect = senders.draft(&deny());
    let node = &effect["nodes"][0];
    assert_eq!(
        (&node["dropped"], &node["observed"], &node["passed"]),
        (&count(both, 2), &count(0, 0), &count(0, 0))
    );
    let places = json!([
        { "what": "TCP 443", "listener": "https", "routes": ["shop"], "moreRoutes": 0, "observed": false, "packets": SYNS[0], "sources": 1 },
        { "what": format!("UDP {UDP_PORT}"), "listener": null, "routes": [], "moreRoutes": 0, "observed": false, "packets": DATAGRAMS[1], "sources": 1 },
    ]);
    assert_eq!(effect["places"], places);
    let source = |source: String, packets: u64| json!({ "source": source, "rules": ["draft/rule"], "observed": false, "packets": packets });
    assert_eq!(
        effect["sources"],
        json!([source(SILENT[0].to_string(), SYNS[0]), source(FOE6.to_string(), DATAGRAMS[1])])
    );
    let words = effect["words"][0].as_str().unwrap();
    assert!(
        words.ends_with(&format!("it would have dropped {both} packets of 2 sources that pass today.")),
        "{words}"
    );

    // The same, only observed; an allow list that leaves somebody out; and what is no change of the filter.
    let mut observed = deny();
    observed["spec"]["rules"][0]["mode"] = json!("Observe");
    let node = senders.draft(&observed)["nodes"][0].clone();
    assert_eq!((&node["dropped"], &node["observed"]), (&count(0, 0), &count(both, 2)));
    let allow = objects::packet_filter("draft", "Allow", &[SILENT[0].to_string()]);
    let sources = senders.draft(&allow)["sources"].clone();
    let left_out =
        sources.as_array().unwrap().iter().find(|one| one["source"] == SILENT[1].to_string()).cloned();
    assert_eq!(
        left_out.unwrap(),
        json!({ "source": SILENT[1].to_string(), "rules": [], "observed": false, "packets": SYNS[1] })
    );
    assert!(!sources.to_string().contains(&SILENT[0].to_string()), "{sources}");
    let route = objects::route("other", &["other.walk.test"], "front", "group");
    assert_eq!(senders.draft(&route), Value::Null);

    // The command line says it too.
    let file = senders.product.dir().join("draft.json");
    fs::write(&file, deny().to_string()).unwrap();
    let (ok, out, err) = senders.product.cli(&["apply", "--dry-run", "-f", &file.display().to_string()]);
    let line = format!("https, TCP 443 (routes shop): packets {}, sources 1", SYNS[0]);
    assert!(ok && out.contains(words.split_once("it would").unwrap().1) && out.contains(&line), "{out}{err}");

    // Published, it drops what it said.
    let denied = |senders: &Senders| probe::reason(senders.product.instance(), Reason::Denied.number());
    let before = denied(&senders);
    senders.product.applied(senders.api.apply(&[deny()]));
    senders.send();
    assert_eq!(denied(&senders) - before, both);
    senders.table(2, 1);
    let back = senders.effect(json!({ "remove": ["PacketFilter/draft"], "dryRun": true }));
    assert_eq!(back["nodes"][0]["passed"], count(both, 2));

    // A restart begins where the last keeper ended.
    senders.product.stop();
    senders.product.up();
    senders.api = senders.product.ready();
    senders.table(2, 1);
}
