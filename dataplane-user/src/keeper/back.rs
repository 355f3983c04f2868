//! The node goes back by itself from a revision on trial that it has not heard the confirmation of: the console cannot tell it
//! to where that very revision drops what the console says.
//!
//! Nobody is asked: disk and kernel have the confirmed snapshot at once, and the worker follows or is replaced.

use std::collections::BTreeSet;
use std::time::Duration;

use model::listen::Place;
use model::snapshot::{Listener, SignedSnapshot, Snapshot, SnapshotId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::apply::Refusal;
use super::drain::accepting;
use super::run::Keeper;
use super::state::{Stored, Trial};
use super::status::Refused;
use super::supervise::WorkerNumber;
use super::upgrade;
use crate::handover::ToWorker;
use crate::{sentence, signed};

/// How long a worker may take to make the confirmed snapshot live.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a worker has to speak to go back.
const SINCE: u32 = 8;

/// What the node does unless the snapshot in force is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrialStatus {
    /// It goes back to this; to nothing where it had nothing.
    pub back: Option<SnapshotId>,
    /// In so many seconds at most.
    pub seconds_left: u64,
}

impl TrialStatus {
    pub(super) fn of(trial: &Trial) -> Self {
        // Rounded, so that the file is not written anew every second for it.
        let seconds_left = trial.left(std::time::Instant::now()).as_secs().next_multiple_of(5);
        Self { back: trial.back(), seconds_left }
    }

    /// Behind the revision in force.
    pub(super) fn words(&self) -> String {
        let back = self.back.map_or("to nothing".to_owned(), |id| format!("to revision {}", id.revision));
        format!(", on trial: unless it is confirmed the node goes back {back} in {} s", self.seconds_left)
    }
}

/// A worker on its way back, and until when.
pub(super) type Returning = (WorkerNumber, Instant);

/// Why a revision is not in force (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "nobody confirmed revision {} in time as far as this node has heard, so it went back to {} by itself; it takes that \
     revision once it is confirmed, or a newer one",
    .from.revision, Words(*.to)
)]
pub(super) struct GoneBack {
    /// Which.
    pub(super) from: SnapshotId,
    to: Option<SnapshotId>,
}

struct Words(Option<SnapshotId>);

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => write!(f, "revision {}", id.revision),
            None => f.write_str("having none"),
        }
    }
}

impl Keeper {
    /// Whether it says no more than that what is on trial is confirmed.
    pub(super) fn is_confirmation(&self, signed: &SignedSnapshot) -> bool {
        let confirms = |offered: &Snapshot| offered.trial_ms.is_none() && self.differs_in_trial(offered);
        self.state.trial().is_some() && self.verify(signed).is_ok_and(|offered| confirms(&offered))
    }

    /// Whether it is what is stored and in force, but for the trial.
    pub(super) fn differs_in_trial(&self, offered: &Snapshot) -> bool {
        let stored = self.state.stored().is_some_and(|stored| stored.snapshot.is_same_but_for_trial(offered));
        stored && self.in_force.as_ref().is_some_and(|in_force| in_force.id == offered.id)
    }

    /// What is in force waits no longer. A trial that is told once more changes nothing: it ends when it was to end.
    pub(super) fn confirm(&mut self, offered: Stored) -> Result<(), Refusal> {
        if offered.snapshot.trial_ms.is_some() || self.state.trial().is_none() {
            return Ok(());
        }
        let (id, snapshot) = (offered.snapshot.id, offered.snapshot.clone());
        let staged = self.state.stage(&offered)?;
        self.state.commit(staged, offered)?;
        self.in_force = Some(snapshot);
        self.refused = None;
        tracing::info!(epoch = id.epoch, revision = id.revision, "confirmed");
        Ok(())
    }

    /// Whether it may follow what is stored. What is stored may come again while it is not in force: a worker could not build it
    /// without its keys. Of a revision that the node went back from its trial is over.
    pub(super) fn check_order(&self, offered: &Snapshot) -> Result<(), Refusal> {
        let stored = self.state.stored().map(|stored| &stored.snapshot);
        let again = |stored: &Snapshot| {
            let never_ends = stored.trial_ms.is_none() && offered.trial_ms.is_some();
            self.in_force.is_none() && !never_ends && stored.is_same_but_for_trial(offered)
        };
        if !stored.is_some_and(again) {
            signed::newer(offered.id, stored.map(|stored| stored.id))?;
        }
        match self.gone_back().filter(|gone| offered.trial_ms.is_some() && offered.id <= gone.from) {
            Some(gone) => Err(gone.into()),
            None => Ok(()),
        }
    }

    /// From which revision the node went back, where that one may still come again.
    pub(super) fn gone_back(&self) -> Option<GoneBack> {
        let to = self.state.stored().map(|stored| stored.snapshot.id);
        self.state.gone_back().map(|from| GoneBack { from, to })
    }

    /// The same for the status, until something is applied.
    pub(super) fn refuse_gone_back(&mut self) {
        if let Some(gone) = self.gone_back() {
            self.refused = Some(Refused { id: Some(gone.from), reason: gone.to_string() });
        }
    }

