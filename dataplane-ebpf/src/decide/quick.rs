//! The way that nearly every packet takes through the parser: Ethernet without tags, IP without options, extension headers and
//! fragments, then TCP or UDP, all of it in one piece of memory. Each header is checked once as a whole, in a third of the
//! instructions that following lengths takes.
//!
//! What is said here of a packet is what [`super::whole`] says. Nothing is said of any other packet, nor of one that is dropped or passed
//! for what it is: those go there.

use super::ipv4::length;
use super::transport::{Payload, TCP, UDP, datagram, segment};
use super::{Bytes, Decision, Front, Packet, Tables, judge_by};
use crate::reason::Reason;
use crate::wire::Address;

const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const TYPE: usize = 12;
const ETHERNET: usize = 14;
const IPV4_END: usize = ETHERNET + 20;
const IPV6_END: usize = ETHERNET + 40;
/// A UDP header behind an IPv4 header is the least that is of use.
const FRONT: usize = IPV4_END + 8;
/// IPv4 without options.
const PLAIN: u8 = 0x45;
/// Where a fragment lies in its packet, and whether more follow.
const FRAGMENTED: u16 = 0x3fff_u16.to_be();

/// Understands a packet that is like nearly all.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(frame: &B) -> Option<Packet> {
    let front = frame.front::<FRONT>()?;
    match front.half::<TYPE>() {
        IPV4 => ipv4(frame, &front),
        IPV6 => ipv6(frame),
        _ => None,
    }
}

/// What is done with a packet that was judged. A trait and no closure, for the programs have it inlined.
pub trait Next {
    /// What comes of it.
    type Said;

    /// Goes on with a packet and what the tables say of it.
    fn judged(&self, packet: &Packet, decision: Decision) -> Self::Said;
}

/// Judges a packet that is like nearly all and goes on with it, each version of IP by itself: so what is asked of one is not asked
/// of the other. Nothing where a table is missing either.
#[inline(always)]
pub fn decide<B: Bytes + ?Sized, T: Tables, N: Next>(frame: &B, tables: &T, next: &N) -> Option<N::Said> {
    let front = frame.front::<FRONT>()?;
    match front.half::<TYPE>() {
        IPV4 => judged(&ipv4(frame, &front)?, tables, next),
        IPV6 => judged(&ipv6(frame)?, tables, next),
        _ => None,
    }
}

#[inline(always)]
fn judged<T: Tables, N: Next>(packet: &Packet, tables: &T, next: &N) -> Option<N::Said> {
    // Gone on with here too: so nothing has to be carried along in case there are tables.
    if !tables.any() {
        return Some(next.judged(packet, Decision::without_rule(Reason::NoRule)));
    }
    judge_by(packet, tables).ok().map(|decision| next.judged(packet, decision))
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(frame: &B, front: &impl Front) -> Option<Packet> {
    let total = length(front.word::<ETHERNET>());
    let payload = Payload { start: IPV4_END, len: total.checked_sub(20)?, fragmented: false };
    if front.byte::<ETHERNET>() != PLAIN || front.half::<{ ETHERNET + 6 }>() & FRAGMENTED != 0 {
        return None;
    }
    let (source, destination) = (front.word::<{ ETHERNET + 12 }>(), front.word::<{ ETHERNET + 16 }>());
    if source == destination
        || is_special(front.byte::<{ ETHERNET + 12 }>())
        || !frame.is_near(ETHERNET + total)
    {
        return None;
    }
    let kind = match front.byte::<{ ETHERNET + 9 }>() {
        UDP => datagram(front.word::<IPV4_END>(), front.word::<{ IPV4_END + 4 }>(), payload),
        TCP => {
            let front = frame.front::<{ IPV4_END + 20 }>()?;
            segment(front.word::<IPV4_END>(), front.word::<{ IPV4_END + 12 }>(), payload)
        }
        _ => return None,
    };
    let [source, destination] = [source, destination].map(Address::v4_as_it_lies);
    Some(Packet { source, destination, kind: kind.ok()? })
}

/// Whether some of the addresses in a /8 are nobody's source: 0, 127, and from 224 on.
#[inline(always)]
const fn is_special(network: u8) -> bool {
    network == 127 || network.wrapping_sub(1) >= 223
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(frame: &B) -> Option<Packet> {
    let front = frame.front::<{ IPV6_END + 8 }>()?;
    let [version, _, _, _, l0, l1, next, _] = front.long::<ETHERNET>().to_ne_bytes();
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let payload = Payload { start: IPV6_END, len, fragmented: false };
    let source = [front.long::<{ ETHERNET + 8 }>(), front.long::<{ ETHERNET + 16 }>()];
    let destination = [front.long::<{ ETHERNET + 24 }>(), front.long::<{ ETHERNET + 32 }>()];
    let [high, low] = source;
    // No address without its first half has a name: mapped ones, loopback and none are told apart elsewhere.
    let special =
        high == 0 || high.to_ne_bytes()[0] == 0xff || (high == destination[0] && low == destination[1]);
    if version >> 4 != 6 || special || !frame.is_near(IPV6_END + len) {
        return None;
    }
    let kind = match next {
        UDP => datagram(front.word::<IPV6_END>(), front.word::<{ IPV6_END + 4 }>(), payload),
        TCP => {
            let front = frame.front::<{ IPV6_END + 20 }>()?;
            segment(front.word::<IPV6_END>(), front.word::<{ IPV6_END + 12 }>(), payload)
        }
        _ => return None,
    };
    let [source, destination] = [source, destination].map(Address::v6_as_it_lies);
    Some(Packet { source, destination, kind: kind.ok()? })
}
