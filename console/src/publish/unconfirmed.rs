//! Who may confirm a revision that would roll back by itself: whoever comes over a connection that was opened after it
//! was published (decision 22). A connection from before shows only that it was not cut.

use std::sync::{Mutex, PoisonError};

use crate::ops::Connection;

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
