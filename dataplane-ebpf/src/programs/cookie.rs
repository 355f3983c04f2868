//! SYN cookies: a program of its own, so that a kernel without the helpers (before 6.0) loads everything else.
#![expect(unsafe_code, reason = "helpers get pointers to our own copies of headers")]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    bpf_xdp_store_bytes,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::cookie::{answer4, answer6};
use dataplane_ebpf::decide::{Bytes, untag};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::Address;
use dataplane_ebpf::wire::budget::{Source, tails};

use crate::budget;
use crate::here;
use crate::packet::{XdpFrame, hidden};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Where IP begins behind no, one and two VLAN tags.
const UNTAGGED: usize = 14;
const TAGGED: usize = 18;
const TWICE_TAGGED: usize = 22;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const TCP: u8 = 6;
/// A TCP header with as many options as it can have.
const TCP_MAX: usize = 60;

#[btf_map]
static TAIL: ProgramArray<{ tails::TAILS as usize }> = ProgramArray::new();

/// What one ends in.
#[derive(Clone, Copy)]
pub(crate) enum Tail {
    /// Budgets are asked.
    Spend,
    /// A SYN is answered.
    Answer,
    /// A cookie may have come back.
    Learn,
}

/// Ends this program in another. It comes back only where that is not loaded.
#[inline(always)]
pub(crate) fn enter(context: &XdpContext, tail: Tail) {
    let index = match tail {
        Tail::Spend => tails::SPEND,
        Tail::Answer => tails::ANSWER,
        Tail::Learn => tails::LEARN,
    };
    // SAFETY: nothing here is left to be dropped.
    unsafe { TAIL.tail_call(context, index) };
}

/// Whether a SYN can be answered with a cookie: its headers are whole, and there are no others.
#[inline(always)]
pub(crate) fn deserves_one(context: &XdpContext) -> bool {
    Headers::of(&XdpFrame(context)).is_some()
}

/// Answers a SYN that the filter has judged; one that is not worth it is dropped.
#[inline(always)]
pub(crate) fn answer(context: &XdpContext) -> u32 {
    let answered = match Headers::of(&XdpFrame(context)) {
        Some(Headers::V4 { start, ip, tcp }) => cookie4(context, start, ip, &tcp)
            .and_then(|cookie| send(context, start, &answer4(&ip, &tcp, cookie))),
        Some(Headers::V6 { start, ip, tcp }) => cookie6(context, start, ip, &tcp)
            .and_then(|cookie| send(context, start, &answer6(&ip, &tcp, cookie))),
        None => None,
    };
    let reason = if answered.is_some() { Reason::SynCookie } else { Reason::SynBudget };
    budget::count_pressure(reason);
    here::count(reason);
    if answered.is_some() { xdp_action::XDP_TX } else { xdp_action::XDP_DROP }
}

/// Looks whether a segment that the filter passed brings a cookie back: then its source gets what we send.
#[inline(always)]
pub(crate) fn learn(context: &XdpContext) -> u32 {
    if let Some(headers) = Headers::of(&XdpFrame(context)) {
        let (source, tcp) = headers.source_and_tcp();
        if tcp[13] & (SYN | RST | ACK) == ACK && !budget::is_known(&source) && headers.bring_a_cookie() {
            budget::know(&source);
        }
    }
    xdp_action::XDP_PASS
}

/// The headers of a segment, whole and without options of IP: others have no place in a flood that is worth an answer.
enum Headers {
    V4 { start: usize, ip: [u8; 20], tcp: [u8; 20] },
    V6 { start: usize, ip: [u8; 40], tcp: [u8; 20] },
}

impl Headers {
    /// Where the filter found them, and nowhere else: an answer to addresses that were not judged would be anybody's.
    #[inline(always)]
    fn of(frame: &XdpFrame<'_>) -> Option<Self> {
        let (ethertype, start) = untag(frame).ok()?;
        // Every offset is a constant, which costs the verifier nothing.
        match start {
            UNTAGGED => Self::at(frame, ethertype, UNTAGGED),
            TAGGED => Self::at(frame, ethertype, TAGGED),
            _ => Self::at(frame, ethertype, TWICE_TAGGED),
        }
    }

