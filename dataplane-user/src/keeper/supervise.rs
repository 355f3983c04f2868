//! The worker as a process: start it, talk to it, notice its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::report::{Feature, Overload};
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::launch::{self, LaunchError, Launched, Source};
use super::privileges::User;
use super::upgrade::trial::Unsuited;
use crate::handover::succession::Working;
use crate::handover::{self, Channel, ChannelError, ToKeeper, ToWorker};

/// The channel as the keeper sees it.
pub type WorkerChannel = Channel<ToWorker, ToKeeper>;

/// Tells one worker from the next.
pub type WorkerNumber = u64;

/// A worker that does not read its channel for this long is treated as dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens to a worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// The next release's keeper was asked whether it can go on: its release.
    Tried(Result<String, Unsuited>),
    /// It was started, and this is the keeper's end of its channel; or it could not be.
    Started(Result<(Launched, OwnedFd), LaunchError>),
    /// It said something.
    Said(ToKeeper, Vec<OwnedFd>),
    /// It broke the protocol or closed the channel.
    Silent(ChannelError),
    /// The process is gone.
    Exited,
}

/// A worker process.
#[derive(Debug)]
pub struct Worker {
    /// Its number.
    pub number: WorkerNumber,
    /// Its process id.
    pub pid: u32,
    /// What it has said so far.
    pub phase: Phase,
    /// The protocol it and this keeper speak; 0 before it has said a word.
    pub version: u32,
    /// Its release, as it says; empty before.
    pub release: String,
    /// Its open client connections, as it says.
    pub connections: u32,
    /// What it refuses for too much to do, as it says.
    pub overload: Option<Overload>,
    /// When a former worker that still runs is killed.
    pub until: Option<tokio::time::Instant>,
    /// What its sandbox does.
    pub features: Vec<Feature>,
    /// When it was started or adopted.
    pub since: Instant,
    origin: Origin,
    process: Arc<AsyncFd<OwnedFd>>,
    channel: Arc<WorkerChannel>,
    listener: Option<JoinHandle<()>>,
    /// Dropping it ends the listener when nothing is half heard.
    hush: Option<oneshot::Sender<()>>,
}

/// What a worker has said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nothing yet.
    Connected,
    /// Its version suits; it builds, or hands its sockets back.
    Starting,
    /// It accepts connections.
    Serving,
    /// It finishes what is open.
    Draining,
}

/// Where a worker comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This keeper started it.
    Started,
    /// It served another keeper and came to this one.
    CameBack,
}

impl Worker {
    /// Has a worker started; what comes of it is an event.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn launch(
        number: WorkerNumber,
        user: Option<User>,
        source: Source,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<()> {
        let arguments = ["worker", "--control-fd", "0"].map(Into::into).to_vec();
        Self::launch_with(number, (user, arguments), source, events)
    }

    /// The same with other arguments.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn launch_with(
        number: WorkerNumber,
        (user, arguments): (Option<User>, Vec<OsString>),
        source: Source,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<()> {
        // Its standard input is its end of the channel: a descriptor no other child can inherit by accident.
        let (ours, theirs) = handover::channel::pair()?;
        let events = events.clone();
        launch::launch(source, user, arguments, theirs, move |launched| {
            let outcome = launched.map(|launched| (launched, ours));
            let unheard = events.blocking_send((number, WorkerEvent::Started(outcome))).err()?;
            if let (_, WorkerEvent::Started(Ok((launched, _)))) = unheard.0 { Some(launched) } else { None }
        })
    }

    /// Listens to a worker that was started.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn begin(
        number: WorkerNumber,
        launched: Launched,
        channel: OwnedFd,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<Self> {
        Self::with(number, (launched.pid, launched.process), Origin::Started, channel, events)
    }

    /// Goes on with a live worker that connected to this keeper.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn adopt(
        number: WorkerNumber,
        pid: u32,
        socket: OwnedFd,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<Self> {
        Self::with(number, (pid, launch::process(pid)?), Origin::CameBack, socket, events)
    }

    /// Goes on with a worker of this process's former release.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn resume(
        working: &Working,
        process: OwnedFd,
        channel: OwnedFd,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<Self> {
        let mut worker =
            Self::with(working.number, (working.pid, process), Origin::CameBack, channel, events)?;
        worker.phase = if working.draining { Phase::Draining } else { Phase::Serving };
        // What the former release agreed on with it was bounded by what that one spoke. With one that has not said a word yet nothing
        // is agreed.
        let same = working.protocol != 0 && launch::runs_own_program(working.pid);
        worker.version = if same { handover::VERSION } else { working.protocol };
        worker.release = working.release.clone();
        (worker.connections, worker.features) = (working.connections, working.features.clone());
        let left = |left| tokio::time::Instant::now() + Duration::from_millis(left);
        worker.until = working.left_ms.map(left);
        let now = Instant::now();
        worker.since = now.checked_sub(Duration::from_millis(working.age_ms)).unwrap_or(now);
        Ok(worker)
    }

