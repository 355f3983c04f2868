//! The decision against a reference that is slow and plain: it cuts the frame into owned pieces and looks at every rule.

use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use reference::reference;

mod reference;

/// A rule: deny or allow, address, prefix length, id.
#[derive(Debug, Clone, Copy)]
struct Rule {
    allow: bool,
    address: Address,
    length: u32,
    id: u32,
}

/// Tables as lists.
#[derive(Debug, Clone)]
struct Lists {
    rules: Vec<Rule>,
    required: bool,
    listeners: Vec<(Address, u16)>,
}

fn bits(address: &Address) -> Vec<bool> {
    let octets = address.octets();
    let octets = if address.is_v6() { &octets[..] } else { &octets[12..] };
    octets.iter().flat_map(|octet| (0..8).map(move |bit| octet & (0x80 >> bit) != 0)).collect()
}

fn holds(rule: &Rule, source: &Address) -> bool {
    let (prefix, source) = (bits(&rule.address), bits(source));
    prefix.len() == source.len() && prefix.iter().zip(&source).take(rule.length as usize).all(|(a, b)| a == b)
}

/// Classes of sources: the place of the rule that decides, from 1. Classes of destinations: where an allow rule is needed.
const LISTENED: u32 = 1;
const MAYBE_LISTENED: u32 = 2;

impl Tables for Lists {
    fn any(&self) -> bool {
        !self.rules.is_empty() || self.required
    }

    fn source(&self, source: &Address) -> Result<u32, Reason> {
        let holding = self.rules.iter().enumerate().filter(|(_, rule)| holds(rule, source));
        let best = holding.max_by_key(|(_, rule)| (rule.length, !rule.allow));
        Ok(best.map_or(0, |(place, _)| place as u32 + 1))
    }

    fn column(&self, slot: u32) -> Result<u32, Reason> {
        let tcp = slot < slot::UDP || slot == slot::LATER_FRAGMENT + 6;
        Ok(if tcp {
            slot::EXACT_FIRST
        } else if slot == slot::LATER_FRAGMENT && !self.listeners.is_empty() {
            MAYBE_LISTENED
        } else {
            0
        })
    }

    fn exact(&self, address: &Address, port: u16) -> Result<Option<u32>, Reason> {
        let here = self.listeners.iter().any(|(at, listening)| {
            (at == address || *at == address.any()) && (port == *listening || port == SOME_PORT)
        });
        Ok(here.then_some(if port == SOME_PORT { MAYBE_LISTENED } else { LISTENED }))
    }

    fn cell(&self, source: u32, destination: u32) -> Result<Cell, Reason> {
        if source != 0 {
            let rule = self.rules[source as usize - 1];
            let reason = if rule.allow { Reason::Allowed } else { Reason::Denied };
            return Ok(Cell::new(rule.id, reason.number()));
        }
        let reason = match destination {
            LISTENED if self.required => Reason::NotAllowed,
            MAYBE_LISTENED if self.required => Reason::Fragment,
            _ => Reason::NoRule,
        };
        Ok(Cell::new(0, reason.number()))
    }
}

/// Tables with one cell.
struct One(Cell);

impl Tables for One {
    fn any(&self) -> bool {
        true
    }

    fn source(&self, _: &Address) -> Result<u32, Reason> {
        Ok(0)
    }

    fn column(&self, _: u32) -> Result<u32, Reason> {
        Ok(0)
    }

    fn exact(&self, _: &Address, _: u16) -> Result<Option<u32>, Reason> {
        Ok(None)
    }

    fn cell(&self, _: u32, _: u32) -> Result<Cell, Reason> {
        Ok(self.0)
    }
}

