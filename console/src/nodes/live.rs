//! Which nodes are connected, and what they said last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::digest::Digest;
use model::net::OriginAddress;
use model::report::Report;
use model::senders::{MOST_SENDERS, Senders};
use time::OffsetDateTime;
use tokio::sync::watch;

/// What the console tells a node's connection besides snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Finish what is open, accept nothing new.
    pub drain: bool,
    /// Hang up: the node was revoked, or came again.
    pub close: bool,
}

/// A node as far as this process has heard of it.
#[derive(Debug, Clone)]
pub struct LiveNode {
    /// Its connection's address, while it is connected.
    pub connected: Option<SocketAddr>,
    /// Its last report.
    pub report: Option<(OffsetDateTime, Arc<Report>)>,
    /// Who sends to it, as it said last; of an earlier connection until it says so again.
    pub senders: Option<Arc<Senders>>,
    /// Requests and failures by group and origin since it connected.
    pub origins: BTreeMap<(String, OriginAddress), (u64, u64)>,
    orders: watch::Sender<Orders>,
    connection: u64,
    // Keys that its present snapshot names, and the one before (which it may still be applying).
    keys: [BTreeSet<Digest>; 2],
}

/// All nodes; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, LiveNode>,
    connections: u64,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is one assignment: nothing is half done after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has connected; a connection it had is told to hang up. Gives the connection's number and its orders.
    pub(crate) fn connected(
        &self,
        node: &str,
        from: SocketAddr,
        drain: bool,
    ) -> (u64, watch::Receiver<Orders>) {
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        let (orders, receiver) = watch::channel(Orders { drain, close: false });
        let senders = state.nodes.get(node).and_then(|before| before.senders.clone());
        let new = LiveNode {
            connected: Some(from),
            report: None,
            senders,
            origins: BTreeMap::new(),
            orders,
            connection,
            keys: Default::default(),
        };
        if let Some(old) = state.nodes.insert(node.to_owned(), new) {
            old.orders.send_modify(|orders| orders.close = true);
        }
        (connection, receiver)
    }

    /// A connection has ended; whether it was the node's newest.
    pub(crate) fn ended(&self, node: &str, connection: u64) -> bool {
        let mut state = self.lock();
        match state.nodes.get_mut(node).filter(|live| live.connection == connection) {
            Some(live) => {
                live.connected = None;
                true
            }
            None => false,
        }
    }

    /// A node has reported.
    pub(crate) fn reported(&self, node: &str, connection: u64, at: OffsetDateTime, report: Report) {
        let mut state = self.lock();
        let Some(live) = state.nodes.get_mut(node).filter(|live| live.connection == connection) else {
            return;
        };
        let mut origins = BTreeMap::new();
        // Only origins still in force stay: the map cannot grow with history.
        for one in &report.origins {
            let key = (one.group.as_str().to_owned(), one.address.clone());
            let (requests, failures) = live.origins.get(&key).copied().unwrap_or_default();
            origins.insert(key, (requests + one.requests, failures + one.failures));
        }
        live.origins = origins;
        live.report = Some((at, Arc::new(report)));
    }

    /// A node has said who sends to it. More than a node keeps is not its word.
    pub(crate) fn sent(&self, node: &str, connection: u64, mut senders: Senders) {
        let mut state = self.lock();
        if let Some(live) = state.nodes.get_mut(node).filter(|live| live.connection == connection) {
            senders.senders.truncate(MOST_SENDERS);
            live.senders = Some(Arc::new(senders));
        }
    }

    /// A snapshot with these keys is about to be sent to the node.
    pub(super) fn may_fetch(&self, node: &str, keys: BTreeSet<Digest>) {
        if let Some(live) = self.lock().nodes.get_mut(node) {
            live.keys.swap(0, 1);
            live.keys[0] = keys;
        }
    }

    /// Whether the node may fetch this key.
    pub(super) fn fetchable(&self, node: &str, key: &Digest) -> bool {
        self.lock().nodes.get(node).is_some_and(|live| live.keys.iter().any(|keys| keys.contains(key)))
    }

    /// What a node reported last on the connection it has now; nothing where it has none, or has not reported on it yet.
    pub(crate) fn report(&self, node: &str) -> Option<Arc<Report>> {
        let state = self.lock();
        let live = state.nodes.get(node).filter(|live| live.connected.is_some())?;
        live.report.as_ref().map(|(_, report)| Arc::clone(report))
    }

    /// What is known of every node that has connected since this process began.
    pub fn all(&self) -> BTreeMap<String, LiveNode> {
        self.lock().nodes.clone()
    }

    /// Gives a connected node orders.
    pub fn order(&self, node: &str, change: impl FnOnce(&mut Orders)) {
        if let Some(live) = self.lock().nodes.get(node) {
            live.orders.send_modify(change);
        }
    }
}
