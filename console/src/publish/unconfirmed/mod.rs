//! A revision that would roll back by itself (decision 22).
//!
//! Who may confirm it: whoever comes over a connection that was opened after it was published. A connection from before shows
//! only that it was not cut. And what may be published while it waits: nothing but going back, since any other revision would
//! take over what was never confirmed. Confirming and going back happen behind the publisher's gate, so one of them comes first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::problem::{Code, Problem};
use time::format_description::well_known::Rfc3339;

use super::{Current, Publisher, Wish};
use crate::ops::{Connection, OpsError, PublishOptions};
use crate::store::RevisionRow;

/// How long a confirmation waits for changes that are being made: then whoever confirms is told so. Shorter than nodes wait behind
/// the trial before they go back by themselves.
const CONFIRMING: Duration = Duration::from_secs(8);

/// Why the wish may not be granted yet: the newest revision waits for its confirmation. Going back to where it would go by
/// itself may be, unless for a trial again: at the end of that one the unconfirmed objects would return, for good. So may a
/// new number for the same objects, which takes the wait along.
pub(super) fn in_the_way(
    newest: Option<&RevisionRow>,
    wish: &Wish,
    options: &PublishOptions,
) -> Option<Problem> {
    let row = newest?;
    let (at, to) = row.rollback?;
    match wish {
        Wish::Again { .. } => return None,
        Wish::Rollback(wanted) if *wanted == to && options.rollback_after.is_none() => return None,
        Wish::Rollback(_) | Wish::Unconfirmed { .. } | Wish::Changes(_) => {}
    }
    // Whole seconds: nobody reads more, and the console looks once a second.
    let until = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    let (number, actor) = (row.number, &row.actor);
    let message = format!(
        "revision {number}, published by {actor}, waits until {until} to be confirmed, and nothing else is published before: \
         keep it (sallyport confirm {number}, or \"Keep it\" on /changes/{number}), or go back now, without a trial (sallyport \
         rollback {to}, or \"Roll back to {to}\" on that page); then repeat this"
    );
    Some(Problem::new("", "", Code::Conflict, message))
}

impl Publisher {
    /// The wish; going back by itself only while there is something to go back from. Asked behind the gate, as confirming is: who
    /// was told that a revision is confirmed keeps it.
    pub(super) async fn still_due(&self, wish: Wish) -> Result<Option<Wish>, OpsError> {
        let Wish::Unconfirmed { revision, now } = wish else { return Ok(Some(wish)) };
        let newest = self.0.store.newest().await?.filter(|newest| newest.number == revision);
        let due = newest.and_then(|newest| newest.rollback).filter(|(at, _)| *at <= now);
        Ok(due.map(|(_, to)| {
            tracing::warn!(revision, to, "nobody confirmed in time: rolling back");
            Wish::Rollback(to)
        }))
    }

    /// Ends a revision's wait for its confirmation, behind the gate, and tells the nodes; whether it was waiting.
    ///
    /// # Errors
    /// When the store fails, or other changes hold the gate for long. Then it waits as before.
    pub async fn confirm(&self, revision: u64) -> Result<bool, OpsError> {
        let me = self.clone();
        // A task of its own for the same reason as when publishing.
        let task = tokio::spawn(async move { me.confirm_within(CONFIRMING, revision).await });
        task.await.map_err(|_panicked| OpsError::Stopped)?
    }

    async fn confirm_within(&self, patience: Duration, revision: u64) -> Result<bool, OpsError> {
        let held = || {
            let message = format!(
                "other changes were being made for {} seconds, and revision {revision} was not confirmed; confirm once more",
                patience.as_secs()
            );
            OpsError::problem("", "", Code::Conflict, message)
        };
        let gate = tokio::time::timeout(patience, self.0.gate.lock()).await;
        let _gate = gate.map_err(|_elapsed| held())?;
        if !self.0.store.confirm_revision(revision).await? {
            return Ok(false);
        }
        self.0.current.send_if_modified(|current| {
            let waited = current.id.revision == revision && current.rollback_at.is_some();
            if waited {
                *current = Arc::new(Current { rollback_at: None, ..Current::clone(current) });
            }
            waited
        });
        Ok(true)
    }
}

/// The newest revision that waits, and the newest connection there was when it was published. Connections do not survive
/// the console's process, so neither does this: after a restart every connection is new.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(Mutex<Option<(u64, u64)>>);

impl Unconfirmed {
    fn set(&self, revision: u64, newest: u64) {
        // One whole value: nothing is half done after a panic.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, newest));
    }

    /// The revision is about to be written: nobody may confirm it before [`Unconfirmed::published`].
    pub(super) fn begin(&self, revision: u64) {
        self.set(revision, u64::MAX);
    }

    /// The revision is in force: connections from now on are new.
    pub(super) fn published(&self, revision: u64) {
        self.set(revision, Connection::newest());
    }

    /// Whether a request over this connection may confirm the revision.
    pub(super) fn may_confirm(&self, revision: u64, connection: Option<&Connection>) -> bool {
        let Some(connection) = connection else { return false };
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((waiting, newest)) if waiting == revision => connection.number() > newest,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
