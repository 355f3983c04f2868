//! Budgets from the API to the kernel and back to the metrics: known packets are sent, and what each budget counts, drops
//! and lets through is exactly what it says; IPv4 and IPv6.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::client::Dial;
use sallyport_tests::eventually;
use sallyport_tests::frames;
use sallyport_tests::objects;
use sallyport_tests::origin::Origin;
use sallyport_tests::probe::Passed;
use sallyport_tests::product::Product;
use sallyport_tests::stage::{FOE4, FOE6, HOST, NODE4, NODE6, ORIGINS4, Stage, target4, target6};
use serde_json::{Value, json};

/// Where invented sources are; nobody answers them.
const SOURCES: [&str; 2] = ["198.51.100.0/24", "2001:db8::/32"];
/// Packets at once; one a second more, so everything is sent within one.
const BURSTS: Bursts = Bursts { syn: 10, port: 20, udp: 5, connections: 3 };
/// Ports that have a budget each; a step has its own, whose bucket is full.
const PORTS: [u16; 2] = [8000, 8010];
/// Nobody listens there.
const OTHER: u16 = 5000;

#[derive(Clone, Copy)]
struct Bursts {
    syn: u64,
    port: u64,
    udp: u64,
    connections: u64,
}

struct Budgets<'a> {
    stage: &'a Stage,
    product: Product,
    api: Api,
    _origin: Origin,
    passed: Passed<'a>,
    /// Sources that were used: each step has others, whose buckets are full.
    used: u8,
}

/// What the metrics count, by reason and budget's number; and what passed of each family.
type Counts = (BTreeMap<(String, String), u64>, Vec<u64>);

impl<'a> Budgets<'a> {
    fn new(stage: &'a Stage) -> Self {
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        let passed = Passed::count_each(&stage.node, &SOURCES);
        Self { stage, product, api, _origin: origin, passed, used: 0 }
    }

    /// Puts budgets in force, instead of those before.
    fn put(&self, bursts: Bursts, mode: &str) {
        let budget = |burst: u64| json!({ "rate": 1, "burst": burst, "mode": mode });
        let [first, last] = PORTS;
        let port = json!({ "name": "web", "ports": [format!("{first}-{last}")], "rate": 1, "burst": bursts.port, "mode": mode });
        let budgets = json!({
            "synPerSource": budget(bursts.syn),
            "synPerPort": [port],
            "udpPerSource": budget(bursts.udp),
            "newConnectionsPerSource": budget(bursts.connections),
        });
        let filter = objects::object("PacketFilter", "limits", json!({ "budgets": budgets }));
        self.product.applied(self.api.apply(&[filter]));
    }

    fn counts(&self) -> Counts {
        let metrics = self.product.metrics();
        let mut reasons = BTreeMap::new();
        for line in metrics.lines() {
            let Some(rest) = line.strip_prefix("sallyport_kernel_drops_total{reason=\"") else { continue };
            let mut words = rest.split(['"', ' ']);
            let (reason, rule) = (words.next().unwrap(), words.nth(1).unwrap());
            assert_ne!(rule, "0", "a budget has a number: {line}");
            let count = words.next_back().unwrap().parse().unwrap();
            reasons.insert((reason.to_owned(), rule.to_owned()), count);
        }
        (reasons, self.passed.each())
    }

    /// The same once everything is told, which is done every second.
    fn settled(&self) -> Counts {
        let mut last = self.counts();
        eventually("nothing more is counted", Duration::from_secs(15), || {
            thread::sleep(Duration::from_millis(2200));
            let now = self.counts();
            let same = now == last;
            last = now;
            if same { Ok(()) } else { Err(format!("{last:?}")) }
        });
        last
    }

