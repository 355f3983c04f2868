//! Which origin a request goes to: a pure decision over what is known of each, and one number that spreads requests.
//!
//! In this order: enabled and well -> lowest `priority` -> those within `latencySensitivityMs` of the fastest -> by weight.
//! Where none is well all are used: a probe that fails everywhere says more of the probe than of the origins.

use std::time::Duration;

/// What is known of one origin of a group at the moment of choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Takes requests at all, and this request has not tried it before.
    pub eligible: bool,
    /// Probes find it healthy, or do not say, and it is not ejected.
    pub well: bool,
    /// Its limits leave room and this thread's last attempt to connect it did not just fail.
    pub ready: bool,
    /// The lowest comes first.
    pub priority: u8,
    /// Its part of the requests, among its like.
    pub weight: u32,
    /// Of its weight, how much it gets while it starts slowly, thousandths; 1000 otherwise.
    pub warmth: u32,
    /// What the last probes took, microseconds; nothing where there were none.
    pub latency: Option<u32>,
}

impl Candidate {
    fn part(&self) -> u64 {
        // Never nothing: an origin that gets no request would never be found to work.
        (u64::from(self.weight) * u64::from(self.warmth)).max(1)
    }
}

/// How good a choice an origin is; the first set that has one is chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// Well and ready.
    Best,
    /// Well.
    Well,
    /// Whatever is left.
    Any,
}

impl Set {
    fn has(self, candidate: &Candidate) -> bool {
        candidate.eligible
            && match self {
                Self::Best => candidate.well && candidate.ready,
                Self::Well => candidate.well,
                Self::Any => true,
            }
    }
}

/// Chooses one of `candidates`. `sensitivity`: how much slower than the fastest an origin may be; nothing where latency
/// does not matter. `point` is anywhere in its range; equal points choose alike, and points spread evenly choose by
/// weight.
pub fn choose(
    candidates: impl Iterator<Item = Candidate> + Clone,
    sensitivity: Option<Duration>,
    point: u64,
) -> Option<usize> {
    let set = [Set::Best, Set::Well, Set::Any]
        .into_iter()
        .find(|set| candidates.clone().any(|candidate| set.has(&candidate)))?;
    let graded = set != Set::Any;
    let first = candidates.clone().filter(|one| set.has(one)).map(|one| one.priority).min()?;
    let equal = move |one: &Candidate| set.has(one) && (!graded || one.priority == first);
    let fastest = candidates.clone().filter(equal).filter_map(|one| one.latency).min();
    let slowest = match (sensitivity, fastest) {
        (Some(sensitivity), Some(fastest)) if graded => {
            u64::from(fastest).saturating_add(u64::try_from(sensitivity.as_micros()).unwrap_or(u64::MAX))
        }
        _ => u64::MAX,
    };
    let near =
        move |one: &Candidate| equal(one) && one.latency.is_none_or(|latency| u64::from(latency) <= slowest);
    let all: u64 = candidates.clone().filter(near).map(|one| one.part()).sum();
    let mut left = u64::try_from((u128::from(point) * u128::from(all)) >> 64).unwrap_or_default();
    for (at, one) in candidates.enumerate().filter(|(_, one)| near(one)) {
        if left < one.part() {
            return Some(at);
        }
        left -= one.part();
    }
    None
}

