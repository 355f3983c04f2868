//! Rules by hand and by chance, and the plans they make.

use std::net::IpAddr;

use dataplane_ebpf::reason::Reason;
use model::filter::{FilterAction, FilterMode, FilterRule, Inputs, PortRange, ProtocolList};
use model::listen::Bound;
use sallyport_node::keeper::plan::KernelPlan;

use super::frames::{ICMP, ICMPV6, TCP, UDP, ethernet, fragment, icmp, ipv4, ipv6, tcp, udp};
use super::random::Random;

/// What a plan is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<FilterRule>,
    pub(crate) protocols: Vec<ProtocolList>,
    pub(crate) listeners: Vec<Bound>,
    pub(crate) own: Vec<IpAddr>,
}

impl Rules {
    pub(crate) fn plan(&self) -> KernelPlan {
        let Self { rules, protocols, listeners, own } = self;
        KernelPlan::of(Inputs { rules, protocols, listeners, ranges: &[], own }).unwrap()
    }
}

fn rule(id: u32, action: FilterAction, prefixes: &[&str]) -> FilterRule {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    FilterRule::new(id, &format!("f/r{id}"), action, prefixes)
}

pub(crate) fn deny(id: u32, prefixes: &[&str]) -> FilterRule {
    rule(id, FilterAction::Deny, prefixes)
}

pub(crate) fn allow(id: u32, prefixes: &[&str]) -> FilterRule {
    rule(id, FilterAction::Allow, prefixes)
}

fn ports(ranges: &[(u16, u16)]) -> Vec<PortRange> {
    ranges.iter().map(|(first, last)| PortRange::new(*first, *last)).collect()
}

/// Rules about something, priorities, observed rules, a protocol list, own addresses: the plan of [`cases`].
pub(crate) fn particular() -> Rules {
    let tcp = |rule| FilterRule { protocols: vec![TCP], ..rule };
    let udp = |rule| FilterRule { protocols: vec![UDP], ..rule };
    let observed = |rule| FilterRule { mode: FilterMode::Observe, ..rule };
    Rules {
        rules: vec![
            deny(1, &["10.1.0.0/16", "2001:db8:1::/48"]),
            FilterRule { priority: 9, ..allow(2, &["10.1.0.0/24", "2001:db8:1::/64"]) },
            FilterRule { priority: 10, ..deny(3, &["10.1.0.0/23"]) },
            FilterRule { ports: ports(&[(22, 22)]), ..tcp(allow(4, &["10.2.0.0/16", "2001:db8:2::/48"])) },
            FilterRule {
                ports: ports(&[(53, 53), (100, 200)]),
                ..udp(deny(5, &["10.3.0.0/16", "2001:db8:3::/48"]))
            },
            FilterRule {
                protocols: vec![ICMP, ICMPV6],
                icmp_types: vec![8, 128],
                ..deny(6, &["10.3.0.0/16", "2001:db8:3::/48"])
            },
            observed(deny(7, &["10.4.0.0/16", "2001:db8:4::/48"])),
            FilterRule { protocols: vec![47], ..deny(8, &["10.5.0.0/16", "2001:db8:5::/48"]) },
            observed(FilterRule {
                ports: ports(&[(8080, 8080)]),
                ..tcp(allow(9, &["10.2.0.0/16", "2001:db8:2::/48"]))
            }),
        ],
        protocols: vec![ProtocolList {
            id: 20,
            name: "f/protocols".to_owned(),
            allow: vec![ICMP, TCP, UDP, 47, 50, ICMPV6],
            mode: FilterMode::Enforce,
        }],
        listeners: vec![
            (None, 443),
            (Some("10.0.0.1".parse().unwrap()), 8443),
            (Some("fd00::1".parse().unwrap()), 8443),
        ],
        own: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
    }
}