    /// Waits until this was counted since `before`, reason by reason in ascending order, and so much passed of each family.
    fn counted(&self, what: &str, before: &Counts, reasons: &[(&str, &[u64])], passed: [u64; 2]) {
        let since = |(reasons, passed): &Counts| {
            let mut new = BTreeMap::<String, Vec<u64>>::new();
            for (key, count) in reasons {
                let count = count - before.0.get(key).unwrap_or(&0);
                if count > 0 {
                    new.entry(key.0.clone()).or_default().push(count);
                }
            }
            new.values_mut().for_each(|counts| counts.sort_unstable());
            let passed: Vec<u64> = passed.iter().zip(&before.1).map(|(now, then)| now - then).collect();
            (new, passed)
        };
        let wanted: BTreeMap<String, Vec<u64>> =
            reasons.iter().map(|(reason, counts)| ((*reason).to_owned(), counts.to_vec())).collect();
        let right = (wanted, passed.to_vec());
        eventually(what, Duration::from_secs(10), || {
            let seen = since(&self.counts());
            if seen == right { Ok(()) } else { Err(format!("{seen:?}, not {right:?}")) }
        });
    }

    /// An address of `family` (0: IPv4) that is another one for each `host` and each step.
    fn source(&self, family: usize, host: u8) -> SocketAddr {
        let number = self.used * 20 + host;
        let address: IpAddr = match family {
            0 => Ipv4Addr::new(198, 51, 100, number).into(),
            _ => Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, 1).into(),
        };
        SocketAddr::new(address, 4000)
    }

    /// Sends what goes over every budget that XDP keeps: of each family 40 SYNs of one source, of which IPv6's are of
    /// two addresses of a /64, 10 of a neighbour; 25 UDP packets of a source; and, over both families, 54 SYNs of six
    /// sources to a port.
    fn send(&mut self) {
        self.used += 1;
        self.send_again();
    }

    fn send_again(&self) {
        let port = PORTS[0] + u16::from(self.used);
        let (link, mut frames) = (self.stage.link(), Vec::new());
        for (family, node) in [IpAddr::V4(NODE4), IpAddr::V6(NODE6)].into_iter().enumerate() {
            let to = |port| SocketAddr::new(node, port);
            let one = self.source(family, 0);
            let mut two = one;
            if let SocketAddr::V6(two) = &mut two {
                let [a, b, c, d, ..] = two.ip().segments();
                two.set_ip(Ipv6Addr::new(a, b, c, d, 9, 9, 9, 9));
            }
            frames.extend((0..40).map(|number| link.syn(if number % 2 == 0 { one } else { two }, to(OTHER))));
            frames.extend((0..10).map(|_| link.syn(self.source(family, 1), to(OTHER))));
            frames.extend((0..25).map(|_| link.datagram(self.source(family, 2), to(OTHER))));
            for host in 3..6 {
                frames.extend((0..9).map(|_| link.syn(self.source(family, host), to(port))));
            }
        }
        frames::send(&self.stage.clients, "c0", &frames);
    }

    /// Sends while `count` dropped packets are watched: how many there were of each reason and budget.
    fn told(&mut self, count: u64) -> BTreeSet<(String, u64)> {
        self.used += 1;
        let (this, limit) = (&*self, count.to_string());
        let options = ["flows", "--json", "--verdict", "drop", "--seconds", "15", "--limit", &limit];
        let (fine, lines, complaint) = thread::scope(|scope| {
            let told = scope.spawn(|| this.product.cli(&options));
            // The node has to hear of it first.
            thread::sleep(Duration::from_secs(3));
            this.send_again();
            told.join().unwrap()
        });
        assert!(fine, "{complaint}");
        let mut counts = BTreeMap::<(String, String), u64>::new();
        for line in lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            if line["type"] == "flow" {
                let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                assert!(text("rule").starts_with("limits/"), "{line}");
                *counts.entry((text("reason"), text("rule"))).or_default() += 1;
            }
        }
        counts.into_iter().map(|((reason, _), count)| (reason, count)).collect()
    }

    /// What a source of either family gets of ten connections to a listener, one after the other.
    fn connect(&self) -> [usize; 2] {
        let tls = self.stage.front_ca.client(&["http/1.1"]);
        let sources: [(IpAddr, SocketAddr); 2] = [(FOE4.into(), target4(443)), (FOE6.into(), target6(443))];
        sources.map(|(from, target)| {
            let dial = Dial::new(target, HOST, &tls).from(from);
            let answers =
                (0..10).map(|_| self.stage.clients.inside(|| dial.tcp().map_err(|error| error.kind())));
            let answers: Vec<_> = answers.collect();
            let refused = |answer: &Result<_, ErrorKind>| matches!(answer, Err(ErrorKind::ConnectionRefused));
            assert!(answers.iter().all(|answer| answer.is_ok() || refused(answer)), "{answers:?}");
            answers.iter().filter(|answer| answer.is_ok()).count()
        })
    }
}

