//! The worker's control thread: obeys the keeper, follows the console, hands snapshots from one to the other.
//!
//! A snapshot from the console is verified, its missing keys are fetched, it is built; then the keeper decides. Only
//! one is on its way at a time: while it is, nothing more is read from the link.

mod keeper;
#[cfg(test)]
mod unstarted;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::link::NodeMessage;
use model::name::Name;
use model::report::{Feature, Overload};
use model::snapshot::{SignedSnapshot, Snapshot, SnapshotId};
use rustls::RootCertStore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::admin::Admin;
use super::console::Console;
use super::flows::Flows;
use super::keeper_link::{Heard, KeeperChannel, KeeperLink};
use super::live::Live;
use super::observe::Observe;
use super::overload::Memory;
use super::proposal::{Fetching, Proposal, ProposalError};
use super::reporter::Reporter;
use super::sandbox;
use super::threads::{Ended, Settling, Threads};
use super::vault::Vault;
use crate::handover::message::{Attachment, NodeIdentity, Secrets, Start};
use crate::handover::{self, ToKeeper, ToWorker};
use crate::sentence;

/// Why a worker ends other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The kernel's word.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The keeper was gone before it had said what to do, or does not want this worker.
    #[error("the keeper has no work for this worker")]
    NotWanted,
    /// A thread of the path ended.
    #[error("thread {0} ended: {1}")]
    Thread(usize, String),
    /// The sealing key.
    #[error(transparent)]
    Vault(#[from] super::vault::VaultError),
}

/// Runs a worker on the channel it was started with.
///
/// # Errors
/// See [`WorkerError`].
pub fn run(channel: OwnedFd) -> Result<(), WorkerError> {
    let failed = |what| move |source| WorkerError::Io { what, source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("starting"))?;
    runtime.block_on(async {
        let mut keeper = KeeperLink::new(KeeperChannel::new(channel).map_err(failed("opening the channel"))?);
        let hello = ToKeeper::Hello {
            oldest: handover::OLDEST,
            newest: handover::VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            running: None,
        };
        keeper.say(&hello, &[]).await;
        let Heard::Said(message, descriptors) = keeper.hear().await else {
            return Err(WorkerError::NotWanted);
        };
        let ToWorker::Start(start) = *message else { return Err(WorkerError::NotWanted) };
        let (ended, endings) = mpsc::unbounded_channel();
        let mut control = Control::new(keeper, *start, descriptors, &ended)?;
        control.begin().await;
        control.follow(endings).await
    })
}

/// Everything the control thread knows.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) keeper: KeeperLink,
    pub(super) threads: Threads,
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) vault: Vault,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) identity: Option<NodeIdentity>,
    /// What is settled; the keeper has stored it.
    pub(super) settled: Option<Snapshot>,
    pub(super) proposal: Option<Proposal>,
    /// Its keys are on their way.
    pub(super) fetching: Option<Fetching>,
    /// From which revision the node went back by itself, and why; until the console has been told.
    pub(super) went_back: Option<(SnapshotId, String)>,
    pub(super) console: Console,
    pub(super) reporter: Reporter,
    pub(super) flows: Flows,
    observe: Arc<Observe>,
    stored: Option<Box<SignedSnapshot>>,
    pub(super) secrets: Secrets,
    pub(super) labels: BTreeMap<String, String>,
    features: Vec<Feature>,
    draining: bool,
    /// The keeper waits for the threads to accept.
    settling: Option<Settling>,
    /// It was given sockets once.
    accepts: bool,
    metrics: Option<JoinHandle<()>>,
    /// Held for as long as the process lives.
    _lock: Option<OwnedFd>,
}

