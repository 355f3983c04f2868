//! Takes the threads' figures together: sums since the start for `/metrics`, differences for the console.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use model::name::Name;
use model::net::Host;
use model::report::{
    Drops, Histogram, ListenerReport, OriginReport, Place, ProbeReport, Report, RouteReport,
};

use super::Observe;
use super::shard::{RouteCounts, Shared, lock};
use crate::worker::http::guard::Flood;
use crate::worker::live::Live;
use crate::worker::origin::health::clock;
use crate::worker::refusal::Reason;

/// Pairs of listener and route with series of their own; what comes later is counted as `other`.
pub(super) const MOST_ROUTES: usize = 1000;
/// Origins with series of their own.
pub(super) const MOST_ORIGINS: usize = 1000;
/// Observed rules with series of their own.
pub(super) const MOST_RULES: usize = 1000;
/// The label of everything beyond a bound.
pub(super) const OTHER: &str = "other";

/// What passed because a rule is only observed; the kernel's word for the same.
const OBSERVED: &str = "observed";

/// Listener and route (empty: none), as labels.
pub(super) type RouteKey = (String, String);

/// Sums of one pair of listener and route.
#[derive(Debug, Default)]
pub(super) struct RouteTotals {
    pub(super) classes: [u64; 6],
    pub(super) passed: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// By bucket.
    pub(super) total: BTreeMap<u8, u64>,
    pub(super) total_sum: u64,
    pub(super) added: BTreeMap<u8, u64>,
    pub(super) added_sum: u64,
}

/// Sums of one origin.
#[derive(Debug, Default)]
pub(super) struct OriginTotals {
    pub(super) requests: u64,
    pub(super) attempts: u64,
    pub(super) failures: u64,
}

/// Everything since the start, and what the next report tells.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) routes: BTreeMap<RouteKey, RouteTotals>,
    pub(super) origins: BTreeMap<(String, String), OriginTotals>,
    pub(super) refusals: BTreeMap<Reason, u64>,
    pub(super) floods: BTreeMap<Flood, u64>,
    pub(super) kernel: BTreeMap<(String, u32), u64>,
    /// By rule; 0 for those beyond the bound.
    pub(super) observed: BTreeMap<u32, u64>,
    pub(super) handshakes: BTreeMap<(String, String, bool), u64>,
    /// By thread.
    pub(super) accepted: Vec<u64>,
    pub(super) accept_errors: u64,
    next: Next,
}

/// What the next report tells.
#[derive(Debug)]
struct Next {
    since: Instant,
    routes: BTreeMap<Name, RouteReport>,
    refusals: BTreeMap<Reason, u64>,
    denied: BTreeMap<u32, u64>,
    observed: BTreeMap<u32, u64>,
    kernel: BTreeMap<(String, u32), u64>,
    origins: HashMap<u64, (u64, u64)>,
}

impl Default for Next {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            routes: BTreeMap::new(),
            refusals: BTreeMap::new(),
            denied: BTreeMap::new(),
            observed: BTreeMap::new(),
            kernel: BTreeMap::new(),
            origins: HashMap::new(),
        }
    }
}

