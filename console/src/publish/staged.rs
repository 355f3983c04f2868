//! Keys between review and publish: in memory, sealed, few, and not for long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::digest::Digest;
use time::{Duration, OffsetDateTime};

/// How long a form may lie open.
const KEPT: Duration = Duration::hours(1);
/// How many there may be; the oldest goes first.
const AT_MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Staged(BTreeMap<Digest, (OffsetDateTime, Vec<u8>)>);

pub(super) fn lock(staged: &Mutex<Staged>) -> MutexGuard<'_, Staged> {
    // A map of whole values: nothing is half done after a panic.
    staged.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Staged {
    pub(super) fn add(&mut self, (digest, sealed): (Digest, Vec<u8>), now: OffsetDateTime) {
        self.0.retain(|_, (at, _)| now - *at < KEPT);
        if self.0.len() >= AT_MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(digest, _)| *digest)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(digest, (now, sealed));
    }

    pub(super) fn digests(&self) -> BTreeSet<Digest> {
        self.0.keys().copied().collect()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.0.get(digest).map(|(_, sealed)| sealed.clone())
    }
}
