//! A plan as the maps spell it.

use std::net::IpAddr;

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::listener::SOME_PORT;
use dataplane_ebpf::wire::{Address, Entry, RuleReason, listener_key, source4_key, source6_key};
use ipnet::IpNet;

use super::table::Content;
use crate::keeper::plan::KernelPlan;

/// What the tables are to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::keeper::kernel) struct Wanted {
    pub(super) sources4: Content<8, 8>,
    pub(super) sources6: Content<20, 8>,
    pub(super) listeners: Content<20, 4>,
    pub(super) allow_required: bool,
}

impl From<&KernelPlan> for Wanted {
    fn from(plan: &KernelPlan) -> Self {
        let mut wanted = Self { allow_required: plan.allow_required, ..Self::default() };
        let allows = plan.allow.iter().map(|(prefix, rule)| (prefix, Entry::allow(*rule)));
        let denies = plan.deny.iter().map(|(prefix, rule)| (prefix, Entry::deny(*rule)));
        // Deny first: of two entries with one key the first stays, and deny wins at equal length.
        for (prefix, entry) in denies.chain(allows) {
            match prefix {
                IpNet::V4(net) => {
                    wanted
                        .sources4
                        .push((source4_key(net.prefix_len(), net.network().octets()), entry.to_bytes()));
                }
                IpNet::V6(net) => {
                    wanted
                        .sources6
                        .push((source6_key(net.prefix_len(), net.network().octets()), entry.to_bytes()));
                }
            }
        }
        for (address, port) in &plan.listeners {
            for address in addresses(*address) {
                wanted.listeners.push((listener_key(address, *port), [1, 0, 0, 0]));
                wanted.listeners.push((listener_key(address, SOME_PORT), [1, 0, 0, 0]));
            }
        }
        in_order(&mut wanted.sources4);
        in_order(&mut wanted.sources6);
        in_order(&mut wanted.listeners);
        wanted
    }
}

/// The addresses an entry of the plan stands for.
fn addresses(address: Option<IpAddr>) -> Vec<Address> {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => vec![Address::V4(address.octets())],
        Some(IpAddr::V6(address)) => vec![Address::V6(address.octets())],
        None => vec![Address::V4([0; 4]), Address::V6([0; 16])],
    }
}

/// Sorts by key, stably; the first of several with one key stays.
fn in_order<const K: usize, const V: usize>(content: &mut Content<K, V>) {
    content.sort_by_key(|(key, _)| *key);
    content.dedup_by_key(|(key, _)| *key);
}

/// The counters a plan's rules need.
pub(in crate::keeper::kernel) fn counters(plan: &KernelPlan) -> Vec<RuleReason> {
    let of = |rules: &[(IpNet, u32)], reason: Reason| -> Vec<RuleReason> {
        rules.iter().map(|(_, rule)| RuleReason { rule: *rule, reason: reason.number() }).collect()
    };
    let mut counters = of(&plan.deny, Reason::Denied);
    counters.extend(of(&plan.allow, Reason::Allowed));
    counters.sort_unstable();
    counters.dedup();
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn deny_wins_at_equal_length() {
        let both = |deny, allow| {
            Wanted::from(&KernelPlan {
                deny: vec![(net("10.0.0.0/8"), deny)],
                allow: vec![(net("10.0.0.0/8"), allow)],
                ..KernelPlan::default()
            })
        };
        assert_eq!(both(1, 2).sources4, [(source4_key(8, [10, 0, 0, 0]), Entry::deny(1).to_bytes())]);
        assert_eq!(both(2, 1).sources4, [(source4_key(8, [10, 0, 0, 0]), Entry::deny(2).to_bytes())]);
    }

    #[test]
    fn a_listener_without_address_has_both_families_and_a_mapped_one_is_ipv4() {
        let listeners = |address: Option<&str>| {
            let address = address.map(|text| text.parse().unwrap());
            let wanted =
                Wanted::from(&KernelPlan { listeners: vec![(address, 443)], ..KernelPlan::default() });
            wanted.listeners.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(listeners(None).len(), 4);
        assert_eq!(listeners(Some("::ffff:192.0.2.1")), listeners(Some("192.0.2.1")));
        assert!(listeners(Some("0.0.0.0")).contains(&listener_key(Address::V4([0; 4]), 443)));
        assert_eq!(listeners(Some("0.0.0.0")).len(), 2);
    }
}
