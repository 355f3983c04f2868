//! What the log says of watches that cannot be. Who may look at flows can ask for as many as he likes, one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines at least.
const PAUSE: Duration = Duration::from_secs(60);

/// Watches that are asked for and cannot be.
#[derive(Debug, Default)]
pub(super) struct Refused {
    known: BTreeSet<u64>,
    pace: Pace,
}

/// When a line was written last, and how many were not since.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    left_out: u64,
}

impl Refused {
    /// Nothing is asked for any more. The pace of the log stays: whoever closes a watch may open the next.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Logs what is refused now and was not before, one line a minute at most.
    pub(super) fn note(&mut self, refused: &[(u64, String)], now: Instant) {
        for (id, why) in refused.iter().filter(|(id, _)| !self.known.contains(id)) {
            if let Some(left_out) = self.pace.line(now) {
                tracing::warn!(
                    watch = id,
                    why,
                    left_out,
                    "a watch of flows cannot be; the others go on (left_out: as many were refused since the line before)"
                );
            }
        }
        self.known = refused.iter().map(|(id, _)| *id).collect();
    }
}

impl Pace {
    /// Whether there may be a line now: how many there were none for since the one before.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_minute_which_says_how_many_were_left_out() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let none = |id| [(id, "there is no such reason".to_owned())];
        let pace = |refused: &Refused| (refused.pace.last.map(|last| last - start), refused.pace.left_out);
        // Opened and closed at somebody's pace.
        for id in 0..50 {
            refused.note(&none(id), start + Duration::from_millis(id));
            refused.clear();
        }
        assert_eq!(pace(&refused), (Some(Duration::ZERO), 49));
        // One that stays is asked for with every lease, and counts once.
        for second in 1..60 {
            refused.note(&none(50), start + Duration::from_secs(second));
        }
        assert_eq!(pace(&refused), (Some(Duration::ZERO), 50));
        refused.note(&[none(50), none(51)].concat(), start + PAUSE);
        assert_eq!(pace(&refused), (Some(PAUSE), 0));
    }

    #[test]
    fn a_line_tells_how_many_had_none() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let lines = [0, 1, 59, 60, 61, 200].map(|second| pace.line(start + Duration::from_secs(second)));
        assert_eq!(lines, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
