//! A node with rules and budgets, and a browser in front of its console.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sallyport_tests::api::Api;
use sallyport_tests::client::Dial;
use sallyport_tests::origin::Origin;
use sallyport_tests::probe::Passed;
use sallyport_tests::product::Product;
use sallyport_tests::stage::{FOE4, FOE6, HOST, NODE4, NODE6, ORIGINS4, Stage, target4, target6};
use sallyport_tests::{eventually, frames, objects};
use serde_json::{Value, json};

use super::load::{Counts, Stream};
use super::screen::{Screen, THEMES, WIDTHS};
use super::{
    ASKED, CONNECTIONS, EARLY, FOES, PORT_BUDGET, PRESSURE_BUDGET, STREAMS, SYN_BUDGET, TABS, UDP_BUDGET,
    WATCHED, flows,
};

const SETTLED: Duration = Duration::from_secs(20);
/// Nodes tell of senders every ten seconds.
pub(crate) const SENDERS_TOLD: Duration = Duration::from_secs(40);

pub(crate) struct Place<'a> {
    /// It ends before the product: what a page asks of a console that is gone is no complaint.
    pub(crate) screen: Screen,
    stage: &'a Stage,
    _product: Product,
    api: Api,
    passed: Passed<'a>,
    /// Connections that were over their budget.
    refused: u64,
    _origin: Origin,
}

/// What became of the load.
#[derive(Debug)]
pub(crate) struct Went {
    pub(crate) sent: Counts,
    pub(crate) passed: Counts,
    /// What the link had no room for, of whichever stream.
    pub(crate) lost: u64,
    /// Connections that clients were refused before it.
    pub(crate) refused: u64,
}

fn filter() -> Value {
    let rule = |name: &str, mode: &str, stream: usize| {
        let prefixes = STREAMS[stream].prefixes();
        json!({ "name": name, "action": "Deny", "mode": mode, "prefixes": prefixes })
    };
    let budget = |rate: u64| json!({ "rate": rate });
    let ports = json!([{ "name": "web", "ports": ["8000"], "rate": PORT_BUDGET }]);
    objects::object(
        "PacketFilter",
        "load",
        json!({
            "rules": [rule("foes", "Enforce", FOES), rule("watched", "Observe", WATCHED)],
            "budgets": {
                "synPerSource": budget(SYN_BUDGET),
                "udpPerSource": budget(UDP_BUDGET),
                "synPressure": budget(PRESSURE_BUDGET),
                "newConnectionsPerSource": { "rate": 1, "burst": CONNECTIONS },
                "synPerPort": ports,
            },
        }),
    )
}

fn syncookies(stage: &Stage, value: &str) {
    let path = "/proc/sys/net/ipv4/tcp_syncookies";
    stage.node.inside(|| fs::write(path, value)).unwrap();
}