#[test]
fn a_cell_is_read_with_care() {
    let address = Address::v4([10, 0, 0, 1]);
    let packet = Packet { source: address, destination: address, kind: Kind::tcp(443) };
    let by = |reason: u32| judge(&packet, &One(Cell { counter: 3, ..Cell::new(7, reason) }));
    let known = [
        Reason::NoRule,
        Reason::Allowed,
        Reason::Observed,
        Reason::Denied,
        Reason::NotAllowed,
        Reason::Fragment,
        Reason::OwnAddress,
        Reason::Protocol,
    ];
    for number in 0..100 {
        let reason = known.into_iter().find(|reason| reason.number() == number);
        let decision = reason.map(|reason| Decision { reason, rule: 7, counter: 3 });
        assert_eq!(by(number), decision.ok_or(Reason::NoTable));
    }
}

/// Few addresses, so that rules and packets meet; among them those that no wire has.
fn address() -> impl Strategy<Value = Address> {
    let odd4 =
        select(std::vec![[127, 0, 0, 1], [224, 0, 0, 9], [255; 4], [0; 4], [0, 0, 0, 1], [128, 0, 0, 1]]);
    let odd6 = select(std::vec![0_u128, 1, 2, 0xff02 << 112, 0xffff_0a00_0001]);
    prop_oneof![
        1 => odd4.prop_map(Address::v4),
        1 => odd6.prop_map(|address| Address::v6(address.to_be_bytes())),
        8 => (0_u8..4, 0_u8..4).prop_map(|(a, b)| Address::v4([10, a * 64, 0, b * 64])),
        8 => (0_u8..4, 0_u8..4).prop_map(|(a, b)| Address::v6([
            0xfd,
            a * 64,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            b * 64
        ])),
    ]
}

fn lists() -> impl Strategy<Value = Lists> {
    let rule = (any::<bool>(), address(), 0_u32..=32, 1_u32..9).prop_map(|(allow, address, length, id)| {
        let length = if address.is_v6() { length * 4 } else { length };
        Rule { allow, address, length, id }
    });
    let listener = (address(), any::<bool>(), select(std::vec![22_u16, 443]));
    let listener =
        listener.prop_map(|(address, any, port)| (if any { address.any() } else { address }, port));
    (vec(rule, 0..6), any::<bool>(), vec(listener, 0..3)).prop_map(|(rules, required, listeners)| Lists {
        rules,
        required,
        listeners,
    })
}

/// Pieces that mean something behind an IP header, and noise between them.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let known = select(std::vec![0_u8, 1, 2, 3, 4, 6, 22, 43, 44, 51, 58, 60, 133, 137]);
    let flags = prop_oneof![6 => select(std::vec![2_u8, 16, 24, 4, 17, 18]), 1 => any::<u8>()];
    let words = prop_oneof![6 => Just(5_u8), 1 => 3_u8..8];
    let port = prop_oneof![12 => select(std::vec![22_u16, 443]), 1 => Just(0)];
    let tcp = (port, words, flags).prop_map(|(port, words, flags)| {
        let [high, low] = port.to_be_bytes();
        std::vec![9, 9, high, low, 0, 0, 0, 0, 0, 0, 0, 0, words << 4, flags, 0, 0, 0, 0, 0, 0]
    });
    let udp = prop_oneof![3 => Just(8_u8), 1 => 0_u8..40]
        .prop_map(|length| std::vec![9, 9, 0, 53, 0, length, 0, 0]);
    let icmp = select(std::vec![[3_u8, 4], [3, 3], [8, 0], [2, 0], [133, 0], [135, 0], [129, 0]])
        .prop_map(|[kind, code]| std::vec![kind, code, 0, 0, 0, 0, 0, 0]);
    let extension = (select(std::vec![60_u8, 60, 0, 6, 43, 44, 51, 58]), select(std::vec![0_u8, 0, 0, 1]));
    let extension = extension.prop_map(|(next, more)| std::vec![next, more, 0, 0, 0, 0, 0, 0]);
    let noise = vec(prop_oneof![3 => known, 1 => any::<u8>()], 0..12);
    let pieces = vec(
        prop_oneof![2 => tcp.clone(), 1 => udp.clone(), 1 => icmp.clone(), 4 => extension, 1 => noise],
        0..11,
    );
    let one = prop_oneof![tcp, udp, icmp];
    prop_oneof![2 => pieces.prop_map(|pieces| pieces.concat()), 1 => one]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![20 => anything(), 1 => icmpv6()]
}

