//! A plan as the maps spell it.

use std::net::IpAddr;

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::listener::{NO_CLASS, SOME_PORT};
use dataplane_ebpf::wire::{self, Address, RuleReason, listener_key, source4_key, source6_key};
use ipnet::IpNet;
use model::filter::{Cell, CellVerdict, Compiled};

use super::table::Content;
use crate::keeper::plan::KernelPlan;

/// What the tables are to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::keeper::kernel) struct Wanted {
    pub(super) sources4: Content<8, 4>,
    pub(super) sources6: Content<20, 4>,
    pub(super) listeners: Content<20, 4>,
    pub(super) columns: Content<4, 4>,
    pub(super) cells: Content<4, 16>,
    pub(super) destinations: u16,
}

impl From<&KernelPlan> for Wanted {
    fn from(plan: &KernelPlan) -> Self {
        let filter = &plan.filter;
        let mut wanted = Self { destinations: filter.classes.1, ..Self::default() };
        for (prefix, class) in &filter.sources {
            let class = u32::from(*class).to_ne_bytes();
            match prefix {
                IpNet::V4(net) => {
                    wanted.sources4.push((source4_key(net.prefix_len(), net.network().octets()), class));
                }
                IpNet::V6(net) => {
                    wanted.sources6.push((source6_key(net.prefix_len(), net.network().octets()), class));
                }
            }
        }
        wanted.listeners = listeners(plan);
        let column = |(slot, class): &(u32, u16)| (slot.to_ne_bytes(), u32::from(*class).to_ne_bytes());
        wanted.columns = filter.columns.iter().map(column).collect();
        wanted.cells = (0_u32..)
            .zip(&filter.cells)
            .map(|(index, cell)| (index.to_ne_bytes(), wire_cell(cell).to_bytes()))
            .collect();
        in_order(&mut wanted.sources4);
        in_order(&mut wanted.sources6);
        in_order(&mut wanted.columns);
        in_order(&mut wanted.cells);
        wanted
    }
}

/// Every place and, at port 0, every address; with the class where one has its own.
fn listeners(plan: &KernelPlan) -> Content<20, 4> {
    let mut content: Content<20, 4> = Vec::new();
    for (address, port, class) in &plan.filter.exact {
        let key = addresses(Some(*address)).into_iter().map(|address| listener_key(address, *port));
        content.extend(key.map(|key| (key, u32::from(*class).to_ne_bytes())));
    }
    for (address, port) in &plan.listeners {
        for address in addresses(*address) {
            for port in [*port, SOME_PORT] {
                content.push((listener_key(address, port), NO_CLASS.to_ne_bytes()));
            }
        }
    }
    // Of two entries with one key the first stays: that with a class.
    in_order(&mut content);
    content
}

fn wire_cell(cell: &Cell) -> wire::Cell {
    wire::Cell::new(cell.rule, reason(cell.verdict).number(), cell.observed)
}

/// The reason a packet has by a verdict.
pub(in crate::keeper::kernel) const fn reason(verdict: CellVerdict) -> Reason {
    match verdict {
        CellVerdict::NoRule => Reason::NoRule,
        CellVerdict::Allowed => Reason::Allowed,
        CellVerdict::Denied => Reason::Denied,
        CellVerdict::NotAllowed => Reason::NotAllowed,
        CellVerdict::Fragment => Reason::Fragment,
        CellVerdict::OwnAddress => Reason::OwnAddress,
        CellVerdict::Protocol => Reason::Protocol,
        // The plan has no source of this class: the program knows them by itself.
        CellVerdict::Martian => Reason::Martian,
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
    let of = |cell: &Cell| {
        let decides = RuleReason { rule: cell.rule, reason: reason(cell.verdict).number() };
        [decides, RuleReason { rule: cell.observed, reason: Reason::Observed.number() }]
    };
    let Compiled { cells, .. } = &plan.filter;
    let mut counters: Vec<RuleReason> =
        cells.iter().flat_map(of).filter(|counter| counter.rule != 0).collect();
    counters.sort_unstable();
    counters.dedup();
    counters
}

#[cfg(test)]
mod tests {
    use dataplane_ebpf::wire::slot;
    use model::filter;

    use super::*;

    /// The model numbers slots without knowing the kernel's side.
    #[test]
    fn slots_agree() {
        assert_eq!(
            [slot::TCP, slot::UDP, slot::ICMP, slot::ICMPV6, slot::OTHER, slot::LATER_FRAGMENT, slot::SLOTS],
            [
                filter::TCP_SLOTS,
                filter::UDP_SLOTS,
                filter::ICMP_SLOTS,
                filter::ICMPV6_SLOTS,
                filter::PROTOCOL_SLOTS,
                filter::FRAGMENT_SLOTS,
                filter::SLOTS,
            ]
        );
        assert_eq!(slot::EXACT_FIRST, u32::from(filter::EXACT_FIRST));
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
