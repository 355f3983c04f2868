//! When the filter was found missing on an interface that had it: somebody took it off, and packets passed unjudged until it was
//! put back. A log line, the feature's words and a metric are what is left of that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::report::Feature;

/// What is known of interfaces by their names.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    /// When the filter was last seen to stand.
    at: Instant,
    /// How often it was found missing since this keeper started.
    times: u32,
    /// How long it was missing then at most, the last time.
    last: Duration,
}

impl Gaps {
    /// The filter is on the interface now.
    pub(super) fn stands(&mut self, name: &str) {
        let at = Instant::now();
        match self.0.get_mut(name) {
            Some(seen) => seen.at = at,
            None => drop(self.0.insert(name.to_owned(), Seen { at, times: 0, last: Duration::ZERO })),
        }
    }

    /// It was missing, and is back. How long is not known better than since it was last seen.
    pub(super) fn ended(&mut self, name: &str) {
        self.stands_after(name, Instant::now());
    }

    fn stands_after(&mut self, name: &str, now: Instant) {
        let Some(seen) = self.0.get_mut(name) else { return self.stands(name) };
        seen.last = now.saturating_duration_since(seen.at);
        (seen.times, seen.at) = (seen.times.saturating_add(1), now);
        tracing::warn!(
            interface = name,
            unfiltered_ms_at_most = u64::try_from(seen.last.as_millis()).unwrap_or(u64::MAX),
            times = seen.times,
            "the packet filter was not on the interface: somebody took it off, or made the interface anew; it is attached again, and what came meanwhile was not judged"
        );
    }

    /// How often it was missing.
    pub(super) fn times(&self, name: &str) -> u32 {
        self.0.get(name).map_or(0, |seen| seen.times)
    }

    /// What a feature of the filter says, with what is known of gaps.
    pub(super) fn told(&self, name: &str, feature: Feature) -> Feature {
        match self.0.get(name) {
            Some(Seen { times: times @ 1.., last, .. }) if feature.on => {
                let (plural, ms) = (if *times == 1 { "" } else { "s" }, last.as_millis());
                let detail = format!(
                    "{}; found missing and put back {times} time{plural} since the keeper started, the last time after at most {ms} ms",
                    feature.detail
                );
                Feature { detail, ..feature }
            }
            _ => feature,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(on: bool) -> Feature {
        Feature { name: "xdp:eth0".to_owned(), on, detail: "native".to_owned() }
    }

    #[test]
    fn a_gap_is_as_long_as_the_filter_was_not_seen_at_most() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.told("eth0", feature(true)), feature(true));
        gaps.stands("eth0");
        gaps.stands("eth0");
        assert_eq!(gaps.told("eth0", feature(true)), feature(true));
        for times in 1..3 {
            let at = gaps.0["eth0"].at;
            gaps.stands_after("eth0", at + Duration::from_millis(170));
            assert_eq!(gaps.times("eth0"), times);
            let told = gaps.told("eth0", feature(true)).detail;
            assert!(told.contains(&format!("{times} time")) && told.contains("at most 170 ms"), "{told}");
            assert!(told.starts_with("native; "), "{told}");
        }
        assert_eq!((gaps.told("eth1", feature(true)), gaps.times("eth1")), (feature(true), 0));
        assert_eq!(gaps.told("eth0", feature(false)), feature(false), "there it says why it is off");
    }
}
