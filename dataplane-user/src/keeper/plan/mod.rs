//! Snapshot -> wanted kernel tables; pure.

use std::net::IpAddr;

use ipnet::IpNet;
use model::snapshot::{FilterAction, Snapshot};

/// What the kernel's tables are to say, as one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// Source prefixes that are dropped, each with its rule's id; sorted, one entry a prefix.
    pub deny: Vec<(IpNet, u32)>,
    /// Source prefixes that may reach listeners, each with its rule's id; sorted, one entry a prefix.
    pub allow: Vec<(IpNet, u32)>,
    /// Whether packets to listeners need an entry in `allow`.
    pub allow_required: bool,
    /// Where listeners accept: steered by `sk_lookup`, judged by the allow list. `None` is every local address.
    pub listeners: Vec<(Option<IpAddr>, u16)>,
}

/// The tables for a snapshot.
///
/// Of several rules with one prefix and one action the lowest id is the one that counts, so that the same snapshot always
/// blames the same rule. A prefix in both lists stays in both: that deny wins at equal length is decided where both are
/// known to be one lookup, in the kernel's tables.
pub fn plan(snapshot: &Snapshot) -> KernelPlan {
    let prefixes = |action: FilterAction| {
        let rules = snapshot.filter.iter().filter(|rule| rule.action == action);
        one_each(
            rules
                .flat_map(|rule| rule.prefixes.iter().map(|prefix| (prefix.net().trunc(), rule.id)))
                .collect(),
        )
    };
    let allow = prefixes(FilterAction::Allow);
    let mut listeners: Vec<(Option<IpAddr>, u16)> = snapshot
        .listeners
        .iter()
        .flat_map(|listener| {
            let everywhere = listener.addresses.is_empty().then_some(None);
            everywhere
                .into_iter()
                .chain(listener.addresses.iter().copied().map(Some))
                .map(|address| (address, listener.port))
        })
        .collect();
    listeners.sort_unstable();
    listeners.dedup();
    KernelPlan { deny: prefixes(FilterAction::Deny), allow_required: !allow.is_empty(), allow, listeners }
}

/// Sorted, one entry a prefix, that with the lowest rule id.
fn one_each(mut rules: Vec<(IpNet, u32)>) -> Vec<(IpNet, u32)> {
    rules.sort_unstable();
    rules.dedup_by_key(|(prefix, _)| *prefix);
    rules
}

#[cfg(test)]
mod tests;
