//! Flows: who watches which packets, what nodes tell of them, and captures.
//!
//! In: watches of pages, of the API and of captures; messages of nodes. Out: orders for nodes, packets for whoever watches. All of
//! it lives in memory and is bounded: watches by what a node does at once and altogether ([`room`]), packets kept for a page by
//! [`KEPT`], captures by [`CAPTURES`]. A watch ends when nobody asks for it any more.

mod capture;
mod line;
mod pcap;
mod room;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::flow::{FlowCounts, FlowEvent, FlowFilter, FlowMessage, FlowWatch, WATCHES_MAX};
use tokio::sync::{broadcast, watch};

use crate::clock;

use room::{ALL, IDLE};

pub use capture::{Attended, CaptureOrder, CaptureView};
pub use line::{counts_line, flow_line, problem_line};
pub use told::{Rates, Told};

/// Packets kept of a watch, for pages.
pub const KEPT: usize = 200;
/// Captures kept; the oldest finished one makes room.
const CAPTURES: usize = 8;
/// Packets a reader may lag behind before some of them are left out for it.
const BACKLOG: usize = 4096;
/// Why a node that is asked has no stream.
const ABSENT: &str = "it is not connected, or of a release that tells no packets";
/// How long a page that was looked at counts as watching, where nobody else needs the place: longer than pages take to look again by
/// themselves.
const PAGE: Duration = Duration::from_secs(20);

/// What is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// At this node; at all of them when absent.
    pub node: Option<String>,
    /// Which packets.
    pub filter: FlowFilter,
}

/// A packet, and who saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The node.
    pub node: String,
    /// The packet.
    pub event: FlowEvent,
}

/// What a node says of a watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It watches.
    Watching(Told),
    /// It has not said anything yet.
    #[default]
    Asked,
    /// It cannot, and why.
    Cannot(String),
}

/// Why something cannot be watched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// All places at this node are taken.
    #[error("{WATCHES_MAX} different watches and captures are going on at {0} already; {wait}", wait = wait())]
    Node(String),
    /// All places that every node has are taken.
    #[error("{WATCHES_MAX} different watches of all nodes are going on already; {wait}", wait = wait())]
    Everywhere,
    /// All places that there are are taken.
    #[error("{ALL} different watches and captures are going on already; {wait}", wait = wait())]
    All,
    /// As many captures go on as are kept, at whatever nodes.
    #[error("{CAPTURES} captures are going on already; stop one, or wait until one ends")]
    Captures,
}

fn wait() -> String {
    format!("wait until one ends (a page that was closed counts for {} seconds)", IDLE.as_secs())
}

/// A watch as a page sees it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The newest packets, newest first.
    pub flows: Vec<Arc<Flow>>,
    /// What each connected node says, and why the one that is asked for does not.
    pub nodes: BTreeMap<String, NodeState>,
}

/// All watches; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Stream>,
    watches: BTreeMap<u64, Watch>,
    captures: VecDeque<capture::Taking>,
    connections: u64,
    next: u64,
}

/// A node's stream.
#[derive(Debug)]
struct Stream {
    connection: u64,
    orders: watch::Sender<Vec<FlowWatch>>,
    cannot: Option<String>,
}

#[derive(Debug)]
struct Watch {
    key: Key,
    /// Its order when it is a capture.
    capture: Option<model::flow::Capture>,
    until: Instant,
    readers: usize,
    recent: VecDeque<Arc<Flow>>,
    told: BTreeMap<String, Told>,
    /// By node, why it does not watch this, while it may watch other things.
    refused: BTreeMap<String, String>,
    flows: broadcast::Sender<Arc<Flow>>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches for a page, which looks again soon or has gone away.
    ///
    /// # Errors
    /// See [`Busy`].
    pub fn look(&self, key: &Key) -> Result<View, Busy> {
        let mut state = self.lock();
        let id = state.ask(key, Instant::now() + PAGE)?;
        Ok(state.view(id))
    }

