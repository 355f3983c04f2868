//! UDP packets from many sources, made in the kernel: an XDP program that is run over live frames gives each a source of its
//! own and goes on with the filter (a tail call), as if the interface had just received it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::wire::{NODE_HARDWARE, NODE4, NODE6, Socket};
use crate::{Result, sys};

/// Which version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// How far prefixes are from one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Each beside the next, as in lists of networks that somebody was given.
    Close,
    /// All over the address space, as in lists of hosts that were seen to attack.
    Apart,
}

/// The prefixes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) family: Family,
    pub(crate) count: u32,
    pub(crate) lie: Lie,
}

impl List {
    /// Prefixes that are apart, at most: the next would be among addresses that are nobody's source.
    const APART_MOST: u32 = 100_000;

    /// Parses `1000` or `1000-apart`.
    pub(crate) fn parse(text: &str) -> std::result::Result<(u32, Lie), String> {
        let (number, lie, most) = match text.strip_suffix("-apart") {
            Some(number) => (number, Lie::Apart, Self::APART_MOST),
            None => (text, Lie::Close, 1_000_000),
        };
        match number.parse() {
            Ok(count) if (1..=most).contains(&count) => Ok((count, lie)),
            _ => Err(format!(
                "{text:?}: a number from 1 to 1,000,000, or one to {} and -apart",
                Self::APART_MOST
            )),
        }
    }

    /// From one prefix to the next, in addresses or in networks of 48 bits, and how many of them belong to a prefix and the gap behind it.
    const fn stride(self) -> (u32, u32) {
        match (self.family, self.lie) {
            (Family::V4, Lie::Close) => (8, 8),
            (Family::V4, Lie::Apart) => (19_001, 8),
            (Family::V6, Lie::Close) => (2, 2),
            (Family::V6, Lie::Apart) => (40_001, 2),
        }
    }

    /// The prefix of that number as address and length. Between two of them lies room for one more, so that no two join.
    pub(crate) fn prefix(self, number: u32) -> String {
        let (stride, room) = self.stride();
        let at = (number * stride) & !(room - 1);
        match self.family {
            Family::V4 => format!("{}/{}", Ipv4Addr::from(V4_BASE + at), 30 + odd(number)),
            Family::V6 => {
                let segments = [V6_FIRST, (at >> 16) as u16, at as u16, 0, 0, 0, 0, 0];
                format!("{}/{}", Ipv6Addr::from(segments), 48 + odd(number))
            }
        }
    }
}

/// 0 or 1 without a pattern, as lists have none: what lies at one distance in one length, tables can say once.
fn odd(number: u32) -> u32 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) >> 31
}

/// What becomes of the packets where the filter has the prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// Each from within a prefix.
    Listed,
    /// Each from between two prefixes.
    Unlisted,
}

const V4_BASE: u32 = 0x0b00_0000;
const V6_FIRST: u16 = 0x2a00;
const PAYLOAD: usize = 18;
/// What a program says of a frame (`enum xdp_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    Drop = 1,
    Pass = 2,
}

/// A program and the frame it begins with.
pub(crate) struct Generator {
    program: OwnedFd,
    next: OwnedFd,
    frame: Vec<u8>,
}

impl Generator {
    /// Sources are drawn from the prefixes (or the gaps behind them), evenly. Where no filter is entered, it says
    /// the second part of `to` of each frame itself.
    pub(crate) fn new(list: List, sources: Sources, to: (Socket, Says)) -> Result<Self> {
        let (port, otherwise) = (to.0.port(), to.1);
        let (count, (stride, room)) = (list.count, list.stride());
        let (frame, draw) = match list.family {
            Family::V4 => {
                let host = if sources == Sources::Listed { 1 } else { 5 };
                (
                    v4_frame(port),
                    Draw { count, stride, room, base: V4_BASE + host, wide: None, source: 26, balance: 18 },
                )
            }
            Family::V6 => {
                let gap = u32::from(sources == Sources::Unlisted);
                // The lower 16 bits of the changed words are balanced in the payload: IPv6 has no checksum but UDP's.
                (
                    v6_frame(port),
                    Draw { count, stride, room, base: gap, wide: Some(V6_FIRST), source: 24, balance: 62 },
                )
            }
        };
        let next = sys::program_array()?;
        let program = sys::load(&draw.program(frame.len(), next.as_raw_fd(), otherwise))?;
        Ok(Self { program, next, frame })
    }

