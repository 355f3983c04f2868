use model::snapshot::{FORMAT, FilterRule, Limits, Listener, SnapshotId, TlsVersion};
use proptest::prelude::*;

use super::*;

fn snapshot(listeners: &[(&[&str], u16)], filter: &[(u32, FilterAction, &[&str])]) -> Snapshot {
    let listener = |(index, (addresses, port)): (usize, &(&[&str], u16))| Listener {
        name: format!("l{index}").parse().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        port: *port,
        take_over: false,
        clear_text: None,
        min_version: TlsVersion::V12,
        default_certificate: None,
        certificates: Vec::new(),
        trusted_prefixes: Vec::new(),
        proxy_protocol: Vec::new(),
        limits: Limits::default(),
        error_pages: Vec::new(),
    };
    let rule = |(id, action, prefixes): &(u32, FilterAction, &[&str])| {
        FilterRule::new(
            *id,
            &format!("f/r{id}"),
            *action,
            prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        )
    };
    Snapshot {
        format: FORMAT,
        node: "n".parse().unwrap(),
        id: SnapshotId::default(),
        listeners: listeners.iter().enumerate().map(listener).collect(),
        certificates: Vec::new(),
        routes: Vec::new(),
        origin_groups: Vec::new(),
        trust_bundles: Vec::new(),
        filter_protocols: Vec::new(),
        filter: filter.iter().map(rule).collect(),
    }
}

fn entry(prefix: &str, rule: u32) -> (IpNet, u32) {
    (prefix.parse().unwrap(), rule)
}

#[test]
fn nothing_wants_nothing() {
    assert_eq!(plan(&snapshot(&[], &[])), KernelPlan::default());
}

#[test]
fn the_lowest_rule_has_a_prefix_and_both_lists_may() {
    let rules: &[(u32, FilterAction, &[&str])] = &[
        (7, FilterAction::Deny, &["10.0.0.0/8", "2001:db8::/32"]),
        (3, FilterAction::Deny, &["10.0.0.0/8"]),
        (5, FilterAction::Allow, &["10.0.0.0/8", "192.0.2.7"]),
    ];
    let plan = plan(&snapshot(&[], rules));
    assert_eq!(plan.deny, [entry("10.0.0.0/8", 3), entry("2001:db8::/32", 7)]);
    assert_eq!(plan.allow, [entry("10.0.0.0/8", 5), entry("192.0.2.7/32", 5)]);
    assert!(plan.allow_required);
}

#[test]
fn deny_rules_alone_require_no_allow() {
    assert!(!plan(&snapshot(&[], &[(1, FilterAction::Deny, &["10.0.0.0/8"])])).allow_required);
}

#[test]
fn listeners_without_address_are_everywhere_and_each_place_counts_once() {
    let listeners: &[(&[&str], u16)] =
        &[(&[], 443), (&["192.0.2.1", "2001:db8::1"], 8443), (&["192.0.2.1"], 8443)];
    let plan = plan(&snapshot(listeners, &[]));
    let at = |text: &str| Some(text.parse().unwrap());
    assert_eq!(plan.listeners, [(None, 443), (at("192.0.2.1"), 8443), (at("2001:db8::1"), 8443)]);
}

proptest! {
    #[test]
    fn order_of_rules_does_not_matter(ids in Just([1_u32, 2, 3, 4]).prop_shuffle()) {
        let prefixes: [&[&str]; 4] = [&["10.0.0.0/8"], &["10.0.0.0/8", "10.1.0.0/16"], &["10.1.0.0/16"], &["fd00::/8"]];
        let sorted: Vec<_> = (1..=4).map(|id| (id, FilterAction::Deny, prefixes[id as usize - 1])).collect();
        let shuffled: Vec<_> = ids.iter().map(|id| (*id, FilterAction::Deny, prefixes[*id as usize - 1])).collect();
        prop_assert_eq!(plan(&snapshot(&[], &sorted)), plan(&snapshot(&[], &shuffled)));
    }
}
