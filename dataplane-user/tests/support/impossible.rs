//! The corpus's packets that cannot be meant: each sanity check by the smallest packet that fails it, beside one that just passes.
//! Sources are strangers to the corpus's plan and ports are no listener's, so that what is read as usual has `no-rule`.

use dataplane_ebpf::reason::Reason;

use super::frames::{
    ICMP, ICMPV6, TCP, UDP, ethernet, extension, fragment, icmp, ipv4, ipv6, tcp, tcp_with, udp, udp_of,
};

type Case = (&'static str, Vec<u8>, Reason);

const SOURCES: [&str; 2] = ["10.9.9.9", "fd00::9"];
const DESTINATIONS: [&str; 2] = ["10.0.0.2", "fd00::2"];

pub(crate) fn corpus() -> Vec<Case> {
    let carried = carried().into_iter().flat_map(|(what, [v4, v6], payload, reason)| {
        [false, true].into_iter().flat_map(move |tagged| {
            [
                (what, packet(false, v4, &payload, tagged), reason),
                (what, packet(true, v6, &payload, tagged), reason),
            ]
        })
    });
    carried.chain(lengths()).chain(fragments()).chain(sources()).collect()
}

/// A stranger's packet, in a VLAN or not.
fn packet(is_v6: bool, protocol: u8, payload: &[u8], tagged: bool) -> Vec<u8> {
    let tags: &[u16] = if tagged { &[0x8100] } else { &[] };
    if is_v6 {
        ethernet(tags, 0x86dd, &ipv6(SOURCES[1], DESTINATIONS[1], protocol, 64, payload))
    } else {
        ethernet(tags, 0x0800, &ipv4(SOURCES[0], DESTINATIONS[0], protocol, 0, &[], payload))
    }
}

/// What is checked of the payload, whatever carries it: the protocol by family, the payload, the reason.
fn carried() -> Vec<(&'static str, [u8; 2], Vec<u8>, Reason)> {
    let tcp_to = |source: u8, destination: u16| {
        let mut header = tcp(destination);
        header[..2].copy_from_slice(&[0, source]);
        header
    };
    let words = |words: u8, more: usize| {
        let mut header = tcp(22);
        header[12] = words << 4;
        header.extend(vec![0; more]);
        header
    };
    let flags = |flags: u8| {
        let mut header = tcp_with(flags);
        header[2..4].copy_from_slice(&[0, 22]);
        header
    };
    let (t, u, i) = ([TCP; 2], [UDP; 2], [ICMP, ICMPV6]);
    vec![
        ("19 bytes of tcp", t, tcp(22)[..19].to_vec(), Reason::MalformedTcp),
        ("20 bytes of tcp", t, tcp(22), Reason::NoRule),
        ("a data offset of 16", t, words(4, 0), Reason::MalformedTcp),
        ("a data offset of 24 in 20 bytes", t, words(6, 0), Reason::MalformedTcp),
        ("a data offset of 24 in 24 bytes", t, words(6, 4), Reason::NoRule),
        ("to port 0", t, tcp_to(9, 0), Reason::MalformedTcp),
        ("from port 0", t, tcp_to(0, 22), Reason::MalformedTcp),
        ("no flags", t, flags(0), Reason::TcpFlags),
        ("FIN alone", t, flags(0x01), Reason::TcpFlags),
        ("xmas: FIN, PSH and URG", t, flags(0x29), Reason::TcpFlags),
        ("SYN and FIN", t, flags(0x03), Reason::TcpFlags),
        ("SYN, FIN and ACK", t, flags(0x13), Reason::TcpFlags),
        ("SYN and RST", t, flags(0x06), Reason::TcpFlags),
        ("FIN and RST", t, flags(0x05), Reason::TcpFlags),
        ("all flags", t, flags(0xff), Reason::TcpFlags),
        ("SYN with ECN", t, flags(0xc2), Reason::NoRule),
        ("SYN and ACK", t, flags(0x12), Reason::NoRule),
        ("FIN, PSH and ACK", t, flags(0x19), Reason::NoRule),
        ("RST and ACK", t, flags(0x14), Reason::NoRule),
        ("RST", t, flags(0x04), Reason::NoRule),
        ("7 bytes of udp", u, udp(53)[..7].to_vec(), Reason::MalformedUdp),
        ("a udp length of 7", u, udp_of(7), Reason::MalformedUdp),
        ("a udp length of 0", u, udp_of(0), Reason::MalformedUdp),
        ("a udp length beyond its packet", u, udp_of(9), Reason::MalformedUdp),
        ("udp", u, udp(53), Reason::NoRule),
        ("udp of more than its length", u, [udp(53), vec![0; 4]].concat(), Reason::NoRule),
        ("7 bytes of icmp", i, icmp(8, 0)[..7].to_vec(), Reason::MalformedIcmp),
        ("nothing of icmp", i, Vec::new(), Reason::MalformedIcmp),
        ("icmp", i, icmp(129, 0), Reason::NoRule),
    ]
}

/// Packets longer or shorter than their frame.
fn lengths() -> Vec<Case> {
    let cut = |is_v6, by: usize| {
        let mut frame = packet(is_v6, UDP, &[udp(53), vec![0; 40]].concat(), false);
        frame.truncate(frame.len() - by);
        frame
    };
    let padded = |is_v6| [packet(is_v6, UDP, &udp(53), false), vec![0; 18]].concat();
    // More than one buffer: the frame's length is not its first buffer's.
    let jumbo = |is_v6, by: usize| {
        let mut frame = packet(is_v6, TCP, &[tcp(22), vec![0; 8000]].concat(), true);
        frame.truncate(frame.len() - by);
        frame
    };
    vec![
        ("an ipv4 packet one byte beyond its frame", cut(false, 1), Reason::MalformedIpv4),
        ("an ipv6 packet one byte beyond its frame", cut(true, 1), Reason::MalformedIpv6),
        ("a padded ipv4 frame", padded(false), Reason::NoRule),
        ("a padded ipv6 frame", padded(true), Reason::NoRule),
        ("a jumbo ipv4 frame", jumbo(false, 0), Reason::NoRule),
        ("a jumbo ipv6 frame", jumbo(true, 0), Reason::NoRule),
        ("a jumbo ipv4 frame one byte short", jumbo(false, 1), Reason::MalformedIpv4),
        ("a jumbo ipv6 frame one byte short", jumbo(true, 1), Reason::MalformedIpv6),
    ]
}

fn fragments() -> Vec<Case> {
    let v4 = |protocol, word, payload: &[u8]| {
        ethernet(&[], 0x0800, &ipv4(SOURCES[0], DESTINATIONS[0], protocol, word, &[], payload))
    };
    let v6 = |protocol, offset, payload: &[u8]| packet(true, 44, &fragment(protocol, offset, payload), true);
    let long = udp_of(100);
    vec![
        ("a first fragment without its flags", v4(TCP, 0x2000, &tcp(22)[..8]), Reason::MalformedTcp),
        ("an ipv6 first fragment without its flags", v6(TCP, 0, &tcp(22)[..8]), Reason::MalformedTcp),
        ("a fragment over a tcp header", v4(TCP, 0x2001, &[7; 16]), Reason::Fragment),
        ("a last fragment over a tcp header", v4(TCP, 2, &[7; 16]), Reason::Fragment),
        ("an ipv6 fragment over a tcp header", v6(TCP, 2, &[7; 16]), Reason::Fragment),
        ("a first fragment of udp", v4(UDP, 0x2000, &long), Reason::NoRule),
        ("an ipv6 first fragment of udp", v6(UDP, 0, &long), Reason::NoRule),
        (
            "a first fragment of udp that says less than it has",
            v4(UDP, 0x2000, &udp_of(7)),
            Reason::MalformedUdp,
        ),
        ("a second fragment of udp", v4(UDP, 1, &[7; 8]), Reason::NoRule),
        ("an ipv6 second fragment of udp", v6(UDP, 1, &[7; 8]), Reason::NoRule),
        (
            "udp behind an extension that hides its length",
            packet(true, 0, &extension(UDP, 0, &udp_of(9)), false),
            Reason::MalformedUdp,
        ),
    ]
}

fn sources() -> Vec<Case> {
    let from = |source: &str, destination: &str, tagged: bool| {
        let tags: &[u16] = if tagged { &[0x8100] } else { &[] };
        if source.contains(':') {
            ethernet(tags, 0x86dd, &ipv6(source, destination, UDP, 64, &udp(53)))
        } else {
            ethernet(tags, 0x0800, &ipv4(source, destination, UDP, 0, &[], &udp(53)))
        }
    };
    let (four, six) = (DESTINATIONS[0], DESTINATIONS[1]);
    vec![
        ("land", from(four, four, false), Reason::Land),
        ("land in a vlan", from(four, four, true), Reason::Land),
        ("ipv6 land", from(six, six, false), Reason::Land),
        ("ipv6 land in a vlan", from(six, six, true), Reason::Land),
        ("from 127.0.0.1", from("127.0.0.1", four, true), Reason::Martian),
        ("from 127.255.0.3", from("127.255.0.3", four, false), Reason::Martian),
        ("from 224.0.0.1", from("224.0.0.1", four, false), Reason::Martian),
        ("from 239.255.255.255", from("239.255.255.255", four, false), Reason::Martian),
        ("from everyone", from("255.255.255.255", four, false), Reason::Martian),
        ("from 0.0.0.1", from("0.0.0.1", four, false), Reason::Martian),
        ("from 0.9.0.0", from("0.9.0.0", four, false), Reason::Martian),
        ("from ::1", from("::1", six, true), Reason::Martian),
        ("from ff02::1", from("ff02::1", six, false), Reason::Martian),
        ("from a host without an address", from("0.0.0.0", "255.255.255.255", false), Reason::NoRule),
        ("from an ipv6 host without an address", from("::", "ff02::2", false), Reason::NoRule),
        ("from 126.0.0.1", from("126.0.0.1", four, false), Reason::NoRule),
        ("from 223.255.255.255", from("223.255.255.255", four, false), Reason::NoRule),
        ("from ::2", from("::2", six, false), Reason::NoRule),
    ]
}
