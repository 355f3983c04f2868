//! A node that the operator drains opens nothing and goes on with what it has.

use std::collections::BTreeSet;

use model::listen::Place;
use model::snapshot::{Listener, Snapshot};

use super::run::Keeper;
use super::supervise::WorkerNumber;
use crate::handover::ToWorker;

/// The listeners that accept. On a drained node those do that tell of its health: whoever asks them is to hear so, and not
/// to take silence for a fault.
pub(super) fn accepting(snapshot: &Snapshot, drained: bool) -> Vec<&Listener> {
    snapshot.listeners.iter().filter(|listener| !drained || listener.outlives_drain()).collect()
}

impl Keeper {
    /// The operator drains the node at the console, or puts it back to work.
    pub(super) async fn operator_drain(&mut self, number: WorkerNumber, on: bool) {
        if self.current != Some(number) || self.drained == on {
            return;
        }
        self.drained = on;
        tracing::info!(on, "drained by the operator");
        if on {
            let stays = self.in_force.iter().flat_map(|snapshot| accepting(snapshot, on));
            let stay: BTreeSet<Place> = stays.flat_map(Listener::places).collect();
            let leaving: Vec<Place> = self.sockets.open().difference(&stay).copied().collect();
            let ids = self.sockets.close(&leaving);
            self.enter_filter();
            for number in self.acceptors() {
                self.say(number, &ToWorker::RemoveSockets { ids: ids.clone() }, &[]).await;
            }
        } else {
            let ids = self.open_sockets();
            for number in self.acceptors() {
                self.give_sockets(number, &ids).await;
            }
            self.enter_filter();
        }
    }
}