impl Totals {
    /// Takes what the threads counted since the last time.
    pub(super) fn collect(&mut self, shards: &[Arc<Shared>]) {
        self.accepted.resize(shards.len(), 0);
        for (shared, accepted) in shards.iter().zip(&mut self.accepted) {
            *accepted += shared.accepted.take();
        }
        for shared in shards {
            let mut routes = lock(&shared.routes);
            routes.iter().for_each(|counts| self.route(counts));
            // The thread forgot it, and everything it counted has just been taken.
            routes.retain(|counts| Arc::strong_count(counts) > 1);
            drop(routes);
            let mut origins = lock(&shared.origins);
            for counts in origins.iter() {
                let labels = (counts.group.to_string(), counts.address.to_string());
                let totals =
                    bounded(&mut self.origins, labels, MOST_ORIGINS, (OTHER.to_owned(), OTHER.to_owned()));
                let (requests, attempts, failures) =
                    (counts.requests.take(), counts.attempts.take(), counts.failures.take());
                totals.requests += requests;
                totals.attempts += attempts;
                totals.failures += failures;
                let next = self.next.origins.entry(counts.key).or_default();
                next.0 += requests;
                next.1 += failures;
            }
            origins.retain(|counts| Arc::strong_count(counts) > 1);
            drop(origins);
            for (reason, count) in shared.refusals.take().filter(|(_, count)| *count > 0) {
                *self.refusals.entry(reason).or_default() += count;
                *self.next.refusals.entry(reason).or_default() += count;
            }
            for (flood, count) in Flood::ALL.iter().zip(&shared.floods) {
                *self.floods.entry(*flood).or_default() += count.take();
            }
            for (rule, count) in lock(&shared.denied).drain() {
                *self.next.denied.entry(rule).or_default() += count;
            }
            for (rule, count) in lock(&shared.observed).drain() {
                *bounded(&mut self.observed, rule, MOST_RULES, 0) += count;
                *self.next.observed.entry(rule).or_default() += count;
            }
            for (key, count) in lock(&shared.handshakes).drain() {
                *self.handshakes.entry(key).or_default() += count;
            }
            self.accept_errors += shared.accept_errors.take();
        }
    }

    fn route(&mut self, counts: &RouteCounts) {
        let classes: [u64; 6] = std::array::from_fn(|class| counts.classes[class].take());
        let passed = counts.passed.take();
        if passed == 0 && classes.iter().all(|count| *count == 0) {
            return;
        }
        let (total, added) = (counts.total.take(), counts.added.take());
        let route = counts.route.as_ref().map(Name::to_string).unwrap_or_default();
        let labels = (counts.listener.to_string(), route);
        let totals = bounded(&mut self.routes, labels, MOST_ROUTES, (OTHER.to_owned(), OTHER.to_owned()));
        totals.classes.iter_mut().zip(classes).for_each(|(sum, count)| *sum += count);
        totals.passed += passed;
        totals.received += counts.received.take();
        totals.sent += counts.sent.take();
        totals.total_sum += counts.total.sum.take();
        totals.added_sum += counts.added.sum.take();
        add(&mut totals.total, &total);
        add(&mut totals.added, &added);
        let Some(name) = &counts.route else { return };
        let report = self.next.routes.entry(name.clone()).or_insert_with(|| RouteReport {
            route: name.clone(),
            responses: [0; 4],
            added: Histogram::default(),
            total: Histogram::default(),
            client: None,
            origin: None,
        });
        let [_, informational, success, redirection, client, server] = classes;
        for (sum, count) in
            report.responses.iter_mut().zip([informational + success, redirection, client, server])
        {
            *sum += count;
        }
        report.added.merge(&added);
        report.total.merge(&total);
        let legs = lock(&counts.legs);
        report.client = legs.0.clone().or(report.client.take());
        report.origin = legs.1.clone().or(report.origin.take());
    }

    /// Kernel drops that the keeper counted.
    pub(super) fn kernel(&mut self, drops: &[Drops]) {
        for one in drops {
            *self.kernel.entry((one.reason.clone(), one.rule)).or_default() += one.count;
            *self.next.kernel.entry((one.reason.clone(), one.rule)).or_default() += one.count;
        }
    }

    /// What happened since the report before.
    pub(super) fn report(&mut self, observe: &Observe, live: &Live) -> Report {
        self.collect(&observe.shards);
        let mut next = std::mem::take(&mut self.next);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let origins = origins(observe, live, &next.origins);
        Report {
            at_ms: i64::try_from(at.as_millis()).unwrap_or_default(),
            interval_ms: u32::try_from(next.since.elapsed().as_millis()).unwrap_or(u32::MAX),
            routes: std::mem::take(&mut next.routes).into_values().collect(),
            drops: drops(&next),
            origins,
            listeners: listeners(live),
            features: Vec::new(),
            connections: observe.connections(),
            threads: u32::try_from(observe.shards.len()).unwrap_or(u32::MAX),
            overload: observe.overload(),
            syn_pressure: observe.syn_pressure.at(Instant::now()).flatten(),
        }
    }
}