    /// Watches for a reader that stays.
    ///
    /// # Errors
    /// See [`Busy`].
    pub fn read(&self, key: &Key) -> Result<Reader, Busy> {
        let mut state = self.lock();
        let watch = state.ask(key, Instant::now())?;
        let found = state.watches.get_mut(&watch).map(|found| {
            found.readers += 1;
            found.flows.subscribe()
        });
        let flows = found.unwrap_or_else(|| broadcast::Sender::new(1).subscribe());
        Ok(Reader { hub: self.clone(), watch, flows })
    }

    /// A node has opened its stream: its number, and what it is to watch.
    pub(crate) fn connected(&self, node: &str) -> (u64, watch::Receiver<Vec<FlowWatch>>) {
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        let (orders, receiver) = watch::channel(Vec::new());
        // It may be another release by now.
        state.watches.values_mut().for_each(|watch| drop(watch.refused.remove(node)));
        state.nodes.insert(node.to_owned(), Stream { connection, orders, cannot: None });
        state.order();
        (connection, receiver)
    }

    /// A node's stream has ended.
    pub(crate) fn ended(&self, node: &str, connection: u64) {
        let mut state = self.lock();
        if state.nodes.get(node).is_some_and(|stream| stream.connection == connection) {
            state.nodes.remove(node);
        }
    }

    /// What a node says. Whether somebody watches the packets in it.
    pub(crate) fn heard(&self, node: &str, connection: u64, message: FlowMessage) -> bool {
        let mut state = self.lock();
        let Some(stream) = state.nodes.get_mut(node).filter(|stream| stream.connection == connection) else {
            return false;
        };
        match message {
            FlowMessage::Cannot { reason } => {
                stream.cannot = Some(shown(&reason));
                true
            }
            FlowMessage::Refused { watch, reason } => {
                stream.cannot = None;
                state.refused(node, watch, &reason)
            }
            FlowMessage::Flows { watch, events, captured, counts } => {
                stream.cannot = None;
                state.take(node, watch, events, counts);
                // What is still on its way when a capture ends is no part of it: what it has was told by then, or fetched.
                let (now, captures) = (Instant::now(), state.captures.iter_mut());
                let mut going_on = captures.filter(|taking| !taking.has_ended(now));
                if let Some(taking) = going_on.find(|taking| taking.id == watch) {
                    taking.take(captured, counts.lost);
                }
                true
            }
        }
    }

    /// Ends what nobody asks for any more.
    pub(crate) fn tidy(&self) {
        let mut state = self.lock();
        state.tidy(Instant::now());
        state.order();
    }
}

/// What a node says for people: it is not believed to keep to one sentence.
fn shown(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(300).collect()
}

impl State {
    /// The watch of this key, until then at least; made where there is none.
    fn ask(&mut self, key: &Key, until: Instant) -> Result<u64, Busy> {
        self.tidy(Instant::now());
        let known = self.watches.iter_mut().find(|(_, watch)| watch.capture.is_none() && watch.key == *key);
        if let Some((id, watch)) = known {
            watch.until = watch.until.max(until);
            return Ok(*id);
        }
        self.begin(key.clone(), None, until)
    }

    fn begin(
        &mut self,
        key: Key,
        capture: Option<model::flow::Capture>,
        until: Instant,
    ) -> Result<u64, Busy> {
        self.make_room(&key, Instant::now())?;
        // Also after a restart no number is given twice while a node may remember it.
        let now = u64::try_from(clock::to_ms(clock::now())).unwrap_or(0).saturating_mul(1000);
        self.next = now.max(self.next + 1);
        let (recent, flows) = (VecDeque::new(), broadcast::Sender::new(BACKLOG));
        let (told, refused) = (BTreeMap::new(), BTreeMap::new());
        let watch = Watch { key, capture, until, readers: 0, recent, told, refused, flows };
        self.watches.insert(self.next, watch);
        self.order();
        Ok(self.next)
    }

