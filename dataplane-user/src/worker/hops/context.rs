//! What one worker thread has, and its connections share: the live handle, the origin pool, names, buffers, timers,
//! and the bell that tells connections of a stop or a new snapshot.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use arc_swap::ArcSwap;
use model::name::{HostName, Name};
use model::snapshot::SnapshotId;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, MissedTickBehavior};

use crate::worker::http::date::Date;
use crate::worker::http::guard::Flood;
use crate::worker::http::h1::ROOM;
use crate::worker::live::{Live, OriginLive};
use crate::worker::observe::Exchange;
use crate::worker::origin::pool::Pool;
use crate::worker::origin::reach::Unreached;
use crate::worker::origin::resolve::{Known, Names, System};
use crate::worker::overload::{Memory, Overload};
use crate::worker::refusal::Reason;

use super::idle::Idle;
use super::timer::Timers;

/// Where a thread tells what happened.
pub trait Tell {
    /// A request and its answer, once, when it is over.
    fn exchange(&self, exchange: &Exchange<'_>);
    /// A connection that was passed on undecrypted, once, when it is over.
    fn passed(&self, connection: &Exchange<'_>);
    /// A connection that ended, or never began, for a reason that belongs to no request.
    fn refused(&self, reason: Reason, listener: &Name);
    /// A connection that ended for [`Reason::Http2Abuse`], and which.
    fn flood(&self, flood: Flood, listener: &Name);
    /// A live connection that this packet filter rule denies now; 0 where no allow rule names its source.
    fn denied(&self, rule: u32, listener: &Name);
    /// An attempt to connect an origin.
    fn origin(&self, origin: &OriginLive, outcome: Result<SocketAddr, &Unreached>);
    /// An origin's name was resolved again, or could not be.
    fn resolved(&self, name: &HostName, known: &Known);
}

/// Whether and how a thread is to end its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Not at all.
    Run,
    /// The operator drained the node: each after what is under way, or at its listener's drain deadline. The thread lives on.
    Drained,
    /// After what is under way, or at the deadline.
    Drain {
        /// Then it is cut off.
        deadline: Instant,
    },
    /// As [`Stop::Drain`], with time: another worker accepts, so an idle connection may wait for its next request, whose
    /// answer tells it to end.
    Retire {
        /// Then it is cut off.
        deadline: Instant,
    },
    /// At once.
    Now,
}

/// One worker thread.
pub struct ThreadCtx {
    /// The snapshot in force.
    pub live: Arc<ArcSwap<Live>>,
    /// Idle origin connections and origins' health.
    pub pool: RefCell<Pool>,
    /// Origins' names.
    pub names: Names<System>,
    /// What is refused because there is too much to do.
    pub overload: Overload,
    /// Where to tell what happened.
    pub tell: Box<dyn Tell>,
    /// One buffer for all connections: nothing stays in it from one poll to the next.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    pub(crate) timers: Timers,
    /// Which connections wait for a request.
    pub(crate) idle: Rc<Idle>,
    pub(crate) date: RefCell<Date>,
    stop: Cell<Stop>,
    bell: RefCell<Bell>,
    ids: Ids,
}

#[derive(Default)]
struct Bell {
    rung: u64,
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl ThreadCtx {
    /// A thread's context.
    pub fn new(live: Arc<ArcSwap<Live>>, tell: Box<dyn Tell>, memory: Arc<Memory>) -> Self {
        Self {
            live,
            pool: RefCell::default(),
            names: Names::new(System::new()),
            overload: Overload::new(memory),
            tell,
            scratch: RefCell::new(vec![0; ROOM].into_boxed_slice()),
            timers: Timers::default(),
            idle: Rc::default(),
            date: RefCell::default(),
            stop: Cell::new(Stop::Run),
            bell: RefCell::default(),
            ids: Ids::default(),
        }
    }

    /// Follows a stop and new snapshots, resolves names again and closes idle connections. To be spawned once on the
    /// thread; ends when the sender of `stop` is gone or has said `Now`.
    pub async fn housekeep(&self, stop: watch::Receiver<Stop>, changed: watch::Receiver<SnapshotId>) {
        tokio::select! {
            () = self.follow(stop, changed) => {}
            () = self.keep_fresh() => {}
        }
    }

    async fn follow(&self, mut stop: watch::Receiver<Stop>, mut changed: watch::Receiver<SnapshotId>) {
        let mut snapshots = true;
        loop {
            let now = *stop.borrow_and_update();
            if now != self.stop.get() {
                self.set_stop(now);
            }
            if now == Stop::Now {
                return;
            }
            tokio::select! {
                told = stop.changed() => {
                    if told.is_err() {
                        return self.set_stop(Stop::Now);
                    }
                }
                told = changed.changed(), if snapshots => {
                    snapshots = told.is_ok();
                    self.ring();
                }
            }
        }
    }

    async fn keep_fresh(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.pool.borrow_mut().sweep(Instant::now());
            for (name, known) in self.names.refresh(Instant::now()).await {
                self.tell.resolved(&name, &known);
            }
        }
    }

    /// What connections are to do.
    pub fn stop(&self) -> Stop {
        self.stop.get()
    }

    /// Tells all connections.
    pub fn set_stop(&self, stop: Stop) {
        self.stop.set(stop);
        self.ring();
    }

    /// Wakes all connections: something that concerns them has changed.
    pub fn ring(&self) {
        let mut bell = self.bell.borrow_mut();
        bell.rung += 1;
        bell.seats.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    /// A place where a connection hears the bell.
    pub(crate) fn seat(&self) -> Seat<'_> {
        let mut bell = self.bell.borrow_mut();
        let at = bell.free.pop().unwrap_or(bell.seats.len());
        if at == bell.seats.len() {
            bell.seats.push(None);
        }
        Seat { ctx: self, at, heard: None }
    }

    /// The next request's id.
    pub(crate) fn request_id(&self) -> RequestId {
        self.ids.next()
    }
}

/// Request ids: a counter under SipHash with a key of the thread's own. Whoever knows some of them, as every client and origin
/// does, can tell neither the next one nor how many there have been. Two are alike as seldom as two random numbers.
#[derive(Default)]
struct Ids {
    key: RandomState,
    last: Cell<u64>,
}

impl Ids {
    fn next(&self) -> RequestId {
        self.last.set(self.last.get().wrapping_add(1));
        RequestId::new(self.key.hash_one(self.last.get()))
    }
}

/// Sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId([u8; 16]);

impl RequestId {
    fn new(number: u64) -> Self {
        let mut digits = [b'0'; 16];
        for (at, digit) in digits.iter_mut().enumerate() {
            let nibble = (number >> (60 - 4 * at)) as u8 & 15;
            *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        }
        Self(digits)
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// One connection's place at the bell.
pub(crate) struct Seat<'a> {
    ctx: &'a ThreadCtx,
    at: usize,
    heard: Option<u64>,
}

impl Seat<'_> {
    /// Whether the bell rang since the last call (the first call says yes).
    pub(crate) fn poll_rung(&mut self, cx: &Context<'_>) -> bool {
        let mut bell = self.ctx.bell.borrow_mut();
        let rung = bell.rung;
        if let Some(seat) = bell.seats.get_mut(self.at)
            && !seat.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *seat = Some(cx.waker().clone());
        }
        self.heard.replace(rung) != Some(rung)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut bell = self.ctx.bell.borrow_mut();
        if let Some(seat) = bell.seats.get_mut(self.at) {
            *seat = None;
        }
        bell.free.push(self.at);
    }
}
