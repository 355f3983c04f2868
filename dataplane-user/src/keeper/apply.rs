//! How a snapshot comes into force: kernel, sockets, worker and disk change together or not at all.
//!
//! | step | who | undone by |
//! |---|---|---|
//! | verify, bind new sockets, write the file beside the old one | keeper | dropping them |
//! | filter of the new snapshot, listeners that both have | kernel | the old plan |
//! | [`ToWorker::Commit`] -> [`ToKeeper::Live`] | worker | [`ToWorker::Rejected`] |
//! | new sockets listen, new places are steered | keeper, kernel | the old plan |
//! | rename | keeper | - |
//! | [`ToWorker::Settled`], old sockets close | keeper | - |
//!
//! A revision that waits to be confirmed comes into force like any other. That it is confirmed is the same snapshot without its
//! trial: it is stored, and nothing else changes. Where no such word comes in time, see [`super::back`].
//!
//! A denied source is thus refused before the worker says that it is, and a new listener is reachable only when the
//! worker knows it. A crash of either process before the rename leaves the old snapshot in force after the restart; a
//! worker that is ahead of a restarted keeper proposes its snapshot again.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use model::digest::Digest;
use model::filter::TooLarge;
use model::snapshot::{SignedSnapshot, Snapshot, SnapshotId};
use rustix::fs::FlockOperation;
use tokio::time::Instant;

use super::back::GoneBack;
use super::drain::accepting;
use super::kernel::KernelError;
use super::run::Keeper;
use super::sockets::{CannotOpen, Prepared};
use super::state::{Staging, StateError, Stored};
use super::status::Refused;
use super::supervise::{Phase, WorkerNumber};
use crate::handover::ToWorker;
use crate::handover::message::{Attachment, Sealed, Start};
use crate::sentence;
use crate::signed::{self, Unbelievable};

/// How long a worker may take to make a committed snapshot live.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A snapshot between the old one and being in force.
#[derive(Debug)]
pub struct Transition {
    stored: Stored,
    staged: Staging,
    prepared: Prepared,
    worker: WorkerNumber,
    deadline: Instant,
}