impl Control {
    fn new(
        mut keeper: KeeperLink,
        mut start: Start,
        descriptors: Vec<OwnedFd>,
        ended: &mpsc::UnboundedSender<Ended>,
    ) -> Result<Self, WorkerError> {
        let failed = |what| move |source| WorkerError::Io { what, source };
        let mut attached: BTreeMap<_, _> =
            start.attached.drain(..).map(|a| a as u8).zip(descriptors).collect();
        let mut take = |attachment: Attachment| attached.remove(&(attachment as u8));
        if let Some(directory) = take(Attachment::RunDirectory) {
            keeper.set_run_directory(directory);
        }
        let (lock, access_log, metrics) =
            (take(Attachment::Lock), take(Attachment::AccessLog), take(Attachment::Metrics));
        let vault = Vault::new(&start.secrets.sealing_key)?;
        let roots = Arc::new(system_roots());
        let memory = Memory::of_this_process(start.memory_limit);
        // Every file the worker ever opens is open by now, and there is one thread only.
        let features = sandbox::enter();
        let live = Arc::new(ArcSwap::from_pointee(Live::empty()));
        let log = access_log.or_else(|| io::stdout().as_fd().try_clone_to_owned().ok());
        let observe =
            Observe::new(start.threads, Arc::clone(&live), log).map_err(failed("starting the access log"))?;
        let observe = Arc::new(observe.with_memory(memory));
        tokio::spawn(observe.memory().watch());
        let threads =
            Threads::start(start.threads, &live, &observe, ended).map_err(failed("starting threads"))?;
        let token = start.secrets.metrics.take();
        let metrics = metrics.map(|socket| serve_metrics(socket, token, &observe));
        Ok(Self {
            keeper,
            threads,
            live,
            vault,
            roots,
            identity: start.identity.take().map(|identity| *identity),
            settled: None,
            proposal: None,
            fetching: None,
            went_back: None,
            console: Console::new(),
            flows: Flows::default(),
            reporter: Reporter::new(Arc::clone(&observe)),
            observe,
            stored: start.snapshot.take(),
            secrets: std::mem::take(&mut start.secrets),
            labels: std::mem::take(&mut start.labels),
            features,
            draining: false,
            settling: None,
            accepts: false,
            metrics,
            _lock: lock,
        })
    }

    /// Makes the stored snapshot live, then says so.
    async fn begin(&mut self) {
        let problem = match self.stored.take() {
            Some(stored) => self.load(&stored).err().map(|error| sentence(&error)),
            None => None,
        };
        let live = self.settled.as_ref().map(|snapshot| snapshot.id);
        let features = self.features.clone();
        self.keeper.say(&ToKeeper::Ready { live, problem, features }, &[]).await;
    }

    /// The keeper has verified it, with this key or the one before.
    pub(super) fn load(&mut self, stored: &SignedSnapshot) -> Result<(), ProposalError> {
        let snapshot = Snapshot::from_verified_json(&stored.body).map_err(ProposalError::Stored)?;
        let sealed = std::mem::take(&mut self.secrets.keys);
        for (digest, sealed) in &sealed {
            if let Err(error) = self.vault.unseal_key(*digest, sealed) {
                tracing::error!(key = %digest, error = sentence(&error), "a stored key");
            }
        }
        let live = Live::build(snapshot.clone(), self.vault.keys(), &self.roots, Some(&*self.live.load()))?;
        self.make_live(Arc::new(live));
        self.settle(snapshot);
        Ok(())
    }

    pub(super) fn make_live(&self, live: Arc<Live>) -> Arc<Live> {
        let id = live.id;
        let former = self.live.swap(live);
        self.threads.announce(id);
        former
    }

    /// Takes a snapshot as the one the keeper has stored. One on trial counts as applied when it is confirmed: a console that is
    /// met anew sends it once more, and so tells of the confirmation.
    pub(super) fn settle(&mut self, snapshot: Snapshot) {
        let named: BTreeSet<_> = snapshot.certificates.iter().map(|certificate| certificate.key).collect();
        self.vault.retain(&named);
        if snapshot.trial_ms.is_none() {
            self.console.applied.send_replace(Some(snapshot.id));
        }
        self.settled = Some(snapshot);
    }

