//! The order of `docs/packet-filter.md` again, one packet and one rule at a time; the tables must say the same.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::listen::Port;
use crate::net::Prefix;

#[derive(Debug, Clone)]
struct World {
    rules: Vec<FilterRule>,
    protocols: Vec<ProtocolList>,
    listeners: Vec<(Option<IpAddr>, u16)>,
    ranges: Vec<Place>,
    own: Vec<IpAddr>,
}

impl World {
    fn inputs(&self) -> Inputs<'_> {
        let Self { rules, protocols, listeners, ranges, own } = self;
        Inputs { rules, protocols, listeners, ranges, own }
    }
}

/// The ports that rules and packets of these tests have, and some behind; more would only be slower.
const PORTS: std::ops::Range<u16> = 0..30;

fn bits(address: IpAddr) -> Vec<u8> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(v4) => v4.octets().to_vec(),
            None => address.octets().to_vec(),
        },
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| (octet >> bit) & 1)).collect()
}

fn length_of_match(prefix: &Prefix, source: IpAddr) -> Option<usize> {
    let (network, source) = (bits(prefix.net().addr()), bits(source));
    let length = usize::from(prefix.net().prefix_len());
    (network.len() == source.len() && network[..length] == source[..length]).then_some(length)
}

/// Protocol, port or ICMP type, whether a listener is there.
#[derive(Clone, Copy)]
struct Seen(u8, u16, bool);

fn is_about(rule: &FilterRule, Seen(protocol, detail, _): Seen) -> bool {
    let ports = || rule.ports.iter().any(|range| detail >= range.first() && detail <= range.last());
    let types = || rule.icmp_types.iter().any(|kind| u16::from(*kind) == detail);
    (rule.protocols.is_empty() || rule.protocols.contains(&protocol))
        && (rule.ports.is_empty() || ([6, 17].contains(&protocol) && ports()))
        && (rule.icmp_types.is_empty() || ([1, 58].contains(&protocol) && types()))
}

fn needs(rule: &FilterRule, seen: Seen) -> bool {
    let everything = rule.protocols.is_empty() && rule.ports.is_empty() && rule.icmp_types.is_empty();
    let here = if everything { seen.0 == 6 && seen.2 } else { is_about(rule, seen) };
    rule.action == FilterAction::Allow && here
}

/// The verdict by some of the rules and lists, and whose it is.
fn by(rules: &[&FilterRule], lists: &[&ProtocolList], source: IpAddr, seen: Seen) -> (CellVerdict, u32) {
    if !lists.is_empty() && !lists.iter().any(|list| list.allow.contains(&seen.0)) {
        return (CellVerdict::Protocol, lists.iter().map(|list| list.id).min().unwrap());
    }
    let mut asked: Vec<_> = Vec::new();
    for rule in rules.iter().filter(|rule| is_about(rule, seen)) {
        for length in rule.prefixes.iter().filter_map(|prefix| length_of_match(prefix, source)) {
            asked.push((-i32::from(rule.priority), -(length as i32), rule.action, rule.id));
        }
    }
    asked.sort_unstable();
    match asked.first() {
        Some((_, _, FilterAction::Deny, id)) => (CellVerdict::Denied, *id),
        Some((_, _, FilterAction::Allow, id)) => (CellVerdict::Allowed, *id),
        None if rules.iter().any(|rule| needs(rule, seen)) => (CellVerdict::NotAllowed, 0),
        None => (CellVerdict::NoRule, 0),
    }
}

fn seen_by(world: &World, source: IpAddr, seen: Seen) -> Cell {
    let all: Vec<&FilterRule> = world.rules.iter().collect();
    let enforced: Vec<&FilterRule> =
        world.rules.iter().filter(|rule| rule.mode == FilterMode::Enforce).collect();
    let all_lists: Vec<&ProtocolList> = world.protocols.iter().collect();
    let enforced_lists: Vec<&ProtocolList> =
        world.protocols.iter().filter(|list| list.mode == FilterMode::Enforce).collect();
    let (verdict, rule) = by(&enforced, &enforced_lists, source, seen);
    let (would, whose) = by(&all, &all_lists, source, seen);
    let observed = match (verdict.is_drop(), would) {
        (false, CellVerdict::NotAllowed) => {
            all.iter().filter(|rule| needs(rule, seen)).map(|rule| rule.id).min().unwrap()
        }
        (false, would) if would.is_drop() => whose,
        (true, CellVerdict::Denied) if verdict == CellVerdict::NotAllowed => whose,
        _ => 0,
    };
    Cell { rule, verdict, observed }
}

