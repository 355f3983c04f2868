//! Another keeper: what it is told of this worker, and how both go on.

use model::snapshot::SnapshotId;

use super::Control;
use crate::handover::message::{MAX_DESCRIPTORS, NodeIdentity, Running};
use crate::handover::{self, ToKeeper};
use crate::worker::proposal::Proposal;

impl Control {
    /// Tells another keeper what this worker is doing, and gives it the sockets.
    pub(super) async fn introduce(&self) {
        let live = self.settled.as_ref().map(|snapshot| snapshot.id);
        let running = Running {
            live,
            threads: self.threads.count(),
            draining: self.draining,
            features: self.features.clone(),
        };
        let hello = ToKeeper::Hello {
            oldest: handover::OLDEST,
            newest: handover::VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            running: Some(running),
        };
        self.keeper.say(&hello, &[]).await;
        let sockets: Vec<_> = self.threads.sockets().collect();
        for some in sockets.chunks(MAX_DESCRIPTORS) {
            let (infos, descriptors): (Vec<_>, Vec<_>) =
                some.iter().map(|(info, fd)| ((*info).clone(), *fd)).unzip();
            self.keeper.say(&ToKeeper::Holding { sockets: infos }, &descriptors).await;
        }
        self.keeper.say(&ToKeeper::HandedBack, &[]).await;
    }

    /// A restarted keeper goes on with this worker.
    pub(in crate::worker) async fn resume(
        &mut self,
        identity: Option<NodeIdentity>,
        stored: Option<SnapshotId>,
    ) {
        if identity != self.identity {
            self.identity = identity;
            self.secrets.node = None;
            self.follow_console();
        } else if self.console.task.is_none() {
            // The former keeper died before this worker was the one that serves.
            self.follow_console();
        }
        match self.proposal.as_ref().map(Proposal::id) {
            // What is settled already is on trial there, and the proposal says that it is confirmed.
            Some(id)
                if stored == Some(id) && self.settled.as_ref().is_none_or(|settled| settled.id != id) =>
            {
                self.settled(id).await;
            }
            Some(_) => self.propose().await,
            None => {}
        }
        if self.threads.drained() {
            // The console said it to the keeper before.
            self.keeper.say(&ToKeeper::OperatorDrain { on: true }, &[]).await;
        }
    }
}