    /// Enters the filter, or none.
    pub(crate) fn go_on_with(&self, filter: Option<BorrowedFd<'_>>) -> Result<()> {
        sys::enter(self.next.as_fd(), filter)
            .map_err(|error| format!("going on with the filter: {error}").into())
    }

    /// Makes so many packets, as received by an interface of this thread's network namespace.
    pub(crate) fn send(&self, interface: u32, packets: u32) -> Result<()> {
        sys::run_live(self.program.as_fd(), interface, &self.frame, packets)
            .map_err(|error| format!("making live frames: {error}").into())
    }
}

/// How a frame gets its source: 32 bits at `source`, and 16 bits at `balance` that keep every checksum over both as it was. It is
/// written in words as large as a reader's, as a network card's memory is: a word of which a part was just stored makes its reader
/// wait.
struct Draw {
    count: u32,
    stride: u32,
    room: u32,
    base: u32,
    source: i16,
    balance: i16,
    /// Where the source is longer: 16 bits that stand before those at `source`. 16 zeros follow.
    wide: Option<u16>,
}

impl Draw {
    #[rustfmt::skip]
    /// BPF, by hand: R6 is the context, R7 the frame, R0 the source, R1 what balances it.
    fn program(&self, length: usize, next: i32, otherwise: Says) -> Vec<u64> {
        let signed = u32::cast_signed;
        let store = match self.wide {
            None => vec![op(0x63, 7, 0, self.source, 0)], // frame[source] = r0
            Some(before) => vec![
                op(0x67, 0, 0, 0, 16),                           // r0 <<= 16
                op(0x47, 0, 0, 0, i32::from(before.to_be())),    // r0 |= what stands before it
                op(0x7b, 7, 0, self.source - 2, 0),              // frame[source - 2] = r0
            ],
        };
        let draw = [
            op(0xbf, 6, 1, 0, 0),                   // r6 = context
            op(0x61, 7, 1, 0, 0),                   // r7 = context.data
            op(0x61, 8, 1, 4, 0),                   // r8 = context.data_end
            op(0xbf, 1, 7, 0, 0),                   // r1 = r7
            op(0x07, 1, 0, 0, length as i32),       // r1 += length
            op(0x2d, 1, 8, 23 + store.len() as i16, 0), // if r1 > r8: to the end
            op(0x85, 0, 0, 0, 7),                   // r0 = bpf_get_prandom_u32()
            op(0x94, 0, 0, 0, signed(self.count)),  // w0 %= count
            op(0x24, 0, 0, 0, signed(self.stride)), // w0 *= stride
            op(0x54, 0, 0, 0, signed(!(self.room - 1))), // w0 &= where a prefix can begin
            op(0x04, 0, 0, 0, signed(self.base)),   // w0 += base
            op(0xbf, 1, 0, 0, 0),                   // r1 = r0
            op(0x77, 1, 0, 0, 16),                  // r1 >>= 16
            op(0xbf, 2, 0, 0, 0),                   // r2 = r0
            op(0x57, 2, 0, 0, 0xffff),              // r2 &= 0xffff
            op(0x0f, 1, 2, 0, 0),                   // r1 += r2
            op(0xbf, 2, 1, 0, 0),                   // r2 = r1
            op(0x77, 2, 0, 0, 16),                  // r2 >>= 16
            op(0x57, 1, 0, 0, 0xffff),              // r1 &= 0xffff
            op(0x0f, 1, 2, 0, 0),                   // r1 += r2
            op(0xa7, 1, 0, 0, 0xffff),              // r1 ^= 0xffff
            op(0xdc, 1, 0, 0, 16),                  // r1 to network order
            op(0x63, 7, 1, self.balance, 0),        // frame[balance] = r1, and zeros
            op(0xdc, 0, 0, 0, 32),                  // r0 to network order
        ];
        let go_on = [
            op(0xbf, 1, 6, 0, 0),                   // r1 = context
            op(0x18, 2, 1, 0, next),                // r2 = the array of the next program
            op(0x00, 0, 0, 0, 0),
            op(0xb7, 3, 0, 0, 0),                   // r3 = 0
            op(0x85, 0, 0, 0, 12),                  // bpf_tail_call(r1, r2, r3)
            op(0xb7, 0, 0, 0, otherwise as i32),    // the end: r0 = what is said without a next program
            op(0x95, 0, 0, 0, 0),                   // exit
        ];
        [&draw[..], &store, &go_on].concat()
    }
}