fn is_martian(source: IpAddr) -> bool {
    match source.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_multicast()
                || v4.is_broadcast()
                || (v4.octets()[0] == 0 && !v4.is_unspecified())
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast(),
    }
}

/// What the documentation says of a packet.
fn slow(world: &World, source: IpAddr, destination: IpAddr, payload: Payload) -> Cell {
    let bare = |verdict| Cell { rule: 0, verdict, observed: 0 };
    if world.own.iter().any(|own| own.to_canonical() == source.to_canonical()) {
        return bare(CellVerdict::OwnAddress);
    }
    if is_martian(source) {
        return bare(CellVerdict::Martian);
    }
    let listens = |port| {
        let at = |address| world.listeners.contains(&(address, port));
        at(None) || at(Some(destination.to_canonical()))
    };
    let ask =
        |protocol, detail| seen_by(world, source, Seen(protocol, detail, protocol == 6 && listens(detail)));
    let cells: Vec<Cell> = match payload {
        Payload::Tcp(port) => return ask(6, port),
        Payload::Udp(port) => return ask(17, port),
        Payload::Icmp(kind) => return ask(1, kind.into()),
        Payload::Icmpv6(kind) => return ask(58, kind.into()),
        Payload::Other(protocol) => return ask(protocol, 0),
        Payload::Later(protocol @ (6 | 17)) => PORTS.map(|port| ask(protocol, port)).collect(),
        Payload::Later(protocol @ (1 | 58)) => (0..=255).map(|kind| ask(protocol, kind)).collect(),
        Payload::Later(0) => {
            let at = |port| world.listeners.iter().filter(move |(_, on)| *on == port);
            let listened = PORTS.filter(|port| at(*port).next().is_some());
            let silent = PORTS.filter(|port| at(*port).all(|(address, _)| address.is_some()));
            let mut seen: Vec<Seen> = listened.map(|port| Seen(6, port, true)).collect();
            seen.extend(silent.map(|port| Seen(6, port, false)));
            seen.extend(PORTS.map(|port| Seen(17, port, false)));
            seen.extend((0..=255).flat_map(|kind| [Seen(1, kind, false), Seen(58, kind, false)]));
            let others = (0..=255).filter(|protocol| ![1, 6, 17, 58].contains(protocol));
            seen.extend(others.map(|protocol| Seen(protocol, 0, false)));
            seen.into_iter().map(|seen| seen_by(world, source, seen)).collect()
        }
        Payload::Later(protocol) => return ask(protocol, 0),
    };
    let same = cells.iter().all(|cell| cell.verdict == cells[0].verdict);
    let lowest = |of: fn(&Cell) -> u32| cells.iter().map(of).filter(|id| *id != 0).min().unwrap_or(0);
    match cells.iter().any(|cell| cell.verdict.is_drop()) {
        _ if same => Cell {
            rule: lowest(|cell| cell.rule),
            verdict: cells[0].verdict,
            observed: lowest(|cell| cell.observed),
        },
        true => bare(CellVerdict::Fragment),
        false => Cell { observed: lowest(|cell| cell.observed), ..bare(CellVerdict::NoRule) },
    }
}

/// Addresses from a small corner of both families, so that they meet, and some that nothing is sent from.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (0_u8..4, 0_u8..8).prop_map(|(a, b)| IpAddr::V4(Ipv4Addr::new(10, 0, a, b))),
        6 => (0_u16..4, 0_u16..8).prop_map(|(a, b)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, b))),
        1 => (0_u8..4, 0_u8..8).prop_map(|(a, b)| IpAddr::V6(Ipv4Addr::new(10, 0, a, b).to_ipv6_mapped())),
        2 => select(vec!["0.0.0.0", "0.0.0.1", "127.0.0.1", "230.1.1.1", "255.255.255.255", "::1", "::", "ff02::1"])
            .prop_map(|text| text.parse().unwrap()),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0_u8..=32, any::<bool>()).prop_map(|(address, length, short)| {
        let address = address.to_canonical();
        let (longest, deep) = if address.is_ipv4() { (32, 32 - length % 6) } else { (128, 128 - length * 3) };
        let length = if short { length } else { deep }.min(longest);
        IpNet::new(address, length).unwrap().trunc().to_string().parse().unwrap()
    })
}

