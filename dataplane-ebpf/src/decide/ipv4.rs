//! IPv4, with options and fragments.

use super::{Bytes, Kind, Packet};
use crate::reason::Reason;
use crate::wire::Address;

const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const OFFSET_MASK: u16 = 0x1fff;
const MIN_HEADER: usize = 20;

/// Understands the packet that begins at `start`.
#[inline(always)]
pub(super) fn parse<B: Bytes + ?Sized>(frame: &B, start: usize) -> Result<Packet, Reason> {
    let header: [u8; MIN_HEADER] = frame.read(start).ok_or(Reason::MalformedIpv4)?;
    let [v, _, t0, t1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let (header_len, total_len) = (usize::from(v & 0x0f) * 4, usize::from(u16::from_be_bytes([t0, t1])));
    if v >> 4 != 4 || header_len < MIN_HEADER || total_len < header_len {
        return Err(Reason::MalformedIpv4);
    }
    let payload = Payload { start: start + header_len, len: total_len - header_len };
    let kind = match u16::from_be_bytes([f0, f1]) & OFFSET_MASK {
        0 => first(frame, payload, protocol)?,
        _ if protocol == TCP => Kind::LaterFragment,
        _ => Kind::Other,
    };
    Ok(Packet { source: Address::V4([s0, s1, s2, s3]), destination: Address::V4([d0, d1, d2, d3]), kind })
}

/// Where the transport header is, and how much of it the IP header says there is: padding behind that is not read.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    pub(super) start: usize,
    pub(super) len: usize,
}

#[inline(always)]
fn first<B: Bytes + ?Sized>(frame: &B, payload: Payload, protocol: u8) -> Result<Kind, Reason> {
    match protocol {
        TCP => tcp(frame, payload),
        ICMP if payload.len >= 2 => Ok(match frame.read(payload.start) {
            Some([UNREACHABLE, FRAGMENTATION_NEEDED]) => Kind::PathMtu,
            _ => Kind::Other,
        }),
        _ => Ok(Kind::Other),
    }
}

/// TCP's destination port.
#[inline(always)]
pub(super) fn tcp<B: Bytes + ?Sized>(frame: &B, payload: Payload) -> Result<Kind, Reason> {
    if payload.len < 4 {
        return Err(Reason::MalformedTcp);
    }
    match frame.read(payload.start) {
        Some([_, _, high, low]) => Ok(Kind::Tcp(u16::from_be_bytes([high, low]))),
        None => Err(Reason::MalformedTcp),
    }
}
