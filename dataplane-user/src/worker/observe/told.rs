//! What the keeper tells of the kernel, which is so for as long as it goes on telling.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::shard::lock;
use crate::handover::message::FIGURES_EVERY;

/// A word older than this is not what is so: the keeper that gave it is dead or hangs, and the worker outlives it. A keeper that is
/// merely late, such as while it enters a large filter, is believed meanwhile.
const GOOD_FOR: Duration = FIGURES_EVERY.saturating_mul(5);

/// The keeper's last word on something, and when it was given.
#[derive(Debug)]
pub(super) struct Told<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Told<T> {
    /// The keeper says this now.
    pub(super) fn tell(&self, what: T, now: Instant) {
        *lock(&self.0) = Some((now, what));
    }

    /// What it said; nothing where it said nothing, or nothing for too long.
    pub(super) fn at(&self, now: Instant) -> Option<T> {
        let told = lock(&self.0);
        let (at, what) = told.as_ref()?;
        (now.saturating_duration_since(*at) <= GOOD_FOR).then(|| what.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_good_for_five_times_the_interval() {
        let (told, start) = (Told::default(), Instant::now());
        assert_eq!(told.at(start), None);
        told.tell(1, start);
        let last = start + Duration::from_secs(5);
        assert_eq!((told.at(start), told.at(last)), (Some(1), Some(1)));
        assert_eq!(told.at(last + Duration::from_millis(1)), None);
        // A clock of another thread that was read before.
        told.tell(2, last);
        assert_eq!((told.at(start), told.at(last + FIGURES_EVERY)), (Some(2), Some(2)));
    }
}
