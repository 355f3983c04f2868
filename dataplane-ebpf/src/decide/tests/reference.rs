//! The slow and plain answer.

use std::vec::Vec;

use super::{Address, Lists, Reason, Rule, holds, ipv6};

/// The reference: the same question answered from left to right over owned bytes.
pub(super) fn reference(frame: &[u8], lists: &Lists, looped: bool) -> Reason {
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
        0x0800 => reference_v4(packet, lists, looped),
        0x86dd => reference_v6(packet, lists, looped),
        _ => Reason::NotIp,
    }
}

/// What an IP packet was found to carry.
enum Carries {
    Port(u16),
    Hidden,
    /// A later fragment that hides even its protocol, and so where it is for.
    HiddenProtocol,
    Nothing,
    /// Decided without the lists.
    Settled(Reason),
}

/// The transport header of a packet or of its first fragment.
fn transport(protocol: u8, payload: &[u8], is_v6: bool, more: bool) -> Carries {
    let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]) as usize;
    match (protocol, is_v6) {
        (6, _) => {
            if payload.len() < 20 || word(0) == 0 || word(2) == 0 {
                return Carries::Settled(Reason::MalformedTcp);
            }
            let header = (payload[12] >> 4) as usize * 4;
            if !(20..=payload.len()).contains(&header) {
                return Carries::Settled(Reason::MalformedTcp);
            }
            let [fin, syn, rst, ack] = [1, 2, 4, 16].map(|bit| payload[13] & bit != 0);
            let begins_or_goes_on = syn || ack || rst;
            if !begins_or_goes_on || (syn && fin) || (syn && rst) || (fin && rst) {
                return Carries::Settled(Reason::TcpFlags);
            }
            Carries::Port(word(2) as u16)
        }
        (17, _) => {
            let whole = payload.len() >= 8 && word(4) >= 8 && (more || word(4) <= payload.len());
            if whole { Carries::Nothing } else { Carries::Settled(Reason::MalformedUdp) }
        }
        (1, false) | (58, true) if payload.len() < 8 => Carries::Settled(Reason::MalformedIcmp),
        _ => Carries::Nothing,
    }
}

fn martian(source: &Address) -> bool {
    match std::net::IpAddr::from(*source) {
        std::net::IpAddr::V4(source) => {
            source.is_loopback()
                || source.is_multicast()
                || source.is_broadcast()
                || (source.octets()[0] == 0 && !source.is_unspecified())
        }
        std::net::IpAddr::V6(source) => source.is_loopback() || source.is_multicast(),
    }
}

fn reference_v4(packet: &[u8], lists: &Lists, looped: bool) -> Reason {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return Reason::MalformedIpv4;
    }
    let (header, total) =
        ((packet[0] & 15) as usize * 4, u16::from_be_bytes([packet[2], packet[3]]) as usize);
    if header < 20 || total < header || total > packet.len() {
        return Reason::MalformedIpv4;
    }
    let at = |offset: usize| {
        Address::v4([packet[offset], packet[offset + 1], packet[offset + 2], packet[offset + 3]])
    };
    let payload = &packet[header..total];
    let fragment = u16::from_be_bytes([packet[6], packet[7]]);
    let carries = || match (packet[9], fragment & 0x1fff) {
        (6, 1 | 2) => Carries::Settled(Reason::Fragment),
        (6, 3..) => Carries::Hidden,
        // IPv4 has no protocol 0; the slot of what is hidden is a closed one.
        (0, 1..) => Carries::HiddenProtocol,
        (_, 1..) => Carries::Nothing,
        (1, 0) if payload.len() >= 8 && payload.starts_with(&[3, 4]) => Carries::Settled(Reason::PathMtu),
        (protocol, 0) => transport(protocol, payload, false, fragment & 0x2000 != 0),
    };
    conclude(at(12), at(16), carries, lists, looped)
}