    fn watched_at(&self, node: &str) -> impl Iterator<Item = (&u64, &Watch)> {
        self.watches.iter().filter(move |(_, watch)| watch.is_at(node))
    }

    /// Tells nodes what they are to watch, where it is something else than before.
    fn order(&self) {
        for (node, stream) in &self.nodes {
            let order = |(id, watch): (&u64, &Watch)| FlowWatch {
                id: *id,
                filter: watch.key.filter.clone(),
                capture: watch.capture,
            };
            let orders: Vec<FlowWatch> = self.watched_at(node).map(order).collect();
            stream.orders.send_if_modified(|present| {
                let changed = *present != orders;
                *present = orders;
                changed
            });
        }
    }

    fn tidy(&mut self, now: Instant) {
        let ended = |taking: &capture::Taking| taking.has_ended(now);
        let over: Vec<u64> =
            self.captures.iter().filter(|taking| ended(taking)).map(|taking| taking.id).collect();
        self.watches.retain(|id, watch| match watch.capture {
            Some(_) => !over.contains(id),
            None => watch.readers > 0 || watch.until > now,
        });
    }

    fn take(&mut self, node: &str, id: u64, events: Vec<FlowEvent>, counts: FlowCounts) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        watch.refused.remove(node);
        watch.told.entry(node.to_owned()).or_default().hear(&events, counts);
        if watch.capture.is_some() {
            return;
        }
        for event in events {
            let flow = Arc::new(Flow { node: node.to_owned(), event });
            if watch.recent.len() == KEPT {
                watch.recent.pop_front();
            }
            watch.recent.push_back(Arc::clone(&flow));
            // An error only says that no reader is there.
            let _nobody = watch.flows.send(flow);
        }
    }

    /// A node does not watch this; whether that is news.
    fn refused(&mut self, node: &str, id: u64, reason: &str) -> bool {
        let Some(watch) = self.watches.get_mut(&id).filter(|watch| watch.is_at(node)) else { return false };
        let why = shown(reason);
        watch.refused.insert(node.to_owned(), why.clone()) != Some(why)
    }

    fn view(&self, id: u64) -> View {
        let Some(watch) = self.watches.get(&id) else { return View::default() };
        let nodes = self.nodes.iter().filter(|(node, _)| watch.is_at(node));
        let state = |(node, stream): (&String, &Stream)| {
            let state = match (stream.cannot.as_ref().or(watch.refused.get(node)), watch.told.get(node)) {
                (Some(why), _) => NodeState::Cannot(why.clone()),
                (None, Some(told)) => NodeState::Watching(*told),
                (None, None) => NodeState::Asked,
            };
            (node.clone(), state)
        };
        let mut nodes: BTreeMap<String, NodeState> = nodes.map(state).collect();
        if let Some(only) = watch.key.node.as_ref().filter(|only| !nodes.contains_key(*only)) {
            nodes.insert(only.clone(), NodeState::Cannot(ABSENT.to_owned()));
        }
        let mut flows: Vec<Arc<Flow>> = watch.recent.iter().map(Arc::clone).collect();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.event.time_ns));
        View { flows, nodes }
    }
}

/// Somebody who reads a watch as it goes. The watch goes on for as long as this lives.
#[derive(Debug)]
pub struct Reader {
    hub: Hub,
    watch: u64,
    flows: broadcast::Receiver<Arc<Flow>>,
}

impl Reader {
    /// The next packet, or how many were left out because this reader was too slow for them.
    pub async fn next(&mut self) -> Result<Arc<Flow>, u64> {
        match self.flows.recv().await {
            Ok(flow) => Ok(flow),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(missed),
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// What nodes say.
    pub fn nodes(&self) -> BTreeMap<String, NodeState> {
        self.hub.lock().view(self.watch).nodes
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if let Some(watch) = state.watches.get_mut(&self.watch) {
            watch.readers -= 1;
        }
        state.tidy(Instant::now());
        state.order();
    }
}

#[cfg(test)]
mod tests;
