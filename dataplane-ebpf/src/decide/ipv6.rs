//! IPv6, with a bounded number of extension headers, and fragments.

use super::ipv4::{Payload, TCP, tcp};
use super::{Bytes, Kind, Packet};
use crate::reason::Reason;
use crate::wire::Address;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

const PACKET_TOO_BIG: u8 = 2;
/// Router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;
/// What neighbour discovery must arrive with, so that no router can have forwarded it (RFC 4861).
const FROM_THE_LINK: u8 = 255;

const HEADER: usize = 40;
/// Extension headers we follow. Real traffic has at most two or three.
pub(super) const HEADERS_MAX: usize = 8;

/// Understands the packet that begins at `start`.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(frame: &B, start: usize) -> Result<Packet, Reason> {
    let Some([v, _, _, _, l0, l1, next, hop_limit]) = frame.read(start) else {
        return Err(Reason::MalformedIpv6);
    };
    let source: [u8; 16] = frame.read(start + 8).ok_or(Reason::MalformedIpv6)?;
    let destination: [u8; 16] = frame.read(start + 24).ok_or(Reason::MalformedIpv6)?;
    if v >> 4 != 6 {
        return Err(Reason::MalformedIpv6);
    }
    if let [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..] = source {
        return Err(Reason::MappedAddress);
    }
    let payload = Payload { start: start + HEADER, len: usize::from(u16::from_be_bytes([l0, l1])) };
    let kind = follow(frame, payload, next, hop_limit)?;
    Ok(Packet { source: Address::V6(source), destination: Address::V6(destination), kind })
}

/// Follows the chain of extension headers to the transport header.
#[inline(always)]
fn follow<B: Bytes + ?Sized>(frame: &B, packet: Payload, first: u8, hop_limit: u8) -> Result<Kind, Reason> {
    let (mut next, mut at, mut left) = (first, packet.start, packet.len);
    let mut fragmented = false;
    for _ in 0..HEADERS_MAX {
        if !is_extension(next) {
            break;
        }
        let Some([following, length, o0, o1]) = frame.read(at) else { return Err(Reason::MalformedIpv6) };
        let size = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if left < size {
            return Err(Reason::MalformedIpv6);
        }
        if next == FRAGMENT {
            if u16::from_be_bytes([o0, o1]) >> 3 != 0 {
                // What follows is the middle of something; an extension header may hide TCP.
                let may_be_tcp = following == TCP || is_extension(following);
                return Ok(if may_be_tcp { Kind::LaterFragment } else { Kind::Other });
            }
            fragmented = true;
        }
        (next, at, left) = (following, at + size, left - size);
    }
    match next {
        TCP => tcp(frame, Payload { start: at, len: left }),
        ICMPV6 if left >= 2 => Ok(icmp(frame, at, hop_limit, fragmented)),
        _ if is_extension(next) => Err(Reason::ExtensionHeaders),
        _ => Ok(Kind::Other),
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Neighbour discovery must not be fragmented (RFC 6980), so a fragment of it has no exemption.
#[inline(always)]
fn icmp<B: Bytes + ?Sized>(frame: &B, at: usize, hop_limit: u8, fragmented: bool) -> Kind {
    match frame.read(at) {
        Some([PACKET_TOO_BIG, _]) => Kind::PathMtu,
        Some([kind, _])
            if NEIGHBOUR_DISCOVERY.contains(&kind) && hop_limit == FROM_THE_LINK && !fragmented =>
        {
            Kind::NeighbourDiscovery
        }
        _ => Kind::Other,
    }
}