/// What hosts and routers of a link say to each other, and what only looks like it.
fn icmpv6() -> impl Strategy<Value = Vec<u8>> {
    let source = select(std::vec![0_u128, 0xfe80 << 112 | 9, 0xfebf << 112, 0xfec0 << 112, 0xfd << 120 | 9]);
    let header =
        select(std::vec![&[58_u8][..], &[0, 58, 0, 5, 2, 0, 0, 1, 0], &[44, 58, 0, 0, 1, 0, 0, 0, 7]]);
    let kind = select(std::vec![128_u8, 129, 130, 131, 132, 133, 137, 138, 142, 143, 144]);
    (source, select(std::vec![1_u8, 2, 255]), header, kind).prop_map(|(source, hops, header, kind)| {
        let (next, extension) = header.split_first().unwrap();
        let message = [extension, &[kind, 0, 0, 0, 0, 0, 0, 0]].concat();
        let mut frame = std::vec![0; 12];
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8, *next, hops]);
        frame.extend_from_slice(&source.to_be_bytes());
        frame.extend_from_slice(&(0xff02_u128 << 112 | 1).to_be_bytes());
        frame.extend_from_slice(&message);
        frame
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    let tags = vec(select(std::vec![0x8100_u16, 0x88a8, 0x9100]), 0..4);
    let protocol = select(std::vec![0_u8, 1, 6, 6, 6, 17, 43, 44, 51, 58, 59, 60]);
    let lengths = (
        prop_oneof![4 => Just(5_u8), 1 => 0_u8..16],
        prop_oneof![3 => Just(None), 1 => (0_u16..80).prop_map(Some)],
    );
    let parts = (
        tags,
        address(),
        address(),
        protocol,
        lengths,
        prop_oneof![4 => Just(0_u16), 1 => select(std::vec![0x2000_u16, 5, 1, 2])],
        payload(),
    );
    (parts, select(std::vec![64_u8, 255]), 0_usize..160).prop_map(
        |((tags, source, destination, protocol, (words, declared), fragment, payload), hops, cut)| {
            let mut frame = std::vec![0; 12];
            for tag in tags {
                frame.extend_from_slice(&tag.to_be_bytes());
                frame.extend_from_slice(&[0, 1]);
            }
            if source.is_v6() || destination.is_v6() {
                let length = declared.unwrap_or(payload.len() as u16).to_be_bytes();
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], protocol, hops]);
                frame.extend_from_slice(&source.octets());
                frame.extend_from_slice(&destination.octets());
            } else {
                let [t, u] = declared.unwrap_or(20 + payload.len() as u16).to_be_bytes();
                let [f, g] = fragment.to_be_bytes();
                frame.extend_from_slice(&[8, 0, 0x40 | words, 0, t, u, 0, 0, f, g, 64, protocol, 0, 0]);
                frame.extend_from_slice(&source.octets()[12..]);
                frame.extend_from_slice(&destination.octets()[12..]);
            }
            frame.extend_from_slice(&payload);
            // Mostly whole, sometimes cut.
            frame.truncate(if cut < 120 { frame.len() } else { cut - 108 });
            frame
        },
    )
}

/// Keeps what was judged.
struct Both;

impl quick::Next for Both {
    type Said = (Packet, Decision);

