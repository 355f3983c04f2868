//! A node with a route, and what it says of packets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::client::Dial;
use sallyport_tests::origin::Origin;
use sallyport_tests::product::Product;
use sallyport_tests::stage::{HOST, NODE4, NODE6, ORIGINS4, Stage, target4, target6};
use sallyport_tests::{eventually, frames};
use serde_json::{Value, json};

/// How many packets of a kind a test sends at once.
pub(crate) const SENT: u64 = 10;
/// Figures are told that often.
const EVERY: Duration = Duration::from_secs(1);
const TOLD: Duration = Duration::from_secs(10);
/// By then whoever was asked to watch does.
const WATCHED: Duration = Duration::from_secs(3);

pub(crate) struct Place {
    pub(crate) product: Product,
    pub(crate) api: Api,
    _origin: Origin,
    pub(crate) stage: Stage,
}

impl Place {
    pub(crate) fn new(name: &str, flags: &[&str]) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = Product::start(&stage.node, name, None, flags);
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        Self { product, api, _origin: origin, stage }
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        self.product.applied(self.api.apply(objects));
    }

    pub(crate) fn dial(&self, from: impl Into<IpAddr>, port: u16) -> Dial {
        let from = from.into();
        let target = if from.is_ipv4() { target4(port) } else { target6(port) };
        Dial { target, ..self.stage.dial() }.from(from).patience(Duration::from_secs(2))
    }

    pub(crate) fn get(&self, from: impl Into<IpAddr>, port: u16) -> std::io::Result<u16> {
        let dial = self.dial(from, port);
        self.stage.clients.inside(|| dial.get(HOST, "/")).map(|answer| answer.status)
    }

    /// Sends [`SENT`] SYNs of each source to a port of the node, from addresses that nobody answers.
    pub(crate) fn syns(&self, sources: &[&str], port: u16) {
        let link = self.stage.link();
        let frame = |source: &str| {
            let from: SocketAddr = (source.parse::<IpAddr>().unwrap(), 40_000).into();
            let node = if from.is_ipv4() { IpAddr::from(NODE4) } else { NODE6.into() };
            link.syn(from, (node, port).into())
        };
        let frames: Vec<Vec<u8>> =
            sources.iter().flat_map(|source| (0..SENT).map(move |_| frame(source))).collect();
        frames::send(&self.stage.clients, "c0", &frames);
    }

    /// What the kernel has counted for a reason, by the rule's id.
    pub(crate) fn drops(&self, reason: &str) -> BTreeMap<u64, u64> {
        self.series(&format!("sallyport_kernel_drops_total{{reason=\"{reason}\",rule=\""))
    }

    /// The same once everything is told.
    pub(crate) fn settled(&self, reason: &str) -> BTreeMap<u64, u64> {
        let mut last = self.drops(reason);
        eventually(&format!("no more is counted as {reason}"), TOLD, || {
            thread::sleep(2 * EVERY);
            let now = self.drops(reason);
            let same = now == last;
            last = now;
            if same { Ok(()) } else { Err(format!("{last:?}")) }
        });
        last
    }

    /// What the worker has counted by rules that are only observed.
    pub(crate) fn connections(&self) -> BTreeMap<u64, u64> {
        self.series("sallyport_observed_connections_total{rule=\"")
    }

    /// The series of the metrics that begin so, by the number behind it.
    fn series(&self, begin: &str) -> BTreeMap<u64, u64> {
        let metrics = self.product.metrics();
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(begin)?.split_once("\"} "));
        lines.map(|(rule, count)| (rule.parse().unwrap(), count.parse().unwrap())).collect()
    }

    /// Waits until the kernel has counted exactly `more` for a reason since `before`, by rule.
    pub(crate) fn dropped(&self, reason: &str, before: &BTreeMap<u64, u64>, more: &[(u64, u64)]) {
        let wanted: BTreeMap<u64, u64> = more.iter().copied().collect();
        eventually(&format!("the kernel counts {wanted:?} as {reason}"), TOLD, || {
            let now = self.drops(reason).into_iter();
            let since = now.map(|(rule, count)| (rule, count - before.get(&rule).unwrap_or(&0)));
            let since: BTreeMap<u64, u64> = since.filter(|(_, count)| *count > 0).collect();
            if since == wanted { Ok(()) } else { Err(format!("{since:?}")) }
        });
    }

    /// What `sallyport flows` tells of `count` packets while `meanwhile` happens.
    pub(crate) fn flows(&self, options: &[&str], count: u64, meanwhile: impl FnOnce()) -> Vec<Value> {
        let limit = count.to_string();
        let all = [&["flows", "--json", "--limit", &limit, "--seconds", "20"], options].concat();
        let (fine, lines, complaint) = thread::scope(|scope| {
            let told = scope.spawn(|| self.product.cli(&all));
            thread::sleep(WATCHED);
            meanwhile();
            told.join().unwrap()
        });
        assert!(fine, "{complaint}");
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let flows: Vec<Value> = lines.filter(|line| line["type"] == "flow").collect();
        assert_eq!(flows.len() as u64, count, "{flows:#?}");
        flows
    }
}

/// A rule's id, from flows of which `reason` and the rule's label are `wanted`.
pub(crate) fn id_of(flows: &[Value], reason: &str, label: &str) -> u64 {
    let of_rule = |flow: &&Value| flow["rule"] == label;
    let flow = flows.iter().find(of_rule).unwrap_or_else(|| panic!("no {label} in {flows:#?}"));
    assert_eq!(flow["reason"], json!(reason), "{flow}");
    flow["ruleId"].as_u64().unwrap()
}
