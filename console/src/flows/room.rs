//! Room for watches: how many there may be, and which of them makes room for another.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::flow::WATCHES_MAX;

use super::{Busy, Hub, Key, PAGE, State, Watch};

/// Watches and captures at once, of whatever nodes: each has a buffer for its readers.
pub(super) const ALL: usize = 64;
/// A page that is open looks again within two seconds or so; one that did not for so long makes room for another watch where there
/// is none.
pub(super) const IDLE: Duration = Duration::from_secs(7);

impl Hub {
    /// Whoever had this on a page has gone on to something else. Where somebody else has it on one it is looked at again soon.
    pub(crate) fn leave(&self, key: &Key) {
        let idle = Instant::now() + (PAGE - IDLE);
        let mut state = self.lock();
        let left = |watch: &&mut Watch| watch.capture.is_none() && watch.key == *key;
        if let Some(watch) = state.watches.values_mut().find(left) {
            watch.until = watch.until.min(idle);
        }
    }
}

impl Watch {
    /// Nobody looks at it at present, though somebody may again.
    fn is_idle(&self, now: Instant) -> bool {
        self.capture.is_none() && self.readers == 0 && self.until <= now + (PAGE - IDLE)
    }

    /// Whether a node of this name watches it.
    pub(super) fn is_at(&self, node: &str) -> bool {
        self.key.node.as_ref().is_none_or(|only| only == node)
    }
}

impl State {
    /// Makes room for one more watch. What nobody looks at ends for it, the longest left first; nothing else does.
    pub(super) fn make_room(&mut self, key: &Key, now: Instant) -> Result<(), Busy> {
        while let Some(full) = self.full(key) {
            let idle = self.watches.iter().filter(|(_, watch)| watch.is_idle(now) && full.is_about(watch));
            let Some(id) = idle.min_by_key(|(_, watch)| watch.until).map(|(id, _)| *id) else {
                return Err(full);
            };
            self.watches.remove(&id);
        }
        Ok(())
    }

    /// Where there is no room for a watch. A node that is not connected is told of all its watches once it is.
    fn full(&self, key: &Key) -> Option<Busy> {
        let everywhere = |watch: &&Watch| watch.key.node.is_none();
        if self.watches.len() >= ALL {
            return Some(Busy::All);
        }
        if key.node.is_none() && self.watches.values().filter(everywhere).count() >= WATCHES_MAX {
            return Some(Busy::Everywhere);
        }
        let named = self.watches.values().filter_map(|watch| watch.key.node.as_ref());
        let nodes: BTreeSet<&String> = match &key.node {
            Some(only) => [only].into(),
            None => self.nodes.keys().chain(named).collect(),
        };
        let full = nodes.into_iter().find(|node| self.watched_at(node).count() >= WATCHES_MAX);
        full.map(|node| Busy::Node(node.clone()))
    }
}

impl Busy {
    /// Whether there would be room if this watch ended.
    fn is_about(&self, watch: &Watch) -> bool {
        match self {
            Self::Node(node) => watch.is_at(node),
            Self::Everywhere => watch.key.node.is_none(),
            Self::All => true,
            // Watches are no captures.
            Self::Captures => false,
        }
    }
}
