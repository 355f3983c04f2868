//! What IP carries: TCP, UDP and ICMP, as far as a rule or a sanity check looks.

use super::{Bytes, Kind};
use crate::reason::Reason;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
pub(super) const ICMP_HEADER: usize = 8;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Where the transport header is, and how much of it the IP header says there is: padding behind that is not read.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    pub(super) start: usize,
    pub(super) len: usize,
    /// Whether more follows in later fragments.
    pub(super) fragmented: bool,
}

/// TCP. Of a fragmented segment the first fragment has the whole header, or no filter could see it.
#[inline(always)]
pub(super) fn tcp<B: Bytes + ?Sized>(frame: &B, payload: Payload) -> Result<Kind, Reason> {
    if payload.len < TCP_HEADER {
        return Err(Reason::MalformedTcp);
    }
    let [ports, _, _, rest] = frame.words(payload.start).ok_or(Reason::MalformedTcp)?;
    segment(ports, rest, payload)
}

/// TCP by its header's first and fourth word.
#[inline(always)]
pub(super) fn segment(ports: u32, rest: u32, payload: Payload) -> Result<Kind, Reason> {
    let ([s0, s1, d0, d1], [words, flags, _, _]) = (ports.to_ne_bytes(), rest.to_ne_bytes());
    let length = usize::from(words >> 4) * 4;
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    if length < TCP_HEADER || length > payload.len || source == 0 || destination == 0 {
        return Err(Reason::MalformedTcp);
    }
    if impossible(flags) {
        return Err(Reason::TcpFlags);
    }
    Ok(if flags & (SYN | ACK) == SYN { Kind::syn(destination) } else { Kind::tcp(destination) })
}

/// Each segment opens, acknowledges or resets, and does only one of opening, closing and resetting.
#[inline(always)]
const fn impossible(flags: u8) -> bool {
    let exclusive = flags & (SYN | FIN | RST);
    flags & (SYN | ACK | RST) == 0 || exclusive & exclusive.wrapping_sub(1) != 0
}

/// Whether a later fragment at this offset would overwrite a TCP header that the first one had to have whole (RFC 3128).
#[inline(always)]
pub(super) const fn overwrites_tcp(offset: usize) -> bool {
    offset < TCP_HEADER
}

/// UDP. Its length is that of the whole datagram, which the first of several fragments does not hold.
#[inline(always)]
pub(super) fn udp<B: Bytes + ?Sized>(frame: &B, payload: Payload) -> Result<Kind, Reason> {
    if payload.len < UDP_HEADER {
        return Err(Reason::MalformedUdp);
    }
    let Some([ports, rest]) = frame.words(payload.start) else { return Err(Reason::MalformedUdp) };
    datagram(ports, rest, payload)
}

/// UDP by its header's two words.
#[inline(always)]
pub(super) fn datagram(ports: u32, rest: u32, payload: Payload) -> Result<Kind, Reason> {
    let ([_, _, d0, d1], [l0, l1, _, _]) = (ports.to_ne_bytes(), rest.to_ne_bytes());
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length < UDP_HEADER || (!payload.fragmented && length > payload.len) {
        return Err(Reason::MalformedUdp);
    }
    Ok(Kind::udp(u16::from_be_bytes([d0, d1])))
}

/// Type and code of an ICMP message of either family.
#[inline(always)]
pub(super) fn icmp<B: Bytes + ?Sized>(frame: &B, payload: Payload) -> Result<[u8; 2], Reason> {
    if payload.len < ICMP_HEADER {
        return Err(Reason::MalformedIcmp);
    }
    frame.half(payload.start).map(u16::to_ne_bytes).ok_or(Reason::MalformedIcmp)
}