    #[inline(always)]
    fn at(frame: &XdpFrame<'_>, ethertype: u16, start: usize) -> Option<Self> {
        match ethertype {
            IPV4 => {
                let (ip, tcp): ([u8; 20], _) = (frame.read(start)?, frame.read(start + 20)?);
                let plain = ip[0] == 0x45 && ip[6] & 0x3f == 0 && ip[7] == 0 && ip[9] == TCP;
                plain.then_some(Self::V4 { start, ip, tcp })
            }
            IPV6 => {
                let (ip, tcp): ([u8; 40], _) = (frame.read(start)?, frame.read(start + 40)?);
                (ip[6] == TCP).then_some(Self::V6 { start, ip, tcp })
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn source_and_tcp(&self) -> (Source, &[u8; 20]) {
        match self {
            Self::V4 { ip: [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, ..], tcp, .. } => {
                (Source::of(&Address::v4([*a, *b, *c, *d])), tcp)
            }
            Self::V6 { ip: [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..], tcp, .. } => {
                let prefix = [*a, *b, *c, *d, *e, *f, *g, *h, 0, 0, 0, 0, 0, 0, 0, 0];
                (Source::of(&Address::v6(prefix)), tcp)
            }
        }
    }

    #[inline(always)]
    fn bring_a_cookie(self) -> bool {
        let wrong = match self {
            // SAFETY: our own copies of whole headers, which the helper reads.
            Self::V4 { mut ip, mut tcp, .. } => unsafe {
                bpf_tcp_raw_check_syncookie_ipv4(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast())
            },
            // SAFETY: as above.
            Self::V6 { mut ip, mut tcp, .. } => unsafe {
                bpf_tcp_raw_check_syncookie_ipv6(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast())
            },
        };
        wrong == 0
    }
}

/// The cookie for an IPv4 SYN. The helper wants the whole TCP header, options and all, and nothing behind it.
#[inline(always)]
fn cookie4(context: &XdpContext, start: usize, mut ip: [u8; 20], tcp: &[u8; 20]) -> Option<u32> {
    let (mut header, length) = whole(context, start + 20, tcp)?;
    // SAFETY: our own copies; the second is at least as long as is said.
    let made =
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip.as_mut_ptr().cast(), header.as_mut_ptr().cast(), length) };
    (made >= 0).then_some(made as u32)
}

/// The cookie for an IPv6 SYN.
#[inline(always)]
fn cookie6(context: &XdpContext, start: usize, mut ip: [u8; 40], tcp: &[u8; 20]) -> Option<u32> {
    let (mut header, length) = whole(context, start + 40, tcp)?;
    // SAFETY: as above.
    let made =
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip.as_mut_ptr().cast(), header.as_mut_ptr().cast(), length) };
    (made >= 0).then_some(made as u32)
}

/// A TCP header with its options, and how long it is.
#[inline(always)]
fn whole(context: &XdpContext, offset: usize, tcp: &[u8; 20]) -> Option<([u8; TCP_MAX], u32)> {
    // Each bound is of the very register that the helpers get, which is what the verifier follows: joined into one
    // comparison they would not be.
    let length = hidden(u64::from(tcp[12] >> 4) * 4);
    if length < 20 {
        return None;
    }
    let length = hidden(length);
    if length > TCP_MAX as u64 {
        return None;
    }
    let length = hidden(length) as u32;
    let mut header = [0; TCP_MAX];
    // SAFETY: the buffer is ours and at least as long as is said.
    let failed =
        unsafe { bpf_xdp_load_bytes(context.ctx, offset as u32, header.as_mut_ptr().cast(), length) };
    (failed == 0).then_some((header, length))
}

/// Makes the frame its own answer: addresses of the link exchanged, the rest replaced from the IP header on.
#[inline(always)]
fn send<const N: usize>(context: &XdpContext, start: usize, answer: &[u8; N]) -> Option<()> {
    let link: [u8; 12] = XdpFrame(context).read(0)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = link;
    let link = [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5];
    // SAFETY: the helper only reads the context the kernel gave.
    let length = unsafe { bpf_xdp_get_buff_len(context.ctx) };
    let change = (start + N) as i64 - length as i64;
    // SAFETY: no pointer into the packet is kept over the change; the buffers are ours and as long as is said.
    let failed = unsafe {
        bpf_xdp_adjust_tail(context.ctx, change as i32) != 0
            || bpf_xdp_store_bytes(context.ctx, 0, link.as_ptr().cast_mut().cast(), 12) != 0
            || bpf_xdp_store_bytes(context.ctx, start as u32, answer.as_ptr().cast_mut().cast(), N as u32)
                != 0
    };
    (!failed).then_some(())
}
