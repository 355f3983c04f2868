//! One thread's figures. Only its thread adds to them, without locks; whoever reads takes them away ([`super::totals`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use model::name::{HostName, Name};
use model::report::{BUCKETS, Histogram, Leg};

use super::log::{Log, micros};
use super::{Exchange, Observe};
use crate::worker::http::guard::Flood;
use crate::worker::live::{self, ListenerLive, Live, OriginLive};
use crate::worker::overload::Refusing;
use crate::worker::refusal::Reason;

/// Locks that protect plain data: a panic elsewhere leaves it usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count that one thread adds to and another takes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> u64 {
        // Most counts are 0 most of the time, and reading costs the writer nothing.
        if self.0.load(Ordering::Relaxed) == 0 { 0 } else { self.0.swap(0, Ordering::Relaxed) }
    }
}

/// Durations, in the buckets of the report.
#[derive(Debug)]
pub(super) struct Durations {
    buckets: [AtomicU32; BUCKETS],
    pub(super) sum: Count,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: [const { AtomicU32::new(0) }; BUCKETS], sum: Count::default() }
    }
}

impl Durations {
    fn add(&self, duration: Duration) {
        let micros = micros(duration);
        self.sum.add(micros);
        if let Some(bucket) = self.buckets.get(usize::from(Histogram::bucket(micros))) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn take(&self) -> Histogram {
        let full = (0_u8..).zip(&self.buckets).filter(|(_, count)| count.load(Ordering::Relaxed) > 0);
        Histogram(full.map(|(bucket, count)| (bucket, count.swap(0, Ordering::Relaxed))).collect())
    }
}

/// What is counted for one route on one listener; without a route for requests that found none.
#[derive(Debug)]
pub(super) struct RouteCounts {
    pub(super) listener: Name,
    pub(super) route: Option<Name>,
    /// Statuses 1xx to 5xx; first those without any.
    pub(super) classes: [Count; 6],
    /// Connections passed on undecrypted.
    pub(super) passed: Count,
    pub(super) received: Count,
    pub(super) sent: Count,
    pub(super) added: Durations,
    pub(super) total: Durations,
    pub(super) legs: Mutex<(Option<Leg>, Option<Leg>)>,
}

/// What is counted for one origin.
#[derive(Debug)]
pub(super) struct OriginCounts {
    pub(super) key: u64,
    pub(super) group: Name,
    pub(super) address: model::net::OriginAddress,
    pub(super) requests: Count,
    pub(super) attempts: Count,
    pub(super) failures: Count,
    /// When an attempt succeeded last, and when one failed last and how; microseconds since the epoch.
    pub(super) succeeded: AtomicU64,
    pub(super) failed: Mutex<Option<(u64, String)>>,
}

/// What one thread shares with the readers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) routes: Mutex<Vec<Arc<RouteCounts>>>,
    pub(super) origins: Mutex<Vec<Arc<OriginCounts>>>,
    pub(super) refusals: Refusals,
    /// By kind, in the order of [`Flood::ALL`].
    pub(super) floods: [Count; Flood::ALL.len()],
    /// Refusals of [`Reason::Denied`] by the packet filter rule that decided.
    pub(super) denied: Mutex<HashMap<u32, u64>>,
    /// Connections that were let in because a rule is only observed, by that rule.
    pub(super) observed: Mutex<HashMap<u32, u64>>,
    /// By version, group and whether a ticket was used.
    pub(super) handshakes: Mutex<HashMap<(String, String, bool), u64>>,
    pub(super) accepted: Count,
    pub(super) accept_errors: Count,
    pub(super) open: AtomicI64,
    pub(super) accepting: AtomicBool,
    /// A [`Refusing`].
    pub(super) refusing: AtomicU8,
    /// Why, while it is more than nothing.
    pub(super) refusing_for: Mutex<String>,
    pub(super) names: Mutex<HashMap<HostName, Resolved>>,
}

/// What a name stands for, and since when that is old.
type Resolved = (Vec<IpAddr>, Option<SystemTime>);