/// The entry of `key`, or `other`'s where there are `most` already.
fn bounded<K: Ord, V: Default>(map: &mut BTreeMap<K, V>, key: K, most: usize, other: K) -> &mut V {
    let key = if map.len() < most || map.contains_key(&key) { key } else { other };
    map.entry(key).or_default()
}

fn add(sums: &mut BTreeMap<u8, u64>, more: &Histogram) {
    for (bucket, count) in &more.0 {
        *sums.entry(*bucket).or_default() += u64::from(*count);
    }
}

fn drops(next: &Next) -> Vec<Drops> {
    let by_rule: u64 = next.denied.values().sum();
    let drop = |place, reason: &str, rule, count| Drops { place, reason: reason.to_owned(), rule, count };
    let kernel = next.kernel.iter().map(|((reason, rule), count)| drop(Place::Kernel, reason, *rule, *count));
    let denied =
        next.denied.iter().map(|(rule, count)| drop(Place::Proxy, Reason::Denied.name(), *rule, *count));
    let observed = next.observed.iter().map(|(rule, count)| drop(Place::Proxy, OBSERVED, *rule, *count));
    let proxy = next.refusals.iter().map(|(reason, count)| {
        let told = if *reason == Reason::Denied { by_rule } else { 0 };
        drop(Place::Proxy, reason.name(), 0, count.saturating_sub(told))
    });
    kernel.chain(denied).chain(observed).chain(proxy).filter(|drops| drops.count > 0).collect()
}

fn listeners(live: &Live) -> Vec<ListenerReport> {
    let mut listeners: Vec<ListenerReport> = live
        .listeners
        .values()
        .map(|listener| ListenerReport {
            listener: listener.name.clone(),
            mode: String::new(),
            addresses: Vec::new(),
            ranges: Vec::new(),
            left_out: Vec::new(),
            connections: listener.open.count(),
            problem: None,
        })
        .collect();
    listeners.sort_by(|a, b| a.listener.cmp(&b.listener));
    listeners
}

/// Every origin in force, what happened to it in the interval, and whether it works.
fn origins(observe: &Observe, live: &Live, counted: &HashMap<u64, (u64, u64)>) -> Vec<OriginReport> {
    let mut health: HashMap<u64, (u64, Option<(u64, String)>)> = HashMap::new();
    let mut names = HashMap::new();
    for shared in &observe.shards {
        for counts in lock(&shared.origins).iter() {
            let (succeeded, failed) = health.entry(counts.key).or_default();
            *succeeded = (*succeeded).max(counts.succeeded.load(Ordering::Relaxed));
            let now = lock(&counts.failed);
            if now.as_ref().map(|(at, _)| *at) > failed.as_ref().map(|(at, _)| *at) {
                failed.clone_from(&now);
            }
        }
        names.extend(lock(&shared.names).iter().map(|(name, known)| (name.clone(), known.clone())));
    }
    let now = clock(tokio::time::Instant::now());
    let mut reports: Vec<OriginReport> = live
        .groups
        .values()
        .flat_map(|group| group.origins())
        .map(|origin| {
            let (requests, failures) = counted.get(&origin.key).copied().unwrap_or_default();
            let failing = health.remove(&origin.key).and_then(|(succeeded, failed)| {
                failed.filter(|(at, _)| *at > succeeded).map(|(_, sentence)| sentence)
            });
            let (resolved, stale) = match &origin.address.host {
                Host::Address(address) => (vec![*address], None),
                Host::Name(name) => names.get(name).cloned().unwrap_or_default(),
            };
            let since = stale.and_then(|stale| stale.duration_since(SystemTime::UNIX_EPOCH).ok());
            OriginReport {
                group: origin.group.clone(),
                address: origin.address.clone(),
                requests,
                failures,
                failing,
                resolved,
                stale_since_ms: since.and_then(|since| i64::try_from(since.as_millis()).ok()),
                probe: origin.health.probed().map(|healthy| ProbeReport {
                    healthy,
                    latency_us: origin.health.latency(),
                    why: origin.health.why(),
                }),
                ejected: origin.health.ejected(now),
            }
        })
        .collect();
    reports.sort_by(|a, b| (&a.group, &a.address).cmp(&(&b.group, &b.address)));
    reports
}
