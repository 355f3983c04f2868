//! What belongs to a host: exact names before wildcards, longer wildcards before shorter ones.

use std::collections::HashMap;

use super::parents;
use crate::name::{HostName, HostPattern};

/// Something for each of many hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts<T> {
    exact: HashMap<HostName, T>,
    wildcard: HashMap<HostName, T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> Hosts<T> {
    /// Enters `value` for `host`, unless something already stands there.
    pub fn add(&mut self, host: &HostPattern, value: T) {
        let (table, host) = match host {
            HostPattern::Exact(host) => (&mut self.exact, host),
            HostPattern::Wildcard(host) => (&mut self.wildcard, host),
        };
        table.entry(host.clone()).or_insert(value);
    }

    /// What stands for the most specific pattern that has this host. No allocation.
    pub fn choose(&self, host: &HostName) -> Option<&T> {
        let wildcard = || parents(host.as_str()).find_map(|parent| self.wildcard.get(parent));
        self.exact.get(host).or_else(wildcard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_pattern_wins_in_whatever_order_they_come() {
        let patterns = ["*.test", "*.b.test", "a.b.test", "*.a.b.test"];
        for turn in 0..patterns.len() {
            let mut hosts = Hosts::default();
            for at in 0..patterns.len() {
                let pattern = patterns[(at + turn) % patterns.len()];
                hosts.add(&pattern.parse().unwrap(), pattern);
            }
            hosts.add(&"*.test".parse().unwrap(), "later");
            for (host, pattern) in [
                ("a.b.test", Some("a.b.test")),
                ("x.b.test", Some("*.b.test")),
                ("y.x.b.test", Some("*.b.test")),
                ("x.a.b.test", Some("*.a.b.test")),
                ("b.test", Some("*.test")),
                ("test", None),
                ("b.other", None),
            ] {
                assert_eq!(hosts.choose(&host.parse().unwrap()).copied(), pattern, "{host}");
            }
        }
    }
}
