//! The keeper becomes its own next release: the same process runs another program, with every descriptor still open.
//!
//! Nobody else notices. Workers stay this process's children and their channels stay open, connections wait in the queues
//! of the same sockets, the service manager's main process is the same one. What is pinned in the kernel is found there, as
//! after any restart; all else is in the [`Succession`].

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::access_log::AccessLog;
use super::directory::Directory;
use super::held::{Held, StartError};
use super::launch::Program;
use super::operator::Operator;
use super::privileges;
use super::run::Keeper;
use super::settings::Settings;
use super::sockets::Sockets;
use super::state::State;
use super::status::Refused;
use super::supervise::{Phase, Worker, WorkerEvent, WorkerNumber};
use super::upgrade::Refusal;
use crate::handover::operator::ToOperator;
use crate::handover::succession::{Fd, Inherited, Succession, Unreadable, VERSION, Working};
use crate::handover::{self, ToWorker, replace};

/// Names the descriptor of the memory file on the command line of the next release.
pub const FLAG: &str = "--handover-fd=";

/// Why the keeper is still the old one.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// The memory file.
    #[error(transparent)]
    State(#[from] Unreadable),
    /// Privileges.
    #[error("the privileges cannot be taken along")]
    Privileges(#[from] caps::errors::CapsError),
    /// `execve`, or what it needs.
    #[error("the new program cannot be run")]
    Execute(#[from] io::Error),
}

/// What is left open, and under which numbers.
#[derive(Default)]
struct Leaving<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Leaving<'a> {
    fn leave(&mut self, descriptor: BorrowedFd<'a>) -> Fd {
        self.0.push(descriptor);
        Fd::of(descriptor)
    }
}

/// What the keeper before left, its descriptors taken.
pub(super) struct Left {
    succession: Succession,
    program: OwnedFd,
    metrics: Option<OwnedFd>,
    sockets: Vec<OwnedFd>,
    /// Process and channel of each worker.
    workers: Vec<(OwnedFd, OwnedFd)>,
    operator: Option<OwnedFd>,
    holder: Option<(u32, OwnedFd)>,
}

/// This process's arguments, without those for a succession.
pub(super) fn arguments() -> Vec<std::ffi::OsString> {
    std::env::args_os().filter(|word| !word.as_encoded_bytes().starts_with(FLAG.as_bytes())).collect()
}

impl Keeper {
    /// Everything the next release needs. The numbers hold as long as the keeper has what they name.
    pub(super) fn succession(&self, operator: Option<&Operator>) -> (Succession, Vec<BorrowedFd<'_>>) {
        let mut leaving = Leaving::default();
        let (state, mut secrets) = self.state.inheritance();
        secrets.metrics = self.settings.metrics_token.as_ref().map(|token| token.secret().to_owned());
        let succession = Succession {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            installed: self.installed.to_string_lossy().into_owned(),
            program: (
                self.program.path().to_string_lossy().into_owned(),
                leaving.leave(self.program.as_fd()),
            ),
            state: (leaving.leave(state[0]), leaving.leave(state[1])),
            run: (leaving.leave(self.run.as_fd()), leaving.leave(self.run_lock.as_fd())),
            rendezvous: leaving.leave(self.rendezvous.get_ref().as_fd()),
            control: leaving.leave(self.control.get_ref().as_fd()),
            access_log: self.access_log.as_ref().map(|log| leaving.leave(log.as_fd())),
            metrics: self.metrics.as_ref().map(|socket| leaving.leave(socket.as_fd())),
            sockets: self.sockets.listening(|socket| leaving.leave(socket)),
            workers: self.workers.values().map(|worker| leave_worker(worker, &mut leaving)).collect(),
            current: self.current,
            next_worker: self.next_worker,
            in_force: self.in_force.is_some(),
            drained: self.drained,
            problems: self.problems.clone(),
            refused: self.refused.clone().map(|refused| (refused.id, refused.reason)),
            console: self.console.clone(),
            drops: self.drops.clone(),
            proposal: self.held_back(),
            // Theirs is not this keeper's to outlive: the upgrade has a hold on it until then.
            operator: operator.map(|operator| Fd::of(operator.descriptor())),
            holder: self.store.holder().map(|holder| (holder.pid(), leaving.leave(holder.descriptor()))),
            instance: self.kernel.lock().map(|lock| leaving.leave(lock)),
            secrets,
        };
        (succession, leaving.0)
    }

    /// Becomes its next release, where that is what remains of an upgrade and nothing is between two states. Comes back only
    /// when it does not.
    pub(super) async fn succeed(&mut self, events: &mut mpsc::Receiver<(WorkerNumber, WorkerEvent)>) {
        let Some(program) = self.succeeds_by().filter(|_| self.is_calm()) else { return };
        // What a worker has said must be heard by this release or the next.
        loop {
            self.workers.values_mut().for_each(Worker::hush);
            if !self.workers.values().any(Worker::listens) && events.is_empty() {
                break;
            }
            match events.try_recv() {
                Ok((number, event)) => self.hear(number, event).await,
                Err(_nothing_yet) => tokio::task::yield_now().await,
            }
        }
        self.write_senders();
        // What they said may have changed everything; then there is another time.
        let failed = (self.succeeds_by().is_some() && self.is_calm()).then(|| self.replace_by(&program));
        self.workers.values_mut().for_each(|worker| worker.listen(&self.events));
        if let Some(not_replaced) = failed {
            self.give_up(&Refusal::Succession(not_replaced)).await;
        }
    }

    fn replace_by(&self, program: &Program) -> NotReplaced {
        let attempt = || -> Result<io::Error, NotReplaced> {
            let operator = self.upgrade.as_ref().and_then(|upgrade| upgrade.operator());
            let (succession, mut left) = self.succession(operator);
            left.extend(operator.map(Operator::descriptor));
            let file = succession.write()?;
            left.push(file.as_fd());
            let mut words = arguments();
            words.push(format!("{FLAG}{}", Fd::of(&file)).into());
            let words: Result<Vec<CString>, _> =
                words.into_iter().map(|word| CString::new(word.into_vec())).collect();
            privileges::take_along()?;
            tracing::info!(path = %program.path().display(), "the keeper becomes its next release");
            let error = replace::replace(program.as_fd(), words.map_err(io::Error::from)?, &left);
            privileges::leave_behind()?;
            Ok(error)
        };
        attempt().map_or_else(|error| error, NotReplaced::Execute)
    }

    /// Goes on where the release before left.
    pub(super) async fn go_on(&mut self, left: Left) {
        let Left { succession, program, metrics, sockets, workers, operator, holder } = left;
        tracing::info!(before = succession.release, "keeper goes on");
        self.installed = PathBuf::from(&succession.installed);
        self.program = Arc::new(Program::new(PathBuf::from(&succession.program.0), program));
        self.metrics = metrics.map(Into::into);
        self.in_force =
            self.state.stored().filter(|_| succession.in_force).map(|stored| stored.snapshot.clone());
        (self.drained, self.problems) = (succession.drained, succession.problems.clone());
        self.refused = succession.refused.clone().map(|(id, reason)| Refused { id, reason });
        (self.console, self.drops) = (succession.console.clone(), succession.drops.clone());
        (self.current, self.next_worker) = (succession.current, succession.next_worker);
        let serves = |worker: &&Working| Some(worker.number) == succession.current;
        self.connections = succession.workers.iter().find(serves).map_or(0, |worker| worker.connections);
        for (working, (process, channel)) in succession.workers.iter().zip(workers) {
            match Worker::resume(working, process, channel, &self.events) {
                Ok(worker) => drop(self.workers.insert(working.number, worker)),
                Err(error) => tracing::error!(%error, pid = working.pid, "a worker is lost"),
            }
        }
        self.take_sockets(&succession, sockets).await;
        self.resume_store(holder);
        if self.current.is_none_or(|current| !self.workers.contains_key(&current)) {
            self.current = None;
            self.start_at = Some(tokio::time::Instant::now());
        }
        self.enter_sockets();
        self.enter_filter();
        self.store.say("READY=1");
        // The time may have been over meanwhile.
        if let Some(current) = self.current.filter(|_| self.state.gone_back().is_some()) {
            self.refuse_gone_back();
            self.send_back(current).await;
        }
        if let Some(operator) = operator.and_then(|descriptor| Operator::resume(descriptor).ok()) {
            let release = env!("CARGO_PKG_VERSION");
            let text = format!("keeper {} goes on as release {release}", std::process::id());
            operator.tell(&ToOperator::Done { text }).await;
        }
        if let Some(proposed) = succession.proposal {
            let proposed = *proposed;
            self.consider(proposed.worker, proposed.snapshot, proposed.keys).await;
        }
    }

    /// The same sockets as before, unless this release's programs do not run in the kernel where the former's did.
    async fn take_sockets(&mut self, succession: &Succession, sockets: Vec<OwnedFd>) {
        let listening = &succession.sockets;
        self.sockets = Sockets::new(self.kernel.steers(), listening.threads);
        self.remember_workers();
        let mut refused = Vec::new();
        for ((info, _), descriptor) in listening.held.iter().zip(sockets) {
            if let Err(error) = self.sockets.take_back(info.clone(), descriptor) {
                tracing::error!(%error, id = info.id, "a socket is not taken over");
                refused.push(info.id);
            }
        }
        self.sockets.go_on(listening);
        if refused.is_empty() {
            return;
        }
        let new = self.open_sockets();
        if let Some(current) = self.current {
            self.say(current, &ToWorker::RemoveSockets { ids: refused }, &[]).await;
            self.give_sockets(current, &new).await;
        }
    }
}

fn leave_worker<'a>(worker: &'a Worker, leaving: &mut Leaving<'a>) -> Working {
    let (process, channel) = worker.descriptors();
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let left = |until: tokio::time::Instant| until.saturating_duration_since(tokio::time::Instant::now());
    Working {
        number: worker.number,
        pid: worker.pid,
        process: leaving.leave(process),
        channel: leaving.leave(channel),
        draining: worker.phase == Phase::Draining,
        protocol: worker.version,
        release: worker.release.clone(),
        connections: worker.connections,
        left_ms: worker.until.map(left).map(millis),
        age_ms: millis(worker.since.elapsed()),
        features: worker.features.clone(),
    }
}

