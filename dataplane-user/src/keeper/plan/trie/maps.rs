//! Maps of bits: where only two classes are left and few bits.
//!
//! A small one has its classes beside it. One that is a line has room for nothing else, so its classes are one of the table's few
//! pairs: a packet then needs a single line that no other packet has just brought into the caches. Maps that say the same are one:
//! prefixes of one length at one distance, or scattered hosts, have few.

use std::collections::HashMap;

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::table::{BITMAP, LINE, NODE_SHIFT, PAIRS, WIDE, WIDE_BITS};

use super::{Nodes, Prefix, left_of_half, rest};

/// Prefixes from which a line is worth its 64 bytes.
pub(super) const LINE_MIN: usize = 8;

/// The maps of bits of a table, or of a change of it. Nothing ever changes one of these in its place: many entries may lead there.
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
    pub(super) fn pair(&mut self, classes: [u16; 2]) -> Option<u32> {
        self.pair_but_for(0, classes)
    }

    /// As [`Self::pair`], but the last few numbers are left to others.
    pub(super) fn pair_but_for(&mut self, others: usize, classes: [u16; 2]) -> Option<u32> {
        let known = self.pairs.iter().position(|pair| *pair == classes);
        let number = known.or_else(|| {
            let next = self.pairs.len();
            (!self.closed && next + others < LINE).then(|| {
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
        let mut map = [0; 2];
        fill(&mut map, prefixes, at, classes);
        let ([lower, upper], [clear, set]) = (map, classes.map(u32::from));
        self.small([lower, upper, clear, set])
    }

    /// A class as a node, for where a class has no place.
    pub(super) fn class(&mut self, class: u16) -> u32 {
        self.small([0, 0, class.into(), class.into()])
    }

    fn small(&mut self, words: [u32; 4]) -> u32 {
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
        let mut words = [0; LINE];
        fill(&mut words, prefixes, at, classes);
        let node = self.maps.lines.get(&words).copied().unwrap_or_else(|| {
            let node = self.reserve(LINE as u32, LINE as u32);
            self.write(node, &words);
            self.maps.lines.insert(words, node);
            node
        });
        WIDE << NODE_SHIFT | (self.base + node) | pair
    }
}

/// Says in a map whose bits are 0, for each value of the next bits from the first word's lowest on, whether it has the second class.
pub(super) fn fill(map: &mut [u32], prefixes: &[Prefix], at: u32, [_, set]: [u16; 2]) {
    let bits = (u32::BITS * map.len() as u32).ilog2();
    for prefix in prefixes {
        let first = prefix.block().part(at, bits);
        let end = first + (1 << (at + bits).saturating_sub(prefix.length));
        let words = map.get_mut(first as usize / 32..end.div_ceil(32) as usize).unwrap_or_default();
        for (word, start) in words.iter_mut().zip((first / 32 * 32..).step_by(32)) {
            let covered = below(end - start) & !below(first.saturating_sub(start));
            if prefix.class == set { *word |= covered } else { *word &= !covered }
        }
    }
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
