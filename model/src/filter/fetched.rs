//! Lists that are fetched: how, and which of them are kept back.

use super::MOST_BYTES;
use crate::draft::PrefixSourceSpec;
use crate::net::Prefix;

/// How a list is fetched; what [`PrefixSourceSpec`] leaves open has its default here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Between two fetches, seconds.
    pub interval_seconds: u64,
    /// The longest document that is read.
    pub max_bytes: u64,
    /// A list that has lost more than so many percent of its prefixes is kept back.
    pub max_shrink_percent: u64,
}

impl Default for Source {
    fn default() -> Self {
        Self { interval_seconds: 3_600, max_bytes: MOST_BYTES as u64, max_shrink_percent: 50 }
    }
}

impl Source {
    /// What a compiled spec says.
    pub fn of(spec: &PrefixSourceSpec) -> Self {
        let usual = Self::default();
        Self {
            interval_seconds: spec.interval_seconds.unwrap_or(usual.interval_seconds),
            max_bytes: spec.max_bytes.unwrap_or(usual.max_bytes),
            max_shrink_percent: spec.max_shrink_percent.unwrap_or(usual.max_shrink_percent),
        }
    }

    /// Whether a list of `after` prefixes has lost too many of `before`.
    pub fn is_too_short(&self, before: usize, after: usize) -> bool {
        let (before, lost) = (before as u64, before.saturating_sub(after) as u64);
        lost * 100 > before * self.max_shrink_percent
    }
}

/// The first prefix of a list that is everybody: nobody publishes a list of everything on purpose.
pub fn everybody(prefixes: &[Prefix]) -> Option<Prefix> {
    prefixes.iter().copied().find(|prefix| prefix.net().prefix_len() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_lose_so_much_and_no_more() {
        let half = Source::default();
        for (before, after, too_short) in
            [(0, 1, false), (4, 2, false), (4, 1, true), (100, 50, false), (100, 49, true), (5, 500, false)]
        {
            assert_eq!(half.is_too_short(before, after), too_short, "{before} → {after}");
        }
        let none = Source { max_shrink_percent: 0, ..Source::default() };
        assert!(none.is_too_short(1000, 999) && !none.is_too_short(10, 10));
        assert!(!Source { max_shrink_percent: 100, ..Source::default() }.is_too_short(1000, 1));
    }

    #[test]
    fn everybody_is_found_in_either_family() {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(everybody(&read(&["192.0.2.0/24", "::/0"])), "::/0".parse().ok());
        assert_eq!(everybody(&read(&["192.0.2.0/24", "0.0.0.0/1"])), None);
    }
}
