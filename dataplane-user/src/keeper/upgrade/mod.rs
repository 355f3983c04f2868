//! A new worker beside the one that serves, of the same release or another.
//!
//! | step | fails when | then |
//! |---|---|---|
//! | wait until no snapshot is between two states; further ones wait | - | - |
//! | where the keeper is replaced too: try the new one ([`trial`]) | it is no keeper, or does not understand this one | nothing has changed |
//! | start the new program with all a worker needs | it is no program, cannot be read in time, or dies | the old worker serves on |
//! | hear that the stored snapshot is live in it | it refuses, is silent, speaks another protocol | it is ended, the old one serves on |
//! | give it the very sockets that the old one has, hear that every thread accepts | one cannot, or is silent | it finishes what it accepted, the old one serves on |
//! | let the old one retire: what is open goes on until the deadline | - | it is ended behind the deadline |
//! | the keeper becomes its next release ([`super::succeed`]) | the kernel does not run it | the old keeper goes on, with the new worker |
//!
//! Both have the same listening sockets between the last two steps, so that no queue and no entry of the kernel's tables is
//! ever without somebody who accepts. When the worker that serves dies before the last step, the upgrade is off: the next
//! worker is of the program that is known to work.

mod refusal;
pub mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::digest::Digest;
use model::snapshot::{SignedSnapshot, SnapshotId};
use tokio::time::Instant;

pub(super) use self::refusal::Refusal;
use super::launch::{Program, Source};
use super::operator::{Asked, Operator};
use super::rendezvous;
use super::run::Keeper;
use super::supervise::{Phase, Worker, WorkerNumber};
use crate::handover::ToWorker;
use crate::handover::message::Sealed;
use crate::handover::operator::{DEADLINE, LONGEST, Part, ToNode, ToOperator};
use crate::handover::succession::Proposed;

/// How long a new worker may take until it is ready: it builds the snapshot in force, certificates and all.
const READY: Duration = Duration::from_secs(30);

/// How long its threads may take to accept on the sockets they were given.
const ACCEPTS: Duration = Duration::from_secs(5);

/// How long the keeper may wait for a moment in which nothing is between two states.
const CALM: Duration = Duration::from_secs(10);

/// How much longer than its deadline a former worker may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Former workers that may finish side by side; each holds memory and connections.
const MOST_FORMER: usize = 3;

/// An upgrade on its way.
#[derive(Debug)]
pub struct Upgrade {
    source: Source,
    /// What was started.
    program: Option<Arc<Program>>,
    deadline_ms: u32,
    only: Option<Part>,
    operator: Option<Operator>,
    stage: Stage,
    /// What the worker that serves proposed meanwhile, last.
    held_back: Option<Proposal>,
}

type Proposal = (WorkerNumber, SignedSnapshot, BTreeMap<Digest, Sealed>);

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// A snapshot is between two states.
    Waiting,
    /// The next release's keeper is asked whether it can go on.
    Trying { trial: WorkerNumber },
    /// It has no sockets yet.
    Starting { worker: WorkerNumber, until: Instant },
    /// It has the sockets, and so has the worker that serves.
    Confirming { worker: WorkerNumber, until: Instant },
    /// The keeper is to be replaced as soon as nothing is between two states.
    Succeeding { until: Instant },
}

impl Upgrade {
    /// Who asked for it.
    pub(super) fn operator(&self) -> Option<&Operator> {
        self.operator.as_ref()
    }
}

impl Stage {
    fn worker(self) -> Option<(WorkerNumber, Instant)> {
        match self {
            Self::Waiting | Self::Trying { .. } | Self::Succeeding { .. } => None,
            Self::Starting { worker, until } | Self::Confirming { worker, until } => Some((worker, until)),
        }
    }
}

