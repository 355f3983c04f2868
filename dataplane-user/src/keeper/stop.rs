//! Who may ask the keeper to stop, and how it does.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::operator;
use super::rendezvous;
use super::run::{ADOPTION, Keeper};
use super::store::holder;
use super::supervise::{Phase, Worker};
use crate::handover::ToWorker;
use crate::sentence;

/// How long a worker may take over its deadline before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// What people and service managers send.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hang_up: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Asks for SIGTERM when the process that started this one dies, however it dies. False when it is gone already. The
/// kernel forgets the wish when the process changes its user or group.
pub(super) fn end_with(parent: u32) -> bool {
    let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if let Err(error) = asked {
        tracing::warn!(%error, "this node will not end with the process that started it");
        return true;
    }
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    now.and_then(|pid| u32::try_from(pid).ok()) == Some(parent)
}

impl Keeper {
    /// A worker that outlived the former keeper still looks for this one: it is told to drain as soon as it comes.
    pub(super) fn is_awaiting(&self) -> bool {
        !rendezvous::astray(&self.run, &self.workers).is_empty()
    }

    /// Time is up.
    pub(super) fn end_workers(&self) {
        self.workers.values().for_each(Worker::kill);
        for pid in rendezvous::astray(&self.run, &self.workers) {
            if let Err(error) = rendezvous::end(&self.run, pid) {
                tracing::warn!(pid, %error, "a worker that did not come back cannot be killed");
            }
        }
    }

    /// An orderly stop: nothing new is accepted, what is open may finish, then the kernel is left as it was found.
    pub(super) async fn stop(&mut self) {
        let deadline_ms = if self.stop_at.is_some() { 0 } else { self.drain_ms() };
        tracing::info!(deadline_ms, "keeper stops");
        self.store.say("STOPPING=1");
        let coming = if self.is_awaiting() { ADOPTION } else { Duration::ZERO };
        self.stop_at = Some(Instant::now() + coming + Duration::from_millis(deadline_ms.into()) + GRACE);
        self.start_at = None;
        self.abandon_upgrade().await;
        let places: Vec<_> = self.sockets.open().iter().copied().collect();
        self.sockets.close(&places);
        self.enter_filter();
        for worker in self.workers.values_mut() {
            // It has nothing to finish, and would only wait for its work.
            if worker.phase == Phase::Connected {
                worker.kill();
            }
            worker.phase = Phase::Draining;
            worker.say(&ToWorker::Drain { deadline_ms }, &[]).await;
        }
    }

    pub(super) fn end(&mut self) {
        self.write_senders();
        if let Err(error) = self.kernel.detach() {
            tracing::error!(
                error = sentence(&error),
                "the kernel could not be left as it was found; run `sallyport-node detach`"
            );
        }
        for name in ["keeper.sock", operator::SOCKET, "status.json", "workers", holder::SOCKET] {
            if let Err(error) = self.run.remove(name) {
                tracing::warn!(%error, name, "cannot be removed");
            }
        }
        tracing::info!("keeper stopped");
    }
}