type Case = (&'static str, Vec<u8>, Reason, u32);

/// Packets for [`particular`]: what each is, its bytes, its reason and rule.
pub(crate) fn cases() -> Vec<Case> {
    table().into_iter().flat_map(both).collect()
}

/// A row's packet in IPv4, in IPv6, and both in a VLAN. `10.N.x` stands for `2001:db8:N:x` too.
fn both((what, (net, host), protocol, payload, reason, rule): Row) -> Vec<Case> {
    let v6_protocol = if protocol == ICMP { ICMPV6 } else { protocol };
    let later = payload.is_none();
    let payload = payload.unwrap_or_else(|| vec![7; 16]);
    let v4 =
        ipv4(&format!("10.{net}.{host}.9"), "10.0.0.2", protocol, if later { 9 } else { 0 }, &[], &payload);
    let (next, inside) =
        if later { (44, fragment(v6_protocol, 9, &payload)) } else { (v6_protocol, payload) };
    let v6 = ipv6(&format!("2001:db8:{net}:{host}::9"), "fd00::2", next, 64, &inside);
    let mut cases = Vec::new();
    for tags in [&[][..], &[0x8100]] {
        cases.push((what, ethernet(tags, 0x0800, &v4), reason, rule));
        cases.push((what, ethernet(tags, 0x86dd, &v6), reason, rule));
    }
    cases
}

/// What, source, protocol, payload (none: a later fragment), reason, rule.
type Row = (&'static str, (u8, u8), u8, Option<Vec<u8>>, Reason, u32);

fn table() -> Vec<Row> {
    let ping = || Some(icmp(8, 0));
    vec![
        ("denied", (1, 9), TCP, Some(tcp(80)), Reason::Denied, 1),
        ("a longer allow with priority", (6, 0), TCP, Some(tcp(80)), Reason::NoRule, 0),
        ("a port that needs an allow rule and has it", (2, 0), TCP, Some(tcp(22)), Reason::Allowed, 4),
        ("a port that needs an allow rule", (6, 0), TCP, Some(tcp(22)), Reason::NotAllowed, 0),
        ("the port beside it", (6, 0), TCP, Some(tcp(23)), Reason::NoRule, 0),
        ("a listener needs a general allow rule", (6, 0), TCP, Some(tcp(443)), Reason::NotAllowed, 0),
        ("a denied udp port", (3, 0), UDP, Some(udp(53)), Reason::Denied, 5),
        ("a denied udp port's neighbour", (3, 0), UDP, Some(udp(54)), Reason::NoRule, 0),
        ("the end of a denied range", (3, 0), UDP, Some(udp(200)), Reason::Denied, 5),
        ("behind a denied range", (3, 0), UDP, Some(udp(201)), Reason::NoRule, 0),
        ("tcp to a denied udp port", (3, 0), TCP, Some(tcp(53)), Reason::NoRule, 0),
        ("a later fragment of udp that may be denied", (3, 0), UDP, None, Reason::Fragment, 0),
        ("a later fragment of udp that may not", (6, 0), UDP, None, Reason::NoRule, 0),
        ("a later fragment of tcp that needs an allow rule", (6, 0), TCP, None, Reason::Fragment, 0),
        ("a later fragment from a denied source", (1, 9), TCP, None, Reason::Denied, 1),
        ("observed", (4, 0), UDP, Some(udp(53)), Reason::Observed, 7),
        ("observed, but another rule drops it", (4, 0), TCP, Some(tcp(22)), Reason::NotAllowed, 0),
        ("an observed allow rule would be needed", (6, 0), TCP, Some(tcp(8080)), Reason::Observed, 9),
        ("an observed allow rule would let it through", (2, 0), TCP, Some(tcp(8080)), Reason::NoRule, 0),
        ("gre", (5, 0), 47, Some(vec![0; 8]), Reason::Denied, 8),
        ("gre from elsewhere", (6, 0), 47, Some(vec![0; 8]), Reason::NoRule, 0),
        ("esp", (5, 0), 50, Some(vec![0; 8]), Reason::NoRule, 0),
        ("sctp", (6, 0), 132, Some(vec![0; 12]), Reason::Protocol, 20),
        ("sctp from an allowed source", (2, 0), 132, Some(vec![0; 12]), Reason::Protocol, 20),
        ("ping", (6, 0), ICMP, ping(), Reason::NoRule, 0),
    ]
}

/// What the two families do not have alike.
pub(crate) fn single_cases() -> Vec<Case> {
    let v4 = |source: &str, destination: &str, protocol, payload: &[u8]| {
        ethernet(&[], 0x0800, &ipv4(source, destination, protocol, 0, &[], payload))
    };
    let v6 = |source: &str, destination: &str, next, payload: &[u8]| {
        ethernet(&[], 0x86dd, &ipv6(source, destination, next, 64, payload))
    };
    vec![
        ("priority before length", v4("10.1.0.9", "10.0.0.2", TCP, &tcp(80)), Reason::Denied, 3),
        ("a longer allow with priority", v6("2001:db8:1::9", "fd00::2", TCP, &tcp(80)), Reason::Allowed, 2),
        ("a denied type", v4("10.3.0.9", "10.0.0.2", ICMP, &icmp(8, 0)), Reason::Denied, 6),
        ("another type", v4("10.3.0.9", "10.0.0.2", ICMP, &icmp(0, 0)), Reason::NoRule, 0),
        ("a denied type of ICMPv6", v6("2001:db8:3::9", "fd00::2", ICMPV6, &icmp(128, 0)), Reason::Denied, 6),
        ("another type of ICMPv6", v6("2001:db8:3::9", "fd00::2", ICMPV6, &icmp(129, 0)), Reason::NoRule, 0),
        ("from our own address", v4("10.0.0.1", "10.0.0.2", UDP, &udp(53)), Reason::OwnAddress, 0),
        ("from our own ipv6 address", v6("fd00::1", "fd00::2", UDP, &udp(53)), Reason::OwnAddress, 0),
        ("a listener at one address", v4("10.6.0.9", "10.0.0.1", TCP, &tcp(8443)), Reason::NotAllowed, 0),
        ("its port elsewhere", v4("10.6.0.9", "10.0.0.3", TCP, &tcp(8443)), Reason::NoRule, 0),
        (
            "a listener at one ipv6 address",
            v6("2001:db8:6::9", "fd00::1", TCP, &tcp(8443)),
            Reason::NotAllowed,
            0,
        ),
        ("its port elsewhere in ipv6", v6("2001:db8:6::9", "fd00::3", TCP, &tcp(8443)), Reason::NoRule, 0),
        (
            "a later fragment that hides even its protocol",
            v6("2001:db8:6::9", "fd00::2", 44, &fragment(60, 9, &[7; 16])),
            Reason::Fragment,
            0,
        ),
    ]
}

/// Rules by chance, about the addresses and ports that the frames have.
pub(crate) fn random(random: &mut Random) -> Rules {
    let rules = (1..=random.below(9) as u32).map(|id| random_rule(random, id)).collect();
    let protocols = match random.below(3) {
        0 => vec![ProtocolList {
            id: 100,
            name: "f/protocols".to_owned(),
            allow: (0..=255).filter(|protocol| *protocol == TCP || random.below(3) != 0).collect(),
            mode: mode(random),
        }],
        _ => Vec::new(),
    };
    let mut listeners: Vec<Bound> = (0..random.below(5))
        .map(|_| {
            let address = random.pick(&["", "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]).parse().ok();
            (address, *random.pick(&[22, 443, 8443]))
        })
        .collect();
    listeners.sort_unstable();
    listeners.dedup();
    let own = if random.below(2) == 0 {
        vec!["10.9.9.9".parse().unwrap(), "fd00::7".parse().unwrap()]
    } else {
        Vec::new()
    };
    Rules { rules, protocols, listeners, own }
}

fn mode(random: &mut Random) -> FilterMode {
    if random.below(3) == 0 { FilterMode::Observe } else { FilterMode::Enforce }
}

fn random_rule(random: &mut Random, id: u32) -> FilterRule {
    const PREFIXES: [&str; 14] = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.2.3.4/32",
        "10.9.0.0/16",
        "10.9.9.9/32",
        "192.0.2.0/24",
        "::/0",
        "fd00::/8",
        "fd00::9/128",
        "2001:db8::/32",
        "2001:db8:1::/48",
        "2001:db8:1:2::/64",
    ];
    let prefixes: Vec<&str> = (0..=random.below(4)).map(|_| *random.pick(&PREFIXES)).collect();
    let mut rule = if random.below(2) == 0 { deny(id, &prefixes) } else { allow(id, &prefixes) };
    rule.priority = random.below(3) as u16;
    rule.mode = mode(random);
    match random.below(4) {
        0 => rule.protocols = vec![*random.pick(&[0, ICMP, TCP, UDP, 47, 51, ICMPV6, 60])],
        1 => {
            rule.protocols = random.pick(&[vec![TCP], vec![UDP], vec![TCP, UDP]]).clone();
            let choices: [Vec<(u16, u16)>; 4] =
                [vec![(443, 443)], vec![(22, 53)], vec![(0, 100), (8443, 65535)], vec![(0, 65535)]];
            let chosen = random.pick(&choices);
            rule.ports = ports(chosen);
        }
        2 => {
            rule.protocols = vec![*random.pick(&[ICMP, ICMPV6])];
            rule.icmp_types = random.pick(&[vec![8], vec![3, 129], vec![0, 128, 255]]).clone();
        }
        _ => {}
    }
    rule
}