    fn with(
        number: WorkerNumber,
        (pid, process): (u32, OwnedFd),
        origin: Origin,
        socket: OwnedFd,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<Self> {
        let channel = Arc::new(WorkerChannel::new(socket)?);
        let process = Arc::new(handover::watch(process)?);
        let (sender, ended) = (events.clone(), process.clone());
        tokio::spawn(async move {
            // A process descriptor becomes readable when the process has ended; an error means that it cannot be watched.
            let _ = ended.readable().await;
            let _ = sender.send((number, WorkerEvent::Exited)).await;
        });
        let (phase, since) = (Phase::Connected, Instant::now());
        let (version, release, connections) = (0, String::new(), 0);
        let (features, until) = (Vec::new(), None);
        let mut worker = Self {
            number,
            pid,
            phase,
            version,
            release,
            connections,
            overload: None,
            until,
            features,
            since,
            origin,
            process,
            channel,
            listener: None,
            hush: None,
        };
        worker.listen(events);
        Ok(worker)
    }

    /// Hears what it says, from now on or again.
    pub fn listen(&mut self, events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>) {
        let (hush, hushed) = oneshot::channel();
        let listening = tokio::spawn(listen(self.number, self.channel.clone(), events.clone(), hushed));
        (self.hush, self.listener) = (Some(hush), Some(listening));
    }

    /// Hears nothing more: what it says from now on waits in its channel. What was heard is an event, or becomes one as long
    /// as the worker [`Worker::listens`].
    pub fn hush(&mut self) {
        self.hush = None;
    }

    /// Whether something may still be between the channel and the events.
    pub fn listens(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| !listener.is_finished())
    }

    /// The process and the channel.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.process.get_ref().as_fd(), self.channel.descriptor())
    }

    /// Says something to the worker. One that does not listen is killed; its end comes as an event.
    pub async fn say(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        let sent = async {
            if matches!(message, ToWorker::Start(_)) {
                self.channel.send_secret(message, descriptors).await
            } else {
                self.channel.send(message, descriptors).await
            }
        };
        match tokio::time::timeout(SEND_TIMEOUT, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(pid = self.pid, %error, "the worker does not hear"),
            Err(_elapsed) => {
                tracing::error!(
                    pid = self.pid,
                    "the worker has not read its channel for ten seconds; it is stopped"
                );
                self.kill();
            }
        }
    }

    /// The user the kernel knows on the other side.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn peer(&self) -> io::Result<rustix::net::UCred> {
        self.channel.peer()
    }

    /// Whether another keeper started it.
    pub fn is_adopted(&self) -> bool {
        self.origin == Origin::CameBack
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        if let Err(error) = rustix::process::pidfd_send_signal(self.process.get_ref(), Signal::KILL) {
            tracing::warn!(pid = self.pid, %error, "the worker cannot be killed");
        }
    }

    /// Collects it when it is dead; how it ended, for the log.
    pub fn reap(&self) -> String {
        launch::reap(self.process.get_ref())
    }
}

async fn listen(
    number: WorkerNumber,
    channel: Arc<WorkerChannel>,
    events: mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    mut hushed: oneshot::Receiver<()>,
) {
    loop {
        let received = tokio::select! {
            biased;
            _ = &mut hushed => return,
            received = channel.receive() => received,
        };
        let (event, last) = match received {
            Ok((message, descriptors)) => (WorkerEvent::Said(message, descriptors), false),
            Err(error) => (WorkerEvent::Silent(error), true),
        };
        if events.send((number, event)).await.is_err() || last {
            return;
        }
    }
}

/// When to start a worker that keeps dying.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

/// A worker that lived this long is not one that keeps dying.
const STEADY: Duration = Duration::from_secs(10);

impl Backoff {
    /// How long to wait after a worker that lived `lived`: nothing at first, then 100 ms doubling to 5 s.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.failures = 0;
        }
        self.failures += 1;
        match self.failures {
            0 | 1 => Duration::ZERO,
            again => Duration::from_millis(100 << (again - 2).min(6)).min(Duration::from_secs(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::succession::Fd;

    #[tokio::test]
    async fn a_worker_of_the_keepers_own_program_speaks_its_protocol_whatever_the_former_one_spoke() {
        let (events, _heard) = mpsc::channel(8);
        let mut stranger = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        for (pid, protocol, spoken) in [
            (own, handover::OLDEST, handover::VERSION),
            (stranger.id(), handover::OLDEST, handover::OLDEST),
            (own, 0, 0),
        ] {
            let process = launch::process(pid).unwrap();
            let working = Working {
                number: 1,
                pid,
                process: Fd::of(&process),
                channel: Fd::of(&process),
                draining: false,
                protocol,
                release: "0.1.0".to_owned(),
                connections: 0,
                left_ms: None,
                age_ms: 0,
                features: Vec::new(),
            };
            let (channel, _theirs) = handover::channel::pair().unwrap();
            let worker = Worker::resume(&working, process, channel, &events).unwrap();
            assert_eq!(worker.version, spoken, "{pid} {protocol}");
        }
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(!launch::runs_own_program(stranger.id()), "there is no such process any more");
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(10);
        assert_eq!(backoff.after(Duration::from_secs(60)), Duration::ZERO);
        let waits: Vec<u128> = (0..8).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after(STEADY), Duration::ZERO);
    }
}