    fn judged(&self, packet: &Packet, decision: Decision) -> Self::Said {
        (*packet, decision)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 20 } else { 5_000 }))]

    #[test]
    fn decides_as_the_reference_does(frame in frame(), lists in lists()) {
        prop_assert_eq!(decide(&frame[..], &lists).reason, reference(&frame, &lists, false));
        prop_assert_eq!(decide(&Looped(&frame), &lists).reason, reference(&frame, &lists, true));
    }

    /// Whatever the quick way says, the long way says.
    #[test]
    fn the_quick_way_says_what_the_long_way_says(frame in frame(), lists in lists(), cut in 0_usize..120) {
        for frame in [&frame[..], &frame[..cut.min(frame.len())]] {
            if let Some(packet) = quick::parse(frame) {
                prop_assert_eq!(whole(frame), Ok(packet));
            }
            if let Some(packet) = quick::parse(&Looped(frame)) {
                prop_assert_eq!(whole(&Looped(frame)), Ok(packet));
            }
            let said = quick::decide(frame, &lists, &Both);
            prop_assert_eq!(said, quick::parse(frame).map(|packet| (packet, decide(frame, &lists))));
        }
    }

    #[test]
    fn noise_is_judged_as_the_reference_does(noise in vec(any::<u8>(), 0..120), lists in lists()) {
        prop_assert_eq!(decide(&noise[..], &lists).reason, reference(&noise, &lists, false));
    }

    #[test]
    fn a_rule_is_named_exactly_when_it_decided(frame in frame(), lists in lists()) {
        let decision = decide(&frame[..], &lists);
        prop_assert_eq!(decision.rule != 0, matches!(decision.reason, Reason::Denied | Reason::Allowed));
    }
}

/// What asks for a connection is told from what does not, and a segment's slot is its port's either way.
#[test]
fn a_syn_is_told_from_other_segments() {
    let segment = |flags: u8| {
        let mut frame = std::vec![0; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend_from_slice(&[9, 9, 1, 187, 0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
        parse(&frame[..]).unwrap().kind
    };
    for (flags, is_syn) in
        [(2, true), (2 | 64 | 128, true), (2 | 16, false), (16, false), (4, false), (17, false)]
    {
        let kind = segment(flags);
        assert_eq!((kind.is_syn(), kind.slot(), kind.listener_port()), (is_syn, 443, Some(443)), "{flags}");
    }
    assert_eq!([Kind::udp(53), Kind::syn(53), Kind::tcp(53)].map(Kind::is_udp), [true, false, false]);
    assert_eq!([Kind::udp(53), Kind::syn(53), Kind::tcp(53)].map(Kind::is_tcp), [false, true, true]);
    assert!(!Kind::later_fragment(6).is_syn());
}

/// The strategies above must reach every reason the filter can give, or their silence means nothing.
#[test]
fn the_strategies_reach_every_reason() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut seen, mut quickly) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for _ in 0..if cfg!(miri) { 0 } else { 20_000 } {
        let (frame, lists) = (frame(), lists()).new_tree(&mut runner).unwrap().current();
        seen.insert(decide(&frame[..], &lists).reason);
        quickly.extend(quick::parse(&frame[..]).map(|packet| (packet.source.is_v6(), packet.kind.is_tcp())));
    }
    // TCP and UDP of both families.
    assert!(cfg!(miri) || quickly.len() == 4, "{quickly:?}");
    let elsewhere = [
        Reason::NotIp,
        Reason::Arp,
        Reason::Observed,
        Reason::OwnAddress,
        Reason::Protocol,
        Reason::SynCookie,
        Reason::SynBudget,
        Reason::UdpBudget,
        Reason::NewConnectionBudget,
        Reason::Steered,
        Reason::NotSteered,
        Reason::NoSocket,
        Reason::NotAssigned,
        Reason::NoTable,
    ];
    let missing: Vec<&Reason> =
        Reason::ALL.iter().filter(|reason| !seen.contains(reason) && !elsewhere.contains(reason)).collect();
    assert!(cfg!(miri) || missing.is_empty(), "{missing:?}");
}
