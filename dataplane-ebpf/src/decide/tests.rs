//! The decision against a reference that is slow and plain: it cuts the frame into owned pieces and looks at every rule.

use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

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
    let octets = match address {
        Address::V4(octets) => octets.to_vec(),
        Address::V6(octets) => octets.to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).map(move |bit| octet & (0x80 >> bit) != 0)).collect()
}

fn holds(rule: &Rule, source: &Address) -> bool {
    let (prefix, source) = (bits(&rule.address), bits(source));
    prefix.len() == source.len() && prefix.iter().zip(&source).take(rule.length as usize).all(|(a, b)| a == b)
}

impl Tables for Lists {
    fn allow_required(&self) -> bool {
        self.required
    }

    fn source(&self, source: &Address) -> Result<Option<Entry>, Reason> {
        let best = self
            .rules
            .iter()
            .filter(|rule| holds(rule, source))
            .max_by_key(|rule| (rule.length, !rule.allow));
        Ok(best.map(|rule| if rule.allow { Entry::allow(rule.id) } else { Entry::deny(rule.id) }))
    }

    fn listens_exactly(&self, address: &Address, port: u16) -> Result<bool, Reason> {
        Ok(self.listeners.iter().any(|(at, listening)| at == address && (port == *listening || port == 0)))
    }
}

/// The reference: the same question answered from left to right over owned bytes.
fn reference(frame: &[u8], lists: &Lists) -> Reason {
    let mut rest = frame.iter().copied().skip(12).collect::<Vec<u8>>();
    let mut tags = 0;
    let ethertype = loop {
        if rest.len() < 2 {
            return Reason::MalformedFrame;
        }
        let ethertype = u16::from_be_bytes([rest[0], rest[1]]);
        if ![0x8100, 0x88a8, 0x9100].contains(&ethertype) {
            break ethertype;
        }
        if tags == 2 {
            return Reason::VlanDepth;
        }
        tags += 1;
        rest = rest.split_off(rest.len().min(4));
    };
    let packet = &rest[2..];
    match ethertype {
        0x0806 => Reason::Arp,
        0x0800 => reference_v4(packet, lists),
        0x86dd => reference_v6(packet, lists),
        _ => Reason::NotIp,
    }
}

enum Carries<'a> {
    Port(u16),
    Hidden,
    Exempt(Reason),
    Nothing,
    Bad(Reason),
    Tcp(&'a [u8]),
}

fn reference_v4(packet: &[u8], lists: &Lists) -> Reason {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return Reason::MalformedIpv4;
    }
    let (header, total) =
        ((packet[0] & 15) as usize * 4, u16::from_be_bytes([packet[2], packet[3]]) as usize);
    if header < 20 || total < header {
        return Reason::MalformedIpv4;
    }
    let end = packet.len().min(total);
    let payload = if header > end { &[] } else { &packet[header..end] };
    let later = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0;
    let carries = match (packet[9], later) {
        (6, true) => Carries::Hidden,
        (6, false) => Carries::Tcp(payload),
        (1, false) if payload.starts_with(&[3, 4]) => Carries::Exempt(Reason::PathMtu),
        _ => Carries::Nothing,
    };
    let at = |offset: usize| {
        Address::V4([packet[offset], packet[offset + 1], packet[offset + 2], packet[offset + 3]])
    };
    conclude(at(12), at(16), carries, lists)
}

fn reference_v6(packet: &[u8], lists: &Lists) -> Reason {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Reason::MalformedIpv6;
    }
    let source: [u8; 16] = packet[8..24].try_into().unwrap();
    let destination: [u8; 16] = packet[24..40].try_into().unwrap();
    if source[..10] == [0; 10] && source[10..12] == [255, 255] {
        return Reason::MappedAddress;
    }
    let declared = u16::from_be_bytes([packet[4], packet[5]]) as usize;
    let carries = reference_chain(&packet[40..], declared, packet[6], packet[7], (0, false));
    conclude(Address::V6(source), Address::V6(destination), carries, lists)
}

/// `rest` is what the frame has, `declared` what the header says is left of the packet.
fn reference_chain(
    rest: &[u8],
    declared: usize,
    next: u8,
    hops: u8,
    (depth, fragmented): (usize, bool),
) -> Carries<'_> {
    let extension = |next: u8| [0, 43, 44, 51, 60].contains(&next);
    let seen = &rest[..rest.len().min(declared)];
    if !extension(next) {
        return match (next, seen) {
            (6, _) => Carries::Tcp(seen),
            (58, [2, _, ..]) => Carries::Exempt(Reason::PathMtu),
            (58, [133..=137, _, ..]) if hops == 255 && !fragmented => {
                Carries::Exempt(Reason::NeighbourDiscovery)
            }
            _ => Carries::Nothing,
        };
    }
    if depth == ipv6::HEADERS_MAX {
        return Carries::Bad(Reason::ExtensionHeaders);
    }
    if rest.len() < 4 {
        return Carries::Bad(Reason::MalformedIpv6);
    }
    let size = match next {
        44 => 8,
        51 => (rest[1] as usize + 2) * 4,
        _ => (rest[1] as usize + 1) * 8,
    };
    if size > declared {
        return Carries::Bad(Reason::MalformedIpv6);
    }
    if next == 44 && u16::from_be_bytes([rest[2], rest[3]]) & 0xfff8 != 0 {
        return if rest[0] == 6 || extension(rest[0]) { Carries::Hidden } else { Carries::Nothing };
    }
    let behind = &rest[size.min(rest.len())..];
    reference_chain(behind, declared - size, rest[0], hops, (depth + 1, fragmented || next == 44))
}

