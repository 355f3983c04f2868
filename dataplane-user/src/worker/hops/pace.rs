//! How long a client may keep a body waiting: a purse of time that waiting spends and bytes fill again.
//!
//! A deadline that starts anew with every byte holds nobody who sends one a minute. Here a byte buys what it takes at the
//! least rate, and the purse never holds more than one stall. Time in which the origin is waited for costs nothing.

use tokio::time::{Duration, Instant};

/// One direction's purse.
#[derive(Debug)]
pub(super) struct Pace {
    most: Duration,
    left: Duration,
    /// What one byte buys.
    byte: Duration,
    /// Since when the client is waited for.
    since: Option<Instant>,
}

impl Pace {
    /// A full purse; none where any byte will do.
    pub(super) fn new(stall: Duration, bytes_per_second: u32) -> Option<Self> {
        let byte = Duration::from_secs(1).checked_div(bytes_per_second)?;
        Some(Self { most: stall, left: stall, byte, since: None })
    }

    /// The client is waited for: until when.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left
    }

    /// The client has sent or taken this much; it is no longer waited for.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        let spent = self.since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let bought = self.byte.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.left = self.left.saturating_sub(spent).saturating_add(bought).min(self.most);
    }

    /// The client has all there is.
    pub(super) fn fill(&mut self) {
        (self.since, self.left) = (None, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn any_byte_will_do_without_a_rate() {
        assert!(Pace::new(SECOND, 0).is_none());
    }

    #[test]
    fn dripping_spends_more_than_it_buys() {
        let start = Instant::now();
        let mut pace = Pace::new(10 * SECOND, 100).unwrap();
        // One byte a second buys a hundredth of what it costs.
        let cut = (1..).find(|second| {
            let due = pace.wait(start + SECOND * (second - 1));
            let now = start + SECOND * *second;
            pace.moved(1, now);
            due < now
        });
        assert_eq!(cut, Some(11));
    }

    #[test]
    fn the_least_rate_lasts_and_saves_nothing_up() {
        let start = Instant::now();
        let mut pace = Pace::new(10 * SECOND, 100).unwrap();
        for second in 0..1000 {
            assert!(pace.wait(start + SECOND * second) > start + SECOND * (second + 1), "{second}");
            pace.moved(100, start + SECOND * (second + 1));
        }
        pace.moved(1_000_000_000, start + 1000 * SECOND);
        assert_eq!(pace.wait(start + 1000 * SECOND), start + 1010 * SECOND);
    }

    #[test]
    fn waiting_for_others_costs_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(10 * SECOND, 100).unwrap();
        assert_eq!(pace.wait(start), start + 10 * SECOND);
        pace.moved(0, start + 4 * SECOND);
        assert_eq!(pace.wait(start + 100 * SECOND), start + 106 * SECOND);
        pace.fill();
        assert_eq!(pace.wait(start + 200 * SECOND), start + 210 * SECOND);
    }
}