/// By reason, in the order of [`Reason::ALL`].
#[derive(Debug)]
pub(super) struct Refusals(Vec<Count>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Reason::ALL.iter().map(|_| Count::default()).collect())
    }
}

impl Refusals {
    fn add(&self, reason: Reason) {
        // The enum has no gaps: its value is its place in ALL.
        if let Some(count) = self.0.get(reason as usize) {
            count.add(1);
        }
    }

    pub(super) fn take(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.0.iter().map(Count::take))
    }
}

/// One thread's end of [`Observe`].
#[derive(Debug)]
pub struct Shard {
    shared: Arc<Shared>,
    local: RefCell<Local>,
}

#[derive(Debug)]
struct Local {
    log: Log,
    /// By listener (the address of its count of open connections, which outlives its generations) and route slot.
    routes: HashMap<(usize, Option<usize>), Arc<RouteCounts>>,
    origins: HashMap<u64, Arc<OriginCounts>>,
    /// Keeps the listeners' counts where they are, so that no address stands for two of them.
    held: Vec<Arc<live::Open>>,
}

impl Shard {
    pub(super) fn new(observe: &Observe, shared: Arc<Shared>) -> Self {
        let local = Local {
            log: observe.sink.log(),
            routes: HashMap::new(),
            origins: HashMap::new(),
            held: Vec::new(),
        };
        Self { shared, local: RefCell::new(local) }
    }

    /// A request and its answer, once, when it is over.
    pub fn exchange(&self, exchange: &Exchange<'_>) {
        let local = &mut *self.local.borrow_mut();
        local.log.exchange(exchange);
        if let Some(reason) = exchange.refusal {
            self.shared.refusals.add(reason);
        }
        let counts = local.route(&self.shared, exchange);
        counts.classes[usize::from(exchange.status / 100).min(5)].add(1);
        counts.received.add(exchange.received);
        counts.sent.add(exchange.sent);
        counts.added.add(exchange.total.saturating_sub(exchange.waited));
        counts.total.add(exchange.total);
        // A reader holds this for a moment now and then; the next exchange tells the same.
        if let Ok(mut legs) = counts.legs.try_lock() {
            if legs.0.as_ref() != Some(exchange.client_leg) {
                legs.0 = Some(exchange.client_leg.clone());
            }
            let origin = exchange.origin.as_ref().and_then(|part| part.leg);
            if origin.is_some() && legs.1.as_ref() != origin {
                legs.1 = origin.cloned();
            }
        }
        if let Some(part) = &exchange.origin {
            local.origin(&self.shared, part.origin).requests.add(1);
        }
    }

    /// A connection that was passed on undecrypted, once, when it is over. It is no request: nothing of it is a status or a
    /// time that requests have.
    pub fn passed(&self, connection: &Exchange<'_>) {
        let local = &mut *self.local.borrow_mut();
        local.log.exchange(connection);
        // A denial has been counted with the rule that decided.
        if let Some(reason) = connection.refusal.filter(|reason| *reason != Reason::Denied) {
            self.shared.refusals.add(reason);
        }
        let counts = local.route(&self.shared, connection);
        counts.passed.add(1);
        counts.received.add(connection.received);
        counts.sent.add(connection.sent);
        if let Some(part) = &connection.origin {
            local.origin(&self.shared, part.origin).requests.add(1);
        }
    }

    /// A connection that ended, or never began, for a reason that belongs to no request.
    pub fn refused(&self, reason: Reason) {
        self.shared.refusals.add(reason);
    }

    /// A connection that ended for [`Reason::Http2Abuse`].
    pub fn flood(&self, flood: Flood) {
        self.refused(Reason::Http2Abuse);
        if let Some(count) = self.shared.floods.get(flood as usize) {
            count.add(1);
        }
    }

    /// A connection that the packet filter denies.
    pub fn denied(&self, rule: u32) {
        self.shared.refusals.add(Reason::Denied);
        *lock(&self.shared.denied).entry(rule).or_default() += 1;
    }

    /// A connection that the packet filter would have denied, were this rule not only observed.
    pub fn observed(&self, rule: u32) {
        *lock(&self.shared.observed).entry(rule).or_default() += 1;
    }

