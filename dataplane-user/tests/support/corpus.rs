//! The corpus: frames, the plan they are judged by, the reason each is to have.

use std::collections::BTreeMap;

use dataplane_ebpf::decide::{Looped, decide};
use dataplane_ebpf::reason::Reason;
use sallyport_node::keeper::kernel::{Linux, PlanTables};
use sallyport_node::keeper::plan::KernelPlan;

use super::Port;
use super::frames::{TCP, UDP, ethernet, extension, fragment, icmp, ipv4, ipv6, syn, tcp, udp};
use super::rules::{Rules, allow, deny};

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;

/// The plan all of the corpus is judged by: deny and allow nested both ways, listeners at one address and at every one.
pub(crate) fn plan() -> KernelPlan {
    plan_without(&[])
}

/// The same without some of its rules.
pub(crate) fn plan_without(ids: &[u32]) -> KernelPlan {
    let mut rules = vec![
        deny(1, &["10.1.0.0/16"]),
        deny(2, &["10.2.3.4/32"]),
        deny(3, &["2001:db8:1::/48"]),
        deny(4, &["192.0.2.0/24"]),
        deny(5, &["fe80::dead:0/112"]),
        allow(11, &["10.1.2.0/24"]),
        allow(12, &["10.2.0.0/16"]),
        allow(13, &["2001:db8:1:2::/64"]),
        allow(14, &["192.0.2.0/24"]),
    ];
    rules.retain(|rule| !ids.contains(&rule.id));
    let at = |address: &str| Some(address.parse().unwrap());
    let listeners = vec![(None, 443), (at("10.0.0.1"), 8443), (at("fd00::1"), 8443)];
    Rules { rules, listeners, ..Rules::default() }.plan()
}

pub(crate) struct Counts(Vec<u64>);

impl Counts {
    pub(crate) fn read(kernel: &Linux) -> Self {
        Self(Reason::ALL.iter().map(|reason| kernel.packets(*reason).unwrap()).collect())
    }

    /// What was counted since.
    pub(crate) fn since(&self, kernel: &Linux) -> BTreeMap<Reason, u64> {
        let now = Self::read(kernel);
        let moved = Reason::ALL
            .iter()
            .zip(self.0.iter().zip(&now.0))
            .map(|(reason, (before, after))| (*reason, after - before));
        moved.filter(|(_, count)| *count != 0).collect()
    }

    /// The one reason that counted once since.
    pub(crate) fn reason_since(&self, kernel: &Linux) -> Reason {
        let moved: Vec<(Reason, u64)> = self.since(kernel).into_iter().collect();
        let [(reason, 1)] = moved[..] else { panic!("one packet, one reason; but {moved:?}") };
        reason
    }
}

/// Judges a frame in the kernel and by the pure decision, from a wire and from the loopback interface, and demands the same of
/// both. Gives the reason it has on the wire.
pub(crate) fn judge(kernel: &Linux, plan: &KernelPlan, port: Port<'_>, frame: &[u8]) -> Reason {
    let (filter, tables) = (kernel.filter().unwrap(), PlanTables(plan));
    let agree = |expected: Reason, run: &(dyn Fn() -> u32 + Sync)| {
        let before = Counts::read(kernel);
        let verdict = run();
        let reason = before.reason_since(kernel);
        assert_eq!(reason, expected, "{frame:02x?}");
        assert_eq!(verdict, if reason.is_drop() { XDP_DROP } else { XDP_PASS }, "{frame:02x?}");
    };
    agree(decide(&Looped(frame), &tables).reason, &|| filter.judge(frame, 1).unwrap().verdict);
    let reason = decide(frame, &tables).reason;
    agree(reason, &|| port.namespace.inside(|| filter.judge_from(port.index, frame, 1).unwrap().verdict));
    reason
}

fn v4(payload: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x0800, payload)
}

fn v6(payload: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x86dd, payload)
}

/// Every frame of the corpus: what it is, its bytes, the reason it is to have.
pub(crate) fn corpus() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let parts = [lists(), around(), inside_ipv6(), inside_icmpv6(), super::impossible::corpus()];
    parts.into_iter().flatten().collect()
}

