//! Frames that bytes changed by chance seldom make: extension headers around ICMPv6, VLANs around options, fragments of what rules
//! name ports of. What is right for each is the pure decision's to say.

use super::frames::{ICMP, ICMPV6, TCP, UDP, ethernet, extension, fragment, icmp, ipv4, ipv6, tcp, udp};

/// Sources that the rules by chance are about, and strangers.
const FOUR: [&str; 5] = ["10.1.0.9", "10.1.2.9", "10.2.3.4", "192.0.2.7", "198.51.100.7"];
const SIX: [&str; 5] = ["fd00::9", "2001:db8:1::9", "2001:db8:1:2::9", "2001:db8:9::9", "3fff::9"];
const TAGS: [&[u16]; 3] = [&[], &[0x8100], &[0x88a8, 0x8100]];
const PORTS: [u16; 5] = [22, 53, 443, 8443, 9000];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (number, tags) in TAGS.into_iter().enumerate() {
        for source in FOUR {
            let destination = ["10.0.0.1", "10.0.0.2"][number % 2];
            frames.extend(inside_ipv4().into_iter().map(|(protocol, word, options, payload)| {
                ethernet(tags, 0x0800, &ipv4(source, destination, protocol, word, &options, &payload))
            }));
        }
        for source in SIX {
            let destination = ["fd00::1", "fd00::2"][number % 2];
            frames.extend(inside_ipv6().into_iter().map(|(next, hop_limit, payload)| {
                ethernet(tags, 0x86dd, &ipv6(source, destination, next, hop_limit, &payload))
            }));
        }
    }
    frames
}

/// Protocol, fragment word, options, payload.
fn inside_ipv4() -> Vec<(u8, u16, Vec<u8>, Vec<u8>)> {
    let mut inside = Vec::new();
    for port in PORTS {
        for (word, options) in [(0, 0), (0, 8), (0x2000, 0)] {
            inside.push((TCP, word, vec![1; options], tcp(port)));
            inside.push((UDP, word, vec![1; options], udp(port)));
        }
    }
    for protocol in [TCP, UDP, ICMP, 47] {
        inside.push((protocol, 0x2003, Vec::new(), vec![7; 24]));
        inside.push((protocol, 0x0009, vec![1; 4], vec![7; 24]));
    }
    inside.extend([0, 3, 8].map(|kind| (ICMP, 0, vec![1; 4], icmp(kind, 0))));
    inside
}

/// Next header, hop limit, payload.
fn inside_ipv6() -> Vec<(u8, u8, Vec<u8>)> {
    let mut inside = Vec::new();
    // Echo and its reply, errors, groups, neighbour discovery, and what nobody knows.
    for (kind, hop_limit) in [
        (128, 64),
        (129, 64),
        (1, 64),
        (2, 64),
        (3, 64),
        (130, 1),
        (133, 255),
        (135, 255),
        (136, 255),
        (135, 64),
        (200, 64),
    ] {
        let message = [icmp(kind, 0), vec![0; 16]].concat();
        let behind = |next: u8, more: u8| (next, hop_limit, extension(ICMPV6, more, &message));
        let twice = extension(DESTINATION, 0, &extension(ICMPV6, 1, &message));
        inside.extend([
            behind(HOP_BY_HOP, 0),
            behind(DESTINATION, 2),
            behind(ROUTING, 1),
            (HOP_BY_HOP, hop_limit, twice),
        ]);
        let first = fragment(ICMPV6, 0, &message);
        inside.push((HOP_BY_HOP, hop_limit, extension(FRAGMENT, 0, &first)));
        inside.push((FRAGMENT, hop_limit, first));
        inside.push((FRAGMENT, hop_limit, fragment(ICMPV6, 3, &message)));
    }
    for port in PORTS {
        for (protocol, segment) in [(TCP, tcp(port)), (UDP, udp(port))] {
            inside.push((protocol, 64, segment.clone()));
            inside.push((HOP_BY_HOP, 64, extension(protocol, 0, &segment)));
            inside.push((FRAGMENT, 64, fragment(protocol, 0, &segment)));
            inside.push((DESTINATION, 64, extension(FRAGMENT, 0, &fragment(protocol, 0, &segment))));
        }
    }
    for protocol in [TCP, UDP, ICMPV6, DESTINATION, 47] {
        inside.push((FRAGMENT, 64, fragment(protocol, 4, &[7; 24])));
        inside.push((HOP_BY_HOP, 64, extension(FRAGMENT, 0, &fragment(protocol, 4, &[7; 24]))));
    }
    inside
}