fn conclude(source: Address, destination: Address, carries: Carries<'_>, lists: &Lists) -> Reason {
    let carries = match carries {
        Carries::Tcp([_, _, high, low, ..]) => Carries::Port(u16::from_be_bytes([*high, *low])),
        Carries::Tcp(_) => Carries::Bad(Reason::MalformedTcp),
        carries @ (Carries::Port(_)
        | Carries::Hidden
        | Carries::Exempt(_)
        | Carries::Nothing
        | Carries::Bad(_)) => carries,
    };
    let listens = |port: Option<u16>| {
        lists.listeners.iter().any(|(at, listening)| {
            (*at == destination || *at == destination.any()) && port.is_none_or(|port| port == *listening)
        })
    };
    let best =
        lists.rules.iter().filter(|rule| holds(rule, &source)).max_by_key(|rule| (rule.length, !rule.allow));
    match (carries, best) {
        (Carries::Bad(reason) | Carries::Exempt(reason), _) => reason,
        (_, Some(Rule { allow: true, .. })) => Reason::Allowed,
        (_, Some(_)) => Reason::Denied,
        (Carries::Port(port), None) if lists.required && listens(Some(port)) => Reason::NotAllowed,
        (Carries::Hidden, None) if lists.required && listens(None) => Reason::Fragment,
        _ => Reason::NoRule,
    }
}

/// Few addresses, so that rules and packets meet.
fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(a, b)| Address::V4([10, a * 64, 0, b * 64])),
        (0_u8..4, 0_u8..4).prop_map(|(a, b)| Address::V6([
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
        let length = if matches!(address, Address::V6(_)) { length * 4 } else { length };
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
    let tcp =
        select(std::vec![22_u8, 187]).prop_map(|low| std::vec![9, 9, u8::from(low == 187), low, 0, 0, 0, 0]);
    let extension = (select(std::vec![60_u8, 60, 0, 6, 43, 44, 51, 58]), select(std::vec![0_u8, 0, 0, 1]));
    let extension = extension.prop_map(|(next, more)| std::vec![next, more, 0, 0, 0, 0, 0, 0]);
    let noise = vec(prop_oneof![3 => known, 1 => any::<u8>()], 0..12);
    vec(prop_oneof![2 => tcp, 4 => extension, 1 => noise], 0..11).prop_map(|pieces| pieces.concat())
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = vec(select(std::vec![0x8100_u16, 0x88a8, 0x9100]), 0..4);
    let protocol = select(std::vec![0_u8, 1, 6, 6, 17, 43, 44, 51, 58, 59, 60]);
    let lengths = (
        prop_oneof![4 => Just(5_u8), 1 => 0_u8..16],
        prop_oneof![3 => Just(None), 1 => (0_u16..80).prop_map(Some)],
    );
    let parts =
        (tags, address(), address(), protocol, lengths, select(std::vec![0_u16, 0x2000, 5]), payload());
    (parts, select(std::vec![64_u8, 255]), 0_usize..160).prop_map(
        |((tags, source, destination, protocol, (words, declared), fragment, payload), hops, cut)| {
            let mut frame = std::vec![0; 12];
            for tag in tags {
                frame.extend_from_slice(&tag.to_be_bytes());
                frame.extend_from_slice(&[0, 1]);
            }
            match (source, destination) {
                (Address::V4(source), Address::V4(destination)) => {
                    let total = declared.unwrap_or(20 + payload.len() as u16).to_be_bytes();
                    let fragment = fragment.to_be_bytes();
                    frame.extend_from_slice(&[
                        8,
                        0,
                        0x40 | words,
                        0,
                        total[0],
                        total[1],
                        0,
                        0,
                        fragment[0],
                        fragment[1],
                        64,
                        protocol,
                    ]);
                    frame.extend_from_slice(&[0, 0]);
                    frame.extend_from_slice(&source);
                    frame.extend_from_slice(&destination);
                }
                (source, destination) => {
                    let length = declared.unwrap_or(payload.len() as u16).to_be_bytes();
                    frame.extend_from_slice(&[
                        0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], protocol, hops,
                    ]);
                    for address in [source, destination] {
                        match address {
                            Address::V4([a, b, c, d]) => {
                                frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d])
                            }
                            Address::V6(octets) => frame.extend_from_slice(&octets),
                        }
                    }
                }
            }
            frame.extend_from_slice(&payload);
            // Mostly whole, sometimes cut.
            frame.truncate(if cut < 120 { frame.len() } else { cut - 108 });
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 20 } else { 5_000 }))]

    #[test]
    fn decides_as_the_reference_does(frame in frame(), lists in lists()) {
        prop_assert_eq!(decide(&frame[..], &lists).reason, reference(&frame, &lists));
    }

    #[test]
    fn noise_is_judged_as_the_reference_does(noise in vec(any::<u8>(), 0..120), lists in lists()) {
        prop_assert_eq!(decide(&noise[..], &lists).reason, reference(&noise, &lists));
    }

    #[test]
    fn a_rule_is_named_exactly_when_it_decided(frame in frame(), lists in lists()) {
        let decision = decide(&frame[..], &lists);
        prop_assert_eq!(decision.rule != 0, matches!(decision.reason, Reason::Denied | Reason::Allowed));
    }
}

/// The strategies above must reach every reason the filter can give, or their silence means nothing.
#[test]
fn the_strategies_reach_every_reason() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..if cfg!(miri) { 0 } else { 20_000 } {
        let (frame, lists) = (frame(), lists()).new_tree(&mut runner).unwrap().current();
        seen.insert(decide(&frame[..], &lists).reason);
    }
    let elsewhere = [
        Reason::NotIp,
        Reason::Arp,
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