impl Keeper {
    /// Somebody asked at `control.sock`.
    pub(super) async fn answer(&mut self, asked: Asked) {
        let Asked { message: ToNode::Upgrade { path, deadline_ms, only }, pid, descriptors, operator } =
            asked;
        // Without root a worker has the keeper's own user id, and must not have a program started outside its sandbox.
        let workers = rendezvous::astray(&self.run, &self.workers);
        if workers.contains(&pid) || self.workers.values().any(|worker| worker.pid == pid) {
            return tracing::error!(pid, "a worker asked for an upgrade; it is refused");
        }
        let begun = match descriptors.into_iter().next() {
            Some(file) => {
                let source = Source::Open(Arc::new(Program::new(path.into(), file)));
                self.begin_upgrade(source, (deadline_ms, only), Some(operator.clone())).await
            }
            None => Err(Refusal::NoProgram),
        };
        if let Err(refusal) = begun {
            refuse(Some(&operator), &refusal).await;
        }
    }

    /// `SIGHUP`: the program that is installed now.
    pub(super) async fn hang_up(&mut self) {
        let source = Source::At(self.installed.clone());
        if let Err(refusal) = self.begin_upgrade(source, (DEADLINE.saturating_mul(1000), None), None).await {
            refuse(None, &refusal).await;
        }
    }

    async fn begin_upgrade(
        &mut self,
        source: Source,
        (deadline_ms, only): (u32, Option<Part>),
        operator: Option<Operator>,
    ) -> Result<(), Refusal> {
        let former = self.workers.values().filter(|worker| worker.phase == Phase::Draining).count();
        let busy = self.upgrade.is_some() || self.current.is_none();
        match (self.stop_at.is_some(), busy, former >= MOST_FORMER && only != Some(Part::Keeper)) {
            (true, ..) => return Err(Refusal::Stopping),
            (false, true, _) => return Err(Refusal::Busy),
            (false, false, true) => return Err(Refusal::TooMany),
            (false, false, false) => {}
        }
        let deadline_ms = deadline_ms.min(LONGEST.saturating_mul(1000));
        tracing::info!(path = %source.path().display(), deadline_ms, "upgrade begins");
        self.store.say("RELOADING=1");
        let (stage, program, held_back) = (Stage::Waiting, None, None);
        self.upgrade = Some(Upgrade { source, program, deadline_ms, only, operator, stage, held_back });
        self.advance_upgrade().await;
        Ok(())
    }

    /// Begins as soon as no snapshot is between two states.
    pub(super) async fn advance_upgrade(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if !matches!(upgrade.stage, Stage::Waiting) || self.transition.is_some() {
            return;
        }
        if upgrade.only == Some(Part::Worker) {
            return self.start_next().await;
        }
        let source = upgrade.source.clone();
        match self.launch_trial(source) {
            Ok(trial) => self.enter_stage(Stage::Trying { trial }),
            Err(error) => self.give_up(&Refusal::Start(error.into())).await,
        }
    }

    /// Starts the new worker.
    async fn start_next(&mut self) {
        let Some(upgrade) = &self.upgrade else { return };
        // The program that was tried, whatever is under its name now.
        let source = upgrade.program.clone().map_or_else(|| upgrade.source.clone(), Source::Open);
        match self.launch(source) {
            Ok(worker) => self.enter_stage(Stage::Starting { worker, until: Instant::now() + READY }),
            Err(error) => self.give_up(&Refusal::Start(error.into())).await,
        }
    }

    /// The program that the keeper is to become now.
    pub(super) fn succeeds_by(&self) -> Option<Arc<Program>> {
        let upgrade = self.upgrade.as_ref()?;
        matches!(upgrade.stage, Stage::Succeeding { .. }).then(|| upgrade.program.clone()).flatten()
    }

    /// Whether nothing is between two states: no process is being started, no snapshot or worker on its way.
    pub(super) fn is_calm(&self) -> bool {
        let settled = |worker: &Worker| matches!(worker.phase, Phase::Serving | Phase::Draining);
        let idle = self.transition.is_none()
            && self.returning.is_none()
            && self.launches.is_empty()
            && self.start_at.is_none();
        idle && self.stop_at.is_none() && self.current.is_some() && self.workers.values().all(settled)
    }