    /// Once a second: whether a trial is over, and whether the worker has followed the last one's end.
    pub(super) async fn check_trial(&mut self) {
        if let Some((number, _)) = self.returning.filter(|(_, until)| *until <= Instant::now()) {
            self.not_returned(number, "it has not answered for ten seconds");
        }
        // What is between two states is in force within seconds, and ends the trial, or is not.
        if self.is_trial_over() && self.transition.is_none() && self.stop_at.is_none() {
            self.go_back().await;
        }
    }

    /// Whether what is stored is on trial and nobody has confirmed it in time.
    pub(super) fn is_trial_over(&self) -> bool {
        self.state.trial().is_some_and(|trial| trial.left(std::time::Instant::now()).is_zero())
    }

    async fn go_back(&mut self) {
        let Some(stored) = self.state.go_back() else { return };
        self.note("stored snapshot", stored.err().map(|error| sentence(&error)));
        self.refuse_gone_back();
        self.in_force = self.state.stored().map(|stored| stored.snapshot.clone());
        // Until a living worker of the keeper before has handed its sockets back, it is not known what is open.
        if self.current.is_some() || !self.is_awaiting() {
            self.enter_filter();
        }
        // A worker that is to take over has been given the revision on trial.
        if self.drop_held_back() {
            self.give_up(&upgrade::Refusal::Trial).await;
        }
        if let Some(number) = self.current {
            self.send_back(number).await;
        }
    }

    /// Lets a worker follow, which may have the revision on trial.
    pub(super) async fn send_back(&mut self, number: WorkerNumber) {
        let knows = self.workers.get(&number).is_some_and(|worker| worker.version >= SINCE);
        let stored = self.state.stored().map(|stored| Box::new(stored.signed.clone()));
        match (knows, stored, self.state.secrets()) {
            (true, Some(snapshot), Ok(mut secrets)) => {
                self.returning = Some((number, Instant::now() + TIMEOUT));
                let keys = std::mem::take(&mut secrets.keys);
                self.say(number, &ToWorker::GoBack { snapshot, keys }, &[]).await;
                self.tell_gone_back(number).await;
            }
            (_, None, _) => self.not_returned(number, "it has nothing to go back to"),
            (_, _, Err(error)) => self.not_returned(number, &sentence(&error)),
            (false, Some(_), Ok(_)) => self.not_returned(number, "its release cannot"),
        }
    }

    /// Lets a worker tell the console, once it hears it.
    pub(super) async fn tell_gone_back(&self, number: WorkerNumber) {
        let knows = self.workers.get(&number).is_some_and(|worker| worker.version >= SINCE);
        if let Some(gone) = self.gone_back().filter(|_| knows) {
            let message = ToWorker::WentBack { id: gone.from, reason: gone.to_string() };
            self.say(number, &message, &[]).await;
        }
    }

    /// Whether the worker says this of the snapshot that it was sent back to.
    pub(super) fn is_returning(&self, number: WorkerNumber, id: SnapshotId) -> bool {
        let stored = self.state.stored().map(|stored| stored.snapshot.id);
        stored == Some(id) && self.returning.is_some_and(|(worker, _)| worker == number)
    }

    /// The confirmed snapshot is live in the worker: what it listens on opens, and nothing else.
    pub(super) async fn returned(&mut self, number: WorkerNumber) {
        self.returning = None;
        self.in_force = self.state.stored().map(|stored| stored.snapshot.clone());
        self.close_what_left(number).await;
        let new = self.open_sockets();
        self.give_sockets(number, &new).await;
        self.enter_filter();
    }

    /// Closes what the revision that the node went back from listened on and the stored one does not: also one that a worker cannot
    /// build yet keeps its ports.
    pub(super) async fn close_what_left(&mut self, number: WorkerNumber) {
        let stored = self.state.stored();
        let wanted = stored.iter().flat_map(|stored| accepting(&stored.snapshot, self.drained));
        let wanted: BTreeSet<Place> = wanted.flat_map(Listener::places).collect();
        let leaving: Vec<Place> = self.sockets.open().difference(&wanted).copied().collect();
        let ids = self.sockets.close(&leaving);
        if !ids.is_empty() {
            self.say(number, &ToWorker::RemoveSockets { ids }, &[]).await;
        }
    }

    /// The worker does not follow: the next one begins with what is stored.
    pub(super) fn not_returned(&mut self, number: WorkerNumber, why: &str) {
        self.returning = None;
        tracing::error!(why, "the worker cannot go back to the confirmed snapshot; another takes its place");
        if let Some(worker) = self.workers.get(&number) {
            worker.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_from_where_and_to_where() {
        let id = |revision| SnapshotId { epoch: 1, revision };
        let said = |to| GoneBack { from: id(7), to }.to_string();
        assert!(
            said(Some(id(5))).contains("confirmed revision 7")
                && said(Some(id(5))).contains("to revision 5 by")
        );
        assert!(said(None).contains("went back to having none by itself"));
    }
}