fn mode() -> impl Strategy<Value = FilterMode> {
    select(vec![FilterMode::Enforce, FilterMode::Enforce, FilterMode::Observe])
}

const PROTOCOLS: [u8; 6] = [1, 6, 17, 47, 58, 99];

fn rule() -> impl Strategy<Value = FilterRule> {
    let ports = vec((0_u16..20, 0_u16..20).prop_map(|(a, b)| PortRange::new(a, b)), 0..3);
    let what = prop_oneof![
        2 => Just((Vec::new(), Vec::new(), Vec::new())),
        3 => (subsequence(PROTOCOLS.to_vec(), 0..4), ports, vec(0_u8..4, 0..3)),
    ];
    let action = select(vec![FilterAction::Deny, FilterAction::Allow]);
    (action, mode(), 0_u16..3, vec(prefix(), 1..5), what).prop_map(
        |(action, mode, priority, prefixes, (protocols, ports, icmp_types))| FilterRule {
            mode,
            priority,
            protocols,
            ports,
            icmp_types,
            ..FilterRule::new(1, "f/r", action, prefixes)
        },
    )
}

/// Where a listener accepts on more than an address and port.
fn range() -> impl Strategy<Value = Place> {
    let port =
        prop_oneof![Just(Port::Any), (1_u16..20).prop_map(|port| Port::try_from(u64::from(port)).unwrap())];
    (address(), 1_u8..8, port).prop_filter_map("nothing accepts there", |(address, short, port)| {
        let net = IpNet::from(address.to_canonical());
        let length = if port == Port::Any { short - 1 } else { short };
        let net = IpNet::new(net.addr(), net.prefix_len() - length).unwrap().trunc();
        Some(Place::At(net.to_string().parse().ok()?, port))
    })
}

fn world() -> impl Strategy<Value = World> {
    let list = (subsequence(PROTOCOLS.to_vec(), 1..5), mode()).prop_map(|(allow, mode)| ProtocolList {
        id: 1,
        name: "f/protocols".to_owned(),
        allow,
        mode,
    });
    let lists = prop_oneof![2 => Just(Vec::new()), 1 => vec(list, 1..3)];
    let listeners = vec((proptest::option::of(address()), 1_u16..20), 0..4);
    (vec(rule(), 0..8), lists, listeners, vec(range(), 0..3), vec(address(), 0..2)).prop_map(
        |(mut rules, mut protocols, mut listeners, ranges, own)| {
            let ids = rules.iter_mut().map(|rule| &mut rule.id);
            for (id, number) in ids.chain(protocols.iter_mut().map(|list| &mut list.id)).zip(1..) {
                *id = number;
            }
            for (address, _) in &mut listeners {
                *address = address.map(|address| address.to_canonical());
            }
            World { rules, protocols, listeners, ranges, own }
        },
    )
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        4 => PORTS.prop_map(Payload::Tcp),
        2 => PORTS.prop_map(Payload::Udp),
        1 => (0_u8..6).prop_map(Payload::Icmp),
        1 => (0_u8..6).prop_map(Payload::Icmpv6),
        1 => select(vec![0_u8, 47, 99, 255]).prop_map(Payload::Other),
        2 => select(vec![0_u8, 1, 6, 17, 47, 58]).prop_map(Payload::Later),
    ]
}