fn reference_v6(packet: &[u8], lists: &Lists, looped: bool) -> Reason {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Reason::MalformedIpv6;
    }
    let source: [u8; 16] = packet[8..24].try_into().unwrap();
    let destination: [u8; 16] = packet[24..40].try_into().unwrap();
    let declared = u16::from_be_bytes([packet[4], packet[5]]) as usize;
    if declared > packet.len() - 40 {
        return Reason::MalformedIpv6;
    }
    if source[..10] == [0; 10] && source[10..12] == [255, 255] {
        return Reason::MappedAddress;
    }
    let of_the_link = source == [0; 16] || (source[0] == 0xfe && source[1] & 0xc0 == 0x80);
    let arrival = Arrival { hops: packet[7], of_the_link };
    let carries = || reference_chain(&packet[40..], declared, packet[6], arrival, Chain::default());
    conclude(Address::v6(source), Address::v6(destination), carries, lists, looped)
}

/// How a packet came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    hops: u8,
    of_the_link: bool,
}

/// What came before in a chain of extension headers.
#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    depth: usize,
    fragmented: bool,
    more: bool,
}

/// `rest` is what the frame has, `declared` what the header says is left of the packet.
fn reference_chain(rest: &[u8], declared: usize, next: u8, arrival: Arrival, chain: Chain) -> Carries {
    let extension = |next: u8| [0, 43, 44, 51, 60].contains(&next);
    let seen = &rest[..declared];
    if !extension(next) {
        return match (next, seen) {
            (58, [2, _, _, _, _, _, _, _, ..]) => Carries::Settled(Reason::PathMtu),
            (58, [133..=137, _, _, _, _, _, _, _, ..]) if arrival.hops == 255 && !chain.fragmented => {
                Carries::Settled(Reason::NeighbourDiscovery)
            }
            (58, [130 | 131 | 132 | 143, _, _, _, _, _, _, _, ..])
                if arrival.hops == 1 && arrival.of_the_link =>
            {
                Carries::Settled(Reason::MulticastListener)
            }
            _ => transport(next, seen, true, chain.more),
        };
    }
    if chain.depth == ipv6::HEADERS_MAX {
        return Carries::Settled(Reason::ExtensionHeaders);
    }
    // Padding behind the packet may be read here, but no header of it is believed.
    if rest.len() < 4 {
        return Carries::Settled(Reason::MalformedIpv6);
    }
    let size = match next {
        44 => 8,
        51 => (rest[1] as usize + 2) * 4,
        _ => (rest[1] as usize + 1) * 8,
    };
    if size > declared {
        return Carries::Settled(Reason::MalformedIpv6);
    }
    let fragment = u16::from_be_bytes([rest[2], rest[3]]);
    if next == 44 && fragment >> 3 != 0 {
        return match (rest[0], fragment >> 3) {
            (6, 1 | 2) => Carries::Settled(Reason::Fragment),
            (6, _) => Carries::Hidden,
            (following, _) if extension(following) => Carries::HiddenProtocol,
            _ => Carries::Nothing,
        };
    }
    let chain = Chain {
        depth: chain.depth + 1,
        fragmented: chain.fragmented || next == 44,
        more: chain.more || (next == 44 && fragment & 1 != 0),
    };
    reference_chain(&rest[size..], declared - size, rest[0], arrival, chain)
}

fn conclude(
    source: Address,
    destination: Address,
    carries: impl FnOnce() -> Carries,
    lists: &Lists,
    looped: bool,
) -> Reason {
    if source == destination && !looped {
        return Reason::Land;
    }
    let carries = match carries() {
        Carries::Settled(reason) => return reason,
        carries @ (Carries::Port(_) | Carries::Hidden | Carries::HiddenProtocol | Carries::Nothing) => {
            carries
        }
    };
    if martian(&source) && !looped {
        return Reason::Martian;
    }
    let listens = |port: Option<u16>| {
        lists.listeners.iter().any(|(at, listening)| {
            (*at == destination || *at == destination.any()) && port.is_none_or(|port| port == *listening)
        })
    };
    let best =
        lists.rules.iter().filter(|rule| holds(rule, &source)).max_by_key(|rule| (rule.length, !rule.allow));
    match (carries, best) {
        (_, Some(Rule { allow: true, .. })) => Reason::Allowed,
        (_, Some(_)) => Reason::Denied,
        (Carries::Port(port), None) if lists.required && listens(Some(port)) => Reason::NotAllowed,
        (Carries::Hidden, None) if lists.required && listens(None) => Reason::Fragment,
        (Carries::HiddenProtocol, None) if lists.required && !lists.listeners.is_empty() => Reason::Fragment,
        _ => Reason::NoRule,
    }
}
