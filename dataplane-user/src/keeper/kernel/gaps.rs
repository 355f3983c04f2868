//! When the filter was found missing on an interface that had it: somebody took it off, and packets passed unjudged until it was
//! put back. A log line, the feature's words and a metric are what is left of that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::report::Feature;

/// What is known of interfaces by their names.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<String, Seen>);

/// An interface that had the filter once since this keeper started.
#[derive(Debug)]
struct Seen {
    /// How it was at the last look.
    was: Was,
    /// When it was last seen with the filter, or not to be there.
    at: Instant,
    /// How long packets may have passed unjudged in this gap before `at`.
    before: Duration,
    /// How often the filter was found missing.
    times: u32,
    /// How long it was missing then at most, the last time.
    last: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    /// With the filter.
    Filtered,
    /// Not there, so nothing came in over it.
    Absent,
    /// There without the filter, at this look or one before, and not with it since.
    Open,
}

impl Gaps {
    /// The filter is on the interface now. Where it was not, that is the end of a gap: how long it was is not known better than since
    /// it was last seen.
    pub(super) fn filtered(&mut self, name: &str, now: Instant) {
        let Some(seen) = self.0.get_mut(name) else {
            let seen =
                Seen { was: Was::Filtered, at: now, before: Duration::ZERO, times: 0, last: Duration::ZERO };
            self.0.insert(name.to_owned(), seen);
            return;
        };
        if seen.was != Was::Filtered {
            seen.last = std::mem::take(&mut seen.before) + now.saturating_duration_since(seen.at);
            seen.times = seen.times.saturating_add(1);
            tracing::warn!(
                interface = name,
                unfiltered_ms_at_most = u64::try_from(seen.last.as_millis()).unwrap_or(u64::MAX),
                times = seen.times,
                "the packet filter was not on the interface: somebody took it off, or made the interface anew; it is attached again, and what came meanwhile was not judged"
            );
        }
        (seen.was, seen.at) = (Was::Filtered, now);
    }

    /// The interface is there and the filter is not on it, for however many looks: its gap goes on until it is filtered again.
    pub(super) fn open(&mut self, name: &str) {
        if let Some(seen) = self.0.get_mut(name) {
            seen.was = Was::Open;
        }
    }

    /// There is no such interface, so its gap, which began when it went at the latest, grows no longer until it is made anew.
    pub(super) fn absent(&mut self, name: &str, now: Instant) {
        let Some(seen) = self.0.get_mut(name) else { return };
        if seen.was != Was::Absent {
            seen.before += now.saturating_duration_since(seen.at);
        }
        (seen.was, seen.at) = (Was::Absent, now);
    }

    /// Forgets all interfaces but these: the others are to have no filter.
    pub(super) fn keep_only(&mut self, names: &[String]) {
        self.0.retain(|name, _| names.contains(name));
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

    const LOOK: Duration = Duration::from_secs(1);

    /// How often the filter was missing, and how many milliseconds the last time.
    fn known(gaps: &Gaps) -> (u32, u128) {
        gaps.0.get("eth0").map_or((0, 0), |seen| (seen.times, seen.last.as_millis()))
    }

    #[test]
    fn a_gap_between_two_looks_is_as_long_as_the_filter_was_not_seen_at_most() {
        let (mut gaps, mut now) = (Gaps::default(), Instant::now());
        assert_eq!(gaps.told("eth0", feature(true)), feature(true));
        gaps.filtered("eth0", now);
        now += LOOK;
        gaps.filtered("eth0", now);
        assert_eq!(gaps.told("eth0", feature(true)), feature(true));
        for times in 1..3 {
            gaps.open("eth0");
            now += Duration::from_millis(170);
            gaps.filtered("eth0", now);
            assert_eq!(gaps.times("eth0"), times);
            let told = gaps.told("eth0", feature(true)).detail;
            assert!(told.contains(&format!("{times} time")) && told.contains("at most 170 ms"), "{told}");
            assert!(told.starts_with("native; "), "{told}");
        }
        assert_eq!((gaps.told("eth1", feature(true)), gaps.times("eth1")), (feature(true), 0));
        assert_eq!(gaps.told("eth0", feature(false)), feature(false), "there it says why it is off");
    }

    #[test]
    fn a_gap_of_many_looks_is_one() {
        let (mut gaps, start) = (Gaps::default(), Instant::now());
        gaps.filtered("eth0", start);
        for _ in 1..5 {
            gaps.open("eth0");
            assert_eq!(known(&gaps), (0, 0), "it goes on");
        }
        gaps.filtered("eth0", start + 5 * LOOK);
        gaps.filtered("eth0", start + 6 * LOOK);
        assert_eq!(known(&gaps), (1, 5_000));
        gaps.open("eth0");
        gaps.filtered("eth0", start + 8 * LOOK);
        assert_eq!(known(&gaps), (2, 2_000));
    }

    #[test]
    fn an_interface_that_was_never_filtered_has_no_gap() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        gaps.open("eth0");
        gaps.absent("eth0", now);
        gaps.filtered("eth0", now + LOOK);
        assert_eq!(known(&gaps), (0, 0));
    }

    #[test]
    fn what_passed_while_an_interface_was_not_there_is_nothing() {
        let (mut gaps, start) = (Gaps::default(), Instant::now());
        gaps.filtered("eth0", start);
        for look in 1..9 {
            gaps.absent("eth0", start + look * LOOK);
        }
        gaps.filtered("eth0", start + 9 * LOOK);
        assert_eq!(known(&gaps), (1, 2_000), "a look before it was seen gone, and one after");
        // What passed before it went is part of the gap.
        gaps.open("eth0");
        gaps.absent("eth0", start + 11 * LOOK);
        gaps.filtered("eth0", start + 12 * LOOK);
        assert_eq!(known(&gaps), (2, 3_000));
        // As is what passed after it came.
        gaps.absent("eth0", start + 13 * LOOK);
        gaps.open("eth0");
        gaps.filtered("eth0", start + 16 * LOOK);
        assert_eq!(known(&gaps), (3, 4_000));
    }

    #[test]
    fn an_interface_that_is_to_have_no_filter_is_forgotten() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        for name in ["eth0", "eth1"] {
            gaps.filtered(name, now);
            gaps.open(name);
        }
        gaps.keep_only(&["eth0".to_owned()]);
        for name in ["eth0", "eth1"] {
            gaps.filtered(name, now + LOOK);
        }
        assert_eq!((gaps.times("eth0"), gaps.times("eth1")), (1, 0));
    }
}