/// Where listeners are, or elsewhere.
fn destination(world: &World, index: usize, other: IpAddr) -> IpAddr {
    match world.listeners.get(index) {
        Some((Some(address), _)) => *address,
        Some((None, _)) | None => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn tables_say_what_the_slow_reference_says(
        world in world(),
        packets in vec((address(), address(), 0_usize..6, payload()), 1..30),
    ) {
        let compiled = compile(world.inputs()).unwrap();
        let index = Index::of(&compiled);
        for (source, other, listener, payload) in packets {
            let to = destination(&world, listener, other);
            prop_assert_eq!(index.cell(source, to, payload), slow(&world, source, to, payload), "{} -> {} {:?}", source, to, payload);
        }
    }

    #[test]
    fn sockets_have_no_impossible_sources_and_the_same_verdicts_otherwise(
        world in world(), clients in vec((address(), 0_usize..4), 1..20)
    ) {
        let index = Index::new(world.inputs()).unwrap();
        for (client, listener) in clients {
            let Some((at, port)) = world.listeners.get(listener).copied() else { continue };
            let to = at.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let cell = seen_by(&world, client, Seen(6, port, true));
            let expected = match (cell.verdict.is_drop(), cell.verdict) {
                (false, _) => Verdict::Pass,
                (true, CellVerdict::NotAllowed) => Verdict::NotAllowed,
                (true, _) => Verdict::Denied { rule: cell.rule },
            };
            prop_assert_eq!(index.verdict(client, (to, port).into()), expected);
        }
    }

    /// Whoever accepts knows that it is a new connection, so on ranges it is judged there.
    #[test]
    fn sockets_need_allow_rules_wherever_a_listener_accepts_and_packets_to_ranges_do_not(
        world in world(), clients in vec((address(), address(), 1_u16..30), 1..20)
    ) {
        let index = Index::new(world.inputs()).unwrap();
        for (client, to, port) in clients {
            let to = SocketAddr::new(to.to_canonical(), port);
            let bound = world.listeners.iter().any(|(at, on)| *on == port && at.is_none_or(|at| at == to.ip()));
            let listens = bound || world.ranges.iter().any(|place| place.holds(to));
            let expected = seen_by(&world, client, Seen(6, port, listens));
            prop_assert_eq!(index.cell(client, to.ip(), Payload::Tcp(port)), expected, "{} -> {}", client, to);
        }
        let without = World { ranges: Vec::new(), ..world.clone() };
        prop_assert_eq!(compile(world.inputs()).unwrap(), compile(without.inputs()).unwrap());
    }

    #[test]
    fn tables_are_sorted_without_repetition_and_every_class_has_its_cells(world in world()) {
        let compiled = compile(world.inputs()).unwrap();
        let (sources, destinations) = compiled.classes;
        prop_assert!(compiled.sources.windows(2).all(|pair| pair[0].0 < pair[1].0));
        prop_assert!(compiled.columns.windows(2).all(|pair| pair[0].0 < pair[1].0));
        prop_assert!(compiled.exact.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(compiled.cells.len(), usize::from(sources) * usize::from(destinations));
        prop_assert!(compiled.sources.iter().all(|(_, class)| *class < sources));
        prop_assert!(compiled.columns.iter().all(|(slot, class)| *slot < SLOTS && class & !EXACT_FIRST < destinations));
        prop_assert!(compiled.exact.iter().all(|(_, _, class)| *class < destinations));
        let mut turned = world.clone();
        turned.rules.reverse();
        turned.rules.iter_mut().for_each(|rule| rule.prefixes.reverse());
        prop_assert_eq!(compile(turned.inputs()).unwrap(), compiled);
    }
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What is not allowed and would be denied besides says so, in a later fragment as elsewhere: whether types are told apart
/// by another rule or not.
#[test]
fn a_later_fragment_that_is_not_allowed_says_who_would_deny_it() {
    let rule = |id, action, text: &str| FilterRule::new(id, "f/r", action, prefixes(&[text]));
    let allow = FilterRule { protocols: vec![ICMP], ..rule(1, FilterAction::Allow, "10.0.0.0/32") };
    let deny = FilterRule { mode: FilterMode::Observe, ..rule(2, FilterAction::Deny, "::/0") };
    let types = FilterRule { icmp_types: vec![3], ..rule(3, FilterAction::Allow, "10.0.0.1/32") };
    let [source, to] = ["2001:db8::", "10.0.0.0"].map(|text| text.parse().unwrap());
    for rules in [vec![allow.clone(), deny.clone()], vec![allow, deny, types]] {
        let world = World {
            rules,
            protocols: Vec::new(),
            listeners: Vec::new(),
            ranges: Vec::new(),
            own: Vec::new(),
        };
        let index = Index::of(&compile(world.inputs()).unwrap());
        for payload in [Payload::Icmp(3), Payload::Later(ICMP)] {
            let expected = Cell { rule: 0, verdict: CellVerdict::NotAllowed, observed: 2 };
            assert_eq!(index.cell(source, to, payload), expected, "{payload:?}");
            assert_eq!(slow(&world, source, to, payload), expected, "{payload:?}");
        }
    }
}

/// `count` prefixes of an own /24 each.
fn many(count: u32) -> Vec<Prefix> {
    let net = |number: u32| Ipv4Addr::from_bits(0x1400_0000 + (number << 8));
    (0..count).map(|number| format!("{}/24", net(number)).parse().unwrap()).collect()
}

#[test]
fn a_prefix_more_is_one_entry_more() {
    let mut rules = [
        FilterRule::new(1, "f/a", FilterAction::Deny, prefixes(&["192.0.2.0/24", "2001:db8::/32"])),
        FilterRule::new(2, "f/b", FilterAction::Allow, prefixes(&["10.0.0.0/8", "10.1.0.0/16"])),
        FilterRule::new(3, "f/c", FilterAction::Deny, prefixes(&["10.1.2.0/24"])),
    ];
    let before = compile(Inputs { rules: &rules, ..Inputs::default() }).unwrap();
    // One in front of all, of another length.
    rules[0].prefixes.push("9.0.0.0/8".parse().unwrap());
    let mut after = compile(Inputs { rules: &rules, ..Inputs::default() }).unwrap();
    let entry = after.sources.iter().position(|(net, _)| net.to_string() == "9.0.0.0/8").unwrap();
    after.sources.remove(entry);
    assert_eq!(after, before);
    // 10.1.0.0/16 says what 10.0.0.0/8 says.
    assert!(!before.sources.iter().any(|(net, _)| net.to_string() == "10.1.0.0/16"));
}

#[test]
fn what_is_too_much_is_refused() {
    let rule = |id: u32| FilterRule {
        protocols: vec![TCP],
        ports: vec![PortRange::new(id as u16, id as u16)],
        ..FilterRule::new(id, "f/r", FilterAction::Deny, prefixes(&["192.0.2.0/24"]))
    };
    let rules: Vec<FilterRule> = (1..1200).map(rule).collect();
    let most = compile(Inputs { rules: &rules[..1000], ..Inputs::default() }).unwrap();
    assert!(usize::from(most.classes.1) <= MOST_DESTINATION_CLASSES);
    let refused = compile(Inputs { rules: &rules, ..Inputs::default() });
    assert!(matches!(refused, Err(TooLarge::Destinations(count)) if count > MOST_DESTINATION_CLASSES));

    let net = |number: u32| format!("{}/24", Ipv4Addr::from_bits(0x1400_0000 + (number << 8)));
    let mut each: Vec<FilterRule> = (0..1100)
        .map(|number| FilterRule::new(2000 + number, "f/r", FilterAction::Deny, prefixes(&[&net(number)])))
        .collect();
    each.extend_from_slice(&rules[..1000]);
    let refused = compile(Inputs { rules: &each, ..Inputs::default() });
    assert!(matches!(refused, Err(TooLarge::Cells(count)) if count > MOST_CELLS));
}

/// A quarter of a second without optimisation; the bound is for a machine that has other things to do.
#[test]
fn a_hundred_thousand_prefixes_are_quick() {
    let rules = [
        FilterRule::new(1, "f/a", FilterAction::Deny, many(100_000)),
        FilterRule::new(2, "f/b", FilterAction::Allow, prefixes(&["0.0.0.0/0", "::/0"])),
    ];
    let start = Instant::now();
    let compiled = compile(Inputs { rules: &rules, ..Inputs::default() }).unwrap();
    let took = start.elapsed();
    assert!(compiled.sources.len() > 100_000);
    assert!(took.as_secs() < 10, "{took:?}");
}
