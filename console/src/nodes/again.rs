//! When a node that refused a revision is sent it again.
//!
//! What a node refuses for may pass without anybody publishing anything: a port that was in use, a route or address that was
//! missing, a full disk. The node's reason says what to do, so doing it has to be enough.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use model::name::Name;

/// After the first refusal.
const FIRST: Duration = Duration::from_secs(5);
/// At most between two attempts: each costs the node what applying costs, and the network the whole snapshot.
const MOST: Duration = Duration::from_secs(3600);
/// The most that a node waits longer than others, in parts of the wait: a thousand that refuse the same come one after the other.
const SPREAD: u32 = 4;

/// Of one revision on one link.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// How much longer than others this node waits: 0 to 255 of 256 parts of a [`SPREAD`]th.
    spread: u8,
    /// How long is waited, and until when; nothing where nothing was refused.
    waits: Option<(Duration, Instant)>,
}

impl Again {
    /// Nothing refused yet, by a node of this name.
    pub(super) fn of(node: &Name) -> Self {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        Self { spread: hasher.finish() as u8, waits: None }
    }

    /// The node refused: each time twice as long is waited.
    pub(super) fn refused(&mut self, now: Instant) {
        let wait = self.waits.map_or(FIRST, |(wait, _)| (wait * 2).min(MOST));
        let longer = wait * u32::from(self.spread) / (256 * SPREAD);
        self.waits = Some((wait, now + wait + longer));
    }

    /// The node has it, or is sent another.
    pub(super) fn over(&mut self) {
        self.waits = None;
    }

    /// Whether it is time; then not again before another refusal.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        match &mut self.waits {
            // The answer may be long in coming.
            Some((_, until)) if *until <= now => {
                *until = now + MOST;
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_comes_again_and_ever_more_seldom() {
        let (mut again, mut now) = (Again::default(), Instant::now());
        assert!(!again.is_due(now + MOST));
        let mut waits = Vec::new();
        for _ in 0..12 {
            again.refused(now);
            let since = now;
            while !again.is_due(now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - since).as_secs());
            assert!(!again.is_due(now), "once");
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        again.refused(now);
        again.over();
        assert!(!again.is_due(now + MOST));
        again.refused(now);
        assert!(again.is_due(now + FIRST), "another revision begins anew");
        let mut last = Again { spread: 255, waits: None };
        last.refused(now);
        assert!(!last.is_due(now + FIRST) && last.is_due(now + FIRST * 5 / 4));
    }
}