    /// A snapshot that waits for the next release.
    pub(super) fn held_back(&self) -> Option<Box<Proposed>> {
        let (worker, snapshot, keys) = self.upgrade.as_ref()?.held_back.clone()?;
        Some(Box::new(Proposed { worker, snapshot, keys }))
    }

    fn enter_stage(&mut self, stage: Stage) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.stage = stage;
        }
    }

    /// The program runs.
    pub(super) async fn upgrade_started(&mut self, number: WorkerNumber, program: Arc<Program>) {
        if self.is_next(number)
            && let (Some(upgrade), Some(worker)) = (&mut self.upgrade, self.workers.get(&number))
        {
            let text = format!("worker {} started from {}", worker.pid, program.path().display());
            upgrade.program = Some(program);
            self.progress(text).await;
        }
    }

    /// Whether this is the worker that an upgrade waits for.
    pub(super) fn is_next(&self, number: WorkerNumber) -> bool {
        let next = self.upgrade.as_ref().and_then(|upgrade| upgrade.stage.worker());
        next.is_some_and(|(worker, _)| worker == number)
    }

    /// Keeps a proposal until it is known which worker serves; gives it back where there is nothing to wait for.
    pub(super) fn hold_back(
        &mut self,
        number: WorkerNumber,
        signed: SignedSnapshot,
        keys: BTreeMap<Digest, Sealed>,
    ) -> Option<(SignedSnapshot, BTreeMap<Digest, Sealed>)> {
        match &mut self.upgrade {
            Some(upgrade) => {
                upgrade.held_back = Some((number, signed, keys));
                None
            }
            None => Some((signed, keys)),
        }
    }

    /// The new worker has built what it was given: it gets the sockets, or is let go.
    pub(super) async fn complete(
        &mut self,
        number: WorkerNumber,
        live: Option<SnapshotId>,
        problem: Option<String>,
    ) {
        let stored = self.state.stored().map(|stored| stored.snapshot.clone());
        if problem.is_some() || live != stored.as_ref().map(|snapshot| snapshot.id) {
            let why = problem.unwrap_or_else(|| "it made another one live".to_owned());
            return self.give_up(&Refusal::Snapshot(why)).await;
        }
        // The worker that serves may have had a problem with it.
        self.in_force = stored;
        self.enter_stage(Stage::Confirming { worker: number, until: Instant::now() + ACCEPTS });
        self.offer(number).await;
    }

    /// The new worker accepts on everything it was given, or cannot.
    pub(super) async fn confirmed(&mut self, number: WorkerNumber, problem: Option<String>) {
        match problem {
            None => self.take_over(number).await,
            Some(problem) => self.give_up(&Refusal::Deaf(problem)).await,
        }
    }

    /// Whether both the worker that serves and this one have the sockets.
    pub(super) fn is_confirming(&self, number: WorkerNumber) -> bool {
        let stage = self.upgrade.as_ref().map(|upgrade| upgrade.stage);
        matches!(stage, Some(Stage::Confirming { worker, .. }) if worker == number)
    }

    async fn take_over(&mut self, number: WorkerNumber) {
        let Some(upgrade) = &mut self.upgrade else { return };
        // What the former worker proposed the new one hears from the console itself.
        upgrade.held_back = None;
        let (deadline_ms, program) = (upgrade.deadline_ms, upgrade.program.clone());
        let former = self.current;
        self.put_to_work(number, deadline_ms).await;
        if let Some(program) = program {
            self.program = program;
        }
        let said = |worker: &Worker| (worker.pid, worker.release.clone());
        let (pid, release) = self.workers.get(&number).map(said).unwrap_or_default();
        let mut text = format!("worker {pid} (release {release}) serves");
        if let Some((pid, _)) = former.and_then(|former| self.workers.get(&former)).map(said) {
            let seconds = deadline_ms / 1000;
            text = format!("{text}; worker {pid} finishes what is open within {seconds} seconds");
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.only.is_none()) {
            self.enter_stage(Stage::Succeeding { until: Instant::now() + CALM });
            return self.progress(text).await;
        }
        tracing::info!("{text}");
        if let Some(operator) = self.upgrade.take().and_then(|upgrade| upgrade.operator) {
            operator.tell(&ToOperator::Done { text }).await;
        }
    }

    /// Forgets what waits for an upgrade, which the console offers again; whether a worker is to take over.
    pub(super) fn drop_held_back(&mut self) -> bool {
        let Some(upgrade) = &mut self.upgrade else { return false };
        upgrade.held_back = None;
        upgrade.stage.worker().is_some()
    }

    /// Ends an upgrade that fails; whatever served before serves on.
    pub(super) async fn give_up(&mut self, refusal: &Refusal) {
        let Some(upgrade) = self.upgrade.take() else { return };
        match upgrade.stage {
            Stage::Waiting | Stage::Succeeding { .. } => {}
            Stage::Trying { trial } => drop(self.launches.remove(&trial)),
            Stage::Starting { worker, .. } => {
                self.launches.remove(&worker);
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.phase = Phase::Draining;
                    worker.kill();
                }
            }
            // Some of its threads may have accepted something.
            Stage::Confirming { worker, .. } => {
                let deadline_ms = self.drain_ms();
                self.retire(worker, deadline_ms).await;
            }
        }
        self.store.say("READY=1");
        refuse(upgrade.operator.as_ref(), refusal).await;
        if let Some((number, signed, keys)) = upgrade.held_back {
            self.consider(number, signed, keys).await;
        }
    }

    /// The worker that served is gone. Whether the new one would work is not known, and nobody accepts meanwhile.
    pub(super) async fn serving_died(&mut self) {
        self.give_up(&Refusal::Died).await;
    }

    /// The node stops: no worker of an upgrade takes over any more, and no snapshot that waited for it.
    pub(super) async fn abandon_upgrade(&mut self) {
        self.drop_held_back();
        self.give_up(&Refusal::Stopping).await;
    }

    /// Once a second: who has had enough time.
    pub(super) async fn check_time(&mut self) {
        match self.upgrade.as_ref().map(|upgrade| upgrade.stage) {
            Some(Stage::Starting { until, .. }) if until <= Instant::now() => {
                self.give_up(&Refusal::Silent).await;
            }
            Some(Stage::Confirming { until, .. }) if until <= Instant::now() => {
                let seconds = ACCEPTS.as_secs();
                self.give_up(&Refusal::Deaf(format!("it has not said so for {seconds} seconds"))).await;
            }
            Some(Stage::Succeeding { until }) if until <= Instant::now() => {
                self.give_up(&Refusal::Restless).await;
            }
            Some(_) | None => {}
        }
        let late = |worker: &&Worker| worker.until.is_some_and(|until| until <= Instant::now());
        for worker in self.workers.values().filter(late) {
            let pid = worker.pid;
            match worker.phase {
                Phase::Draining => {
                    tracing::warn!(pid, "a former worker has not ended at its deadline; it is stopped");
                }
                Phase::Connected | Phase::Starting | Phase::Serving => {
                    tracing::warn!(
                        pid,
                        "a worker that came back does not hand its sockets back; it is stopped"
                    );
                }
            }
            worker.kill();
        }
    }

    /// Lets a worker go whose sockets another one has.
    pub(super) async fn retire(&mut self, number: WorkerNumber, deadline_ms: u32) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.phase = Phase::Draining;
        worker.until = Some(Instant::now() + Duration::from_millis(deadline_ms.into()) + GRACE);
        self.say(number, &ToWorker::Retire { deadline_ms }, &[]).await;
    }

    async fn progress(&self, text: String) {
        tracing::info!("{text}");
        if let Some(operator) = self.upgrade.as_ref().and_then(|upgrade| upgrade.operator.as_ref()) {
            operator.tell(&ToOperator::Progress { text }).await;
        }
    }
}

async fn refuse(operator: Option<&Operator>, refusal: &Refusal) {
    let reason = crate::sentence(refusal);
    tracing::error!(reason, "no upgrade; what ran before goes on");
    if let Some(operator) = operator {
        operator.tell(&ToOperator::Refused { reason }).await;
    }
}
