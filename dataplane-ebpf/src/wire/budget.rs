//! Budgets as they lie in the maps.

use super::RULES_MAX;
use super::listener::Address;
use crate::decide::budget::Rate;

/// Where a budget stands in the table of budgets.
pub mod place {
    /// SYNs of one source.
    pub const SYN_PER_SOURCE: u32 = 0;
    /// SYNs to listeners of all sources that have not shown that they get our answers; as many again of all that have.
    pub const SYN_PRESSURE: u32 = 1;
    /// UDP packets of one source.
    pub const UDP_PER_SOURCE: u32 = 2;
    /// New connections of one source.
    pub const CONNECTIONS_PER_SOURCE: u32 = 3;
    /// The first of those of ports.
    pub const SYN_PER_PORT: u32 = 4;
    /// How many there are.
    pub const PLACES: u32 = SYN_PER_PORT + super::PORT_BUDGETS_MAX;
}

/// Budgets of ports that a node can have.
pub const PORT_BUDGETS_MAX: u32 = 60;
/// Sources that have a bucket, of each kind; who comes then takes the place of whoever was silent longest.
pub const SOURCES_MAX: u32 = 65_536;
/// Places for sources that were seen once: a source has a bucket from its second packet on.
pub const DOORS_MAX: u32 = 65_536;

/// The words of pressure: by family when the bucket is full again, and when the budget was last exceeded.
pub mod pressure {
    /// IPv4's bucket.
    pub const V4: u32 = 0;
    /// IPv6's bucket.
    pub const V6: u32 = 1;
    /// When a SYN was last over the budget, nanoseconds of the monotonic clock.
    pub const LAST: u32 = 2;
    /// The bucket of IPv4 sources that have shown that they get our answers.
    pub const KNOWN4: u32 = 3;
    /// The same of IPv6.
    pub const KNOWN6: u32 = 4;
    /// How many words there are.
    pub const WORDS: u32 = 5;
    /// How long after the last SYN over the budget an answered cookie is looked for, nanoseconds: a cookie is good for two
    /// minutes at most, and who needs longer than this for a handshake is not missed.
    pub const LINGERS: u64 = 16_000_000_000;
}

/// Programs that the filter may end in.
pub mod tails {
    /// Answers a SYN with a cookie.
    pub const ANSWER: u32 = 0;
    /// Looks whether a segment brings one back.
    pub const LEARN: u32 = 1;
    /// Spends budgets.
    pub const SPEND: u32 = 2;
    /// How many there are.
    pub const TAILS: u32 = 3;
}

/// What happens to what is over a budget.
pub mod over {
    /// Dropped.
    pub const DROP: u16 = 0;
    /// Counted.
    pub const OBSERVE: u16 = 1;
    /// Answered with a SYN cookie; of [`super::place::SYN_PRESSURE`] alone.
    pub const COOKIE: u16 = 2;
}

/// A budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Budget {
    /// Nanoseconds that one costs; 0: there is no budget.
    pub interval: u64,
    /// See [`Rate`].
    pub tolerance: u64,
    /// The counter of what is over it, as a cell has its rule's.
    pub counter: u32,
    /// The counter of what is answered with a SYN cookie.
    pub answered: u16,
    /// Of [`over`].
    pub over: u16,
    /// Its stable id, under which what is over it is told.
    pub rule: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = assert!(RULES_MAX <= u16::MAX as u32);
const _: () = assert!(size_of::<Budget>() == 32 && align_of::<Budget>() == 8);

impl Budget {
    /// A budget.
    pub const fn new(rate: Rate, rule: u32, [counter, answered]: [u32; 2], over: u16) -> Self {
        // Where there are more counters than the programs know, it is counted by reason alone.
        let answered = if answered > u16::MAX as u32 { 0 } else { answered as u16 };
        let Rate { interval, tolerance } = rate;
        Self { interval, tolerance, counter, answered, over, rule, reserved: 0 }
    }

    /// Its rate.
    #[inline(always)]
    pub const fn rate(&self) -> Rate {
        Rate { interval: self.interval, tolerance: self.tolerance }
    }

    /// As it lies in the map.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.interval.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.tolerance.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.counter.to_ne_bytes());
        bytes[20..22].copy_from_slice(&self.answered.to_ne_bytes());
        bytes[22..24].copy_from_slice(&self.over.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.rule.to_ne_bytes());
        bytes
    }
}

/// Who has a bucket: an IPv4 address, or an IPv6 /64, which is what one customer has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Source {
    /// 4 or 6.
    pub family: u32,
    /// The address, or the first four bytes of the prefix.
    pub high: u32,
    /// The last four bytes of the prefix; 0 of IPv4.
    pub low: u32,
}

const _: () = assert!(size_of::<Source>() == 12 && align_of::<Source>() == 4);

impl Source {
    /// The source of an address.
    #[inline(always)]
    pub const fn of(address: &Address) -> Self {
        let [first, second] = address.words();
        if address.is_v6() {
            let [a, b, c, d, e, f, g, h] = first.to_ne_bytes();
            let (high, low) = ([a, b, c, d], [e, f, g, h]);
            Self { family: 6, high: u32::from_ne_bytes(high), low: u32::from_ne_bytes(low) }
        } else {
            let [.., a, b, c, d] = second.to_ne_bytes();
            Self { family: 4, high: u32::from_ne_bytes([a, b, c, d]), low: 0 }
        }
    }

    /// As it lies in a map.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.family.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.high.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.low.to_ne_bytes());
        bytes
    }

    /// Its door among those of a kind of budget, and how it is known there; never 0.
    #[inline(always)]
    pub const fn door(self, kind: u32) -> (u32, u32) {
        let hash =
            super::word::flow_hash(self.high ^ self.low.rotate_left(16), self.low ^ kind << 8 ^ self.family);
        (hash % DOORS_MAX, self.high ^ self.low.wrapping_mul(0x9e37_79b1) ^ kind << 28 | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_or_a_64() {
        let six = |last: u8, seventh: u8| {
            let mut octets = [0x20, 1, 0xd, 0xb8, 0, 1, 0, seventh, 9, 9, 9, 9, 9, 9, 9, last];
            octets[8] = last;
            Source::of(&Address::v6(octets))
        };
        assert_eq!(six(1, 1), six(2, 1));
        assert_ne!(six(1, 1), six(1, 2));
        assert_ne!(Source::of(&Address::v4([10, 0, 0, 1])), Source::of(&Address::v4([10, 0, 0, 2])));
        assert_ne!(Source::of(&Address::v4([0; 4])), Source::of(&Address::v6([0; 16])));
    }

    #[test]
    fn doors_are_spread_and_told_apart() {
        let mut doors = std::collections::BTreeMap::<u32, std::collections::BTreeSet<u32>>::new();
        for low in 0..65_536_u32 {
            let [.., c, d] = low.to_be_bytes();
            let (door, name) = Source::of(&Address::v4([10, 1, c, d])).door(0);
            doors.entry(door).or_default().insert(name);
        }
        assert!(doors.len() > 38_000, "{}", doors.len());
        assert!(doors.values().all(|names| names.len() < 12));
    }
}