    async fn follow(mut self, mut endings: mpsc::UnboundedReceiver<Ended>) -> Result<(), WorkerError> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                heard = self.keeper.hear() => match heard {
                    Heard::Said(message, descriptors) => self.obey(*message, descriptors).await?,
                    // It was to take over and never did: whoever served before is there for the next keeper.
                    Heard::Another if !self.accepts => return Err(WorkerError::NotWanted),
                    Heard::Another => self.introduce().await,
                    Heard::Alone => return Err(WorkerError::NotWanted),
                },
                // While a snapshot is on its way the link waits: flow control holds the console back.
                Some(event) = self.console.events.recv(), if self.proposal.is_none() && self.fetching.is_none() => {
                    self.hear_console(event).await
                }
                Some((offer, keys)) = Fetching::done(&mut self.fetching) => self.take(offer, keys).await,
                problem = Settling::done(&mut self.settling) => self.accepting(problem).await,
                Some(ended) = endings.recv() => {
                    let last = self.threads.note_end();
                    if let Some(problem) = ended.problem.or((!self.draining).then(|| "without a reason".to_owned())) {
                        return Err(WorkerError::Thread(ended.index, problem));
                    }
                    if last {
                        tracing::info!("all connections are finished");
                        return Ok(());
                    }
                }
                _ = tick.tick() => self.tick().await,
            }
        }
    }

    /// What the keeper says.
    async fn obey(&mut self, message: ToWorker, descriptors: Vec<OwnedFd>) -> Result<(), WorkerError> {
        match message {
            ToWorker::Start(_) | ToWorker::Incompatible { .. } => return Err(WorkerError::NotWanted),
            ToWorker::Resume { identity, stored } => {
                self.resume(identity.map(|identity| *identity), stored).await
            }
            ToWorker::AddSockets { sockets } => {
                self.accepts = true;
                for (info, descriptor) in sockets.into_iter().zip(descriptors) {
                    let added = self.threads.add(info, descriptor);
                    added.map_err(|source| WorkerError::Io { what: "taking over a socket", source })?;
                }
            }
            ToWorker::Accept => {
                self.accepts = true;
                self.settling = Some(self.threads.settled());
            }
            ToWorker::RemoveSockets { ids } => ids.into_iter().for_each(|id| self.threads.remove(id)),
            ToWorker::Commit { id } => self.commit(id).await,
            ToWorker::Settled { id } => self.settled(id).await,
            ToWorker::Rejected { id, reason } => self.rejected(id, reason).await,
            ToWorker::GoBack { snapshot, keys } => self.go_back(&snapshot, keys).await,
            ToWorker::WentBack { id, reason } => {
                self.went_back = Some((id, reason));
                self.tell_of_return().await;
            }
            ToWorker::Figures { drops, features, listeners, syn_pressure, filters } => {
                self.observe.keeper(filters, &listeners);
                self.reporter.take(drops, features, listeners, syn_pressure);
            }
            ToWorker::Senders(senders) => self.reporter.take_senders(*senders),
            ToWorker::Flows { packets, counts, problem, refused } => {
                self.flows.take(&packets, counts);
                refused.into_iter().for_each(|(watch, reason)| self.flows.refused(watch, reason));
                if let Some(problem) = problem {
                    self.flows.cannot(problem);
                }
            }
            ToWorker::AccessLog => {
                if let Some(file) = descriptors.into_iter().next() {
                    self.observe.reopen_log(file);
                }
            }
            ToWorker::KeyStored { key } => {
                if let Some(identity) = &mut self.identity {
                    identity.snapshot_key = key;
                }
                self.tell_console(NodeMessage::KeyRotated { key }).await;
            }
            ToWorker::NotStored { reason } => tracing::error!(reason, "the keeper could not store something"),
            ToWorker::Drain { deadline_ms } => {
                self.draining = true;
                self.threads.drain(Instant::now() + Duration::from_millis(deadline_ms.into()));
            }
            ToWorker::Retire { deadline_ms } => self.retire(deadline_ms),
        }
        Ok(())
    }

    /// Another worker serves from now on.
    fn retire(&mut self, deadline_ms: u32) {
        self.draining = true;
        self.threads.retire(Instant::now() + Duration::from_millis(deadline_ms.into()));
        self.leave_console();
        // A scraper is to meet the worker that serves.
        if let Some(metrics) = self.metrics.take() {
            metrics.abort();
        }
    }

    /// Every thread has taken up its sockets, or one could not. What the console says comes after this word to the keeper.
    async fn accepting(&mut self, problem: Option<String>) {
        let serves = problem.is_none() && !self.draining;
        self.keeper.say(&ToKeeper::Accepting { problem }, &[]).await;
        if serves {
            self.follow_console();
        }
    }

    /// What is refused for too much to do.
    pub(super) fn overload(&self) -> Option<Overload> {
        self.observe.overload()
    }

    pub(super) fn node(&self) -> Option<(&Name, &model::digest::Digest)> {
        self.identity.as_ref().map(|identity| (&identity.node, &identity.snapshot_key))
    }
}

/// Metrics and health are this thread's: threads of the path have no time for them.
fn serve_metrics(socket: OwnedFd, token: Option<String>, observe: &Arc<Observe>) -> JoinHandle<()> {
    let serving = Admin::serve(socket.into(), token.map(Zeroizing::new), Arc::clone(observe));
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "metrics and health are not served");
        }
    })
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "this machine's roots");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}
