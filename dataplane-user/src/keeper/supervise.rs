//! The worker as a process: start it, talk to it, notice its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::report::Feature;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::privileges::User;
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
    /// When a former worker that still runs is killed.
    pub until: Option<tokio::time::Instant>,
    /// What its sandbox does.
    pub features: Vec<Feature>,
    /// When it was started or adopted.
    pub since: Instant,
    child: Option<Child>,
    process: Arc<AsyncFd<OwnedFd>>,
    channel: Arc<WorkerChannel>,
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

impl Worker {
    /// Starts a worker and listens to it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn start(
        number: WorkerNumber,
        user: Option<User>,
        program: &Program,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<Self> {
        let (ours, theirs) = handover::channel::pair()?;
        let child = spawn(user, program, theirs)?;
        let worker = Self::with(number, child.id(), Some(child), ours, events)?;
        Ok(worker)
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
        Self::with(number, pid, None, socket, events)
    }

    fn with(
        number: WorkerNumber,
        pid: u32,
        child: Option<Child>,
        socket: OwnedFd,
        events: &mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> io::Result<Self> {
        let channel = Arc::new(WorkerChannel::new(socket)?);
        let id = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("not a process id"))?;
        let process = Arc::new(handover::watch(rustix::process::pidfd_open(id, PidfdFlags::NONBLOCK)?)?);
        tokio::spawn(listen(number, channel.clone(), events.clone()));
        let (events, ended) = (events.clone(), process.clone());
        tokio::spawn(async move {
            // A process descriptor becomes readable when the process has ended; an error means that it cannot be watched.
            let _ = ended.readable().await;
            let _ = events.send((number, WorkerEvent::Exited)).await;
        });
        let (phase, since) = (Phase::Connected, Instant::now());
        let (version, release, connections) = (0, String::new(), 0);
        let (features, until) = (Vec::new(), None);
        Ok(Self {
            number,
            pid,
            phase,
            version,
            release,
            connections,
            until,
            features,
            since,
            child,
            process,
            channel,
        })
    }

    /// Says something to the worker. One that does not listen is killed; its end comes as an event.
    pub async fn say(&self, message: &ToWorker, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
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
        self.child.is_none()
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        if let Err(error) = rustix::process::pidfd_send_signal(self.process.get_ref(), Signal::KILL) {
            tracing::warn!(pid = self.pid, %error, "the worker cannot be killed");
        }
    }

    /// Collects a dead child; how it ended, for the log.
    pub fn reap(&mut self) -> String {
        match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => error.to_string(),
            None => "it was another keeper's child".to_owned(),
        }
    }
}

async fn listen(
    number: WorkerNumber,
    channel: Arc<WorkerChannel>,
    events: mpsc::Sender<(WorkerNumber, WorkerEvent)>,
) {
    loop {
        let (event, last) = match channel.receive().await {
            Ok((message, descriptors)) => (WorkerEvent::Said(message, descriptors), false),
            Err(error) => (WorkerEvent::Silent(error), true),
        };
        if events.send((number, event)).await.is_err() || last {
            return;
        }
    }
}

/// The worker's standard input is its end of the channel: a descriptor no other child can inherit by accident.
fn spawn(user: Option<User>, program: &Program, channel: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(program.own_path());
    command.arg0("sallyport-node").args(["worker", "--control-fd", "0"]).stdin(Stdio::from(channel));
    // A terminal's ^C is the keeper's to pass on: the worker drains when it is told.
    command.process_group(0);
    if let Some(user) = user {
        command.gid(user.gid).uid(user.uid);
    }
    command.spawn()
}

/// A program as it was when it was opened: a worker that died is followed by one of the same release, whatever was installed
/// under the name meanwhile, and a user who may not walk the path can run it.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: OwnedFd,
}

impl Program {
    /// The one that runs.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn own() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, file: open(Path::new("/proc/self/exe"))? })
    }

    /// One that somebody opened.
    ///
    /// # Errors
    /// It is no file.
    pub(super) fn new(path: PathBuf, file: OwnedFd) -> Result<Self, super::upgrade::Refusal> {
        let stat = rustix::fs::fstat(&file);
        let regular = |mode| rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::RegularFile;
        match stat {
            Ok(stat) if regular(stat.st_mode) => Ok(Self { path, file }),
            _ => Err(super::upgrade::Refusal::NoFile { path: path.display().to_string() }),
        }
    }

    /// The one that is under this name now.
    ///
    /// # Errors
    /// What the file system said.
    pub fn at(path: &Path) -> io::Result<Self> {
        // What the kernel adds when the file was replaced.
        let path = PathBuf::from(path.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
        Ok(Self { file: open(&path)?, path })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to it for this process.
    pub fn own_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file)))
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
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
