//! What workers say, and what the keeper does about it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use model::snapshot::SnapshotId;
use tokio::time::Instant;

use super::run::Keeper;
use super::settings::MAX_THREADS;
use super::sockets::Sockets;
use super::status::Refused;
use super::supervise::{Phase, WorkerEvent, WorkerNumber};
use super::upgrade::Refusal;
use crate::handover::message::{ConsoleState, Running, SocketInfo};
use crate::handover::operator::LONGEST;
use crate::handover::{self, ToKeeper, ToWorker, common_version};
use crate::sentence;

/// How long a worker that came back may take to hand its sockets back; a hanging one would keep another from taking its place.
const HANDS_BACK: Duration = Duration::from_secs(30);

impl Keeper {
    /// Something happened to a worker.
    pub(super) async fn hear(&mut self, number: WorkerNumber, event: WorkerEvent) {
        match event {
            WorkerEvent::Started(outcome) => self.started(number, outcome).await,
            WorkerEvent::Tried(outcome) => self.tried(number, outcome).await,
            WorkerEvent::Said(message, descriptors) => self.listen_to(number, message, descriptors).await,
            WorkerEvent::Silent(error) if self.holder_number == Some(number) => self.no_holder(&error),
            WorkerEvent::Silent(error) => {
                if let Some(worker) = self.workers.get(&number)
                    && !matches!(error, handover::ChannelError::Closed)
                {
                    tracing::error!(
                        pid = worker.pid,
                        error = sentence(&error),
                        "the worker breaks the protocol; it is stopped"
                    );
                    worker.kill();
                }
            }
            WorkerEvent::Exited => self.bury(number).await,
        }
    }

    /// Whether the sender may say this now. A worker meets the hostile bytes: what it says out of turn decides nothing, above
    /// all not what a former one says, which an upgrade may have replaced because it is broken.
    fn in_turn(&self, number: WorkerNumber, message: &ToKeeper) -> bool {
        let Some(worker) = self.workers.get(&number) else { return false };
        match message {
            ToKeeper::Hello { .. } => worker.phase == Phase::Connected,
            ToKeeper::Holding { .. } | ToKeeper::HandedBack => {
                worker.phase == Phase::Starting && worker.is_adopted()
            }
            ToKeeper::Ready { .. } => worker.phase == Phase::Starting && !worker.is_adopted(),
            ToKeeper::Accepting { .. } => self.current == Some(number) || self.is_confirming(number),
            ToKeeper::Refused { .. }
            | ToKeeper::NodeCertificate { .. }
            | ToKeeper::RotateKey { .. }
            | ToKeeper::OperatorDrain { .. }
            | ToKeeper::Watch { .. } => self.current == Some(number),
            // These look at the sender themselves.
            ToKeeper::Candidate { .. }
            | ToKeeper::Live { .. }
            | ToKeeper::NotLive { .. }
            | ToKeeper::Alive { .. } => true,
        }
    }

