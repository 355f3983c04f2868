//! Of how many packets one is told: so many that about [`BUDGET`] a second are.

use std::time::Duration;

use dataplane_ebpf::wire::flow::SHIFT_MAX;
use tokio::time::Instant;

/// Packets a second that a watch tells of each class.
const BUDGET: u64 = 200;
/// Over less time there is no rate.
const SPAN: Duration = Duration::from_millis(100);

/// One class of one watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    shift: u32,
    at: Instant,
    matched: u64,
}

impl Rate {
    /// Every packet, at first.
    pub(super) fn new(now: Instant) -> Self {
        Self { shift: 0, at: now, matched: 0 }
    }

    /// Of how many packets one is told.
    pub(super) fn one_in(&self) -> u32 {
        1 << self.shift.min(SHIFT_MAX)
    }

    /// The exponent from now on, after `matched` packets since the beginning. It rises at once and falls a step at a time, so
    /// that a pause in a flood does not open the gate.
    pub(super) fn adapt(&mut self, matched: u64, now: Instant) -> u32 {
        let span = now.saturating_duration_since(self.at);
        if span < SPAN {
            return self.shift;
        }
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let each_second = matched.saturating_sub(self.matched).saturating_mul(1000) / millis;
        let wanted = each_second.div_ceil(BUDGET).max(1).next_power_of_two().trailing_zeros().min(SHIFT_MAX);
        self.shift = if wanted >= self.shift { wanted } else { self.shift - 1 };
        (self.at, self.matched) = (now, matched);
        self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_thinned_at_once_and_comes_back_slowly() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let at = |tenths: u32| start + Duration::from_millis(100) * tenths;
        assert_eq!(rate.adapt(20, at(1)), 0);
        // 100,000 a second and 200 wanted: one in 512.
        assert_eq!(rate.adapt(10_020, at(2)), 9);
        assert_eq!(rate.one_in(), 512);
        assert_eq!(rate.adapt(10_020, at(3)), 8);
        // Too short to say.
        assert_eq!(rate.adapt(99_999, at(3) + Duration::from_millis(1)), 8);
        for step in 4..=11 {
            rate.adapt(10_020, at(step));
        }
        assert_eq!(rate.one_in(), 1);
        assert_eq!(rate.adapt(u64::MAX, at(12)), SHIFT_MAX);
    }
}
