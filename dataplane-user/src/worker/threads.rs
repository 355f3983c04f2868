//! The worker's threads and the sockets they accept on.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use model::snapshot::SnapshotId;
use tokio::sync::{mpsc, oneshot, watch};

use super::live::Live;
use super::observe::Observe;
use super::origin::probe;
use super::thread::{self, SocketChange, Stop, ThreadStart};
use crate::handover::message::SocketInfo;

/// All threads. The control thread keeps a duplicate of every socket, to hand back to a restarted keeper.
#[derive(Debug)]
pub struct Threads {
    changes: Vec<mpsc::UnboundedSender<SocketChange>>,
    stop: watch::Sender<Stop>,
    changed: watch::Sender<SnapshotId>,
    sockets: BTreeMap<u64, (SocketInfo, TcpListener)>,
    running: usize,
}

/// The threads' answers to one question.
#[derive(Debug)]
pub struct Settling {
    answers: VecDeque<oneshot::Receiver<Option<String>>>,
    problem: Option<String>,
}

impl Settling {
    /// What the threads in `slot` said, as soon as all have: the first problem, if there is one. Never returns while there is
    /// nobody to wait for; nothing is lost when the future is dropped.
    pub async fn done(slot: &mut Option<Self>) -> Option<String> {
        let Some(settling) = slot else { return std::future::pending().await };
        while let Some(answer) = settling.answers.front_mut() {
            let said = answer.await.unwrap_or_else(|_gone| Some("a thread has ended".to_owned()));
            settling.answers.pop_front();
            settling.problem = settling.problem.take().or(said);
        }
        slot.take().and_then(|settling| settling.problem)
    }
}

/// How a thread ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub index: usize,
    /// Why, unless it was told to.
    pub problem: Option<String>,
}

impl Threads {
    /// Starts `count` threads; `ended` is told of each one's end.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn start(
        count: usize,
        live: &Arc<ArcSwap<Live>>,
        observe: &Arc<Observe>,
        ended: &mpsc::UnboundedSender<Ended>,
    ) -> io::Result<Self> {
        let (stop, _) = watch::channel(Stop::Run);
        let (changed, _) = watch::channel(live.load().id);
        probe::start(Arc::clone(live), changed.subscribe(), stop.subscribe())?;
        let mut changes = Vec::new();
        for index in 0..count {
            let (sender, sockets) = mpsc::unbounded_channel();
            changes.push(sender);
            let start = ThreadStart {
                index,
                live: Arc::clone(live),
                sockets,
                stop: stop.subscribe(),
                observe: Arc::clone(observe),
                changed: changed.subscribe(),
            };
            let ended = ended.clone();
            std::thread::Builder::new().name(format!("path-{index}")).spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread::run(start)));
                let problem = match outcome {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_panic) => Some("it panicked".to_owned()),
                };
                // Nobody listens any more when the process is about to exit.
                let _ = ended.send(Ended { index, problem });
            })?;
        }
        Ok(Self { changes, stop, changed, sockets: BTreeMap::new(), running: count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.changes.len()
    }

    /// Gives a thread a socket to accept on.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn add(&mut self, info: SocketInfo, descriptor: OwnedFd) -> io::Result<()> {
        let ours = TcpListener::from(descriptor);
        let socket = ours.try_clone()?;
        let id = info.id;
        if let Some(thread) = self.changes.get(info.thread % self.changes.len().max(1)) {
            // A thread that is gone has been reported already.
            let _ = thread.send(SocketChange::Add { id, socket });
        }
        self.sockets.insert(id, (info, ours));
        Ok(())
    }

    /// Lets a thread empty a socket's queue and close it.
    pub fn remove(&mut self, id: u64) {
        if let Some((info, _)) = self.sockets.remove(&id)
            && let Some(thread) = self.changes.get(info.thread % self.changes.len().max(1))
        {
            let _ = thread.send(SocketChange::Remove { id });
        }
    }

    /// Has every thread say that it has taken up what it was given before, one after the other.
    pub fn settled(&self) -> Settling {
        let ask = |thread: &mpsc::UnboundedSender<SocketChange>| {
            let (say, said) = oneshot::channel();
            // A thread that is gone says nothing, which is an answer too.
            let _ = thread.send(SocketChange::Settled { say });
            said
        };
        Settling { answers: self.changes.iter().map(ask).collect(), problem: None }
    }

    /// Every socket.
    pub fn sockets(&self) -> impl Iterator<Item = (&SocketInfo, BorrowedFd<'_>)> {
        self.sockets.values().map(|(info, socket)| (info, socket.as_fd()))
    }

    /// Tells the threads that another snapshot is live.
    pub fn announce(&self, id: SnapshotId) {
        self.changed.send_replace(id);
    }

    /// Tells connections that the operator drained the node (they end, the threads live on), or put it back to work.
    pub fn set_drained(&self, on: bool) {
        let (from, to) = if on { (Stop::Run, Stop::Drained) } else { (Stop::Drained, Stop::Run) };
        // A worker that ends for good goes on ending.
        self.stop.send_if_modified(|stop| {
            let changes = *stop == from;
            if changes {
                *stop = to;
            }
            changes
        });
    }

    /// Whether the operator drained the node, as far as connections were told.
    pub fn drained(&self) -> bool {
        *self.stop.borrow() == Stop::Drained
    }

    /// Lets the threads finish what is open.
    pub fn drain(&mut self, deadline: Instant) {
        self.sockets.clear();
        self.stop.send_replace(Stop::Drain { deadline: deadline.into() });
    }

    /// The same, but another worker has taken the sockets over: see [`Stop::Retire`].
    pub fn retire(&mut self, deadline: Instant) {
        self.sockets.clear();
        self.stop.send_replace(Stop::Retire { deadline: deadline.into() });
    }

    /// Notes that one ended; whether it was the last.
    pub fn note_end(&mut self) -> bool {
        self.running = self.running.saturating_sub(1);
        self.running == 0
    }
}