/// What [`Budgets::send`] sends in each family.
const SENT: u64 = 40 + 10 + 25 + 27;

#[test]
fn what_is_over_a_budget_is_what_was_sent_over_it() {
    let stage = Stage::new("budgets");
    // With 2 a connection counts twice, and the budget is twice as large: see docs/packet-filter.md.
    stage.node.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "1").unwrap());
    let mut budgets = Budgets::new(&stage);

    budgets.put(BURSTS, "Enforce");
    let before = budgets.counts();
    budgets.send();
    // IPv4 comes first, and takes what the port has for both.
    let (syn, udp) = (2 * (40 - BURSTS.syn), 2 * (25 - BURSTS.udp));
    let port = 54 - BURSTS.port;
    let over =
        |family: u64| 40 - BURSTS.syn + 25 - BURSTS.udp + if family == 0 { 27 - BURSTS.port } else { 27 };
    let reasons = [("syn-budget", &[port, syn][..]), ("udp-budget", &[udp])];
    budgets.counted("enforced", &before, &reasons, [0, 1].map(|family| SENT - over(family)));
    let before = budgets.counts();
    assert_eq!(budgets.connect(), [BURSTS.connections as usize; 2]);
    budgets.counted(
        "connections",
        &before,
        &[("new-connection-budget", &[2 * (10 - BURSTS.connections)])],
        [0, 0],
    );

    // Observed they drop nothing, and count the same. A budget that is changed has another burst at once.
    budgets.put(BURSTS, "Observe");
    let before = budgets.counts();
    budgets.send();
    let mut observed = [port, syn, udp];
    observed.sort_unstable();
    budgets.counted("observed", &before, &[("observed", &observed)], [SENT; 2]);
    assert_eq!(budgets.connect(), [10, 10]);

    let larger = Bursts { syn: 25, port: 50, udp: 20, connections: 100 };
    budgets.put(larger, "Enforce");
    let before = budgets.settled();
    budgets.send();
    let (syn, udp, port) = (2 * (40 - larger.syn), 2 * (25 - larger.udp), 54 - larger.port);
    let over = |family: u64| 40 - larger.syn + 25 - larger.udp + if family == 0 { 0 } else { port };
    let reasons = [("syn-budget", &[port, syn][..]), ("udp-budget", &[udp])];
    budgets.counted("changed", &before, &reasons, [0, 1].map(|family| SENT - over(family)));

    // Whoever watches is told of each, with its budget.
    let each = [("syn-budget", port), ("syn-budget", syn), ("udp-budget", udp)];
    assert_eq!(
        budgets.told(syn + udp + port),
        BTreeSet::from(each.map(|(reason, count)| (reason.to_owned(), count)))
    );

    // What is removed is over.
    let (status, answer) = budgets.api.call("DELETE", "/api/v1/packet-filters/limits", None).unwrap();
    assert_eq!(status, 200, "{answer}");
    budgets.product.applied(answer["revision"].as_u64().unwrap());
    let before = budgets.counts();
    budgets.send();
    budgets.counted("removed", &before, &[], [SENT; 2]);
    assert_eq!(budgets.connect(), [10, 10]);
}
