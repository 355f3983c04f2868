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
    let [first_word, identity, life, source, destination] =
        frame.words(start).ok_or(Reason::MalformedIpv4)?;
    let ([version, ..], [_, _, f0, f1]) = (first_word.to_ne_bytes(), identity.to_ne_bytes());
    let [_, protocol, _, _] = life.to_ne_bytes();
    let header_len = usize::from(version & 0x0f) * 4;
    let total_len = length(first_word);
    if version >> 4 != 4
        || header_len < MIN_HEADER
        || total_len < header_len
        || !frame.reaches(start + total_len)
    {
        return Err(Reason::MalformedIpv4);
    }
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
    if is_martian(u32::from_be(source)) && !frame.is_looped() {
        return Err(Reason::Martian);
    }
    let [source, destination] = [source, destination].map(Address::v4_as_it_lies);
    Ok(Packet { source, destination, kind })
}

/// The packet's length, of its first word.
#[inline(always)]
pub(super) fn length(first: u32) -> usize {
    let [_, _, t0, t1] = first.to_ne_bytes();
    usize::from(u16::from_be_bytes([t0, t1]))
}

/// Loopback, multicast and broadcast are nobody's source, and of "this network" only 0.0.0.0 is one: of a host that asks for
/// an address (RFC 1122).
#[inline(always)]
const fn is_martian(source: u32) -> bool {
    let network = source >> 24;
    network == 127 || network & 0xf0 == 0xe0 || (network == 0 && source != 0) || source == u32::MAX
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