impl Held {
    /// Takes over what the release before left in this process.
    pub(super) fn inherit(
        settings: &Settings,
        mut succession: Succession,
    ) -> Result<(Self, Left), StartError> {
        let failed = |what| move |source| StartError::Io { what, source };
        let mut inherited = Inherited::default();
        let mut take = |fd| inherited.take(fd).map_err(failed("taking over a descriptor"));
        let watch = |descriptor| -> Result<AsyncFd<OwnedFd>, StartError> {
            handover::watch(descriptor).map_err(failed("taking over a descriptor"))
        };
        let (directory, lock) = (take(succession.state.0)?, take(succession.state.1)?);
        let directory = Directory::inherit(directory, settings.state_dir.join("node"));
        let state = State::inherit(directory, lock, &mut succession.secrets)?;
        let run = Directory::inherit(take(succession.run.0)?, settings.run_dir.clone());
        let run_lock = take(succession.run.1)?;
        let (rendezvous, control) = (watch(take(succession.rendezvous)?)?, watch(take(succession.control)?)?);
        let log = |path: &PathBuf, file: OwnedFd| AccessLog::inherit(path.clone(), file);
        let access_log = succession.access_log.map(&mut take).transpose()?;
        let access_log = settings.access_log.as_ref().zip(access_log).map(|(path, file)| log(path, file));
        let instance = succession.instance.map(&mut take).transpose()?;
        let (mut sockets, mut workers) = (Vec::new(), Vec::new());
        for (_, fd) in &succession.sockets.held {
            sockets.push(take(*fd)?);
        }
        for worker in &succession.workers {
            workers.push((take(worker.process)?, take(worker.channel)?));
        }
        let left = Left {
            program: take(succession.program.1)?,
            metrics: succession.metrics.map(&mut take).transpose()?,
            operator: succession.operator.map(&mut take).transpose()?,
            holder: match succession.holder {
                Some((pid, fd)) => Some((pid, take(fd)?)),
                None => None,
            },
            sockets,
            workers,
            succession,
        };
        Ok((Self { state, run, run_lock, rendezvous, control, access_log, instance }, left))
    }
}

/// The succession behind a number of the command line.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(number: i32) -> Result<Succession, Unreadable> {
    let file = Inherited::default().take(Fd::named(number))?;
    Succession::read(&file)
}