/// The program that passes everything. It stands on the interface where no filter does, for a veth knows a receive queue only
/// while it has a program; no packet of ours meets it.
pub(crate) fn pass_all() -> Vec<u64> {
    vec![op(0xb7, 0, 0, 0, Says::Pass as i32), op(0x95, 0, 0, 0, 0)]
}

fn op(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value.cast_unsigned()) << 32
}

fn ethernet(kind: u16) -> Vec<u8> {
    [&NODE_HARDWARE[..], &[2, 0, 0, 0, 0, 9], &kind.to_be_bytes()].concat()
}

/// Without its checksum.
fn udp(port: u16) -> Vec<u8> {
    let length = (8 + PAYLOAD) as u16;
    [&9_u16.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], &[0; PAYLOAD]].concat()
}

/// With source and identification 0, which balance each other; UDP's checksum is left out, as IPv4 allows.
fn v4_frame(port: u16) -> Vec<u8> {
    let length = (28 + PAYLOAD) as u16;
    let mut head = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0], &[0; 4]].concat();
    head.extend(NODE4.octets());
    let sum = checksum(&head);
    head.splice(10..12, sum.to_be_bytes());
    [ethernet(0x0800), head, udp(port)].concat()
}

fn v6_frame(port: u16) -> Vec<u8> {
    let length = (8 + PAYLOAD) as u16;
    let source = Ipv6Addr::new(V6_FIRST, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut udp = udp(port);
    let pseudo =
        [&source[..], &NODE6.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, 17], &udp].concat();
    udp.splice(6..8, checksum(&pseudo).to_be_bytes());
    let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[17, 64], &source, &NODE6.octets()].concat();
    [ethernet(0x86dd), head, udp].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| pair.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_in_its_prefix_and_a_gap_in_none() {
        // Of two and of four addresses the second is one and the sixth none; of halves of a /48 and whole ones the same.
        let list = |family, lie| List { family, count: 100_000, lie };
        for number in [0, 1, 2, 99_999] {
            let (address, length) = (Ipv4Addr::from(V4_BASE + number * 8), 30 + odd(number));
            assert_eq!(list(Family::V4, Lie::Close).prefix(number), format!("{address}/{length}"));
        }
        assert_eq!(list(Family::V6, Lie::Close).prefix(0x8001), format!("2a00:1:2::/{}", 48 + odd(0x8001)));
        // The last ones that are apart are no loopback addresses, and have not come round.
        assert!(list(Family::V4, Lie::Apart).prefix(99_999).starts_with("124."));
        assert!(list(Family::V6, Lie::Apart).prefix(99_999).starts_with("2a00:ee6c:"));
        let odd = (0..100_000).map(odd).sum::<u32>();
        assert!((49_000..51_000).contains(&odd), "{odd}");
    }

    #[test]
    fn a_list_is_a_number_and_how_it_lies() {
        assert_eq!(List::parse("1000000"), Ok((1_000_000, Lie::Close)));
        assert_eq!(List::parse("100000-apart"), Ok((100_000, Lie::Apart)));
        for text in ["0", "1000001", "100001-apart", "-apart", "ten"] {
            assert!(List::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whatever_source_is_drawn_the_checksums_hold() {
        for source in [0x0b00_0001_u32, 0x0b0c_3505, 0xffff_ffff, 0] {
            let folded = (source >> 16) + (source & 0xffff);
            let balance = !(((folded & 0xffff) + (folded >> 16)) as u16);
            let mut v4 = v4_frame(9);
            v4.splice(26..30, source.to_be_bytes());
            v4.splice(18..20, balance.to_be_bytes());
            assert_eq!(checksum(&v4[14..34]), 0, "{source:x}");
            let mut v6 = v6_frame(9);
            v6.splice(24..28, source.to_be_bytes());
            v6.splice(62..64, balance.to_be_bytes());
            let pseudo = [&v6[22..54], &[0, 0], &v6[58..60], &[0, 0, 0, 17], &v6[54..]].concat();
            assert_eq!(checksum(&pseudo), 0, "{source:x}");
        }
    }
}