    async fn listen_to(&mut self, number: WorkerNumber, message: ToKeeper, descriptors: Vec<OwnedFd>) {
        if !self.in_turn(number, &message) {
            return tracing::debug!(number, "a worker's message out of turn counts for nothing");
        }
        match message {
            ToKeeper::Hello { oldest, newest, release, running } => {
                // It is shown on a terminal, and a worker is not believed.
                let release: String = release.chars().filter(char::is_ascii_graphic).take(64).collect();
                tracing::debug!(number, release, "hello");
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.release = release;
                }
                self.greet(number, (oldest, newest), running).await;
            }
            ToKeeper::Holding { sockets } => self.take_back(number, sockets, descriptors).await,
            ToKeeper::HandedBack => self.resume(number).await,
            ToKeeper::Ready { live, problem, features } => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.features = features;
                }
                self.hear_ready(number, live, problem).await;
            }
            ToKeeper::Accepting { problem } => self.hear_accepting(number, problem).await,
            ToKeeper::Candidate { snapshot, keys } => self.consider(number, *snapshot, keys).await,
            ToKeeper::Live { id } => self.settle(number, id).await,
            ToKeeper::NotLive { id, reason } => self.not_live(number, id, reason).await,
            ToKeeper::Refused { id, reason } => self.refused = Some(Refused { id, reason }),
            ToKeeper::NodeCertificate { sealed } => {
                let stored = self.state.store_node(&sealed);
                self.tell_stored(number, stored).await;
            }
            ToKeeper::RotateKey { key, signature } => self.rotate(number, key, &signature).await,
            ToKeeper::Alive { connections, console, overload } => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    (worker.connections, worker.overload) = (connections, overload);
                }
                if self.current == Some(number) {
                    (self.connections, self.console) = (connections, console);
                }
            }
            ToKeeper::OperatorDrain { on } => self.operator_drain(number, on).await,
            ToKeeper::Watch { watches } => self.watch_flows(number, watches).await,
        }
    }

    /// A worker has made live what it was given, or could not.
    async fn hear_ready(&mut self, number: WorkerNumber, live: Option<SnapshotId>, problem: Option<String>) {
        if self.is_next(number) {
            return self.complete(number, live, problem).await;
        }
        if let Some(problem) = problem {
            tracing::error!(problem, "the stored snapshot is not in force");
            let id = self.in_force.as_ref().map(|snapshot| snapshot.id);
            self.refused = Some(Refused { id, reason: problem });
        }
        if live.is_none() {
            self.in_force = None;
        }
        if self.state.gone_back().is_some() {
            self.close_what_left(number).await;
        }
        self.offer(number).await;
        let deadline_ms = self.drain_ms();
        self.put_to_work(number, deadline_ms).await;
        // The trial of what it was given may be over since.
        if live.is_some() && live != self.state.stored().map(|stored| stored.snapshot.id) {
            self.send_back(number).await;
        }
    }

    /// A worker accepts on what it was given, or cannot.
    async fn hear_accepting(&mut self, number: WorkerNumber, problem: Option<String>) {
        if self.is_confirming(number) {
            self.confirmed(number, problem).await;
        } else if let (Some(problem), Some(worker)) = (problem, self.workers.get(&number)) {
            tracing::error!(pid = worker.pid, problem, "the worker cannot accept; another takes its place");
            worker.kill();
        }
    }

    /// A worker's first words decide whether it gets any work.
    async fn greet(&mut self, number: WorkerNumber, (oldest, newest): (u32, u32), running: Option<Running>) {
        let Some(version) = common_version(oldest, newest) else {
            tracing::error!(oldest, newest, "the worker speaks another version; the present one stays");
            let theirs = (oldest, newest);
            let (oldest, newest) = (handover::OLDEST, handover::VERSION);
            self.say(number, &ToWorker::Incompatible { oldest, newest }, &[]).await;
            if self.is_next(number) {
                self.give_up(&Refusal::Incompatible(theirs.0, theirs.1)).await;
            }
            return;
        };
        let Some(worker) = self.workers.get_mut(&number) else { return };
        (worker.phase, worker.version) = (Phase::Starting, version);
        match running {
            None => self.equip(number, version).await,
            // It knows its deadline, which another keeper set; this one knows how long that can be.
            Some(running) if running.draining && self.stop_at.is_none() => {
                worker.phase = Phase::Draining;
                worker.until = Some(Instant::now() + Duration::from_secs(LONGEST.into()));
            }
            Some(running) if running.draining || self.current.is_some() || self.stop_at.is_some() => {
                worker.phase = Phase::Draining;
                let deadline_ms = self.drain_ms();
                self.say(number, &ToWorker::Drain { deadline_ms }, &[]).await;
            }
            Some(running) => {
                worker.features = running.features;
                worker.until = Some(Instant::now() + HANDS_BACK);
                self.start_at = None;
                let threads = running.threads.clamp(1, MAX_THREADS);
                self.sockets = Sockets::new(self.kernel.steers(), threads);
                self.remember_workers();
            }
        }
    }

    async fn take_back(&mut self, number: WorkerNumber, infos: Vec<SocketInfo>, descriptors: Vec<OwnedFd>) {
        // Only a worker that this keeper has not given any sockets has some to hand back.
        if self.current.is_some() {
            return;
        }
        let mut refused = Vec::new();
        for (info, descriptor) in infos.into_iter().zip(descriptors) {
            let id = info.id;
            if let Err(error) = self.sockets.take_back(info, descriptor) {
                tracing::warn!(%error, id, "a socket is not taken back");
                refused.push(id);
            }
        }
        if !refused.is_empty() {
            self.say(number, &ToWorker::RemoveSockets { ids: refused }, &[]).await;
        }
    }

    async fn resume(&mut self, number: WorkerNumber) {
        if self.current.is_some() {
            return;
        }
        let identity = self.state.identity().cloned().map(Box::new);
        let stored = self.state.stored().map(|stored| stored.snapshot.id);
        self.say(number, &ToWorker::Resume { identity, stored }, &[]).await;
        self.offer(number).await;
        let deadline_ms = self.drain_ms();
        self.put_to_work(number, deadline_ms).await;
        if self.state.gone_back().is_some() {
            self.send_back(number).await;
        }
        // The file may have been moved away while nobody looked.
        self.give_access_log(number).await;
    }

    /// A worker is gone: another takes its place, with the same sockets.
    async fn bury(&mut self, number: WorkerNumber) {
        let Some(worker) = self.workers.remove(&number) else { return };
        let (how, lived) = (worker.reap(), worker.since.elapsed());
        self.remember_workers();
        let expected = worker.phase == Phase::Draining || self.stop_at.is_some();
        tracing::info!(pid = worker.pid, how, expected, "worker ended");
        if self.current == Some(number) {
            (self.current, self.returning) = (None, None);
            self.console = ConsoleState::default();
            self.abandon("the worker ended before the change was in force");
            self.serving_died().await;
        }
        if self.is_next(number) {
            self.give_up(&Refusal::Ended(how)).await;
        }
        let replaceable = self.current.is_none() && self.stop_at.is_none() && self.start_at.is_none();
        let starting =
            self.workers.values().any(|worker| matches!(worker.phase, Phase::Connected | Phase::Starting));
        if replaceable && !starting && self.launches.is_empty() {
            self.in_force = self.state.stored().map(|stored| stored.snapshot.clone());
            self.start_at = Some(Instant::now() + self.backoff.after(lived));
        }
    }
}
