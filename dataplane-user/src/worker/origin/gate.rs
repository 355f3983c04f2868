//! How many exchanges an origin has at once, all threads together, and how many requests may wait for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The right to one exchange, given back when it is dropped.
pub type Permission = OwnedSemaphorePermit;

/// One origin's bounds.
#[derive(Debug)]
pub struct Gate {
    free: Arc<Semaphore>,
    waiting: AtomicU32,
    /// Exchanges at once.
    pub most: u32,
    /// Requests that may wait.
    pub pending: u32,
}

/// No exchange may begin: too many wait already, or none ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Gate {
    /// With these bounds.
    pub fn new(most: u32, pending: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(most as usize)), waiting: AtomicU32::new(0), most, pending }
    }

    /// Whether a request would have to wait.
    pub fn full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Waits for its turn, first come first served, over all threads.
    ///
    /// # Errors
    /// See [`Full`].
    pub async fn enter(&self, deadline: Instant) -> Result<Permission, Full> {
        if let Ok(permission) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(permission);
        }
        let _waiting = Waiting::new(self).ok_or(Full)?;
        match timeout_at(deadline, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permission)) => Ok(permission),
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }
}

struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Option<Self> {
        let more = |waiting| (waiting < gate.pending).then_some(waiting + 1);
        gate.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(gate))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    #[tokio::test]
    async fn some_enter_some_wait_and_the_rest_is_refused() {
        let gate = Gate::new(1, 1);
        let soon = Instant::now() + Duration::from_millis(50);
        let first = gate.enter(soon).await.unwrap();
        assert!(gate.full());
        let (second, third, _) = tokio::join!(gate.enter(soon), gate.enter(soon), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(first);
        });
        assert_eq!(third.unwrap_err(), Full, "one waits already");
        let _second = second.unwrap();
        assert_eq!(gate.enter(soon).await.unwrap_err(), Full, "none ended in time");
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }
}
