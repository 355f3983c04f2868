//! What of a watched packet's first bytes can be read: as much as there is, however little sense it makes. Nothing is judged
//! here; the kernel's program has done that, and a packet that it could not read is looked at all the same.

use std::net::IpAddr;

use model::flow::Protocol;

/// As the program knows them.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ETHERNET: usize = 14;
/// Extension headers followed; the program follows no more.
const EXTENSIONS: usize = 8;

/// What could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Glance {
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) protocol: Option<Protocol>,
    /// Of TCP and UDP, source and destination.
    pub(super) ports: Option<(u16, u16)>,
    /// Of ICMP and ICMPv6.
    pub(super) icmp_type: Option<u8>,
}

/// Takes a frame's first bytes apart.
pub(super) fn glance(frame: &[u8]) -> Glance {
    let mut at = ETHERNET;
    let mut kind = word(frame, at - 2);
    for _tag in 0..2 {
        if kind.is_some_and(|kind| VLAN.contains(&kind)) {
            at += 4;
            kind = word(frame, at - 2);
        }
    }
    let packet = frame.get(at..).unwrap_or_default();
    match kind {
        Some(IPV4) => ipv4(packet).unwrap_or_default(),
        Some(IPV6) => ipv6(packet).unwrap_or_default(),
        _ => Glance::default(),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn ipv4(packet: &[u8]) -> Option<Glance> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [first, .., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let (source, destination) = ([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into());
    let addresses = Glance { source: Some(source), destination: Some(destination), ..Glance::default() };
    let fragment = word(packet, 6)? & 0x1fff;
    let rest = packet.get(usize::from(first & 15) * 4..).unwrap_or_default();
    Some(carried(addresses, *packet.get(9)?, rest, fragment != 0))
}

fn ipv6(packet: &[u8]) -> Option<Glance> {
    let address =
        |at: usize| packet.get(at..at + 16)?.try_into().ok().map(|bytes: [u8; 16]| IpAddr::from(bytes));
    let addresses = Glance { source: address(8), destination: Some(address(24)?), ..Glance::default() };
    let (mut next, mut at) = (*packet.get(6)?, 40);
    for _header in 0..EXTENSIONS {
        let length = |units: usize| packet.get(at + 1).map(|length| (usize::from(*length) + units) * 8);
        let step = match next {
            0 | 43 | 60 => length(1),
            // The authentication header counts in fours.
            51 => packet.get(at + 1).map(|length| (usize::from(*length) + 2) * 4),
            44 => {
                let fragment = word(packet, at + 2).unwrap_or_default() & 0xfff8;
                if fragment != 0 {
                    let protocol = packet.get(at).copied().map(Protocol);
                    return Some(Glance { protocol, ..addresses });
                }
                Some(8)
            }
            _ => break,
        };
        let (Some(step), Some(following)) = (step, packet.get(at)) else { return Some(addresses) };
        (next, at) = (*following, at + step);
    }
    Some(carried(addresses, next, packet.get(at..).unwrap_or_default(), false))
}

fn carried(addresses: Glance, protocol: u8, rest: &[u8], later_fragment: bool) -> Glance {
    let glance = Glance { protocol: Some(Protocol(protocol)), ..addresses };
    match Protocol(protocol) {
        _ if later_fragment => glance,
        Protocol::TCP | Protocol::UDP => Glance { ports: word(rest, 0).zip(word(rest, 2)), ..glance },
        Protocol::ICMP | Protocol::ICMPV6 => Glance { icmp_type: rest.first().copied(), ..glance },
        _ => glance,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &kind.to_be_bytes(), rest].concat()
    }

    fn four(protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let [h, l] = fragment.to_be_bytes();
        let header = [0x45, 0, 0, 40, 0, 0, h, l, 64, protocol, 0, 0, 10, 1, 2, 3, 10, 0, 0, 1];
        [&header[..], rest].concat()
    }

    fn six(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 40, next, 64];
        header.extend([[0x20; 16], [0x30; 16]].concat());
        [&header, rest].concat()
    }

    #[test]
    fn both_families_are_read_behind_vlan_tags() {
        let tcp = [0x1f, 0x90, 1, 0xbb];
        let plain = glance(&ethernet(IPV4, &four(6, 0, &tcp)));
        assert_eq!(plain.source, "10.1.2.3".parse().ok());
        assert_eq!(plain.destination, "10.0.0.1".parse().ok());
        assert_eq!((plain.protocol, plain.ports), (Some(Protocol::TCP), Some((8080, 443))));
        let tagged = [&[0, 5, 0x81, 0, 0, 6, 8, 0][..], &four(6, 0, &tcp)].concat();
        assert_eq!(glance(&ethernet(0x88a8, &tagged)), plain);
        let hop_by_hop = [&[6, 0, 0, 0, 0, 0, 0, 0][..], &tcp].concat();
        let extended = glance(&ethernet(IPV6, &six(0, &hop_by_hop)));
        assert_eq!((extended.protocol, extended.ports), (Some(Protocol::TCP), Some((8080, 443))));
        assert_eq!(extended.source, Some(IpAddr::from([0x20; 16])));
        let ping = glance(&ethernet(IPV6, &six(58, &[128, 0])));
        assert_eq!((ping.icmp_type, ping.ports), (Some(128), None));
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let later = glance(&ethernet(IPV4, &four(17, 5, &[1, 2, 3, 4])));
        assert_eq!((later.protocol, later.ports), (Some(Protocol::UDP), None));
        let later = glance(&ethernet(IPV6, &six(44, &[17, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4])));
        assert_eq!((later.protocol, later.ports), (Some(Protocol::UDP), None));
        let first = glance(&ethernet(IPV6, &six(44, &[17, 0, 0, 1, 0, 0, 0, 0, 0, 9, 0, 53])));
        assert_eq!((first.protocol, first.ports), (Some(Protocol::UDP), Some((9, 53))));
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes() {
        assert_eq!(glance(&[]), Glance::default());
        assert_eq!(glance(&ethernet(0x0806, &[1; 28])), Glance::default());
        let cut = glance(&ethernet(IPV4, &four(6, 0, &[0x1f])));
        assert_eq!((cut.protocol, cut.ports), (Some(Protocol::TCP), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _whatever = glance(&bytes);
        }

        #[test]
        fn any_packet_is_read_without_harm(six in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _whatever = glance(&ethernet(if six { IPV6 } else { IPV4 }, &bytes));
        }
    }
}
