//! One revision is made at a time.

use model::compile::FactsCache;
use tokio::sync::{Mutex, MutexGuard};

/// Held while a revision is made; those who wait come in as they came.
#[derive(Debug)]
pub(super) struct Gate {
    cache: Mutex<FactsCache>,
    /// How many have come, also those who still wait: what tests order others by.
    #[cfg(test)]
    came: tokio::sync::watch::Sender<usize>,
}

impl Gate {
    pub(super) fn of(cache: FactsCache) -> Self {
        Self {
            cache: Mutex::new(cache),
            #[cfg(test)]
            came: tokio::sync::watch::Sender::default(),
        }
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, FactsCache> {
        #[cfg(test)]
        self.came.send_modify(|came| *came += 1);
        self.cache.lock().await
    }

    /// Hears of everybody who comes from now on. Whoever has come has queued as well where tasks share one thread.
    #[cfg(test)]
    pub(super) fn comers(&self) -> tokio::sync::watch::Receiver<usize> {
        self.came.subscribe()
    }
}
