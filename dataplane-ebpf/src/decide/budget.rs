//! Budgets: a rate and a burst, kept in one word (the generic cell rate algorithm, ITU-T I.371, which is a token bucket
//! without a count of tokens). Pure: time is an argument.
//!
//! The word is the time at which the bucket would be full again. What is let through moves it on by one interval; what would
//! move it farther ahead of now than a burst's worth is over the budget. Nothing runs while nobody sends.

/// How far apart two CPUs' ideas of now may be, nanoseconds: one that was interrupted between reading the clock and
/// the bucket has an old one, and must not take a bucket that another has just emptied for a stranger's.
pub const SKEW: u64 = 60_000_000_000;

/// A budget: at most `burst` at once, and `rate` a second for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one costs; 0: there is no budget.
    pub interval: u64,
    /// How far ahead of now the word may be, nanoseconds, when one more is asked for.
    pub tolerance: u64,
}

impl Rate {
    /// A budget of `rate` a second (1 to 1,000,000,000) and `burst` (at least 1). The interval is rounded up, so that it is never
    /// more than `rate`: by less than 1 % up to ten million a second.
    pub const fn new(rate: u64, burst: u64) -> Self {
        let rate = if rate == 0 { 1 } else { rate };
        let interval = 1_000_000_000_u64.div_ceil(rate);
        Self { interval, tolerance: burst.saturating_sub(1).saturating_mul(interval) }
    }

    /// Whether there is a budget.
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        self.interval != 0
    }

    /// The word after one more at `now` (nanoseconds of a clock that does not go back); nothing when that is over the budget.
    ///
    /// A word that this budget cannot have left behind, from a larger one or another clock, is a full bucket: one that is farther
    /// ahead than this budget and [`SKEW`] explain.
    #[inline(always)]
    pub const fn charge(self, word: u64, now: u64) -> Option<u64> {
        let ahead = word.saturating_sub(now);
        if ahead > self.tolerance.saturating_add(self.interval).saturating_add(SKEW) {
            return Some(now.saturating_add(self.interval));
        }
        if ahead > self.tolerance {
            return None;
        }
        Some(now.saturating_add(ahead).saturating_add(self.interval))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// A bucket that counts tokens, in billionths.
    struct Tokens {
        rate: u128,
        burst: u128,
        have: u128,
        at: u64,
    }

    impl Tokens {
        const ONE: u128 = 1_000_000_000;

        fn take(&mut self, now: u64) -> bool {
            self.have = (self.have + u128::from(now - self.at) * self.rate).min(self.burst * Self::ONE);
            self.at = now;
            let within = self.have >= Self::ONE;
            self.have -= if within { Self::ONE } else { 0 };
            within
        }
    }

    fn steps() -> impl Strategy<Value = Vec<u64>> {
        vec(prop_oneof![4 => 0_u64..1_000, 4 => 0_u64..50_000_000, 1 => 0_u64..5_000_000_000], 1..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 10 } else { 2_000 }))]

        /// In any window of any length t: never more than rate * t + burst.
        #[test]
        fn never_more_than_rate_and_burst(rate in 1_u64..2_000_000, burst in 1_u64..200, start: u64, steps in steps()) {
            let (limit, mut word, mut now) = (Rate::new(rate, burst), 0, start >> 1);
            let mut passed = Vec::new();
            for step in steps {
                now += step;
                if let Some(next) = limit.charge(word, now) {
                    word = next;
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let most = u128::from(rate) * u128::from(to - from) / Tokens::ONE + u128::from(burst);
                    prop_assert!((last - first + 1) as u128 <= most, "{} in {} ns", last - first + 1, to - from);
                }
            }
        }

        /// Where the interval is whole, it is exactly the bucket that counts.
        #[test]
        fn it_is_a_token_bucket(interval in select(std::vec![1_000_u64, 20_000, 1_000_000, 500_000_000]), burst in 1_u64..50, start: u32, steps in steps()) {
            let rate = 1_000_000_000 / interval;
            let (limit, mut word, mut now) = (Rate::new(rate, burst), 0, u64::from(start));
            let mut tokens = Tokens { rate: rate.into(), burst: burst.into(), have: u128::from(burst) * Tokens::ONE, at: now };
            for step in steps {
                now += step;
                let next = limit.charge(word, now);
                prop_assert_eq!(next.is_some(), tokens.take(now));
                word = next.unwrap_or(word);
            }
        }

        /// Whatever lies in the map and whatever the clock says: no panic, and the next burst's worth of time mends it.
        #[test]
        fn any_word_at_any_time(rate in 1_u64..10_000_000, burst in 1_u64..1_000_000, word: u64, now: u64) {
            let limit = Rate::new(rate, burst);
            if let Some(next) = limit.charge(word, now) {
                prop_assert!(next >= now);
                prop_assert!(next - now <= limit.tolerance.saturating_add(limit.interval));
            } else {
                let later = now.saturating_add(limit.tolerance).saturating_add(limit.interval).saturating_add(SKEW);
                prop_assert!(limit.charge(word, later).is_some());
            }
        }
    }

    /// A CPU whose clock was read a moment before another emptied the bucket does not fill it.
    #[test]
    fn an_older_now_fills_no_bucket() {
        let limit = Rate::new(200, 20);
        let (mut word, now) = (0, 9_000_000_000);
        while let Some(next) = limit.charge(word, now) {
            word = next;
        }
        for earlier in [0, 1, 50, 5_000_000, 1_000_000_000, SKEW / 2] {
            assert_eq!(limit.charge(word, now.saturating_sub(earlier)), None, "{earlier}");
        }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let limit = Rate::new(10, 3);
        let (mut word, mut passed) = (0, 0);
        for tick in 0..1000_u64 {
            if let Some(next) = limit.charge(word, 5_000_000_000 + tick * 1_000_000) {
                (word, passed) = (next, passed + 1);
            }
        }
        // Three at once, and one each full tenth of the second that follows.
        assert_eq!(passed, 3 + 9);
    }
}