/// Addresses and ports.
fn lists() -> Vec<(&'static str, Vec<u8>, Reason)> {
    vec![
        ("denied", syn("10.1.9.9", "10.0.0.1", 22), Reason::Denied),
        ("a longer allow beats a shorter deny", syn("10.1.2.9", "10.0.0.1", 443), Reason::Allowed),
        ("a longer deny beats a shorter allow", syn("10.2.3.4", "10.0.0.1", 443), Reason::Denied),
        ("allowed", syn("10.2.3.5", "10.0.0.1", 443), Reason::Allowed),
        ("deny wins at equal length", syn("192.0.2.7", "10.0.0.1", 443), Reason::Denied),
        ("to a listener", syn("10.9.9.9", "10.7.7.7", 443), Reason::NotAllowed),
        ("to a listener at one address", syn("10.9.9.9", "10.0.0.1", 8443), Reason::NotAllowed),
        ("its port elsewhere", syn("10.9.9.9", "10.0.0.2", 8443), Reason::NoRule),
        ("no listener's port", syn("10.9.9.9", "10.0.0.1", 22), Reason::NoRule),
        (
            "udp to a listener's port",
            v4(&ipv4("10.9.9.9", "10.0.0.1", UDP, 0, &[], &udp(443))),
            Reason::NoRule,
        ),
        ("ipv6 denied", syn("2001:db8:1::9", "fd00::1", 22), Reason::Denied),
        ("ipv6 allowed", syn("2001:db8:1:2::9", "fd00::1", 443), Reason::Allowed),
        ("ipv6 to a listener", syn("fd00::9", "fd00::7", 443), Reason::NotAllowed),
        ("ipv6 to a listener at one address", syn("fd00::9", "fd00::1", 8443), Reason::NotAllowed),
        ("ipv6 elsewhere", syn("fd00::9", "fd00::2", 8443), Reason::NoRule),
        ("an ipv4 source in ipv6 clothes", syn("::ffff:10.2.3.5", "fd00::1", 443), Reason::MappedAddress),
    ]
}

/// What may lie around and inside IPv4.
fn around() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let denied = ipv4("10.1.9.9", "10.0.0.1", TCP, 0, &[], &tcp(443));
    let denied6 = ipv6("2001:db8:1::9", "fd00::1", TCP, 64, &tcp(443));
    let stranger = |fragment, options: &[u8], payload: &[u8]| {
        v4(&ipv4("10.9.9.9", "10.0.0.1", TCP, fragment, options, payload))
    };
    let mut contradicting = denied.clone();
    contradicting[0] = 0x44;
    let mut short_total = denied.clone();
    short_total[3] = 19;
    let mut version = denied.clone();
    version[0] = 0x65;
    let mut padding = ipv4("10.9.9.9", "10.0.0.1", TCP, 0, &[], &[]);
    padding.extend_from_slice(&tcp(443));
    vec![
        ("arp", ethernet(&[], 0x0806, &[0; 28]), Reason::Arp),
        ("arp in a vlan", ethernet(&[0x8100], 0x0806, &[0; 28]), Reason::Arp),
        ("lldp", ethernet(&[], 0x88cc, &[0; 28]), Reason::NotIp),
        ("vlan", ethernet(&[0x8100], 0x0800, &denied), Reason::Denied),
        ("qinq", ethernet(&[0x88a8, 0x8100], 0x0800, &denied), Reason::Denied),
        ("old qinq", ethernet(&[0x9100, 0x8100], 0x86dd, &denied6), Reason::Denied),
        ("three tags", ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &denied), Reason::VlanDepth),
        ("a tag cut short", ethernet(&[], 0x8100, &[0, 5]), Reason::MalformedFrame),
        ("options", stranger(0, &[1; 40], &tcp(443)), Reason::NotAllowed),
        ("options hide nothing", stranger(0, &[1; 4], &tcp(22)), Reason::NoRule),
        ("no header", v4(&[]), Reason::MalformedIpv4),
        ("half a header", v4(&denied[..12]), Reason::MalformedIpv4),
        ("a header length below 20", v4(&contradicting), Reason::MalformedIpv4),
        ("a total length below the header's", v4(&short_total), Reason::MalformedIpv4),
        ("another version", v4(&version), Reason::MalformedIpv4),
        ("no tcp header", stranger(0, &[], &[]), Reason::MalformedTcp),
        ("ports cut short", stranger(0, &[], &tcp(443)[..3]), Reason::MalformedTcp),
        ("ports are not read from padding", v4(&padding), Reason::MalformedTcp),
        ("options beyond the frame", stranger(0, &[1; 40], &[])[..40].to_vec(), Reason::MalformedIpv4),
        ("first fragment", stranger(0x2000, &[], &tcp(443)), Reason::NotAllowed),
        ("later fragment", stranger(0x2005, &[], &[7; 32]), Reason::Fragment),
        ("last fragment", stranger(0x0005, &[], &[7; 32]), Reason::Fragment),
        (
            "fragment from an allowed source",
            v4(&ipv4("10.2.9.9", "10.0.0.1", TCP, 5, &[], &[7; 8])),
            Reason::Allowed,
        ),
        ("udp fragment", v4(&ipv4("10.9.9.9", "10.0.0.1", UDP, 5, &[], &[7; 8])), Reason::NoRule),
        ("fragmentation needed", v4(&ipv4("10.1.9.9", "10.0.0.1", 1, 0, &[], &icmp(3, 4))), Reason::PathMtu),
        ("other unreachable", v4(&ipv4("10.1.9.9", "10.0.0.1", 1, 0, &[], &icmp(3, 3))), Reason::Denied),
        ("ping", v4(&ipv4("10.9.9.9", "10.0.0.1", 1, 0, &[], &icmp(8, 0))), Reason::NoRule),
    ]
}

