//! The search for a source's class in a table's trie ([`crate::wire::table`] has its form).

use crate::wire::table::{
    BITMAP, BITMAP_BITS, COMPARE, ENDS, LINE, NODE, NODE_SHIFT, PAIRS, REST, RUNS, RUNS_BITS, SPREAD,
    STEPS_MAX, WIDE, WIDE_BITS,
};

/// Of an entry of a line: which pair of classes it has.
const IN_LINE: u32 = LINE as u32 - 1;

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
    // The way through a list whose prefixes lie close: what all have in common, the row, the line. Asked in this order most
    // searches are over here; to find out what a node is takes as long as what it says.
    if kind(entry) == COMPARE {
        (entry, bits) = compare(words, entry, bits)?;
    }
    if kind(entry) == SPREAD {
        (entry, bits) = spread(words, entry, bits)?;
    }
    if kind(entry) == WIDE {
        return wide(words, entry, bits);
    }
    for _ in 0..STEPS_MAX {
        let kind = kind(entry);
        if kind == 0 {
            return Some(entry);
        }
        if kind == COMPARE {
            (entry, bits) = compare(words, entry, bits)?;
        } else if kind == BITMAP {
            return bitmap(words, entry, bits);
        } else if kind == WIDE {
            return wide(words, entry, bits);
        } else if kind == SPREAD {
            (entry, bits) = spread(words, entry, bits)?;
        } else if kind == RUNS {
            let line = words.line(place(entry))?;
            let last = line.word::<ENDS>();
            if last < NODE {
                let passed = passed(&line, words.forget(bits >> (64 - RUNS_BITS)));
                return pair(words, entry, passed ^ last);
            }
            entry = last;
        } else if kind == REST {
            (entry, bits) = (words.word(place(entry))?, rest);
        } else {
            let index = (bits >> (64_u32.wrapping_sub(kind) & 63)) as u32;
            (entry, bits) = (words.word(place(entry).wrapping_add(index))?, bits << kind);
        }
    }
    None
}

/// What node an entry leads to; 0: none.
#[inline(always)]
const fn kind(entry: u32) -> u32 {
    entry >> NODE_SHIFT
}

/// At which word it lies.
#[inline(always)]
const fn place(entry: u32) -> u32 {
    entry & (NODE - 1)
}

// What follows looks at one node. The masks say what is so already (from 1 to 32 bits) to whoever checks the shifts.

#[inline(always)]
fn compare<W: Words + ?Sized>(words: &W, entry: u32, bits: u64) -> Option<(u32, u64)> {
    let [value, length, same, other] = words.four(place(entry))?;
    if (bits >> (64_u32.wrapping_sub(length) & 63)) as u32 == value {
        Some((same, bits << (length & 63)))
    } else {
        Some((other, bits))
    }
}

#[inline(always)]
fn spread<W: Words + ?Sized>(words: &W, entry: u32, bits: u64) -> Option<(u32, u64)> {
    let [count, lines, ..] = words.four(place(entry))?;
    let index = (bits >> (64_u32.wrapping_sub(count) & 63)) as u32;
    Some((lines.wrapping_add(index.wrapping_mul(LINE as u32)), bits << (count & 63)))
}

#[inline(always)]
fn bitmap<W: Words + ?Sized>(words: &W, entry: u32, bits: u64) -> Option<u32> {
    let [lower, upper, clear, set] = words.four(place(entry))?;
    let map = u64::from(upper) << 32 | u64::from(lower);
    Some(if map >> (bits >> (64 - BITMAP_BITS)) & 1 == 0 { clear } else { set })
}

#[inline(always)]
fn wide<W: Words + ?Sized>(words: &W, entry: u32, bits: u64) -> Option<u32> {
    let value = (bits >> (64 - WIDE_BITS)) as u32;
    let some = words.word((place(entry) & !IN_LINE).wrapping_add(value / 32))?;
    pair(words, entry, some >> (value & 31))
}

/// The class of an entry's pair that a number's lowest bit says: no branch, for nobody could guess it.
#[inline(always)]
fn pair<W: Words + ?Sized>(words: &W, entry: u32, odd: u32) -> Option<u32> {
    Some(words.word(PAIRS + (entry & IN_LINE))? >> ((odd & 1) << 4) & 0xffff)
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
