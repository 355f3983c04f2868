//! Somebody else holds the listening sockets too, so that they outlive keeper and worker both: what waits in their queues waits
//! for the next keeper. systemd does where it started the node ([`notify`]), else a process of ours ([`holder`]).

pub(super) mod holder;
pub(super) mod notify;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use model::report::Feature;

use self::holder::Holder;
use self::notify::Manager;
use super::run::Keeper;
use super::sockets::Sockets;
use crate::handover::message::SocketInfo;

const NOT_YET: &str = "no process was started for it yet";

/// Who holds what.
#[derive(Debug)]
pub(super) struct Store {
    keeper: Holds,
    /// What is held, by the sockets' ids.
    kept: BTreeMap<u64, SocketInfo>,
}

/// Who.
#[derive(Debug)]
pub(super) enum Holds {
    /// The service manager.
    Manager(Manager),
    /// A process of ours.
    Holder(Holder),
    /// Nobody yet, and why.
    Nobody(String),
}

impl Default for Store {
    fn default() -> Self {
        Self { keeper: Holds::Nobody(NOT_YET.to_owned()), kept: BTreeMap::new() }
    }
}

impl Store {
    /// The store of a keeper that starts, with what it holds from before.
    pub(super) async fn find(run: &super::directory::Directory) -> (Self, Vec<(SocketInfo, OwnedFd)>) {
        let (keeper, kept) = if let Some(manager) = Manager::of_environment() {
            (Holds::Manager(manager), notify::kept())
        } else {
            match Holder::meet(run).await {
                Some((holder, kept)) => (Holds::Holder(holder), kept),
                None => (Holds::Nobody(NOT_YET.to_owned()), Vec::new()),
            }
        };
        let infos = kept.iter().map(|(info, _)| (info.id, info.clone())).collect();
        (Self { keeper, kept: infos }, kept)
    }

    /// The store of a keeper that goes on as its next release; `holder` came across.
    pub(super) fn resume(holder: Option<Holder>, sockets: &Sockets) -> Self {
        let keeper = match (Manager::of_environment(), holder) {
            (Some(manager), _) => Holds::Manager(manager),
            (None, Some(holder)) => Holds::Holder(holder),
            (None, None) => return Self::default(),
        };
        let kept = sockets.held().map(|held| (held.info.id, held.info.clone())).collect();
        Self { keeper, kept }
    }

    /// The process of ours, where there is one.
    pub(super) fn holder(&self) -> Option<&Holder> {
        if let Holds::Holder(holder) = &self.keeper { Some(holder) } else { None }
    }

    /// Somebody holds from now on, or nobody any more; who begins holds nothing.
    pub(super) fn change(&mut self, keeper: Holds) {
        (self.keeper, self.kept) = (keeper, BTreeMap::new());
    }

    /// Tells the service manager, where there is one.
    pub(super) fn say(&self, lines: &str) {
        if let Holds::Manager(manager) = &self.keeper
            && let Err(error) = manager.say(lines)
        {
            tracing::warn!(%error, lines, "the service manager cannot be told");
        }
    }

    /// For the status.
    pub(super) fn feature(&self) -> Feature {
        let count = self.kept.len();
        let (on, detail) = match &self.keeper {
            Holds::Manager(_) => (true, format!("the service manager holds {count} listening sockets")),
            Holds::Holder(holder) => {
                (true, format!("process {} holds {count} listening sockets", holder.pid()))
            }
            Holds::Nobody(why) => {
                (false, format!("nobody but keeper and worker holds the listening sockets: {why}"))
            }
        };
        Feature { name: "descriptor store".to_owned(), on, detail }
    }
}

impl Keeper {
    /// Goes on with sockets that were held while there was no keeper. A worker that comes back brings the same ones.
    pub(super) fn take_kept(&mut self, kept: Vec<(SocketInfo, OwnedFd)>) {
        let threads = kept.iter().map(|(info, _)| info.thread + 1).max().unwrap_or(self.settings.threads);
        if threads != self.settings.threads {
            return tracing::warn!(threads, "the sockets that were held are for another number of threads");
        }
        let count = kept.len();
        for (info, descriptor) in kept {
            let id = info.id;
            if let Err(error) = self.sockets.take_back(info, descriptor) {
                tracing::warn!(%error, id, "a socket that was held is of no use");
            }
        }
        // Nobody is to wait at a place that is no listener's any more.
        let wanted: Vec<_> = self
            .in_force
            .iter()
            .flat_map(|snapshot| &snapshot.listeners)
            .flat_map(model::snapshot::Listener::places)
            .collect();
        let unwanted: Vec<_> =
            self.sockets.open().iter().copied().filter(|place| !wanted.contains(place)).collect();
        self.sockets.close(&unwanted);
        if count > 0 {
            tracing::info!(count, "listening sockets were held meanwhile");
            // What is new waits for the worker that is about to come as well.
            self.open_sockets();
            self.enter_sockets();
        }
    }

    /// A keeper that goes on as its next release has the store that it had.
    pub(super) fn resume_store(&mut self, holder: Option<(u32, OwnedFd)>) {
        let holder = holder.and_then(|(pid, channel)| Holder::resume(pid, channel).ok());
        self.store = Store::resume(holder, &self.sockets);
        self.follow_holder();
    }

    /// After every event: what is open is held, and nothing else.
    pub(super) async fn store_sockets(&mut self) {
        // A node that stops leaves them to the service manager, which closes them unless it starts the node again.
        let stopping = self.stop_at.is_some();
        let open = self.sockets.held().map(|held| held.info.id);
        // While nobody serves, a worker that comes back may bring the very ones that are held.
        let waiting = self.current.is_none();
        if stopping || waiting || self.store.kept.keys().copied().eq(open) {
            return;
        }
        let gone: Vec<SocketInfo> =
            self.store.kept.values().filter(|info| !self.sockets.holds(info.id)).cloned().collect();
        let new: Vec<_> =
            self.sockets.held().filter(|held| !self.store.kept.contains_key(&held.info.id)).collect();
        let outcome = match &self.store.keeper {
            Holds::Nobody(_) => return,
            Holds::Manager(manager) => {
                let let_go = gone.iter().try_for_each(|info| manager.let_go(info));
                let_go.and_then(|()| {
                    new.iter().try_for_each(|held| manager.keep(&held.info, held.socket.as_fd()))
                })
            }
            Holds::Holder(holder) => holder.change(&gone, &new).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the listening sockets are not all held by another process");
        }
        self.store.kept = self.sockets.held().map(|held| (held.info.id, held.info.clone())).collect();
    }
}
