//! What all threads know of one origin's health: results of probes, and of requests (passive ejection). Read for each
//! choice, so it is atomics; written when something changes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When an origin that fails is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row; 0: never.
    pub after: u32,
    /// The first time; each further one is longer by as much.
    pub base: Duration,
    /// The longest.
    pub most: Duration,
    /// Of a group's enabled origins, how many may be ejected at once, per cent.
    pub share: u32,
    /// Whether 502, 503 and 504 from the origin are failures.
    pub statuses: bool,
}

/// One origin's health.
#[derive(Debug, Default)]
pub struct Health {
    unhealthy: AtomicBool,
    /// Microseconds; 0: not known.
    latency: AtomicU32,
    in_a_row: AtomicU32,
    ejections: AtomicU32,
    /// [`clock`]; 0: never was.
    ejected_until: AtomicU64,
    /// Since when it has been well, [`clock`]; 0: since ever.
    well_since: AtomicU64,
    probed: AtomicBool,
    why: Mutex<Option<String>>,
}

/// Milliseconds since this process first asked, never 0.
pub fn clock(now: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(|| now.checked_sub(Duration::from_millis(1)).unwrap_or(now));
    u64::try_from(now.saturating_duration_since(*start).as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Health {
    /// Of an origin that is new in a group that was there before: it starts slowly.
    pub fn new_at(now: u64) -> Self {
        Self { well_since: AtomicU64::new(now), ..Self::default() }
    }

    /// Whether it may be chosen before others: neither unhealthy nor ejected.
    pub fn well(&self, now: u64) -> bool {
        !self.unhealthy.load(Ordering::Relaxed) && !self.ejected(now)
    }

    /// Whether it is left alone because of failures in a row.
    pub fn ejected(&self, now: u64) -> bool {
        now < self.ejected_until.load(Ordering::Relaxed)
    }

    /// How long it has been well.
    pub fn well_for(&self, now: u64) -> Duration {
        let since = self.well_since.load(Ordering::Relaxed).max(self.ejected_until.load(Ordering::Relaxed));
        if since == 0 { Duration::MAX } else { Duration::from_millis(now.saturating_sub(since)) }
    }

    /// What the last probes took, microseconds.
    pub fn latency(&self) -> Option<u32> {
        Some(self.latency.load(Ordering::Relaxed)).filter(|latency| *latency > 0)
    }

    /// What the probes say: healthy or not; nothing where there are none.
    pub fn probed(&self) -> Option<bool> {
        self.probed.load(Ordering::Relaxed).then(|| !self.unhealthy.load(Ordering::Relaxed))
    }

    /// Why the last probe that failed did.
    pub fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the probes found. `latency` is a mean of the good ones.
    pub fn set_probed(&self, healthy: bool, latency: Option<Duration>, why: Option<String>, now: u64) {
        if let Some(latency) = latency {
            let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(1);
            self.latency.store(micros, Ordering::Relaxed);
        }
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
        if healthy && self.unhealthy.load(Ordering::Relaxed) {
            self.well_since.store(now, Ordering::Relaxed);
        }
        self.unhealthy.store(!healthy, Ordering::Relaxed);
        self.probed.store(true, Ordering::Relaxed);
    }

    /// There are no probes any more.
    pub fn forget_probes(&self) {
        if self.probed.swap(false, Ordering::Relaxed) {
            self.unhealthy.store(false, Ordering::Relaxed);
            self.latency.store(0, Ordering::Relaxed);
            *self.why.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// A request was answered.
    pub fn succeeded(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed at this origin. `all` are its group's enabled origins, itself among them. Answers for how long it
    /// is ejected now.
    pub fn failed<'a>(
        &'a self,
        rules: &Ejection,
        all: impl Iterator<Item = &'a Self> + Clone,
        now: u64,
    ) -> Option<Duration> {
        /// Two threads must not eject two origins where one is allowed; it is rare enough for one lock of the process.
        static DECIDING: Mutex<()> = Mutex::new(());
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if rules.after == 0 || in_a_row < rules.after || self.ejected(now) {
            return None;
        }
        let _deciding = DECIDING.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, ejected) = all
            .fold((0_u64, 0_u64), |(count, ejected), one| (count + 1, ejected + u64::from(one.ejected(now))));
        if self.ejected(now) || (ejected + 1) * 100 > count * u64::from(rules.share) {
            return None;
        }
        let most = u64::try_from(rules.most.as_millis()).unwrap_or(u64::MAX);
        let quiet = now.saturating_sub(self.ejected_until.load(Ordering::Relaxed));
        let before = if quiet > most { 0 } else { self.ejections.load(Ordering::Relaxed) };
        let times = before.saturating_add(1);
        let long = rules.base.saturating_mul(times).min(rules.most);
        self.ejections.store(times, Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
        let until = now.saturating_add(u64::try_from(long.as_millis()).unwrap_or(u64::MAX));
        self.ejected_until.store(until, Ordering::Relaxed);
        Some(long)
    }
}

/// The last results of probes, and what follows from them. Samples that are not there yet count as good.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    good: std::collections::VecDeque<bool>,
    /// Mean of good probes, the newest counts a quarter.
    latency: Option<Duration>,
}

impl Samples {
    /// Notes a result: of the last `size`, `needed` must be good. Answers whether the origin is healthy.
    pub fn add(&mut self, result: Option<Duration>, size: usize, needed: usize) -> bool {
        self.good.push_back(result.is_some());
        while self.good.len() > size {
            self.good.pop_front();
        }
        if let Some(latency) = result {
            self.latency = Some(self.latency.map_or(latency, |mean| (mean * 3 + latency) / 4));
        }
        let bad = self.good.iter().filter(|good| !**good).count();
        bad + needed <= size
    }

    /// What good probes take.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Ejection = Ejection {
        after: 3,
        base: Duration::from_secs(10),
        most: Duration::from_secs(25),
        share: 50,
        statuses: false,
    };

    fn fail(times: u32, one: &Health, all: &[&Health], now: u64) -> Option<Duration> {
        (0..times).filter_map(|_| one.failed(&RULES, all.iter().copied(), now)).next_back()
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_and_success_forgets_them() {
        let (one, other) = (Health::default(), Health::default());
        let all = [&one, &other];
        assert_eq!(fail(2, &one, &all, 1_000), None);
        one.succeeded();
        assert_eq!(fail(2, &one, &all, 1_000), None);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(fail(1, &one, &all, 1_000), seconds(10));
        assert!(!one.well(10_999) && one.well(11_000) && other.well(1_000));
        assert_eq!(one.well_for(12_000), Duration::from_secs(1));
        assert_eq!(fail(9, &one, &all, 5_000), None, "it is ejected already");
        one.succeeded();
        assert_eq!(fail(3, &one, &all, 12_000), seconds(20));
        assert_eq!(fail(3, &one, &all, 33_000), seconds(25), "the longest");
        assert_eq!(fail(3, &one, &all, 90_000), seconds(10), "it was well for long");
    }

    #[test]
    fn at_most_a_share_of_a_group_is_ejected() {
        let all: Vec<Health> = (0..5).map(|_| Health::default()).collect();
        let refs: Vec<&Health> = all.iter().collect();
        let ejected = refs.iter().filter(|one| fail(3, one, &refs, 1_000).is_some()).count();
        assert_eq!(ejected, 2);
        let alone = Health::default();
        assert_eq!(fail(9, &alone, &[&alone], 1_000), None, "the only one stays");
    }

    #[test]
    fn probes_need_so_many_of_the_last_ones() {
        let mut samples = Samples::default();
        let good = Some(Duration::from_millis(8));
        let mut healthy = |result| samples.add(result, 4, 3);
        assert_eq!([None, None].map(&mut healthy), [true, false]);
        assert_eq!([good, good, good, good].map(&mut healthy), [false, false, true, true]);
        assert_eq!(samples.latency(), good);
        let one = Health::new_at(5);
        one.set_probed(false, None, Some("503".to_owned()), 1_000);
        assert!(!one.well(1_000) && one.probed() == Some(false) && one.why().is_some());
        one.set_probed(true, samples.latency(), None, 2_000);
        assert!(one.well(2_000) && one.latency() == Some(8_000));
        assert_eq!(one.well_for(2_500), Duration::from_millis(500));
        one.forget_probes();
        assert_eq!((one.probed(), one.latency()), (None, None));
    }
}
