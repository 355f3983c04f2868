//! The keeper's life: start, one event after the other, stop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::name::Name;
use model::report::{Drops, Feature};
use model::snapshot::{Limits, Snapshot};
use rustix::fs::FlockOperation;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::apply::Transition;
use super::back::Returning;
use super::directory::Directory;
use super::flows::Flows;
use super::follow::Follow;
use super::held::Held;
pub use super::held::StartError;
use super::kernel::{self, Kernel, KernelError};
use super::launch::Program;
use super::operator;
use super::privileges::{self, User};
use super::rendezvous;
use super::senders::Sending;
use super::settings::Settings;
use super::sockets::{Busy, Sockets};
use super::state::State;
use super::status::{Refused, Status};
use super::stop::{self, Signals};
use super::store::Store;
use super::supervise::{Backoff, Worker, WorkerEvent, WorkerNumber};
use super::upgrade::Upgrade;
use crate::handover::message::{ConsoleState, FIGURES_EVERY, MAX_DESCRIPTORS, SocketInfo};
use crate::handover::succession::Succession;
use crate::handover::{ToWorker, replace};
use crate::sentence;

/// How long a restarted keeper waits for a worker that is still alive.
pub(super) const ADOPTION: Duration = Duration::from_secs(3);

const NO_METRICS_TOKEN: &str = "/metrics is refused because --metrics-listen is not on loopback and there is no token: name a file with one in --metrics-token-file (health answers)";

/// The privileged process.
pub struct Keeper {
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) kernel: Box<dyn Kernel>,
    pub(super) sockets: Sockets,
    pub(super) run: Directory,
    pub(super) workers: BTreeMap<WorkerNumber, Worker>,
    /// The worker that accepts connections.
    pub(super) current: Option<WorkerNumber>,
    pub(super) transition: Option<Transition>,
    /// Disk and kernel have gone back, the worker has not yet.
    pub(super) returning: Option<Returning>,
    /// What the kernel and the sockets are for at present.
    pub(super) in_force: Option<Snapshot>,
    pub(super) problems: BTreeMap<Name, String>,
    pub(super) refused: Option<Refused>,
    pub(super) console: ConsoleState,
    pub(super) connections: u32,
    /// The operator drained the node: no listener is open.
    pub(super) drained: bool,
    /// What could not be done without refusing anything; each becomes a feature that is off.
    pub(super) shortcomings: BTreeMap<&'static str, String>,
    pub(super) drops: Vec<Drops>,
    pub(super) sending: Sending,
    /// What the worker watches.
    pub(super) flows: Flows,
    /// This host's addresses, as the tables in force have them.
    pub(super) own: Vec<IpAddr>,
    /// Who else listens, where a listener on any port has to know.
    pub(super) busy: Busy,
    pub(super) user: Option<User>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) metrics: Option<std::net::TcpListener>,
    /// Workers that are being started, and how long that may take.
    pub(super) launches: BTreeMap<WorkerNumber, Instant>,
    /// What workers are started from.
    pub(super) program: Arc<Program>,
    /// Where the keeper's own program was: what `SIGHUP` starts, whatever an upgrade was told to start.
    pub(super) installed: PathBuf,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) last_status: Option<Status>,
    pub(super) ticks: u64,
    pub(super) pins: Vec<String>,
    pub(super) events: mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    pub(super) next_worker: WorkerNumber,
    pub(super) backoff: Backoff,
    pub(super) start_at: Option<Instant>,
    pub(super) stop_at: Option<Instant>,
    pub(super) run_lock: OwnedFd,
    pub(super) rendezvous: AsyncFd<OwnedFd>,
    pub(super) control: AsyncFd<OwnedFd>,
    /// Who holds the listening sockets beside this keeper and its worker.
    pub(super) store: Store,
    /// The process of ours that does, and when another may be started for it.
    pub(super) holder_number: Option<WorkerNumber>,
    pub(super) holder_at: Option<Instant>,
    /// When interfaces and addresses are looked at beside the look once a second.
    pub(super) follow: Follow,
}

/// Opens the kernel's part, with the instance's lock where this process's former release left it. An error is one that the node
/// must not go on with.
pub type OpenKernel = fn(&Settings, Option<OwnedFd>) -> Result<Box<dyn Kernel>, KernelError>;

