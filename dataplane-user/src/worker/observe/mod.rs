//! What the worker says of itself: access log, metrics, figures for the console.
//!
//! Threads write to their own [`Shard`], without locks on the path; readers take what was counted and add it up.

mod json;
mod log;
mod shard;
#[cfg(test)]
mod tests;
mod text;
mod told;
mod totals;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::report::{Drops, Leg, ListenerReport, Overload, Report, SynPressure};

use super::live::{ListenerLive, Live, OriginLive, RouteLive};
use super::overload::{Memory, Refusing};
use super::proxy::Peer;
use super::refusal::Reason;
use crate::handover::message::FilterState;

pub use shard::{Open, Shard};

use shard::{Shared, lock};
use told::Told;
use totals::Totals;

/// All figures of the process.
#[derive(Debug)]
pub struct Observe {
    live: Arc<ArcSwap<Live>>,
    shards: Vec<Arc<Shared>>,
    sink: log::Sink,
    totals: Mutex<Totals>,
    denied: AtomicU64,
    memory: Arc<Memory>,
    syn_pressure: Told<Option<SynPressure>>,
    filters: Told<Vec<FilterState>>,
    /// Why no listener accepts, where none does.
    unreachable: Told<Option<String>>,
}

impl Observe {
    /// Figures of `threads` threads that serve `live`, and an access log that goes to `log`, or nowhere.
    ///
    /// # Errors
    /// The log's writer thread cannot be started.
    pub fn new(threads: usize, live: Arc<ArcSwap<Live>>, log: Option<OwnedFd>) -> std::io::Result<Self> {
        let shards = (0..threads).map(|_| Arc::default()).collect();
        Ok(Self {
            live,
            shards,
            sink: log::Sink::new(log)?,
            totals: Mutex::default(),
            denied: AtomicU64::new(0),
            memory: Arc::default(),
            syn_pressure: Told::default(),
            filters: Told::default(),
            unreachable: Told::default(),
        })
    }

    /// Of a worker with this memory.
    pub fn with_memory(self, memory: Memory) -> Self {
        Self { memory: Arc::new(memory), ..self }
    }