impl<'a> Place<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        stage.take_answers();
        // Cookies reach nobody: the clients' kernel is not to say so to the node, in packets that are not the load's.
        stage.clients.ip("-6 route add blackhole 2001:db8::/32");
        // With 2 a connection counts twice: that comes with the load.
        syncookies(stage, "1");
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        product.applied(api.apply(&[filter()]));
        let prefixes: Vec<String> = STREAMS.iter().flat_map(Stream::prefixes).collect();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let passed = Passed::count_each(&stage.node, &prefixes);
        let screen = Screen::start(stage, &product);
        Self { screen, stage, _product: product, api, passed, refused: 0, _origin: origin }
    }

    /// What became of a load that is over.
    pub(crate) fn went(&self, sent: Counts) -> Went {
        let passed = self.passed.each().chunks(2).map(|pair| [pair[0], pair[1]]).collect();
        Went { sent, passed, lost: self.lost(), refused: self.refused }
    }

    /// What the link from the clients to the node had no room for.
    pub(crate) fn lost(&self) -> u64 {
        let text = self.stage.clients.run("ip", &["-j", "-s", "link", "show", "c0"]);
        let link: Value = serde_json::from_str(&text).unwrap();
        link[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
    }

    /// A few packets, of which the page Sources knows each: source, what it sends to, packets, bytes, SYNs, drops. And
    /// connections over their budget.
    pub(crate) fn quiet(&mut self) {
        let link = self.stage.link();
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 4000);
        let node = |port| (SocketAddr::new(NODE4.into(), port), SocketAddr::new(NODE6.into(), port));
        let mut all = vec![link.syn(address("10.99.1.102"), node(9).0); 40];
        all.extend(vec![link.datagram(address("fd99:1::102"), node(5000).1); 25]);
        all.extend(vec![link.syn(address("203.0.113.99"), node(443).0); EARLY as usize]);
        frames::send(&self.stage.clients, "c0", &all);
        self.refused = self.connect();
        let rows = [
            ["10.99.1.102", "TCP 9", "40", "2.2 kB", "40", "0"],
            ["fd99:1::102", "UDP 5000", "25", "1.6 kB", "0", "0"],
            ["203.0.113.99", "TCP 443 (https)", "30", "1.6 kB", "30", "30"],
        ];
        let screen = &mut self.screen;
        screen.open("sources", "/sources", (WIDTHS[0], THEMES[0]));
        eventually("the page Sources says who sent what", SENDERS_TOLD, || {
            let seen = screen.read("sources");
            for [source, rest @ ..] in &rows {
                let row = seen.row("rows", source)?;
                if row[2..7] != *rest {
                    return Err(format!("{row:?}, and not {rest:?}"));
                }
            }
            for foe in [FOE4.to_string(), FOE6.to_string()] {
                let row = seen.row("rows", &foe)?;
                if row[5] != ASKED.to_string() {
                    return Err(format!("{row:?}, and not {ASKED} SYNs"));
                }
            }
            let record = seen.text("records");
            if record.contains("every packet was looked at") { Ok(()) } else { Err(record.to_owned()) }
        });
        screen.close("sources");
    }

    /// Clients of both families ask for more connections than they may have: how many they were refused.
    fn connect(&self) -> u64 {
        let tls = self.stage.front_ca.client(&["http/1.1"]);
        let ways: [(IpAddr, SocketAddr); 2] = [(FOE4.into(), target4(443)), (FOE6.into(), target6(443))];
        let mut all = 0;
        for (from, target) in ways {
            let dial = Dial::new(target, HOST, &tls).from(from);
            let begin = Instant::now();
            let answers =
                (0..ASKED).map(|_| self.stage.clients.inside(|| dial.tcp().map_err(|error| error.kind())));
            let refused =
                answers.filter(|answer| matches!(answer, Err(ErrorKind::ConnectionRefused))).count() as u64;
            // The budget's rate is one a second, the least there is: so many more were let through where this took long.
            let (most, later) = (ASKED - CONNECTIONS, begin.elapsed().as_secs());
            assert!((most.saturating_sub(later)..=most).contains(&refused), "{from}: {refused} in {later} s");
            all += refused;
        }
        all
    }

    /// Opens the pages that stay open, before there is anything to see.
    pub(crate) fn watch(&mut self) {
        syncookies(self.stage, "2");
        eventually("the node can send cookies", SETTLED, || {
            let status = self.api.get("/api/v1/status");
            let features = status["nodes"][0]["features"].as_array().cloned().unwrap_or_default();
            let found = features.into_iter().find(|feature| feature["name"] == "syn-cookies");
            let found = found.ok_or("nothing said")?;
            if found["on"] == true { Ok(()) } else { Err(found.to_string()) }
        });
        for (tab, path) in TABS.into_iter().chain([("filter", "/packet-filter")]) {
            self.screen.open(tab, path, (WIDTHS[0], THEMES[0]));
        }
        for (tab, _) in TABS {
            eventually("the node watches", SETTLED, || {
                flows::line(&self.screen.read(tab)).map(drop).ok_or_else(|| tab.to_owned())
            });
        }
    }
}

impl Went {
    pub(crate) fn sent(&self, stream: usize) -> u64 {
        self.sent[stream].iter().sum()
    }

    pub(crate) fn passed(&self, stream: usize) -> u64 {
        self.passed[stream].iter().sum()
    }

    /// What did not pass.
    pub(crate) fn over(&self, stream: usize) -> u64 {
        self.sent(stream) - self.passed(stream)
    }

    /// A figure is exact, but for what the link lost.
    pub(crate) fn is(&self, what: &str, figure: u64, wanted: u64) -> Result<(), String> {
        if (wanted - self.lost.min(wanted)..=wanted).contains(&figure) {
            Ok(())
        } else {
            Err(format!("{what}: {figure}, and not {wanted} ({} lost on the link)", self.lost))
        }
    }
}
