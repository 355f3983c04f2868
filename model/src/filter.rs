//! The packet filter's decision, for userspace: what the kernel would say of a source address.
//!
//! [`verdict`] is the rule in its plainest form and the reference; [`Index`] answers the same for 100,000 prefixes with a
//! hash lookup per prefix length in use.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::Prefix;
use crate::snapshot::{FilterAction, FilterRule};

/// The verdict on a packet from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No rule drops it.
    Pass,
    /// This rule denies it, whatever it is.
    Denied {
        /// The rule's id.
        rule: u32,
    },
    /// It goes to a listener, and no allow rule names its source.
    NotAllowed,
}

/// Judges a source: the longest matching prefix wins, deny before allow at equal length; where any allow rule exists,
/// `to_listener` packets need one.
///
/// Where two rules have the same action for the same prefix, the lower id is named. An IPv4-mapped IPv6 source is its IPv4
/// address. Looks at every prefix; see [`Index`] for many.
pub fn verdict(rules: &[FilterRule], source: IpAddr, to_listener: bool) -> Verdict {
    let mut best: Option<(u8, Entry)> = None;
    for (prefix, entry) in entries(rules) {
        let length = prefix.net().prefix_len();
        let better = match best {
            None => true,
            Some((longest, present)) => length > longest || (length == longest && entry.beats(present)),
        };
        if better && prefix.contains(source) {
            best = Some((length, entry));
        }
    }
    decide(best.map(|(_, entry)| entry), to_listener, has_allow(rules))
}

/// The rules of a snapshot, ready to be asked often.
#[derive(Debug, Clone, Default)]
pub struct Index {
    v4: Lengths,
    v6: Lengths,
    has_allow: bool,
}

/// The rules of one address family: the prefixes of each length in use, longest first.
type Lengths = Vec<(u8, HashMap<IpAddr, Entry>)>;

impl Index {
    /// Indexes the rules.
    pub fn new(rules: &[FilterRule]) -> Self {
        let mut index = Self { has_allow: has_allow(rules), ..Self::default() };
        for (prefix, entry) in entries(rules) {
            let net = prefix.net();
            let lengths = if net.addr().is_ipv4() { &mut index.v4 } else { &mut index.v6 };
            let slot =
                lengths.iter().position(|(length, _)| *length == net.prefix_len()).unwrap_or_else(|| {
                    lengths.push((net.prefix_len(), HashMap::new()));
                    lengths.len() - 1
                });
            let present = lengths[slot].1.entry(net.network()).or_insert(entry);
            if entry.beats(*present) {
                *present = entry;
            }
        }
        index.v4.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
        index.v6.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
        index
    }

    /// Judges a source exactly as [`verdict`] does. No allocation.
    pub fn verdict(&self, source: IpAddr, to_listener: bool) -> Verdict {
        let source = source.to_canonical();
        let lengths = if source.is_ipv4() { &self.v4 } else { &self.v6 };
        let entry = lengths.iter().find_map(|(length, prefixes)| {
            let network = IpNet::new(source, *length).ok()?.network();
            prefixes.get(&network).copied()
        });
        decide(entry, to_listener, self.has_allow)
    }

    /// Whether no rule can drop anything.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// What a prefix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    action: FilterAction,
    rule: u32,
}

impl Entry {
    /// Between two rules for the same prefix: deny first, then the lower id. (Deny sorts before allow.)
    fn beats(self, other: Self) -> bool {
        (self.action, self.rule) < (other.action, other.rule)
    }
}

fn entries(rules: &[FilterRule]) -> impl Iterator<Item = (Prefix, Entry)> {
    rules.iter().flat_map(|rule| {
        let entry = Entry { action: rule.action, rule: rule.id };
        rule.prefixes.iter().map(move |prefix| (*prefix, entry))
    })
}

fn has_allow(rules: &[FilterRule]) -> bool {
    rules.iter().any(|rule| rule.action == FilterAction::Allow)
}