    /// The worker's memory.
    pub fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }

    /// Threads that refuse at least this for too much to do.
    pub fn refusing(&self, what: Refusing) -> usize {
        let refuses = |shared: &&Arc<Shared>| Refusing::from(shared.refusing.load(Ordering::Relaxed)) >= what;
        self.shards.iter().filter(refuses).count()
    }

    /// What is refused for too much to do; nothing where nothing is.
    pub fn overload(&self) -> Option<Overload> {
        let count = |what| u32::try_from(self.refusing(what)).unwrap_or(u32::MAX);
        let (connections, requests) = (count(Refusing::Connections), count(Refusing::Requests));
        let most = self.shards.iter().max_by_key(|shared| shared.refusing.load(Ordering::Relaxed))?;
        let why = lock(&most.refusing_for).clone();
        (connections > 0).then_some(Overload { connections, requests, why })
    }

    /// The end of one thread, which alone may use it. Nothing for an index that is not below `threads`.
    pub fn shard(&self, index: usize) -> Option<Shard> {
        self.shards.get(index).map(|shared| Shard::new(self, Arc::clone(shared)))
    }

    /// Kernel drops that the keeper counted since it last told.
    pub fn kernel_drops(&self, drops: &[Drops]) {
        lock(&self.totals).kernel(drops);
    }

    /// Whether SYNs of unknown sources are over their budget, as the keeper told it now.
    pub fn syn_pressure(&self, told: Option<SynPressure>) {
        self.syn_pressure.tell(told, Instant::now());
    }

    /// The packet filter on interfaces, as the keeper told it now.
    fn filters(&self, told: Vec<FilterState>) {
        self.filters.tell(told, Instant::now());
    }

    /// What the keeper told of filters and listeners.
    pub fn keeper(&self, filters: Vec<FilterState>, listeners: &[ListenerReport]) {
        self.filters(filters);
        self.listeners(listeners);
    }

    /// Where listeners accept, as the keeper told it now.
    fn listeners(&self, told: &[ListenerReport]) {
        let accepts = |one: &ListenerReport| !(one.addresses.is_empty() && one.ranges.is_empty());
        let why = |one: &ListenerReport| {
            Some(format!("listener {} does not accept: {}", one.listener, one.problem.as_ref()?))
        };
        // One that accepts is enough to be sent traffic.
        let unreachable = if told.iter().any(accepts) { None } else { told.iter().find_map(why) };
        self.unreachable.tell(unreachable, Instant::now());
    }

    /// What happened since the report before. Features, and where and how listeners accept, are the keeper's to add.
    pub fn report(&self) -> Report {
        lock(&self.totals).report(self, &self.live.load())
    }

    /// The text of `/metrics`.
    pub fn metrics_text(&self) -> String {
        self.metrics_text_at(Instant::now())
    }

    fn metrics_text_at(&self, now: Instant) -> String {
        let mut page = text::Page::new();
        let mut totals = lock(&self.totals);
        totals.collect(&self.shards);
        page.totals(&totals);
        drop(totals);
        page.present(self, &self.live.load(), now);
        page.finish()
    }

    /// Somebody asked for `/metrics` who may not see it.
    pub fn metrics_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// The access log's file was moved away: lines go here from now on.
    pub fn reopen_log(&self, file: OwnedFd) {
        self.sink.reopen(file);
    }

    /// Open client connections.
    pub fn connections(&self) -> u32 {
        let open: i64 = self.shards.iter().map(|shared| shared.open.load(Ordering::Relaxed)).sum();
        u32::try_from(open).unwrap_or_default()
    }

    /// Threads that accept.
    pub fn accepting(&self) -> usize {
        self.shards.iter().filter(|shared| shared.accepting.load(Ordering::Relaxed)).count()
    }

    /// Whether traffic can be taken: a snapshot is in force, and where it has listeners every thread accepts and connections to one of
    /// them at least arrive.
    ///
    /// # Errors
    /// Why not, one sentence.
    pub fn ready(&self) -> Result<(), String> {
        let live = self.live.load();
        if live.id.revision == 0 {
            return Err("no snapshot is in force yet".to_owned());
        }
        let (accepting, threads) = (self.accepting(), self.shards.len());
        if accepting < threads && !live.listeners.is_empty() {
            return Err(format!("{accepting} of {threads} threads accept connections"));
        }
        // Listeners that the last word was about may be gone.
        match self.unreachable.at(Instant::now()).flatten() {
            Some(why) if !live.listeners.is_empty() => Err(why),
            Some(_) | None => Ok(()),
        }
    }
}

/// One request and its answer, told once when it is over.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The listener that took it.
    pub listener: &'a ListenerLive,
    /// The route that decided, when one did.
    pub route: Option<&'a RouteLive>,
    /// The client, and the balancer that told of it.
    pub peer: Peer,
    /// The client leg.
    pub client_leg: &'a Leg,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// Sixteen hexadecimal digits, also sent as `X-Request-Id`.
    pub request_id: &'a str,
    /// Empty when the request could not be read.
    pub method: &'a str,
    /// Empty when the request could not be read.
    pub host: &'a str,
    /// The path in normal form, without the query; empty when the request could not be read.
    pub path: &'a str,
    /// The status sent; 0 when none was.
    pub status: u16,
    /// Why it was refused or broken off, when it was.
    pub refusal: Option<Reason>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// Head read to answer complete.
    pub total: Duration,
    /// Of `total`, time spent waiting for the origin.
    pub waited: Duration,
    /// The origin that answered or failed last.
    pub origin: Option<OriginPart<'a>>,
}

/// The origin's part in an exchange.
#[derive(Debug)]
pub struct OriginPart<'a> {
    /// Which.
    pub origin: &'a OriginLive,
    /// The address that was connected.
    pub address: Option<SocketAddr>,
    /// The origin leg.
    pub leg: Option<&'a Leg>,
    /// Whether the connection came from the pool.
    pub reused: bool,
    /// How many attempts were made, the answering one included.
    pub attempts: u32,
}
