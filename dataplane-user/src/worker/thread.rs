//! One worker thread: a current-thread runtime with its own sockets, origin pool and figures.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use model::name::{HostName, Name};
use model::snapshot::SnapshotId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

pub use crate::worker::hops::Stop;

use crate::worker::accept::Acceptor;
use crate::worker::hops::{Tell, ThreadCtx};
use crate::worker::http::guard::Flood;
use crate::worker::live::{Live, OriginLive};
use crate::worker::observe::{Exchange, Observe, Shard};
use crate::worker::origin::reach::Unreached;
use crate::worker::origin::resolve::Known;
use crate::worker::overload::Refusing;
use crate::worker::refusal::Reason;

/// The longest a log line waits in a thread.
const FLUSH: Duration = Duration::from_millis(100);
/// What connections have, behind their deadline, to end in an orderly way.
const GRACE: Duration = Duration::from_millis(200);

/// Everything a thread is given.
pub struct ThreadStart {
    /// Its number, from 0.
    pub index: usize,
    /// The snapshot in force.
    pub live: Arc<ArcSwap<Live>>,
    /// Its listening sockets come and go.
    pub sockets: mpsc::UnboundedReceiver<SocketChange>,
    /// Whether and how to end. The sender's end means [`Stop::Now`].
    pub stop: watch::Receiver<Stop>,
    /// Where figures and log lines go.
    pub observe: Arc<Observe>,
    /// Told after `live` was changed.
    pub changed: watch::Receiver<SnapshotId>,
}

/// A change of a thread's listening sockets. The accepted socket's local address says which listener it belongs to.
#[derive(Debug)]
pub enum SocketChange {
    /// Accept here too.
    Add {
        /// Unique in the process.
        id: u64,
        /// The thread's own.
        socket: TcpListener,
    },
    /// Take what waits here, then close it.
    Remove {
        /// As it was added.
        id: u64,
    },
    /// Say so when everything before this is done.
    Settled {
        /// Hears the first socket's problem since the question before, one sentence.
        say: oneshot::Sender<Option<String>>,
    },
}

/// Runs a thread until it is told to stop. Blocks.
///
/// # Errors
/// The runtime cannot be made.
pub fn run(start: ThreadStart) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work(start))
}

async fn work(start: ThreadStart) -> io::Result<()> {
    let ThreadStart { index, live, mut sockets, mut stop, observe, mut changed } = start;
    let shard =
        observe.shard(index).map(Rc::new).ok_or_else(|| io::Error::other("no figures for this thread"))?;
    let ctx = Rc::new(ThreadCtx::new(live, Box::new(Teller(Rc::clone(&shard))), observe.memory()));
    let acceptor = Acceptor::new(Rc::clone(&ctx), Rc::clone(&shard));
    let housekeeping = (Rc::clone(&ctx), stop.clone(), changed.clone());
    spawn_local(async move {
        let (ctx, stop, changed) = housekeeping;
        ctx.housekeep(stop, changed).await;
    });
    spawn_local(look_around(Rc::clone(&ctx), Rc::clone(&shard)));
    let (mut more, mut snapshots, mut deaf) = (true, true, None);
    let deadline = loop {
        tokio::select! {
            change = sockets.recv(), if more => match change {
                Some(SocketChange::Add { id, socket }) => {
                    if let Err(error) = acceptor.add(id, socket) {
                        tracing::error!(%error, id, "a listening socket cannot be used");
                        deaf.get_or_insert_with(|| format!("a listening socket cannot be used: {error}"));
                    }
                }
                Some(SocketChange::Remove { id }) => acceptor.remove(id),
                // Nobody waits for the answer of a worker that is about to end.
                Some(SocketChange::Settled { say }) => drop(say.send(deaf.take())),
                None => more = false,
            },
            told = changed.changed(), if snapshots => {
                snapshots = told.is_ok();
                shard.prune(&ctx.live.load());
            }
            told = stop.changed() => match told.map(|()| *stop.borrow_and_update()) {
                Ok(Stop::Run | Stop::Drained) => {}
                Ok(Stop::Drain { deadline } | Stop::Retire { deadline }) => break deadline,
                Ok(Stop::Now) | Err(_) => return Ok(()),
            },
        }
    };
    acceptor.remove_all();
    // The sockets' tasks take what waits in their queues before the count of open connections is looked at.
    tokio::task::yield_now().await;
    tokio::select! {
        () = acceptor.ended() => {}
        () = tokio::time::sleep_until(deadline + GRACE) => {}
        () = now(&mut stop) => {}
    }
    shard.flush();
    Ok(())
}

/// Hands on log lines, makes room for what other threads refused, and looks how late the thread is.
async fn look_around(ctx: Rc<ThreadCtx>, shard: Rc<Shard>) {
    let mut refusing = Refusing::Nothing;
    loop {
        let due = Instant::now() + FLUSH;
        tokio::time::sleep_until(due).await;
        ctx.overload.woke(due.elapsed());
        ctx.idle.make_room_for_others();
        shard.flush();
        let now = ctx.overload.refusing();
        shard.refusing(now, if now > Refusing::Nothing { ctx.overload.why() } else { String::new() });
        if now != std::mem::replace(&mut refusing, now) {
            tracing::warn!(refusing = now.name(), signals = ctx.overload.signals(), "overload");
        }
    }
}

/// Waits for [`Stop::Now`].
async fn now(stop: &mut watch::Receiver<Stop>) {
    // An error means that the sender is gone, which means the same.
    let _ = stop.wait_for(|stop| *stop == Stop::Now).await;
}

/// What the path tells goes to the thread's shard.
struct Teller(Rc<Shard>);

impl Tell for Teller {
    fn exchange(&self, exchange: &Exchange<'_>) {
        self.0.exchange(exchange);
    }

    fn passed(&self, connection: &Exchange<'_>) {
        self.0.passed(connection);
    }

    fn refused(&self, reason: Reason, listener: &Name) {
        tracing::debug!(%listener, reason = reason.name(), "connection ended");
        self.0.refused(reason);
    }

    fn flood(&self, flood: Flood, listener: &Name) {
        tracing::debug!(%listener, reason = Reason::Http2Abuse.name(), kind = flood.name(), "connection ended");
        self.0.flood(flood);
    }

    fn denied(&self, rule: u32, listener: &Name) {
        tracing::debug!(%listener, rule, "connection denied by a new snapshot");
        self.0.denied(rule);
    }

    fn origin(&self, origin: &OriginLive, outcome: Result<SocketAddr, &Unreached>) {
        self.0.origin(origin, outcome.map_err(|unreached| unreached.sentence.as_str()));
    }

    fn resolved(&self, name: &HostName, known: &Known) {
        self.0.resolved(name, &known.addresses, known.stale_since);
    }
}
