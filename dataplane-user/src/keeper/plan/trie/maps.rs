//! Maps of bits: where only two classes are left and few bits.
//!
//! A small one has its classes beside it. One that is a line has room for nothing else, so its classes are one of the table's few
//! pairs: a packet then needs a single line that no other packet has just brought into the caches. Maps that say the same are one:
//! prefixes of one length at one distance, or scattered hosts, have few.

use std::collections::HashMap;

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::table::{BITMAP, BITMAP_BITS, LINE, NODE_SHIFT, PAIRS, WIDE, WIDE_BITS};

use super::{Nodes, Prefix, left_of_half, rest};

/// Prefixes from which a line is worth its 64 bytes.
pub(super) const LINE_MIN: usize = 8;

/// The maps of bits of a table, or of a change of it. Nothing ever changes one in its place.
#[derive(Debug, Default)]
pub(super) struct Maps {
    small: HashMap<[u32; 4], u32>,
    lines: HashMap<[u32; LINE], u32>,
    /// The classes of lines: where a bit is 0, where it is 1.
    pairs: Vec<[u16; 2]>,
    /// Whether there are no other pairs than these: a packet may be reading them.
    closed: bool,
}

impl Maps {
    /// None yet, for a change of this table.
    pub(super) fn of(words: &impl Words) -> Self {
        let pair = |at| words.word(PAIRS + at).map(|pair| [pair as u16, (pair >> 16) as u16]);
        let pairs = (0..LINE as u32).map_while(pair).take_while(|[clear, set]| clear != set).collect();
        Self { pairs, closed: true, ..Self::default() }
    }

    /// The number of a pair of classes.
    fn pair(&mut self, classes: [u16; 2]) -> Option<u32> {
        let known = self.pairs.iter().position(|pair| *pair == classes);
        let number = known.or_else(|| {
            let next = self.pairs.len();
            (!self.closed && next < LINE).then(|| {
                self.pairs.push(classes);
                next
            })
        });
        number.map(|number| number as u32)
    }
}

impl Nodes {
    /// The words of the pairs of classes.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = u32> {
        self.maps.pairs.iter().map(|[clear, set]| u32::from(*clear) | u32::from(*set) << 16)
    }

    /// Which of two classes an address has whose bits behind `at` are few.
    pub(super) fn bitmap(&mut self, prefixes: &[Prefix], at: u32, classes: [u16; 2]) -> u32 {
        let [lower, upper] = map(prefixes, at, BITMAP_BITS, classes);
        let [clear, set] = classes.map(u32::from);
        let words = [lower, upper, clear, set];
        let node = self.maps.small.get(&words).copied().unwrap_or_else(|| {
            let node = self.reserve(4, 4);
            self.write(node, &words);
            self.maps.small.insert(words, node);
            node
        });
        BITMAP << NODE_SHIFT | (self.base + node)
    }

    /// The classes and their pair, where a line is for these prefixes.
    pub(super) fn pair_of_line(
        &mut self,
        prefixes: &[Prefix],
        at: u32,
        outer: u16,
    ) -> Option<([u16; 2], u32)> {
        if prefixes.len() < LINE_MIN || rest(prefixes, at) > WIDE_BITS.min(left_of_half(at)) {
            return None;
        }
        let classes = two(prefixes, outer).filter(|[clear, set]| clear != set)?;
        Some((classes, self.maps.pair(classes)?))
    }

    /// As [`Self::bitmap`], in a line.
    pub(super) fn line(&mut self, prefixes: &[Prefix], at: u32, (classes, pair): ([u16; 2], u32)) -> u32 {
        let words = map(prefixes, at, WIDE_BITS, classes);
        let node = self.maps.lines.get(&words).copied().unwrap_or_else(|| {
            let node = self.reserve(LINE as u32, LINE as u32);
            self.write(node, &words);
            self.maps.lines.insert(words, node);
            node
        });
        WIDE << NODE_SHIFT | (self.base + node) | pair
    }
}

/// For each value of the `bits` behind `at`, lowest bit of the first word first, whether it has the second class.
fn map<const WORDS: usize>(prefixes: &[Prefix], at: u32, bits: u32, [_, set]: [u16; 2]) -> [u32; WORDS] {
    let mut map = [0_u32; WORDS];
    for prefix in prefixes {
        let first = prefix.block().part(at, bits);
        let end = first + (1 << (at + bits).saturating_sub(prefix.length));
        for (word, number) in map.iter_mut().zip(0_u32..) {
            let start = 32 * number;
            let covered = below(end.saturating_sub(start)) & !below(first.saturating_sub(start));
            if prefix.class == set { *word |= covered } else { *word &= !covered }
        }
    }
    map
}

/// A word's lowest bits.
fn below(count: u32) -> u32 {
    !u32::MAX.checked_shl(count).unwrap_or(0)
}

/// What is in none of the prefixes has one class, and what is in one has it or another one: both, where there are no more.
pub(super) fn two(prefixes: &[Prefix], outer: u16) -> Option<[u16; 2]> {
    let other = prefixes.iter().map(|prefix| prefix.class).find(|class| *class != outer).unwrap_or(outer);
    prefixes.iter().all(|prefix| [outer, other].contains(&prefix.class)).then_some([outer, other])
}