/// Why a snapshot is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this node was never enrolled: start it with --token-file")]
    NotEnrolled,
    #[error("another change is being applied")]
    Busy,
    #[error(transparent)]
    Unbelievable(#[from] Unbelievable),
    #[error(transparent)]
    GoneBack(#[from] GoneBack),
    #[error(transparent)]
    CannotOpen(#[from] CannotOpen),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the kernel refused the new tables")]
    Kernel(#[from] KernelError),
    #[error("a new listener cannot listen")]
    Listen(#[from] std::io::Error),
}

impl Keeper {
    /// The worker proposes a snapshot.
    pub(super) async fn consider(
        &mut self,
        number: WorkerNumber,
        signed: SignedSnapshot,
        keys: BTreeMap<Digest, Sealed>,
    ) {
        // A worker that finds a new keeper may propose what it has just proposed.
        let known =
            |transition: &Transition| transition.worker == number && transition.stored.signed == signed;
        if self.current != Some(number) || self.transition.as_ref().is_some_and(known) {
            return;
        }
        // That it is confirmed changes nothing in a worker, and an upgrade may last longer than its trial.
        let (signed, keys) = match self.is_confirmation(&signed) {
            true => (signed, keys),
            false => match self.hold_back(number, signed, keys) {
                Some(proposed) => proposed,
                None => return,
            },
        };
        if let Some(id) = self.in_force_already(&signed) {
            return self.say(number, &ToWorker::Settled { id }, &[]).await;
        }
        match self.try_begin(number, signed, &keys) {
            Ok(answer) => self.say(number, &answer, &[]).await,
            Err((id, refusal)) => self.reject(number, id, sentence(&refusal)).await,
        }
    }

    fn try_begin(
        &mut self,
        number: WorkerNumber,
        signed: SignedSnapshot,
        keys: &BTreeMap<Digest, Sealed>,
    ) -> Result<ToWorker, (SnapshotId, Refusal)> {
        let snapshot = self.verify(&signed).map_err(|refusal| (SnapshotId::default(), refusal))?;
        let id = snapshot.id;
        let offered = Stored { signed, snapshot };
        if self.transition.is_some() || self.returning.is_some() {
            return Err((id, Refusal::Busy));
        }
        if self.differs_in_trial(&offered.snapshot) {
            self.confirm(offered).map_err(|refusal| (id, refusal))?;
            return Ok(ToWorker::Settled { id });
        }
        // A worker that goes on proposing keeps no revision beyond its trial.
        if self.is_trial_over() {
            return Err((id, Refusal::Busy));
        }
        self.begin_transition(number, offered, keys).map_err(|refusal| (id, refusal))?;
        Ok(ToWorker::Commit { id })
    }

    /// The id of a snapshot that is stored and in force.
    fn in_force_already(&self, signed: &SignedSnapshot) -> Option<SnapshotId> {
        let stored = self.state.stored().filter(|stored| stored.signed == *signed)?;
        self.in_force
            .as_ref()
            .is_some_and(|in_force| in_force.id == stored.snapshot.id)
            .then_some(stored.snapshot.id)
    }

    pub(super) fn verify(&self, signed: &SignedSnapshot) -> Result<Snapshot, Refusal> {
        let identity = self.state.identity().ok_or(Refusal::NotEnrolled)?;
        Ok(signed::verify(signed, &identity.snapshot_key, &identity.node)?)
    }

    fn begin_transition(
        &mut self,
        number: WorkerNumber,
        stored: Stored,
        keys: &BTreeMap<Digest, Sealed>,
    ) -> Result<(), Refusal> {
        let id = stored.snapshot.id;
        self.check_order(&stored.snapshot)?;
        let wanted = accepting(&stored.snapshot, self.drained);
        let prepared = self.sockets.prepare(&wanted, self.in_force.as_ref())?;
        self.state.store_keys(keys, &stored.snapshot)?;
        let staged = self.state.stage(&stored)?;
        tracing::info!(epoch = id.epoch, revision = id.revision, "swap begin");
        let applied = self.enter_plan(&stored.snapshot);
        if applied.is_err() {
            // What of it was written before it failed, budgets among it, goes again.
            self.enter_filter();
            tracing::info!(epoch = id.epoch, revision = id.revision, applied = false, "swap end");
        }
        applied?;
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        self.transition = Some(Transition { stored, staged, prepared, worker: number, deadline });
        Ok(())
    }

    /// Puts a snapshot's tables in force, with the listeners that are open.
    fn enter_plan(&mut self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let plan = self.plan(snapshot)?;
        Ok(self.kernel.apply(&plan)?)
    }

    /// The worker has made the committed snapshot live.
    pub(super) async fn settle(&mut self, number: WorkerNumber, id: SnapshotId) {
        if self.is_returning(number, id) {
            return self.returned(number).await;
        }
        let ours =
            |transition: &mut Transition| transition.worker == number && transition.stored.snapshot.id == id;
        let Some(transition) = self.transition.take_if(ours) else { return };
        let (opening, closing) = (transition.prepared.opening.clone(), transition.prepared.closing.clone());
        match self.finish(transition, number).await {
            Ok(()) => {
                let ids = self.sockets.close(&closing);
                if !ids.is_empty() {
                    self.say(number, &ToWorker::RemoveSockets { ids }, &[]).await;
                }
                self.refused = None;
                self.say(number, &ToWorker::Settled { id }, &[]).await;
                tracing::info!(epoch = id.epoch, revision = id.revision, applied = true, "swap end");
            }
            Err(refusal) => {
                let ids = self.sockets.close(&opening);
                self.say(number, &ToWorker::RemoveSockets { ids }, &[]).await;
                self.enter_filter();
                tracing::info!(epoch = id.epoch, revision = id.revision, applied = false, "swap end");
                self.reject(number, id, sentence(&refusal)).await;
            }
        }
    }

    async fn finish(&mut self, transition: Transition, number: WorkerNumber) -> Result<(), Refusal> {
        let Transition { stored, staged, mut prepared, .. } = transition;
        let new = self.sockets.activate(&mut prepared)?;
        if !prepared.opening.is_empty() {
            self.enter_plan(&stored.snapshot)?;
        }
        let snapshot = stored.snapshot.clone();
        self.state.commit(staged, stored)?;
        self.note("stored snapshot", None);
        self.give_sockets(number, &new).await;
        self.in_force = Some(snapshot);
        self.problems =
            prepared.problems.iter().map(|(name, problem)| (name.clone(), sentence(problem))).collect();
        Ok(())
    }

    /// The worker could not do what it had built.
    pub(super) async fn not_live(&mut self, number: WorkerNumber, id: SnapshotId, reason: String) {
        if self.is_returning(number, id) {
            return self.not_returned(number, &reason);
        }
        if self.transition.as_ref().is_some_and(|transition| transition.worker == number) {
            self.abandon(&reason);
            self.reject(number, id, reason).await;
        }
    }

    /// Goes back to the snapshot in force; nothing else has changed yet.
    pub(super) fn abandon(&mut self, why: &str) {
        let Some(transition) = self.transition.take() else { return };
        let id = transition.stored.snapshot.id;
        self.enter_filter();
        tracing::info!(epoch = id.epoch, revision = id.revision, applied = false, why, "swap end");
    }

    /// A worker that does not answer is replaced: the next one has the snapshot in force.
    pub(super) fn check_transition(&mut self) {
        if let Some(transition) =
            self.transition.as_ref().filter(|transition| transition.deadline <= Instant::now())
        {
            tracing::error!("the worker has not made the snapshot live for ten seconds; it is stopped");
            if let Some(worker) = self.workers.get(&transition.worker) {
                worker.kill();
            }
            self.abandon("the worker did not answer");
        }
    }

    async fn reject(&mut self, number: WorkerNumber, id: SnapshotId, reason: String) {
        tracing::warn!(epoch = id.epoch, revision = id.revision, reason, "snapshot refused");
        self.refused = Some(Refused { id: Some(id), reason: reason.clone() });
        self.say(number, &ToWorker::Rejected { id, reason }, &[]).await;
    }

    /// Gives a new worker everything it needs.
    pub(super) async fn equip(&mut self, number: WorkerNumber, version: u32) {
        let mut secrets = match self.state.secrets() {
            Ok(secrets) => secrets,
            Err(error) => {
                self.note("sealed keys", Some(sentence(&error)));
                Default::default()
            }
        };
        let token = self.settings.metrics_token.as_ref();
        secrets.metrics = token.map(|token| token.secret().to_owned());
        self.open_metrics();
        let lock = self.run.lock("worker.lock", FlockOperation::NonBlockingLockShared).ok().flatten();
        let candidates = [
            (Attachment::RunDirectory, Some(self.run.as_fd())),
            (Attachment::Lock, lock.as_ref().map(AsFd::as_fd)),
            (Attachment::AccessLog, self.access_log.as_ref().map(AsFd::as_fd)),
            (Attachment::Metrics, self.metrics.as_ref().map(AsFd::as_fd)),
        ];
        let present =
            candidates.into_iter().filter_map(|(attachment, descriptor)| Some((attachment, descriptor?)));
        let (attached, descriptors): (Vec<Attachment>, Vec<BorrowedFd<'_>>) = present.unzip();
        let start = Start {
            version,
            threads: self.sockets.threads(),
            identity: self.state.identity().cloned().map(Box::new),
            labels: self.settings.labels.clone(),
            snapshot: self.state.stored().map(|stored| Box::new(stored.signed.clone())),
            secrets,
            attached,
            features: self.kernel.features(),
            memory_limit: self.settings.memory_limit,
        };
        self.say(number, &ToWorker::Start(Box::new(start)), &descriptors).await;
        self.tell_gone_back(number).await;
    }

    /// Gives a worker that is ready every socket it does not have; one that was started says when it accepts on them.
    pub(super) async fn offer(&mut self, number: WorkerNumber) {
        let Some(worker) = self.workers.get(&number) else { return };
        let asked = !worker.is_adopted();
        // An adopted worker has what it handed back.
        let known: Vec<u64> = match worker.is_adopted() {
            true => self.sockets.held().map(|held| held.info.id).collect(),
            false => Vec::new(),
        };
        self.open_sockets();
        let ids: Vec<u64> =
            self.sockets.held().map(|held| held.info.id).filter(|id| !known.contains(id)).collect();
        self.give_sockets(number, &ids).await;
        if asked {
            self.say(number, &ToWorker::Accept, &[]).await;
        }
    }

    /// Lets a worker serve that has its sockets, and the former one go within `deadline_ms`.
    pub(super) async fn put_to_work(&mut self, number: WorkerNumber, deadline_ms: u32) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        (worker.phase, worker.until) = (Phase::Serving, None);
        // It began with what is stored.
        self.returning = None;
        let former = self.current.replace(number);
        self.enter_sockets();
        self.enter_filter();
        if let Some(former) = former {
            self.retire(former, deadline_ms).await;
        }
        self.store.say("READY=1");
        tracing::info!(number, listeners = self.sockets.open().len(), "worker serves");
    }

    /// Opens every listener in force that can be opened; the others' reasons become their problems.
    pub(super) fn open_sockets(&mut self) -> Vec<u64> {
        if let Err(error) = self.sockets.open_steered() {
            self.note("steered sockets", Some(error.to_string()));
        }
        let Some(snapshot) = self.in_force.clone() else { return Vec::new() };
        let mut prepared = self.sockets.prepare_what_opens(&snapshot, &accepting(&snapshot, self.drained));
        let problems = std::mem::take(&mut prepared.problems);
        self.problems = problems.iter().map(|(name, problem)| (name.clone(), sentence(problem))).collect();
        match self.sockets.activate(&mut prepared) {
            Ok(ids) => {
                self.note("listeners", None);
                ids
            }
            Err(error) => {
                self.note("listeners", Some(error.to_string()));
                Vec::new()
            }
        }
    }

    /// Who has the sockets: during an upgrade two for a moment.
    pub(super) fn acceptors(&self) -> Vec<WorkerNumber> {
        let accepts = |number: &WorkerNumber| self.current == Some(*number) || self.is_confirming(*number);
        self.workers.keys().copied().filter(accepts).collect()
    }

    /// Tells the kernel which sockets are whose.
    pub(super) fn enter_sockets(&mut self) {
        if !self.sockets.steered() {
            return;
        }
        let enter = |kernel: &mut dyn super::kernel::Kernel| {
            // The places are filled before any CPU is sent to them.
            for thread in 0..self.sockets.threads() {
                if let Some((v4, v6)) = self.sockets.steered_of(thread) {
                    kernel.set_sockets(thread, v4.as_fd(), v6.as_fd())?;
                }
            }
            kernel.set_threads(self.sockets.threads())
        };
        let problem = enter(self.kernel.as_mut()).err().map(|error| sentence(&error));
        self.note("steering", problem);
    }

    pub(super) async fn rotate(&mut self, number: WorkerNumber, key: Digest, signature: &str) {
        let Some(identity) = self.state.identity() else { return };
        let stored = match signed::verify_rotation(&key, signature, &identity.snapshot_key) {
            Ok(()) => self.state.rotate(key).map_err(|error| sentence(&error)),
            Err(error) => Err(sentence(&error)),
        };
        match stored {
            Ok(()) => self.say(number, &ToWorker::KeyStored { key }, &[]).await,
            Err(reason) => self.say(number, &ToWorker::NotStored { reason }, &[]).await,
        }
    }

    pub(super) async fn tell_stored(&mut self, number: WorkerNumber, stored: Result<(), StateError>) {
        if let Err(error) = stored {
            let reason = sentence(&error);
            self.note("state", Some(reason.clone()));
            self.say(number, &ToWorker::NotStored { reason }, &[]).await;
        }
    }
}
