//! IPv6, with a bounded number of extension headers, and fragments.

use super::transport::{ICMPV6, Payload, TCP, UDP, icmp, overwrites_tcp, tcp, udp};
use super::{Bytes, Kind, Packet};
use crate::reason::Reason;
use crate::wire::Address;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

const PACKET_TOO_BIG: u8 = 2;
/// Router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;
/// What neighbour discovery must arrive with, so that no router can have forwarded it (RFC 4861).
const FROM_THE_LINK: u8 = 255;

/// What multicast listener discovery is sent with: it is never forwarded (RFC 3810, section 5).
const TO_THE_LINK: u8 = 1;

/// Of the fragment header's third and fourth byte.
const OFFSET_MASK: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 1;
/// Beside [`MORE_FRAGMENTS`] what is known of a packet: it has a fragment header.
const FRAGMENTED: usize = 2;

const HEADER: usize = 40;
/// Extension headers we follow. Real traffic has at most two or three.
pub(super) const HEADERS_MAX: usize = 8;

/// Understands the packet that begins at `start`.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(frame: &B, start: usize) -> Result<Packet, Reason> {
    let [first, source_high, source_low, destination_high, destination_low] =
        frame.longs(start).ok_or(Reason::MalformedIpv6)?;
    let [version, _, _, _, l0, l1, next, hop_limit] = first.to_ne_bytes();
    let (source, destination) = ([source_high, source_low], [destination_high, destination_low]);
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 6 || !frame.reaches(start + HEADER + length) {
        return Err(Reason::MalformedIpv6);
    }
    if source_high == 0 && u64::from_be(source_low) >> 32 == 0xffff {
        return Err(Reason::MappedAddress);
    }
    if source_high == destination_high && source_low == destination_low && !frame.is_looped() {
        return Err(Reason::Land);
    }
    let payload = Payload { start: start + HEADER, len: length, fragmented: false };
    let kind = follow(frame, payload, next, hop_limit)?;
    if hop_limit == TO_THE_LINK && is_of_the_link(source) && kind.is_multicast_listener() {
        return Err(Reason::MulticastListener);
    }
    if is_martian(source) && !frame.is_looped() {
        return Err(Reason::Martian);
    }
    let [source, destination] = [source, destination].map(Address::v6_as_it_lies);
    Ok(Packet { source, destination, kind })
}

/// Loopback and multicast are nobody's source; `::` is that of a host without an address.
#[inline(always)]
const fn is_martian([high, low]: [u64; 2]) -> bool {
    u64::from_be(high) >> 56 == 0xff || (high == 0 && u64::from_be(low) == 1)
}

/// An address that no router forwards: fe80::/10, and `::` of a host that has none yet (RFC 3590).
#[inline(always)]
const fn is_of_the_link([high, low]: [u64; 2]) -> bool {
    u64::from_be(high) >> 54 == 0xfe80 >> 6 || (high == 0 && low == 0)
}

/// Follows the chain of extension headers to the transport header.
#[inline(always)]
fn follow<B: Bytes + ?Sized>(frame: &B, packet: Payload, first: u8, hop_limit: u8) -> Result<Kind, Reason> {
    let (mut next, mut at, mut left) = (first, packet.start, packet.len);
    let mut flags = 0;
    for _ in 0..HEADERS_MAX {
        if !is_extension(next) {
            break;
        }
        let Some([header]) = frame.words(at) else { return Err(Reason::MalformedIpv6) };
        let [following, length, o0, o1] = header.to_ne_bytes();
        let size = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if left < size {
            return Err(Reason::MalformedIpv6);
        }
        if next == FRAGMENT {
            let fragment = u16::from_be_bytes([o0, o1]);
            if fragment >> 3 != 0 {
                return later(following, usize::from(fragment & OFFSET_MASK));
            }
            flags |= FRAGMENTED | usize::from(fragment & MORE_FRAGMENTS);
        }
        let unknown = left;
        (next, at, left) = (following, at + size, left - size);
        (at, flags) = (frame.forget(at, unknown), frame.forget(flags, unknown));
    }
    let payload = Payload { start: at, len: left, fragmented: flags & usize::from(MORE_FRAGMENTS) != 0 };
    match next {
        TCP => tcp(frame, payload),
        UDP => udp(frame, payload),
        ICMPV6 => message(icmp(frame, payload)?, hop_limit, flags & FRAGMENTED != 0),
        _ if is_extension(next) => Err(Reason::ExtensionHeaders),
        _ => Ok(Kind::other(next)),
    }
}

/// The middle of something: an extension header hides even the protocol.
#[inline(always)]
fn later(following: u8, offset: usize) -> Result<Kind, Reason> {
    match following {
        TCP if overwrites_tcp(offset) => Err(Reason::Fragment),
        _ if is_extension(following) => Ok(Kind::later_fragment(HOP_BY_HOP)),
        _ => Ok(Kind::later_fragment(following)),
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    // One comparison rather than five, each of which is a path of its own for the verifier.
    const SET: u64 =
        1 << HOP_BY_HOP | 1 << ROUTING | 1 << FRAGMENT | 1 << AUTHENTICATION | 1 << DESTINATION_OPTIONS;
    next < 64 && SET >> next & 1 != 0
}

/// Neighbour discovery must not be fragmented (RFC 6980), so a fragment of it has no exemption.
#[inline(always)]
fn message([kind, _]: [u8; 2], hop_limit: u8, fragmented: bool) -> Result<Kind, Reason> {
    match kind {
        PACKET_TOO_BIG => Err(Reason::PathMtu),
        _ if NEIGHBOUR_DISCOVERY.contains(&kind) && hop_limit == FROM_THE_LINK && !fragmented => {
            Err(Reason::NeighbourDiscovery)
        }
        _ => Ok(Kind::icmpv6(kind)),
    }
}
