//! The table of listeners: where they accept, with the class of destinations where a place has its own.

use std::net::IpAddr;

use dataplane_ebpf::wire::listener::{NO_CLASS, SOME_PORT};
use dataplane_ebpf::wire::{Address, listener_key};

use super::table::Content;
use crate::keeper::plan::KernelPlan;

/// Every place and, at port 0, every address; with the class where one has its own.
pub(super) fn places(plan: &KernelPlan) -> Content<20, 4> {
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
    content.sort_by_key(|(key, _)| *key);
    content.dedup_by_key(|(key, _)| *key);
    content
}

/// The addresses an entry of the plan stands for.
fn addresses(address: Option<IpAddr>) -> Vec<Address> {
    match address.map(|address| address.to_canonical()) {
        Some(address) => vec![Address::from(address)],
        None => vec![Address::v4([0; 4]), Address::v6([0; 16])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_without_address_has_both_families_and_a_mapped_one_is_ipv4() {
        let listeners = |address: Option<&str>| {
            let address = address.map(|text| text.parse().unwrap());
            let places = places(&KernelPlan { listeners: vec![(address, 443)], ..KernelPlan::default() });
            places.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(listeners(None).len(), 4);
        assert_eq!(listeners(Some("::ffff:192.0.2.1")), listeners(Some("192.0.2.1")));
        assert!(listeners(Some("0.0.0.0")).contains(&listener_key(Address::v4([0; 4]), 443)));
        assert_eq!(listeners(Some("0.0.0.0")).len(), 2);
    }
}
