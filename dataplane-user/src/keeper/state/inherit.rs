//! How the state is read, and what of it a keeper takes along that becomes its next release.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zeroize::Zeroizing;

use super::{IDENTITY, SNAPSHOT, State, StateError};
use crate::handover::succession::Inheritance;
use crate::keeper::directory::Directory;

impl State {
    /// Goes on with the directory and the lock of the release before, and with what it has read already.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn inherit(
        directory: Directory,
        lock: OwnedFd,
        secrets: &mut Inheritance,
    ) -> Result<Self, StateError> {
        let sealing_key = Zeroizing::new(std::mem::take(&mut secrets.sealing_key));
        Self::load(directory, lock, sealing_key, |state| {
            state.enrolment = secrets.enrolment.take().map(Zeroizing::new);
            Ok(())
        })
    }

    /// What the next release needs: the directory, its lock, and what was read with the privileges of the first start.
    pub fn inheritance(&self) -> ([BorrowedFd<'_>; 2], Inheritance) {
        let enrolment = self.enrolment.as_ref().map(|secret| secret.to_string());
        let secrets = Inheritance { sealing_key: self.sealing_key.to_vec(), enrolment, metrics: None };
        ([self.directory.as_fd(), self.lock.as_fd()], secrets)
    }

    /// Reads what is in the directory; `enrol` says what is done with a token.
    pub(super) fn load(
        directory: Directory,
        lock: OwnedFd,
        sealing_key: Zeroizing<Vec<u8>>,
        enrol: impl FnOnce(&mut Self) -> Result<(), StateError>,
    ) -> Result<Self, StateError> {
        let keys = directory
            .below("keys", 0o700)
            .map_err(|error| StateError::io("opening keys/", &directory, error))?;
        let mut state = Self {
            directory,
            keys,
            lock,
            sealing_key,
            identity: None,
            enrolment: None,
            snapshot: None,
            trial: None,
            gone_back: None,
            left_aside: None,
        };
        state.identity = state.read_json(IDENTITY, "a node's identity")?;
        enrol(&mut state)?;
        match state.load_snapshot(SNAPSHOT)?.transpose() {
            Ok(snapshot) => state.snapshot = snapshot,
            Err(left_aside) => state.left_aside = Some(left_aside),
        }
        state.load_trial()?;
        Ok(state)
    }
}