    /// An attempt to connect an origin, and the failure's sentence.
    pub fn origin(&self, origin: &OriginLive, outcome: Result<SocketAddr, &str>) {
        let local = &mut *self.local.borrow_mut();
        let counts = local.origin(&self.shared, origin);
        counts.attempts.add(1);
        let now = micros(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        match outcome {
            Ok(_) => counts.succeeded.store(now, Ordering::Relaxed),
            Err(sentence) => {
                counts.failures.add(1);
                *lock(&counts.failed) = Some((now, sentence.to_owned()));
            }
        }
    }

    /// What an origin's name stands for, and since when that is old.
    pub fn resolved(&self, name: &HostName, addresses: &[IpAddr], stale_since: Option<SystemTime>) {
        lock(&self.shared.names).insert(name.clone(), (addresses.to_vec(), stale_since));
    }

    /// A TLS handshake with a client that succeeded.
    pub fn handshake(&self, leg: &Leg, resumed: bool) {
        let key = (leg.version.clone(), leg.group.clone(), resumed);
        *lock(&self.shared.handshakes).entry(key).or_default() += 1;
    }

    /// A connection was accepted; it is open until the guard is dropped.
    pub fn connection(&self) -> Open {
        self.shared.accepted.add(1);
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.shared))
    }

    /// `accept` failed: no descriptor or memory left.
    pub fn accept_error(&self) {
        self.shared.accept_errors.add(1);
    }

    /// Whether the thread accepts.
    pub fn accepting(&self, accepting: bool) {
        self.shared.accepting.store(accepting, Ordering::Relaxed);
    }

    /// What the thread refuses for too much to do, and of what there is too much.
    pub fn refusing(&self, refusing: Refusing, why: String) {
        *lock(&self.shared.refusing_for) = why;
        self.shared.refusing.store(refusing as u8, Ordering::Relaxed);
    }

    /// Hands the log's lines on; to be called every 100 ms.
    pub fn flush(&self) {
        self.local.borrow_mut().log.flush();
    }

    /// Forgets listeners, routes and origins that are no longer there.
    pub fn prune(&self, live: &Live) {
        let local = &mut *self.local.borrow_mut();
        // What still counts for them registers again.
        let keys: std::collections::HashSet<u64> =
            live.groups.values().flat_map(|group| group.origins()).map(|origin| origin.key).collect();
        local.routes.clear();
        local.held.clear();
        local.origins.retain(|key, _| keys.contains(key));
        lock(&self.shared.names).retain(|name, _| {
            live.groups
                .values()
                .flat_map(|group| group.origins())
                .any(|origin| matches!(&origin.address.host, model::net::Host::Name(host) if host == name))
        });
    }
}

impl Local {
    fn route(&mut self, shared: &Shared, exchange: &Exchange<'_>) -> &Arc<RouteCounts> {
        let ListenerLive { name, open, .. } = exchange.listener;
        let key = (Arc::as_ptr(open) as usize, exchange.route.map(|route| route.slot));
        self.routes.entry(key).or_insert_with(|| {
            let counts = Arc::new(RouteCounts {
                listener: name.clone(),
                route: exchange.route.map(|route| route.name.clone()),
                classes: Default::default(),
                passed: Count::default(),
                received: Count::default(),
                sent: Count::default(),
                added: Durations::default(),
                total: Durations::default(),
                legs: Mutex::default(),
            });
            lock(&shared.routes).push(Arc::clone(&counts));
            self.held.push(Arc::clone(open));
            counts
        })
    }

    fn origin(&mut self, shared: &Shared, origin: &OriginLive) -> &Arc<OriginCounts> {
        self.origins.entry(origin.key).or_insert_with(|| {
            let counts = Arc::new(OriginCounts {
                key: origin.key,
                group: origin.group.clone(),
                address: origin.address.clone(),
                requests: Count::default(),
                attempts: Count::default(),
                failures: Count::default(),
                succeeded: AtomicU64::new(0),
                failed: Mutex::default(),
            });
            lock(&shared.origins).push(Arc::clone(&counts));
            counts
        })
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
