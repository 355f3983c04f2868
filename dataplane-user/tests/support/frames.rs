//! Frames by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// An Ethernet frame with any number of VLAN tags.
pub(crate) fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 5]);
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet; `options` must be a multiple of four bytes, `fragment` is the flags and offset word.
pub(crate) fn ipv4(
    source: &str,
    destination: &str,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let (source, destination): (Ipv4Addr, Ipv4Addr) = (source.parse().unwrap(), destination.parse().unwrap());
    let words = 5 + u8::try_from(options.len() / 4).unwrap();
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut packet = vec![0x40 | words, 0];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(options);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet.
pub(crate) fn ipv6(source: &str, destination: &str, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (Ipv6Addr, Ipv6Addr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend_from_slice(&[next, hop_limit]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A TCP header with SYN.
pub(crate) fn tcp(port: u16) -> Vec<u8> {
    let mut header = vec![0xc0, 0x00];
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// A TCP header with these flags.
pub(crate) fn tcp_with(flags: u8) -> Vec<u8> {
    let mut header = tcp(443);
    header[13] = flags;
    header
}

/// An empty UDP datagram.
pub(crate) fn udp(port: u16) -> Vec<u8> {
    let mut header = vec![0xc0, 0x00];
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&[0, 8, 0, 0]);
    header
}

/// A UDP header that claims this length.
pub(crate) fn udp_of(length: u16) -> Vec<u8> {
    let mut header = udp(53);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header
}

/// An ICMP message of either family.
pub(crate) fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 0, 0, 0]
}

/// An IPv6 extension header of 8 * (`more` + 1) bytes.
pub(crate) fn extension(next: u8, more: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, more];
    header.resize(8 * (usize::from(more) + 1), 0);
    header.extend_from_slice(payload);
    header
}

/// An IPv6 fragment header; `offset` in 8-byte units.
pub(crate) fn fragment(next: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend_from_slice(&((offset << 3) | 1).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 9]);
    header.extend_from_slice(payload);
    header
}

/// A SYN frame from a source to a destination and port, in whichever family they are.
pub(crate) fn syn(source: &str, destination: &str, port: u16) -> Vec<u8> {
    match source.parse().unwrap() {
        IpAddr::V4(_) => ethernet(&[], 0x0800, &ipv4(source, destination, TCP, 0, &[], &tcp(port))),
        IpAddr::V6(_) => ethernet(&[], 0x86dd, &ipv6(source, destination, TCP, 64, &tcp(port))),
    }
}
