//! A flood of SYNs from a million sources of each family, beside a client that goes on: how long it waits for new
//! connections, what becomes of its old ones, and where every packet of the flood went.
//!
//! `SALLYPORT_FLOOD_BARE=VALUE` leaves out the budget, and `net.ipv4.tcp_syncookies` is VALUE: then it is the kernel that meets
//! the flood, and the client must suffer as it does not otherwise.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it saw"
)]

use std::time::{Duration, Instant};
use std::{fs, io};

use sallyport_tests::api::Api;
use sallyport_tests::client::{Connection, Dial};
use sallyport_tests::eventually;
use sallyport_tests::kept::Kept;
use sallyport_tests::objects;
use sallyport_tests::probe::Passed;
use sallyport_tests::product::Product;
use sallyport_tests::spray::{SOURCES4, SOURCES6, Spray};
use sallyport_tests::stage::{HOST, Stage, target4, target6};
use serde_json::{Value, json};

/// SYNs of the flood a second. Generator, node, origin and client share what cores there are, mostly two: this many cost
/// the generator's own core little enough that it is the node that is measured.
const RATE: u64 = 30_000;
/// How often a quiet time and a flood of either family follow each other: many short pairs, because what else a machine does
/// comes and goes within seconds, and a median of few of them is whatever it was doing.
const ROUNDS: u32 = 21;
/// Without a budget fewer are enough: then a round waits for connections that do not come.
const BARE_ROUNDS: u32 = 3;
/// Sources of each flood, none of which comes again: more than a million of either family.
const SOURCES: u32 = 50_000;
/// How long a phase lasts.
const PHASE: Duration = Duration::from_millis(1000 * SOURCES as u64 / RATE);
/// The client begins a connection of each family in this time, whether or not the one before is done.
const PACE: Duration = Duration::from_millis(10);
/// SYNs of unknown sources a second, of each family.
const PRESSURE: u64 = 2_000;
const _: () = assert!(ROUNDS * SOURCES >= 1_000_000 && SOURCES as u64 > 10 * PRESSURE);

/// In the order of dials and counters.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

struct Flooded<'a> {
    stage: &'a Stage,
    product: Product,
    api: Api,
    passed: Passed<'a>,
    dials: [Dial; 2],
}

/// Where the packets of a flood went.
#[derive(Debug, Clone, Copy)]
struct Counted {
    cookies: u64,
    dropped: u64,
    /// Counted behind XDP.
    passed: u64,
    /// What the link had no room for on its way to the node.
    lost: u64,
    /// Answers, cookies and others, that it had no room for on their way back.
    unanswered: u64,
}

/// How a client fared beside a flood.
struct Beside {
    waits: io::Result<[Vec<Duration>; 2]>,
    went: Counted,
    /// SYNs a second.
    rate: f64,
}

impl Counted {
    fn since(self, before: Self) -> Self {
        Self {
            cookies: self.cookies - before.cookies,
            dropped: self.dropped - before.dropped,
            passed: self.passed - before.passed,
            lost: self.lost - before.lost,
            unanswered: self.unanswered - before.unanswered,
        }
    }

    fn sum(self) -> u64 {
        self.cookies + self.dropped + self.passed
    }
}

