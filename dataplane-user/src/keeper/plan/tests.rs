use model::filter::FilterAction;
use model::listen::Port;
use model::snapshot::{FORMAT, FilterRule, Limits, Listener, SnapshotId, TlsVersion};
use proptest::prelude::*;

use super::*;

fn snapshot(listeners: &[(&[&str], u16)], filter: &[(u32, FilterAction, &[&str])]) -> Snapshot {
    let listener = |(index, (addresses, port)): (usize, &(&[&str], u16))| Listener {
        name: format!("l{index}").parse().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        port: u64::from(*port).try_into().unwrap(),
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
        trial_ms: None,
        filter: filter.iter().map(rule).collect(),
    }
}

fn open(_: &Place) -> bool {
    true
}

#[test]
fn nothing_wants_nothing() {
    assert_eq!(plan(&snapshot(&[], &[]), &[], &[], open), Ok(KernelPlan::default()));
    let at_one_address: &[(&[&str], u16)] = &[(&[], 443), (&["192.0.2.1"], 8443)];
    assert_eq!(plan(&snapshot(at_one_address, &[]), &[], &[], open).unwrap().filter, Compiled::default());
}

#[test]
fn own_addresses_and_every_rule_that_drops_want_tables() {
    let own = ["192.0.2.1".parse().unwrap()];
    let wanted = plan(&snapshot(&[], &[]), &own, &[], open).unwrap();
    assert_eq!(wanted.filter.sources.iter().filter(|(net, _)| net.contains(&own[0])).count(), 1);
    let deny: &[(u32, FilterAction, &[&str])] = &[(1, FilterAction::Deny, &["10.0.0.0/8"])];
    assert!(!plan(&snapshot(&[], deny), &[], &[], open).unwrap().filter.cells.is_empty());
    // An allow rule drops what it does not name, though no source is in any prefix.
    let allow: &[(u32, FilterAction, &[&str])] = &[(1, FilterAction::Allow, &["10.0.0.0/8"])];
    assert!(!plan(&snapshot(&[(&[], 443)], allow), &[], &[], open).unwrap().filter.cells.is_empty());
}

#[test]
fn an_observed_rule_wants_tables_too() {
    let mut snapshot = snapshot(&[], &[(1, FilterAction::Deny, &["10.0.0.0/8"])]);
    snapshot.filter[0].mode = model::filter::FilterMode::Observe;
    assert!(!plan(&snapshot, &[], &[], open).unwrap().filter.cells.is_empty());
}

/// The program knows them by itself, and on the loopback interface the rules are to judge them.
#[test]
fn sources_that_no_wire_has_are_in_no_table() {
    let plan = plan(&snapshot(&[], &[(1, FilterAction::Deny, &["0.0.0.0/0"])]), &[], &[], open).unwrap();
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
    let only = |place: &Place| place.port().number() == Some(443);
    assert_eq!(plan(&both, &[], &[], only), plan(&one, &[], &[], open));
}

#[test]
fn listeners_without_address_are_everywhere_and_each_place_counts_once() {
    let listeners: &[(&[&str], u16)] =
        &[(&[], 443), (&["192.0.2.1", "2001:db8::1"], 8443), (&["192.0.2.1"], 8443)];
    let plan = plan(&snapshot(listeners, &[]), &[], &[], open).unwrap();
    let at = |text: &str| Some(text.parse().unwrap());
    assert_eq!(plan.listeners, [(None, 443), (at("192.0.2.1"), 8443), (at("2001:db8::1"), 8443)]);
}

/// A range as the kernel looks it up: the longest prefix, and among two of the same that with the port.
fn looked_up(ranges: &[Range], local: SocketAddr) -> bool {
    let holds = |range: &&Range| {
        range.net.contains(&local.ip()) && range.port.number().is_none_or(|port| port == local.port())
    };
    let rank = |range: &&Range| (range.net.prefix_len(), range.port != Port::Any);
    ranges.iter().filter(holds).max_by_key(rank).is_some_and(|range| range.steered)
}

