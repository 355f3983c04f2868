//! When a node that refused a revision is sent it again.
//!
//! What a node refuses for may pass without anybody publishing anything: a port that was in use, a route or address that was
//! missing, a full disk. The node's reason says what to do, so doing it has to be enough.

use std::time::{Duration, Instant};

/// After the first refusal.
const FIRST: Duration = Duration::from_secs(5);
/// At most between two attempts: each costs the node what applying costs.
const MOST: Duration = Duration::from_secs(600);

/// Of one revision on one link.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// How long is waited, and until when; nothing where nothing was refused.
    waits: Option<(Duration, Instant)>,
}

impl Again {
    /// The node refused: each time twice as long is waited.
    pub(super) fn refused(&mut self, now: Instant) {
        let wait = self.waits.map_or(FIRST, |(wait, _)| (wait * 2).min(MOST));
        self.waits = Some((wait, now + wait));
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
        for _ in 0..9 {
            again.refused(now);
            let since = now;
            while !again.is_due(now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - since).as_secs());
            assert!(!again.is_due(now), "once");
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        again.refused(now);
        again.over();
        assert!(!again.is_due(now + MOST));
        again.refused(now);
        assert!(again.is_due(now + FIRST), "another revision begins anew");
    }
}
