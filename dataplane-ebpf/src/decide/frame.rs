//! Ethernet: up to two VLAN tags, then ARP or IP.

use super::{Bytes, Packet, ipv4, ipv6, quick};
use crate::reason::Reason;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q, 802.1ad and the older number for an outer tag.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Ethernet addresses before the first type field.
const TYPE_OFFSET: usize = 12;
/// A tag: its type field and two bytes of tag.
const TAG: usize = 4;

/// Understands a frame as far as the tables can judge it.
///
/// # Errors
/// Why it is dropped, or passes, without them.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(frame: &B) -> Result<Packet, Reason> {
    match quick::parse(frame) {
        Some(packet) => Ok(packet),
        None => whole(frame),
    }
}

/// Understands any frame.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn whole<B: Bytes + ?Sized>(frame: &B) -> Result<Packet, Reason> {
    let (ethertype, payload) = untag(frame)?;
    match ethertype {
        IPV4 => ipv4::parse(frame, payload),
        IPV6 => ipv6::parse(frame, payload),
        ARP => Err(Reason::Arp),
        _ => Err(Reason::NotIp),
    }
}

/// The type of what the frame carries, and where that begins: at byte 14, 18 or 22.
///
/// # Errors
/// The frame ends before, or has more than two tags.
#[inline(always)]
pub fn untag<B: Bytes + ?Sized>(frame: &B) -> Result<(u16, usize), Reason> {
    // Spelt out rather than looped: every offset stays a constant, which costs the verifier nothing.
    let outer = ethertype(frame, TYPE_OFFSET)?;
    // Asked first: nearly everything is IP without a tag.
    if outer == IPV4 || outer == IPV6 || !is_vlan(outer) {
        return Ok((outer, TYPE_OFFSET + 2));
    }
    let inner = ethertype(frame, TYPE_OFFSET + TAG)?;
    if !is_vlan(inner) {
        return Ok((inner, TYPE_OFFSET + TAG + 2));
    }
    let innermost = ethertype(frame, TYPE_OFFSET + 2 * TAG)?;
    if is_vlan(innermost) { Err(Reason::VlanDepth) } else { Ok((innermost, TYPE_OFFSET + 2 * TAG + 2)) }
}

#[inline(always)]
fn ethertype<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Result<u16, Reason> {
    frame.half(offset).map(u16::from_be).ok_or(Reason::MalformedFrame)
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == VLAN[0] || ethertype == VLAN[1] || ethertype == VLAN[2]
}