#[test]
fn what_others_listen_on_is_left_out_of_any_port_and_of_nothing_else() {
    let place = |addresses: &str, port: &str| Place::At(addresses.parse().unwrap(), port.parse().unwrap());
    let places = BTreeSet::from([
        place("10.0.7.0/24", "any"),
        place("10.0.7.0/24", "2222"),
        place("10.0.7.8/29", "80"),
        place("2001:db8:7::/64", "any"),
        Place::of_bound((None, 443)).unwrap(),
    ]);
    let busy: Vec<SocketAddr> = [
        "0.0.0.0:22",
        "[::]:22",
        "0.0.0.0:443",
        "10.0.7.9:80",
        "10.0.7.9:25",
        "0.0.0.0:2222",
        "192.0.2.1:81",
    ]
    .map(|text| text.parse().unwrap())
    .to_vec();
    let ranges = ranges_of(&places, &busy);
    for (local, steered) in [
        ("10.0.7.1:22", false),
        ("[2001:db8:7::1]:22", false),
        ("10.0.7.1:23", true),
        ("[2001:db8:7::1]:443", true),
        // Of a given port nothing is left out: whoever holds it was asked when the listener was opened.
        ("10.0.7.1:2222", true),
        ("10.0.7.9:80", true),
        ("10.0.7.9:25", false),
        ("10.0.7.8:25", true),
        ("10.0.7.1:443", false),
        ("192.0.2.1:443", true),
        ("192.0.2.1:81", false),
    ] {
        assert_eq!(looked_up(&ranges, local.parse().unwrap()), steered, "{local}");
    }
    assert_eq!(ranges_of(&BTreeSet::from([place("10.0.7.1", "443")]), &busy), []);
}

fn places() -> impl Strategy<Value = BTreeSet<Place>> {
    let length = prop::sample::select(vec![8_u8, 22, 24, 25, 30, 31, 32]);
    let place =
        (any::<bool>(), 0..8_u8, length, 0..4_u64, 0..6_u8).prop_map(|(six, low, length, port, all)| {
            let port = Port::try_from(port).unwrap_or(Port::Any);
            if let (Port::One(port), 0) = (port, all) {
                return Place::Everywhere(port);
            }
            let net = match six {
                false => ipnet::IpNet::new(IpAddr::from([10, 0, 0, low]), length),
                true => ipnet::IpNet::new(
                    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)]),
                    length + 96,
                ),
            };
            Place::At(net.unwrap().trunc().to_string().parse().unwrap(), port)
        });
    prop::collection::btree_set(place, 0..10)
}

fn local() -> impl Strategy<Value = SocketAddr> {
    (any::<bool>(), 0..9_u8, 1..5_u16).prop_map(|(six, low, port)| match (six, low) {
        (false, 8) => SocketAddr::new([0, 0, 0, 0].into(), port),
        (true, 8) => SocketAddr::new([0_u16; 8].into(), port),
        (false, low) => SocketAddr::new([10, 0, 0, low].into(), port),
        (true, low) => SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)].into(), port),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Each connection goes to the place of the highest rank, unless that has any port and somebody else listens there.
    #[test]
    fn ranges_say_what_the_slow_reference_says(
        places in places(),
        busy in prop::collection::vec(local(), 0..5),
        to in prop::collection::vec(local(), 1..20),
    ) {
        let ranges = ranges_of(&places, &busy);
        for local in to.into_iter().filter(|local| !local.ip().is_unspecified()) {
            let taken = busy.iter().any(|busy| {
                let everywhere = busy.ip().is_unspecified() && busy.is_ipv4() == local.is_ipv4();
                busy.port() == local.port() && (busy.ip() == local.ip() || everywhere)
            });
            let place = places.iter().filter(|place| place.holds(local)).max_by_key(|place| place.rank());
            let steered = place.is_some_and(|place| place.port() != Port::Any || !taken);
            let bound = places.iter().all(|place| place.bound().is_some());
            prop_assert_eq!(looked_up(&ranges, local), !bound && steered, "{} in {:?}", local, ranges);
        }
    }
}

proptest! {
    #[test]
    fn order_of_rules_does_not_matter(ids in Just([1_u32, 2, 3, 4]).prop_shuffle()) {
        let prefixes: [&[&str]; 4] = [&["10.0.0.0/8"], &["10.0.0.0/8", "10.1.0.0/16"], &["10.1.0.0/16"], &["fd00::/8"]];
        let sorted: Vec<_> = (1..=4).map(|id| (id, FilterAction::Deny, prefixes[id as usize - 1])).collect();
        let shuffled: Vec<_> = ids.iter().map(|id| (*id, FilterAction::Deny, prefixes[*id as usize - 1])).collect();
        prop_assert_eq!(plan(&snapshot(&[], &sorted), &[], &[], open), plan(&snapshot(&[], &shuffled), &[], &[], open));
    }
}
