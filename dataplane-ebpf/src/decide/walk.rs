//! The search for a source's class in a table's trie ([`crate::wire::table`] has its form).

use crate::wire::table::{
    BITMAP, BITMAP_BITS, COMPARE, ENDS, LINE, NODE, NODE_SHIFT, PAIRS, REST, RUNS, RUNS_BITS, SPREAD,
    STEPS_MAX, WIDE, WIDE_BITS,
};

/// A table's words.
pub trait Words {
    /// As [`Self::line`] gives it.
    type Line: Line;

    /// The word at an index, counted from the table's beginning; nothing behind its end.
    fn word(&self, index: u32) -> Option<u32>;

    /// Four words that lie in one line.
    fn four(&self, index: u32) -> Option<[u32; 4]>;

    /// The line that an index lies in.
    fn line(&self, index: u32) -> Option<Self::Line>;

    /// The number as it is, of which the compiler of the programs knows nothing any more.
    #[inline(always)]
    fn forget(&self, number: u64) -> u64 {
        number
    }
}

/// A line of a table.
pub trait Line {
    /// The word at a place in the line.
    fn word<const AT: usize>(&self) -> u32;
}

impl Line for [u32; LINE] {
    fn word<const AT: usize>(&self) -> u32 {
        const { assert!(AT < LINE) };
        self[AT]
    }
}

/// The class of an address, given as its bits from the highest on; nothing where the trie has no end, as no trie of ours.
#[inline(always)]
pub fn class<W: Words + ?Sized>(words: &W, root: u32, address: [u64; 2]) -> Option<u32> {
    let [mut bits, rest] = address;
    let mut entry = root;
    for _ in 0..STEPS_MAX {
        let (kind, at) = (entry >> NODE_SHIFT, entry & (NODE - 1));
        if kind == 0 {
            return Some(at);
        }
        // The masks say what is so already (from 1 to 32 bits) to whoever checks the shifts.
        if kind == COMPARE {
            let [value, length, same, other] = words.four(at)?;
            if (bits >> (64_u32.wrapping_sub(length) & 63)) as u32 == value {
                (entry, bits) = (same, bits << (length & 63));
            } else {
                entry = other;
            }
        } else if kind == BITMAP {
            let [lower, upper, clear, set] = words.four(at)?;
            let map = u64::from(upper) << 32 | u64::from(lower);
            return Some(if map >> (bits >> (64 - BITMAP_BITS)) & 1 == 0 { clear } else { set });
        } else if kind == WIDE {
            let (value, pair) = ((bits >> (64 - WIDE_BITS)) as u32, at & (LINE as u32 - 1));
            let some = words.word((at - pair).wrapping_add(value / 32))?;
            return Some(one_of(words.word(PAIRS + pair)?, some >> (value & 31)));
        } else if kind == SPREAD {
            let [count, lines, ..] = words.four(at)?;
            let index = (bits >> (64_u32.wrapping_sub(count) & 63)) as u32;
            (entry, bits) = (lines.wrapping_add(index.wrapping_mul(LINE as u32)), bits << (count & 63));
        } else if kind == RUNS {
            let line = words.line(at)?;
            let last = line.word::<ENDS>();
            if last < NODE {
                let passed = passed(&line, words.forget(bits >> (64 - RUNS_BITS)));
                return Some(one_of(words.word(PAIRS + (at & (LINE as u32 - 1)))?, passed ^ last));
            }
            entry = last;
        } else if kind == REST {
            (entry, bits) = (words.word(at)?, rest);
        } else {
            let index = (bits >> (64_u32.wrapping_sub(kind) & 63)) as u32;
            (entry, bits) = (words.word(at.wrapping_add(index))?, bits << kind);
        }
    }
    None
}

/// The class of a pair that a number's lowest bit says: no branch, for nobody could guess it.
#[inline(always)]
const fn one_of(pair: u32, odd: u32) -> u32 {
    pair >> ((odd & 1) << 4) & 0xffff
}

/// Whether a value is behind an odd number of a line's ends, in the lowest bit: each end that is less than the value turns the sign.
/// Nothing here is a branch either.
#[inline(always)]
fn passed(line: &impl Line, value: u64) -> u32 {
    macro_rules! turned {
        ($($at:literal)*) => { 0 $(^ u64::from(line.word::<$at>()).wrapping_sub(value))* };
    }
    const { assert!(ENDS == 15) };
    (turned!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14) >> 63) as u32
}
