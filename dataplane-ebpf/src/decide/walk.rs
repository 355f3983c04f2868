//! The search for a source's class in a table's trie ([`crate::wire::table`] has its form).

use crate::wire::table::{
    BITMAP, BITMAP_BITS, COMPARE, LINE, NODE, NODE_SHIFT, PAIRS, REST, STEPS_MAX, WIDE, WIDE_BITS,
};

/// A table's words.
pub trait Words {
    /// The word at an index, counted from the table's beginning; nothing behind its end.
    fn word(&self, index: u32) -> Option<u32>;

    /// Four words that lie in one line.
    fn four(&self, index: u32) -> Option<[u32; 4]>;
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
            let classes = words.word(PAIRS + pair)?;
            return Some(if some >> (value & 31) & 1 == 0 { classes & 0xffff } else { classes >> 16 });
        } else if kind == REST {
            (entry, bits) = (words.word(at)?, rest);
        } else {
            let index = (bits >> (64_u32.wrapping_sub(kind) & 63)) as u32;
            (entry, bits) = (words.word(at.wrapping_add(index))?, bits << kind);
        }
    }
    None
}