impl Flooded<'_> {
    fn feature(&self, name: &str) -> Option<Value> {
        let status = self.api.get("/api/v1/status");
        let features = status["nodes"][0]["features"].as_array().cloned().unwrap_or_default();
        features.into_iter().find(|feature| feature["name"] == name)
    }

    /// The budget, and the host's setting without which there are no cookies: that it is missing is said, with what to do.
    fn protect(&self) {
        let filter = json!({ "budgets": {
            "synPerSource": { "rate": 500 },
            "synPressure": { "rate": PRESSURE },
        } });
        self.product.applied(self.api.apply(&[objects::object("PacketFilter", "flood", filter)]));
        let said = |on: bool, words: &str| {
            eventually("the node says whether it can send cookies", Duration::from_secs(15), || {
                let feature = self.feature("syn-cookies").ok_or("nothing said")?;
                let detail = feature["detail"].as_str().unwrap_or_default().to_owned();
                if feature["on"] == on && detail.contains(words) { Ok(()) } else { Err(feature.to_string()) }
            });
        };
        said(false, "sysctl -w net.ipv4.tcp_syncookies=2");
        self.syncookies("2");
        said(true, "no SYN is over the budget");
    }

    /// Whether cookies are in force, in the node's metrics and at the console.
    fn says_pressure(&self, value: u8) {
        let now = json!({ "now": value == 1, "over": "cookie" });
        eventually("pressure is said", Duration::from_secs(15), || {
            let metrics = self.product.metrics();
            let gauge = metrics.contains(&format!("sallyport_syn_pressure{{over=\"cookie\"}} {value}\n"));
            let node = self.api.get("/api/v1/status")["nodes"][0]["synPressure"].clone();
            if gauge && node == now { Ok(()) } else { Err(format!("{gauge}, {node}")) }
        });
    }

    fn syncookies(&self, value: &str) {
        let path = "/proc/sys/net/ipv4/tcp_syncookies";
        self.stage.node.inside(|| fs::write(path, value)).expect("the namespace's setting");
    }

    fn counted(&self) -> [Counted; 2] {
        let reason = |name: &str| {
            let label = format!("reason=\"{name}\"");
            self.product.metric("sallyport_kernel_drops_total", &label) as u64
        };
        let (cookies, dropped) = (reason("syn-cookie"), reason("syn-budget"));
        let link: Value =
            serde_json::from_str(&self.stage.clients.run("ip", &["-j", "-s", "link", "show", "c0"]))
                .expect("ip's JSON");
        let link = |way: &str| link[0]["stats64"][way]["dropped"].as_u64().expect("a count");
        let (lost, unanswered) = (link("tx"), link("rx"));
        let passed = self.passed.each();
        [0, 1].map(|family| Counted { cookies, dropped, passed: passed[family], lost, unanswered })
    }

    /// The client beside a flood of a family, and where all the flood's packets went.
    fn flood(&self, family: usize, first: u32) -> Beside {
        let before = self.counted()[family];
        let flood = Spray::start(&self.stage.clients, self.dials[family].target, first, SOURCES, RATE);
        let waits = self.phase();
        let (sent, rate) = flood.finish();
        let went = eventually("every packet of the flood is accounted for", Duration::from_secs(10), || {
            let went = self.counted()[family].since(before);
            // To the packet, but for those that the link lost before the node: they may have been the client's.
            if (sent - went.lost.min(sent)..=sent).contains(&went.sum()) {
                Ok(went)
            } else {
                Err(format!("{sent} sent, {went:?}"))
            }
        });
        Beside { waits, went, rate }
    }

    /// Beside a flood of either family the client makes connections, the first as a stranger who has to send a cookie back, XDP's or
    /// the kernel's. It is known from then on, and nothing that is counted later is its own.
    fn make_known(&self) {
        for dial in &self.dials {
            let space = &self.stage.clients;
            let flood = Spray::start(space, dial.target, ROUNDS * SOURCES, 4 * RATE as u32, RATE);
            // By now the budget is spent.
            std::thread::sleep(Duration::from_millis(300));
            for _ in 0..8 {
                space.inside(|| dial.get(HOST, "/")).expect("an answer beside the flood");
                std::thread::sleep(Duration::from_millis(100));
            }
            drop(flood);
        }
    }

    /// What the client waits for a new connection of each family with its first answer while a phase lasts, sorted. Counted from
    /// when it was due: one that waits for the one before has waited.
    fn phase(&self) -> io::Result<[Vec<Duration>; 2]> {
        let one = |dial: &Dial| -> io::Result<Vec<Duration>> {
            self.stage.clients.enter();
            let begin = Instant::now();
            let mut waits = Vec::new();
            let mut due = Duration::ZERO;
            while due < PHASE {
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
                let answer = dial.get(HOST, "/").map_err(|error| {
                    io::Error::new(error.kind(), format!("after {:?}: {error}", begin.elapsed() - due))
                })?;
                assert_eq!(answer.status, 200, "{}", answer.text());
                waits.push(begin.elapsed() - due);
                due += PACE;
            }
            waits.sort_unstable();
            Ok(waits)
        };
        let [four, six] = std::thread::scope(|scope| {
            let clients = self.dials.each_ref().map(|dial| scope.spawn(move || one(dial)));
            clients.map(|client| client.join().expect("a client"))
        });
        Ok([four?, six?])
    }
}

fn quantile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get((sorted.len() * per_mille).div_ceil(1000).saturating_sub(1)).copied().unwrap_or_default()
}

