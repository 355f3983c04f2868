//! Interfaces and addresses are followed when the kernel says that they change, beside the look once a second.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::kernel::{listen_to_changes, read_changes};
use super::run::Keeper;
use crate::handover;

/// Changes come in bursts (a link, its state, its addresses): one look is for all of a burst.
const BURST: Duration = Duration::from_millis(20);
/// Between two looks there is this many times what the last one took, so that no storm of changes keeps the keeper from
/// everything else.
const REST: u32 = 4;

/// The changes that are followed, and when the next look is due.
#[derive(Debug, Default)]
pub(super) struct Follow {
    changes: Option<AsyncFd<OwnedFd>>,
    pub(super) look_at: Option<Instant>,
    /// Not before this.
    rested: Option<Instant>,
}

impl Follow {
    /// Listens, where the kernel has programs of ours that follow.
    pub(super) fn begin(kernel: bool) -> Self {
        let listen = || listen_to_changes().and_then(handover::watch);
        let changes = kernel.then(listen).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel does not say when interfaces change: it is looked once a second");
            None
        });
        Self { changes, ..Self::default() }
    }

    /// Waits for a change that programs or tables may have to follow.
    pub(super) async fn changed(&self) {
        let Some(changes) = &self.changes else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = changes.readable().await else { return std::future::pending().await };
            match ready.try_io(|changes| read_changes(changes.get_ref())) {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) | Err(_) => {}
                // As before there were such messages: the look once a second goes on.
                Ok(Err(_)) => return std::future::pending().await,
            }
            // Other things have their turn between two readings of a long burst.
            tokio::task::yield_now().await;
        }
    }
}

impl Keeper {
    /// The kernel said that something changed.
    pub(super) fn notice(&mut self) {
        let soon = Instant::now() + BURST;
        let at = self.follow.rested.map_or(soon, |rested| rested.max(soon));
        self.follow.look_at.get_or_insert(at);
    }

    /// The look that is due after a burst.
    pub(super) fn look_now(&mut self) {
        let begun = Instant::now();
        self.follow.look_at = None;
        self.kernel.look_after_change();
        self.follow_addresses();
        self.follow.rested = Some(Instant::now() + begun.elapsed() * REST);
    }
}
