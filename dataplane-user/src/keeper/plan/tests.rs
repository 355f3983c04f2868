use model::filter::FilterAction;
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
        filter_budgets: Default::default(),
        filter: filter.iter().map(rule).collect(),
    }
}

fn open(_: &Place) -> bool {
    true
}

#[test]
fn nothing_wants_nothing() {
    assert_eq!(plan(&snapshot(&[], &[]), &[], open), Ok(KernelPlan::default()));
    let at_one_address: &[(&[&str], u16)] = &[(&[], 443), (&["192.0.2.1"], 8443)];
    assert_eq!(plan(&snapshot(at_one_address, &[]), &[], open).unwrap().filter, Compiled::default());
}

#[test]
fn own_addresses_and_every_rule_that_drops_want_tables() {
    let own = ["192.0.2.1".parse().unwrap()];
    let wanted = plan(&snapshot(&[], &[]), &own, open).unwrap();
    assert_eq!(wanted.filter.sources.iter().filter(|(net, _)| net.contains(&own[0])).count(), 1);
    let deny: &[(u32, FilterAction, &[&str])] = &[(1, FilterAction::Deny, &["10.0.0.0/8"])];
    assert!(!plan(&snapshot(&[], deny), &[], open).unwrap().filter.cells.is_empty());
    // An allow rule drops what it does not name, though no source is in any prefix.
    let allow: &[(u32, FilterAction, &[&str])] = &[(1, FilterAction::Allow, &["10.0.0.0/8"])];
    assert!(!plan(&snapshot(&[(&[], 443)], allow), &[], open).unwrap().filter.cells.is_empty());
}

#[test]
fn an_observed_rule_wants_tables_too() {
    let mut snapshot = snapshot(&[], &[(1, FilterAction::Deny, &["10.0.0.0/8"])]);
    snapshot.filter[0].mode = model::filter::FilterMode::Observe;
    assert!(!plan(&snapshot, &[], open).unwrap().filter.cells.is_empty());
}

/// The program knows them by itself, and on the loopback interface the rules are to judge them.
#[test]
fn sources_that_no_wire_has_are_in_no_table() {
    let plan = plan(&snapshot(&[], &[(1, FilterAction::Deny, &["0.0.0.0/0"])]), &[], open).unwrap();
    let denied = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let holding = plan.filter.sources.iter().filter(|(net, _)| net.contains(&address));
        let class = holding.max_by_key(|(net, _)| net.prefix_len()).map(|(_, class)| usize::from(*class));
        let cell = plan.filter.cells[class.unwrap() * usize::from(plan.filter.classes.1)];
        cell.verdict == CellVerdict::Denied
    };
    assert!(denied("127.0.0.1") && denied("224.0.0.1") && denied("10.0.0.1") && denied("0.0.0.0"));
}

#[test]
fn closed_listeners_are_neither_steered_nor_judged() {
    let allow: &[(u32, FilterAction, &[&str])] = &[(1, FilterAction::Allow, &["10.0.0.0/8"])];
    let both = snapshot(&[(&[], 443), (&[], 8443)], allow);
    let one = snapshot(&[(&[], 443)], allow);
    assert_eq!(plan(&both, &[], |(_, port)| *port == 443), plan(&one, &[], open));
}

#[test]
fn listeners_without_address_are_everywhere_and_each_place_counts_once() {
    let listeners: &[(&[&str], u16)] =
        &[(&[], 443), (&["192.0.2.1", "2001:db8::1"], 8443), (&["192.0.2.1"], 8443)];
    let plan = plan(&snapshot(listeners, &[]), &[], open).unwrap();
    let at = |text: &str| Some(text.parse().unwrap());
    assert_eq!(plan.listeners, [(None, 443), (at("192.0.2.1"), 8443), (at("2001:db8::1"), 8443)]);
}

proptest! {
    #[test]
    fn order_of_rules_does_not_matter(ids in Just([1_u32, 2, 3, 4]).prop_shuffle()) {
        let prefixes: [&[&str]; 4] = [&["10.0.0.0/8"], &["10.0.0.0/8", "10.1.0.0/16"], &["10.1.0.0/16"], &["fd00::/8"]];
        let sorted: Vec<_> = (1..=4).map(|id| (id, FilterAction::Deny, prefixes[id as usize - 1])).collect();
        let shuffled: Vec<_> = ids.iter().map(|id| (*id, FilterAction::Deny, prefixes[*id as usize - 1])).collect();
        prop_assert_eq!(plan(&snapshot(&[], &sorted), &[], open), plan(&snapshot(&[], &shuffled), &[], open));
    }
}