/// What hosts and routers of a link say to each other, and what only looks like it.
fn inside_icmpv6() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let solicitation =
        |hop_limit| v6(&ipv6("2001:db8:1::9", "ff02::1", 58, hop_limit, &[135, 0, 0, 0, 0, 0, 0, 0]));
    // With the router alert that such a message has (RFC 2711).
    let listener = |source, hop_limit, kind| {
        let message = [&[58, 0, 5, 2, 0, 0, 1, 0, kind, 0][..], &[0; 22]].concat();
        v6(&ipv6(source, "ff02::1", 0, hop_limit, &message))
    };
    vec![
        ("neighbour discovery from a denied source", solicitation(255), Reason::NeighbourDiscovery),
        ("neighbour discovery through a router", solicitation(64), Reason::Denied),
        (
            "fragmented neighbour discovery",
            v6(&ipv6("2001:db8:1::9", "ff02::1", 44, 255, &fragment(58, 0, &icmp(135, 0)))),
            Reason::Denied,
        ),
        (
            "a listener query from a denied source",
            listener("fe80::dead:1", 1, 130),
            Reason::MulticastListener,
        ),
        (
            "a listener report from a denied source",
            listener("fe80::dead:1", 1, 143),
            Reason::MulticastListener,
        ),
        ("a listener report from no address", listener("::", 1, 143), Reason::MulticastListener),
        ("a listener query through a router", listener("fe80::dead:1", 64, 130), Reason::Denied),
        ("a listener query of another link", listener("2001:db8:1::9", 1, 130), Reason::Denied),
        ("an echo beside listener queries", listener("fe80::dead:1", 1, 128), Reason::Denied),
        ("packet too big", v6(&ipv6("2001:db8:1::9", "fd00::1", 58, 64, &icmp(2, 0))), Reason::PathMtu),
        ("echo", v6(&ipv6("fd00::9", "fd00::1", 58, 64, &icmp(128, 0))), Reason::NoRule),
    ]
}

/// What may lie inside IPv6.
fn inside_ipv6() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let stranger = |next, payload: &[u8]| v6(&ipv6("fd00::9", "fd00::1", next, 64, payload));
    let chain = |length: usize, payload: Vec<u8>| {
        (0..length).fold((TCP, payload), |(next, payload), _| (60, extension(next, 0, &payload))).1
    };
    let mut version = ipv6("fd00::9", "fd00::1", TCP, 64, &tcp(443));
    version[0] = 0x45;
    vec![
        ("hop-by-hop", stranger(0, &extension(TCP, 0, &tcp(443))), Reason::NotAllowed),
        ("a long routing header", stranger(43, &extension(TCP, 30, &tcp(443))), Reason::NotAllowed),
        ("authentication", stranger(51, &[&[TCP, 2][..], &[0; 14], &tcp(443)].concat()), Reason::NotAllowed),
        ("eight headers", stranger(60, &chain(8, tcp(443))), Reason::NotAllowed),
        ("nine headers", stranger(60, &chain(9, tcp(443))), Reason::ExtensionHeaders),
        ("an extension cut short", stranger(0, &[TCP, 0, 0]), Reason::MalformedIpv6),
        (
            "an extension longer than the packet",
            stranger(0, &[TCP, 9, 0, 0, 0, 0, 0, 0]),
            Reason::MalformedIpv6,
        ),
        ("no next header", stranger(59, &[]), Reason::NoRule),
        ("esp", stranger(50, &[0; 16]), Reason::NoRule),
        ("half a header", v6(&ipv6("fd00::9", "fd00::1", TCP, 64, &[])[..30]), Reason::MalformedIpv6),
        ("another version", v6(&version), Reason::MalformedIpv6),
        ("no tcp header", stranger(TCP, &[]), Reason::MalformedTcp),
        ("first fragment", stranger(44, &fragment(TCP, 0, &tcp(443))), Reason::NotAllowed),
        ("later fragment", stranger(44, &fragment(TCP, 2, &[7; 16])), Reason::Fragment),
        (
            "later fragment behind an extension",
            stranger(0, &extension(44, 0, &fragment(TCP, 2, &[7; 16]))),
            Reason::Fragment,
        ),
        ("later fragment that may hide tcp", stranger(44, &fragment(60, 2, &[7; 16])), Reason::Fragment),
        ("later udp fragment", stranger(44, &fragment(UDP, 2, &[7; 16])), Reason::NoRule),
    ]
}
