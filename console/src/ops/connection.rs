//! Connections of people and tools, as far as operations care: whether one is newer than a revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// The number of the newest connection that this process has accepted.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// The connection that a request came over, as the server accepted it; nothing a client sends can choose it.
#[derive(Debug, Clone)]
pub struct Connection {
    number: u64,
    closing: Arc<watch::Sender<bool>>,
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Connection {}

impl Connection {
    /// Numbers a connection that was just accepted.
    pub(crate) fn accepted() -> Self {
        let number = NEWEST.fetch_add(1, Ordering::SeqCst) + 1;
        Self { number, closing: Arc::new(watch::Sender::new(false)) }
    }

    /// The number of the newest connection: every later one is greater.
    pub(crate) fn newest() -> u64 {
        NEWEST.load(Ordering::SeqCst)
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Ends the connection in an orderly way after the answers that are under way.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Whether it is to end.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until it is to end.
    pub(crate) async fn closing(&self) {
        // The sender lives in `self`: this cannot fail.
        let _ended = self.closing.subscribe().wait_for(|closing| *closing).await.map(|_guard| ());
    }
}