/// Runs a keeper until it is told to stop. `open_kernel` is asked once, while all privileges are there. With a `succession`
/// it goes on where this process's former release left.
///
/// # Errors
/// See [`StartError`].
pub fn run(
    settings: Settings,
    succession: Option<Succession>,
    open_kernel: OpenKernel,
) -> Result<(), StartError> {
    let failed = |source| StartError::Io { what: "starting", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(keep(settings, succession, open_kernel))
}

async fn keep(
    settings: Settings,
    succession: Option<Succession>,
    open_kernel: OpenKernel,
) -> Result<(), StartError> {
    let failed = |what| move |source| StartError::Io { what, source };
    // Before anything is held that an orderly stop must give back.
    let signals = Signals::catch().map_err(failed("waiting for signals"))?;
    replace::hear_signals();
    privileges::raise_descriptor_limit();
    let user = privileges::worker_user(&settings.user)?;
    let (mut held, left) = match succession {
        None => (Held::open(&settings, user)?, None),
        Some(succession) => {
            let (held, left) = Held::inherit(&settings, succession)?;
            (held, Some(left))
        }
    };
    // After the last change of group.
    if settings.parent.is_some_and(|parent| !stop::end_with(parent)) {
        return Ok(());
    }
    let program = Program::own().map_err(failed("finding the executable"))?;
    let kernel = open_kernel(&settings, held.instance.take())?;
    privileges::drop_to_named()?;
    let (events, received) = mpsc::channel(64);
    let mut keeper = Keeper::new(settings, held, kernel, (program, user), events);
    match left {
        None => {
            let (store, kept) = Store::find(&keeper.run).await;
            keeper.store = store;
            keeper.begin(kept);
        }
        Some(left) => keeper.go_on(left).await,
    }
    keeper.read_senders();
    keeper.follow(received, signals).await;
    keeper.end_holder().await;
    keeper.end();
    Ok(())
}

impl Keeper {
    fn new(
        settings: Settings,
        held: Held,
        kernel: Box<dyn Kernel>,
        (program, user): (Program, Option<User>),
        events: mpsc::Sender<(WorkerNumber, WorkerEvent)>,
    ) -> Self {
        let Held { state, run, run_lock, rendezvous, control, access_log, instance: _ } = held;
        Self {
            sockets: Sockets::new(kernel.steers(), settings.threads),
            settings,
            state,
            kernel,
            run,
            run_lock,
            rendezvous,
            control,
            access_log,
            in_force: None,
            workers: BTreeMap::new(),
            current: None,
            transition: None,
            returning: None,
            problems: BTreeMap::new(),
            refused: None,
            console: ConsoleState::default(),
            connections: 0,
            drained: false,
            shortcomings: BTreeMap::new(),
            drops: Vec::new(),
            sending: Sending::default(),
            flows: Flows::default(),
            own: Vec::new(),
            busy: Busy::default(),
            user,
            metrics: None,
            launches: BTreeMap::new(),
            installed: program.installed(),
            program: Arc::new(program),
            upgrade: None,
            last_status: None,
            ticks: 0,
            pins: Vec::new(),
            events,
            next_worker: 1,
            backoff: Backoff::default(),
            start_at: None,
            stop_at: None,
            store: Store::default(),
            holder_number: None,
            holder_at: None,
            follow: Follow::default(),
        }
    }

    /// Waits for a worker that outlived the former keeper, or starts one.
    fn begin(&mut self, kept: Vec<(SocketInfo, OwnedFd)>) {
        let identity = self.state.identity();
        tracing::info!(node = identity.map(|identity| identity.node.as_str()), "keeper starts");
        self.in_force = self.state.stored().map(|stored| stored.snapshot.clone());
        let left_aside = self.state.left_aside().map(|aside| sentence(aside));
        self.note("stored snapshot", left_aside);
        self.refuse_gone_back();
        self.remember_workers();
        self.take_kept(kept);
        let alone = self.run.lock("worker.lock", FlockOperation::NonBlockingLockExclusive);
        if matches!(alone, Ok(None)) {
            tracing::info!("a worker is still alive; waiting for it");
            self.start_at = Some(Instant::now() + ADOPTION);
            return;
        }
        // Nobody accepts yet, but what is denied stays denied from the first moment.
        self.enter_filter();
        self.start_at = Some(Instant::now());
    }

    async fn follow(
        &mut self,
        mut events: mpsc::Receiver<(WorkerNumber, WorkerEvent)>,
        mut signals: Signals,
    ) {
        self.follow = Follow::begin(self.settings.kernel);
        let (ask, mut asked) = mpsc::channel(4);
        let mut tick = tokio::time::interval(FIGURES_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while self.stop_at.is_none() || !self.workers.is_empty() || self.is_awaiting() {
            tokio::select! {
                Some((number, event)) = events.recv() => self.hear(number, event).await,
                () = at(self.start_at) => self.start_worker(),
                () = at(self.stop_at) => self.end_workers(),
                _ = signals.terminate.recv() => self.stop().await,
                _ = signals.interrupt.recv() => self.stop().await,
                _ = signals.hang_up.recv() => self.hang_up().await,
                Some(asked) = asked.recv() => self.answer(asked).await,
                () = self.flows.due() => self.look_at_flows().await,
                _ = tick.tick() => self.tick().await,
                () = self.follow.changed() => self.notice(),
                () = at(self.follow.look_at) => self.look_now(),
                accepted = rendezvous::accept(&self.rendezvous) => match accepted {
                    Ok(socket) => self.meet(socket),
                    Err(error) => tracing::warn!(%error, "keeper.sock"),
                },
                accepted = rendezvous::accept(&self.control) => match accepted {
                    Ok(socket) => operator::hear(socket, &ask),
                    Err(error) => tracing::warn!(%error, "control.sock"),
                },
            }
            self.advance_upgrade().await;
            self.succeed(&mut events).await;
            self.start_holder();
            self.store_sockets().await;
            self.write_status();
        }
    }

    /// Somebody connected to `keeper.sock`.
    fn meet(&mut self, socket: OwnedFd) {
        let number = self.next_worker;
        let uid = self.user.map_or(rustix::process::geteuid().as_raw(), |user| user.uid);
        let peer = match rendezvous::recognise(&self.run, &socket, uid) {
            Ok(pid) => pid,
            Err(error) => return tracing::warn!(%error, "a stranger at keeper.sock was turned away"),
        };
        match Worker::adopt(number, peer, socket, &self.events) {
            Ok(worker) => {
                tracing::info!(pid = peer, "a worker came back");
                self.next_worker += 1;
                self.workers.insert(number, worker);
                self.remember_workers();
            }
            Err(error) => tracing::warn!(%error, pid = peer, "a worker that came back is gone again"),
        }
    }

    /// Says something to a worker that may be gone.
    pub(super) async fn say(&self, number: WorkerNumber, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        if let Some(worker) = self.workers.get(&number) {
            worker.say(message, descriptors).await;
        }
    }

    /// Gives a worker sockets, as many at once as a message carries.
    pub(super) async fn give_sockets(&self, number: WorkerNumber, ids: &[u64]) {
        let wanted: Vec<_> = self.sockets.held().filter(|held| ids.contains(&held.info.id)).collect();
        for some in wanted.chunks(MAX_DESCRIPTORS) {
            let descriptors: Vec<_> = some.iter().map(|held| held.socket.as_fd()).collect();
            let sockets = some.iter().map(|held| held.info.clone()).collect();
            self.say(number, &ToWorker::AddSockets { sockets }, &descriptors).await;
        }
    }

    /// Writes down who our workers are: the next keeper recognises them, and their sockets are in nobody's way.
    pub(super) fn remember_workers(&mut self) {
        self.sockets.friends = rendezvous::remember(&self.run, &self.workers);
    }

    /// How long connections may finish.
    pub(super) fn drain_ms(&self) -> u32 {
        let listeners = self.in_force.iter().flat_map(|snapshot| &snapshot.listeners);
        listeners.map(|listener| listener.limits.drain_ms).max().unwrap_or(Limits::default().drain_ms)
    }

    /// Opens the socket for metrics and health, unless it is open.
    pub(super) fn open_metrics(&mut self) {
        if self.metrics.is_none() {
            let opened = self.sockets.open_metrics(self.settings.metrics);
            let shut = self.settings.metrics_token.is_none() && !is_loopback(self.settings.metrics);
            let problem = match &opened {
                Err(error) => Some(sentence(error)),
                Ok(_) => shut.then(|| NO_METRICS_TOKEN.to_owned()),
            };
            self.note("metrics", problem);
            self.metrics = opened.ok();
        }
    }

    /// Remembers or forgets what could not be done.
    pub(super) fn note(&mut self, name: &'static str, problem: Option<String>) {
        match problem {
            Some(problem) => {
                tracing::error!(problem, "{name}");
                self.shortcomings.insert(name, problem);
            }
            None => drop(self.shortcomings.remove(name)),
        }
    }

    /// Everything this node can do, and why not the rest.
    pub(super) fn features(&self) -> Vec<Feature> {
        let mut features = vec![kernel::version()];
        features.extend(self.kernel.features());
        features.push(privileges::isolation(self.user));
        features.push(self.store.feature());
        features.extend(
            self.current
                .and_then(|number| self.workers.get(&number))
                .into_iter()
                .flat_map(|worker| worker.features.clone()),
        );
        let off = |(name, detail): (&&str, &String)| Feature {
            name: (*name).to_owned(),
            on: false,
            detail: detail.clone(),
        };
        features.extend(self.shortcomings.iter().map(off));
        features
    }
}

/// Whether only this machine reaches it.
fn is_loopback(address: std::net::SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