/// The next point of a sequence that is spread evenly however few of it are taken (steps of the golden ratio).
pub fn point(turn: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How warm an origin is that has been well for `well` and starts slowly over `window`, thousandths: from a tenth to all.
pub fn warmth(well: Duration, window: Duration) -> u32 {
    if well >= window {
        return 1000;
    }
    let part = well.as_millis().saturating_mul(1000) / window.as_millis().max(1);
    u32::try_from(part).unwrap_or(1000).clamp(100, 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(priority: u8, latency_ms: u32, weight: u32) -> Candidate {
        let latency = (latency_ms > 0).then_some(latency_ms * 1000);
        Candidate { eligible: true, well: true, ready: true, priority, weight, warmth: 1000, latency }
    }

    fn count(candidates: &[Candidate], sensitivity: Option<Duration>, turns: u64) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        for turn in 0..turns {
            if let Some(at) = choose(candidates.iter().copied(), sensitivity, point(turn)) {
                counts[at] += 1;
            }
        }
        counts
    }

    /// The worked example of Azure Front Door's documentation ("Overall decision flow"): of A to F, C is unhealthy and E
    /// disabled; A, B and D have priority 1, F has 2; A takes 15 ms, B 30, D 60; sensitivity 30 ms; A weighs 5, B 8.
    fn worked_example() -> [Candidate; 6] {
        [
            origin(1, 15, 5),
            origin(1, 30, 8),
            Candidate { well: false, ..origin(1, 10, 50) },
            origin(1, 60, 50),
            Candidate { eligible: false, ..origin(1, 10, 50) },
            origin(2, 10, 50),
        ]
    }

    #[test]
    fn the_worked_example_of_azure_front_door() {
        let (all, thirty) = (worked_example(), Some(Duration::from_millis(30)));
        let counts = count(&all, thirty, 1300);
        assert!(counts[0].abs_diff(500) <= 2 && counts[1].abs_diff(800) <= 2, "{counts:?}");
        assert_eq!(counts[0] + counts[1], 1300);
        // Its variations: only the fastest; latency left out; A and B gone; the first priority gone.
        assert_eq!(count(&all, Some(Duration::ZERO), 100), [100, 0, 0, 0, 0, 0]);
        let counts = count(&all, None, 6300);
        assert!(counts[0].abs_diff(500) <= 3 && counts[3].abs_diff(5000) <= 3, "{counts:?}");
        let mut without = all;
        without[0].eligible = false;
        without[1].well = false;
        assert_eq!(count(&without, thirty, 10), [0, 0, 0, 10, 0, 0]);
        without[3].well = false;
        assert_eq!(count(&without, thirty, 10), [0, 0, 0, 0, 0, 10]);
        // All unhealthy: all that are enabled are used, whatever their priority.
        let mut unwell = all;
        unwell.iter_mut().for_each(|one| one.well = false);
        let counts = count(&unwell, thirty, 1630);
        assert!(counts[4] == 0 && counts[5].abs_diff(500) <= 3 && counts[2].abs_diff(500) <= 3, "{counts:?}");
    }

    #[test]
    fn few_requests_are_spread_too_and_a_slow_start_is_a_part_of_the_weight() {
        let two = [origin(1, 0, 50), origin(1, 0, 50)];
        for turns in 1..50 {
            let counts = count(&two, None, turns);
            assert!(counts[0].abs_diff(counts[1]) <= 3, "{counts:?}");
        }
        let cold = [origin(1, 0, 50), Candidate { warmth: 100, ..origin(1, 0, 50) }];
        let counts = count(&cold, None, 1100);
        assert!(counts[1].abs_diff(100) <= 2, "{counts:?}");
        let of = |seconds| warmth(Duration::from_secs(seconds), Duration::from_secs(10));
        assert_eq!([of(0), of(1), of(5), of(10), of(99)], [100, 100, 500, 1000, 1000]);
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), 1000);
    }

    /// The same rules step by step, and the weights written out.
    fn slow(candidates: &[Candidate], sensitivity: Option<Duration>, point: u64) -> Option<usize> {
        let mut all: Vec<(usize, Candidate)> =
            candidates.iter().copied().enumerate().filter(|(_, one)| one.eligible).collect();
        if all.iter().any(|(_, one)| one.well) {
            all.retain(|(_, one)| one.well);
            if all.iter().any(|(_, one)| one.ready) {
                all.retain(|(_, one)| one.ready);
            }
            let first = all.iter().map(|(_, one)| one.priority).min()?;
            all.retain(|(_, one)| one.priority == first);
            if let Some(sensitivity) = sensitivity
                && let Some(fastest) = all.iter().filter_map(|(_, one)| one.latency).min()
            {
                let most = Duration::from_micros(fastest.into()) + sensitivity;
                all.retain(|(_, one)| {
                    one.latency.is_none_or(|latency| Duration::from_micros(latency.into()) <= most)
                });
            }
        }
        let drawn: Vec<usize> = all
            .iter()
            .flat_map(|(at, one)| std::iter::repeat_n(*at, (one.weight * one.warmth).max(1) as usize))
            .collect();
        let place = (point as f64 / 2_f64.powi(64) * drawn.len() as f64) as usize;
        drawn.get(place.min(drawn.len().checked_sub(1)?)).copied()
    }

    prop_compose! {
        fn any_candidate()(
            flags in proptest::array::uniform3(prop::bool::weighted(0.7)),
            priority in 1..4_u8,
            weight in 1..20_u32,
            warmth in prop::sample::select(vec![1, 10, 5]),
            latency in proptest::option::of(1..50_000_u32),
        ) -> Candidate {
            let [eligible, well, ready] = flags;
            Candidate { eligible, well, ready, priority, weight, warmth, latency }
        }
    }

    proptest! {
        #[test]
        fn the_decision_is_the_slow_one(
            candidates in prop::collection::vec(any_candidate(), 0..7),
            sensitivity in proptest::option::of((0..30_u64).prop_map(Duration::from_millis)),
            // Away from the edges between two parts, where the reference's arithmetic rounds.
            point in (0..1_u64 << 32).prop_map(|high| high << 32 | 1 << 31),
        ) {
            prop_assert_eq!(
                choose(candidates.iter().copied(), sensitivity, point),
                slow(&candidates, sensitivity, point)
            );
        }
    }
}