/// Prints what a flood did to the client's connections of its family: how many times the quiet p99 the one beside it is; nothing
/// where one had no answer.
fn compared(
    what: &str,
    family: usize,
    quiet: &io::Result<[Vec<Duration>; 2]>,
    Beside { waits, went, rate }: &Beside,
) -> Option<f64> {
    let (Ok(quiet), Ok(waits)) = (quiet, waits) else {
        println!("{what}: {:?} before, {:?} beside the flood", quiet.as_ref().err(), waits.as_ref().err());
        return None;
    };
    let (quiet, waits) = (&quiet[family], &waits[family]);
    let [calm, beside] = [quiet, waits].map(|waits| quantile(waits, 990));
    let ratio = beside.as_secs_f64() / calm.as_secs_f64();
    println!(
        "{what}: p99 {calm:?} quiet, {beside:?} beside the flood: {ratio:.2}; p50 {:?} and {:?}, {} and {} connections; \
         {SOURCES} SYNs, {rate:.0} a second: {went:?}",
        quantile(quiet, 500),
        quantile(waits, 500),
        quiet.len(),
        waits.len(),
    );
    Some(ratio)
}

/// The median: a round in which this machine had other things to do decides nothing, nor one that was lucky.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().expect("a value")
}

/// Old connections answer as before.
fn still_answer(stage: &Stage, old: &mut [Connection]) {
    stage.clients.inside(|| {
        for connection in old {
            let answer = connection.get(HOST, "/").expect("an old connection lives on");
            assert_eq!(answer.status, 200);
        }
    });
}

#[test]
fn a_client_notices_little_of_a_million_sources() {
    let stage = Stage::new("flood");
    stage.take_answers();
    let origin = stage.origin("one", 8443);
    let mut product = stage.product();
    let api = product.ready();
    stage.configure(&product, &api, &[origin.url()]);
    let tls = stage.front_ca.client(&["http/1.1"]);
    let dials = [target4(443), target6(443)].map(|target| Dial::new(target, HOST, &tls));
    let passed = Passed::count_each(&stage.node, &[SOURCES4, SOURCES6]);
    let flooded = Flooded { stage: &stage, product, api, passed, dials };
    let bare = std::env::var("SALLYPORT_FLOOD_BARE").ok();
    match &bare {
        Some(value) => flooded.syncookies(value),
        None => {
            flooded.protect();
            flooded.make_known();
            flooded.says_pressure(1);
        }
    }
    let mut old: Vec<Connection> = stage.clients.inside(|| {
        let both = flooded.dials.iter().flat_map(|dial| (0..4).map(|_| dial.open().expect("a connection")));
        both.collect()
    });
    let talk = Kept::websocket(&stage.clients, &flooded.dials[0]);
    // Everything warm; and what was counted so far is told, once a second.
    flooded.phase().expect("every answer");

    let (mut ratios, mut rates) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..if bare.is_none() { ROUNDS } else { BARE_ROUNDS } {
        let quiet = flooded.phase();
        for (family, name) in FAMILIES.into_iter().enumerate() {
            let beside = flooded.flood(family, round * SOURCES);
            rates.push(beside.rate);
            let ratio = compared(&format!("round {round}, {name}"), family, &quiet, &beside);
            assert!(ratio.is_some() || bare.is_some(), "every connection has its answer");
            ratios[family].push(ratio.unwrap_or(f64::INFINITY));
        }
        if bare.is_none() {
            still_answer(&stage, &mut old);
        }
    }
    // A thread of its own holds the namespace, which goes with the last who does.
    let (begun, broken) = (talk.begun(), talk.finish());
    if bare.is_none() {
        assert_eq!((begun, broken.len()), (1, 0), "{broken:?}");
        flooded.says_pressure(0);
    }
    let rate = median(&mut rates);
    for (family, ratios) in FAMILIES.into_iter().zip(&mut ratios) {
        let ratio = median(ratios);
        println!(
            "{family}: the client's p99 beside {rate:.0} SYNs a second is {ratio:.2} times the quiet one, of {ratios:.2?}"
        );
        assert_eq!(ratio <= 2.0, bare.is_none(), "{family}: {ratio:.2}, of {ratios:.2?}");
    }
    assert!(rate > RATE as f64 * 0.8, "{rate:.0} SYNs a second: this machine has no room for the flood");
}
