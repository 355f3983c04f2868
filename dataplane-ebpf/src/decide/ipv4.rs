//! IPv4, with options and fragments.

use super::transport::{ICMP, Payload, TCP, UDP, icmp, overwrites_tcp, tcp, udp};
use super::{Bytes, Kind, Packet};
use crate::reason::Reason;
use crate::wire::Address;

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const OFFSET_MASK: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const MIN_HEADER: usize = 20;

/// Understands the packet that begins at `start`.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(frame: &B, start: usize) -> Result<Packet, Reason> {
    let header: [u8; MIN_HEADER] = frame.read(start).ok_or(Reason::MalformedIpv4)?;
    let [v, _, t0, t1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let (header_len, total_len) = (usize::from(v & 0x0f) * 4, usize::from(u16::from_be_bytes([t0, t1])));
    if v >> 4 != 4 || header_len < MIN_HEADER || total_len < header_len || !frame.reaches(start + total_len) {
        return Err(Reason::MalformedIpv4);
    }
    let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    if source == destination && !frame.is_looped() {
        return Err(Reason::Land);
    }
    let fragment = u16::from_be_bytes([f0, f1]);
    let payload = Payload {
        start: start + header_len,
        len: total_len - header_len,
        fragmented: fragment & MORE_FRAGMENTS != 0,
    };
    let kind = match usize::from(fragment & OFFSET_MASK) * 8 {
        0 => first(frame, payload, protocol)?,
        offset if protocol == TCP && overwrites_tcp(offset) => return Err(Reason::Fragment),
        _ => Kind::later_fragment(protocol),
    };
    if is_martian(source) && !frame.is_looped() {
        return Err(Reason::Martian);
    }
    Ok(Packet { source: Address::V4(source), destination: Address::V4(destination), kind })
}

/// Loopback, multicast and broadcast are nobody's source, and of "this network" only 0.0.0.0 is one: of a host that asks for
/// an address (RFC 1122).
#[inline(always)]
const fn is_martian(source: [u8; 4]) -> bool {
    let (network, word) = (source[0], u32::from_be_bytes(source));
    network == 127 || network & 0xf0 == 0xe0 || (network == 0 && word != 0) || word == u32::MAX
}

#[inline(always)]
fn first<B: Bytes + ?Sized>(frame: &B, payload: Payload, protocol: u8) -> Result<Kind, Reason> {
    match protocol {
        TCP => tcp(frame, payload),
        UDP => udp(frame, payload),
        ICMP => match icmp(frame, payload)? {
            [UNREACHABLE, FRAGMENTATION_NEEDED] => Err(Reason::PathMtu),
            [kind, _] => Ok(Kind::icmp(kind)),
        },
        _ => Ok(Kind::other(protocol)),
    }
}