fn decide(entry: Option<Entry>, to_listener: bool, has_allow: bool) -> Verdict {
    match entry {
        Some(Entry { action: FilterAction::Deny, rule }) => Verdict::Denied { rule },
        Some(Entry { action: FilterAction::Allow, .. }) => Verdict::Pass,
        None if to_listener && has_allow => Verdict::NotAllowed,
        None => Verdict::Pass,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn rule(id: u32, action: FilterAction, prefixes: &[&str]) -> FilterRule {
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        FilterRule { id, name: format!("f/{id}"), action, prefixes }
    }

    fn ask(rules: &[FilterRule], source: &str) -> Verdict {
        let source = source.parse().unwrap();
        let verdict = verdict(rules, source, true);
        assert_eq!(Index::new(rules).verdict(source, true), verdict);
        verdict
    }

    #[test]
    fn the_longer_prefix_wins_and_deny_wins_at_equal_length() {
        let rules = [
            rule(1, FilterAction::Deny, &["192.0.2.0/24", "2001:db8::/32"]),
            rule(2, FilterAction::Allow, &["192.0.2.128/25", "2001:db8:1::/48"]),
            rule(3, FilterAction::Allow, &["192.0.2.0/24", "2001:db8::/32", "203.0.113.0/24"]),
            rule(4, FilterAction::Deny, &["192.0.2.200", "2001:db8:1::7"]),
        ];
        for (source, expected) in [
            ("192.0.2.1", Verdict::Denied { rule: 1 }),
            ("2001:db8:2::1", Verdict::Denied { rule: 1 }),
            ("192.0.2.129", Verdict::Pass),
            ("2001:db8:1::1", Verdict::Pass),
            ("192.0.2.200", Verdict::Denied { rule: 4 }),
            ("2001:db8:1::7", Verdict::Denied { rule: 4 }),
            ("203.0.113.9", Verdict::Pass),
            ("198.51.100.1", Verdict::NotAllowed),
            ("2001:db9::1", Verdict::NotAllowed),
        ] {
            assert_eq!(ask(&rules, source), expected, "{source}");
        }
        let elsewhere = "198.51.100.1".parse().unwrap();
        assert_eq!(verdict(&rules, elsewhere, false), Verdict::Pass);
        assert_eq!(Index::new(&rules).verdict(elsewhere, false), Verdict::Pass);
    }

    #[test]
    fn a_mapped_source_is_its_ipv4_address() {
        let rules = [rule(1, FilterAction::Deny, &["192.0.2.0/24"]), rule(2, FilterAction::Deny, &["::/0"])];
        assert_eq!(ask(&rules, "::ffff:192.0.2.9"), Verdict::Denied { rule: 1 });
        assert_eq!(ask(&rules, "::ffff:198.51.100.1"), Verdict::Pass);
        assert_eq!(ask(&rules, "2001:db8::1"), Verdict::Denied { rule: 2 });
    }

    #[test]
    fn without_rules_everything_passes() {
        assert_eq!(ask(&[], "192.0.2.1"), Verdict::Pass);
        assert_eq!(ask(&[], "2001:db8::1"), Verdict::Pass);
        assert!(Index::new(&[]).is_empty());
    }

    /// Addresses and prefixes from a small corner of both families, so that they meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u8..4, any::<u8>()).prop_map(|(a, b)| IpAddr::V4(Ipv4Addr::new(10, 0, a, b))),
            (0_u16..4, any::<u16>())
                .prop_map(|(a, b)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, b))),
            (0_u8..4, any::<u8>()).prop_map(|(a, b)| IpAddr::V6(Ipv4Addr::new(10, 0, a, b).to_ipv6_mapped())),
        ]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), 0_u8..=128).prop_map(|(address, length)| {
            let address = address.to_canonical();
            let longest = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, length.min(longest)).unwrap().trunc().to_string().parse().unwrap()
        })
    }

    fn rules() -> impl Strategy<Value = Vec<FilterRule>> {
        let action = prop_oneof![Just(FilterAction::Deny), Just(FilterAction::Allow)];
        proptest::collection::vec((action, proptest::collection::vec(prefix(), 1..6)), 0..8).prop_map(
            |rules| {
                let numbered = rules.into_iter().zip(1_u32..);
                numbered
                    .map(|((action, prefixes), id)| FilterRule {
                        id,
                        name: format!("f/{id}"),
                        action,
                        prefixes,
                    })
                    .collect()
            },
        )
    }

    /// Bit by bit, longest first: nothing shared with the code under test but the types.
    fn slow(rules: &[FilterRule], source: IpAddr, to_listener: bool) -> Verdict {
        let bits = |address: IpAddr| -> Vec<u8> {
            let octets = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => match address.to_ipv4_mapped() {
                    Some(v4) => v4.octets().to_vec(),
                    None => address.octets().to_vec(),
                },
            };
            octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| (octet >> bit) & 1)).collect()
        };
        let source = bits(source);
        for length in (0..=source.len()).rev() {
            let mut hits: Vec<&FilterRule> = Vec::new();
            for rule in rules {
                if rule.prefixes.iter().any(|prefix| {
                    let network = bits(prefix.net().addr());
                    usize::from(prefix.net().prefix_len()) == length
                        && network.len() == source.len()
                        && network[..length] == source[..length]
                }) {
                    hits.push(rule);
                }
            }
            if let Some(deny) = hits.iter().find(|rule| rule.action == FilterAction::Deny) {
                return Verdict::Denied { rule: deny.id };
            }
            if !hits.is_empty() {
                return Verdict::Pass;
            }
        }
        let any_allow = rules.iter().any(|rule| rule.action == FilterAction::Allow);
        if to_listener && any_allow { Verdict::NotAllowed } else { Verdict::Pass }
    }

    proptest! {
        #[test]
        fn verdict_and_index_agree_with_the_slow_reference(
            rules in rules(), sources in proptest::collection::vec(address(), 1..20), to_listener in any::<bool>()
        ) {
            let index = Index::new(&rules);
            for source in sources {
                let expected = slow(&rules, source, to_listener);
                prop_assert_eq!(verdict(&rules, source, to_listener), expected);
                prop_assert_eq!(index.verdict(source, to_listener), expected);
            }
        }
    }
}
