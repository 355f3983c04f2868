//! A revision that would roll back by itself (decision 22).
//!
//! Who may confirm it: whoever comes over a connection that was opened after it was published. A connection from before shows
//! only that it was not cut. And what may be published while it waits: nothing but going back, since any other revision would
//! take over what was never confirmed.

use std::sync::{Mutex, PoisonError};

use model::problem::{Code, Problem};
use time::format_description::well_known::Rfc3339;

use super::Wish;
use crate::ops::{Connection, PublishOptions};
use crate::store::RevisionRow;

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
        Wish::Rollback(_) | Wish::Changes(_) => {}
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
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_from_after_the_publication_may() {
        let (before, unconfirmed) = (Connection::accepted(), Unconfirmed::default());
        assert!(
            unconfirmed.may_confirm(7, Some(&before)),
            "the process that published is gone, and its connections"
        );
        unconfirmed.begin(7);
        assert!(!unconfirmed.may_confirm(7, Some(&Connection::accepted())), "it is not in force yet");
        unconfirmed.published(7);
        assert!(!unconfirmed.may_confirm(7, Some(&before)));
        assert!(!unconfirmed.may_confirm(7, None));
        assert!(unconfirmed.may_confirm(7, Some(&Connection::accepted())));
    }
}
