//! Prefixes -> a trie of words, as `dataplane_ebpf::wire::table` has it; pure.
//!
//! A branch has about as many entries as there are prefixes below it, so that whatever the prefixes are, few steps lead to a
//! class: a trie is as deep as they are uneven. Bits that all prefixes below have in common are compared at once, and so
//! are few prefixes, one after the other. Where only two classes are left, the last bits are looked up in a map of bits, and
//! maps that say the same are one: prefixes of one length at one distance, or scattered hosts, have few.
//!
//! A change builds anew what the changed prefix reaches, behind what is there, and then enters it with one store: a packet
//! meets what was or what is.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::table::{
    BITMAP, BITMAP_BITS, BITS_MAX, COMPARE, LINE, NODE, NODE_SHIFT, REST, STEPS_MAX,
};
use ipnet::IpNet;

/// Prefixes that are compared one after the other rather than branched on.
const FEW: usize = 3;
/// Bits in common from which a comparison is worth its step.
const SKIP: u32 = 4;
/// Bits of a branch at least, where there are as many: 16 entries fill a line.
const BITS_MIN: u32 = 4;
/// Bits that one comparison can have.
const COMPARED: u32 = 32;
/// Bits of a half of an address: no node consumes bits of both.
const HALF: u32 = 64;
/// Entries of a branch that a change builds anew one by one; more are built as a whole.
const SINGLY: u32 = 64;

/// A prefix and its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    /// The address from the highest bit on, for both families.
    pub(crate) bits: u128,
    pub(crate) length: u32,
    pub(crate) class: u16,
}

impl Prefix {
    pub(crate) fn of(net: IpNet, class: u16) -> Self {
        let bits = match net {
            IpNet::V4(net) => u128::from(Ipv4Addr::to_bits(net.network())) << 96,
            IpNet::V6(net) => Ipv6Addr::to_bits(net.network()),
        };
        Self { bits, length: u32::from(net.prefix_len()), class }
    }

    fn block(self) -> Block {
        Block { bits: self.bits, length: self.length }
    }
}

/// All addresses with the same first bits; the others are 0 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    bits: u128,
    length: u32,
}

impl Block {
    fn around(bits: u128, length: u32) -> Self {
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        Self { bits: bits & mask, length }
    }

    fn holds(self, other: Self) -> bool {
        self.length <= other.length && Self::around(other.bits, self.length) == self
    }

    /// `count` of the bits behind the first `at`.
    fn part(self, at: u32, count: u32) -> u32 {
        ((self.bits << at) >> (128 - count)) as u32
    }
}

/// New nodes, which are to lie in the table from `base` on.
#[derive(Debug)]
pub(crate) struct Nodes {
    base: u32,
    pub(crate) words: Vec<u32>,
    /// Maps of bits by their words: those that say the same are one. Nothing ever changes one in its place.
    bitmaps: HashMap<[u32; 4], u32>,
    /// How many nodes lie one behind the other where the entry being made stands, and at most so far.
    depth: (u32, u32),
}

impl Nodes {
    /// None yet. `base` is a line's first word.
    pub(crate) fn new(base: u32) -> Self {
        Self { base, words: Vec::new(), bitmaps: HashMap::new(), depth: (0, 0) }
    }

    /// The first entry of the trie of these prefixes, sorted.
    pub(crate) fn trie(&mut self, prefixes: &[Prefix]) -> u32 {
        match prefixes.split_first() {
            Some((everything, others)) if everything.length == 0 => self.entry(others, 0, everything.class),
            _ => self.entry(prefixes, 0, 0),
        }
    }

    /// As [`Self::entry`], for an entry behind bits that were consumed: with the first half of an address another node begins.
    fn below(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> u32 {
        if at != HALF || prefixes.is_empty() {
            return self.entry(prefixes, at, outer);
        }
        let node = self.reserve(1, 1);
        self.deeper(|nodes| {
            let entry = nodes.entry(prefixes, at, outer);
            nodes.write(node, &[entry]);
        });
        REST << NODE_SHIFT | (self.base + node)
    }

    /// Makes something below one more node.
    fn deeper<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        let here = self.depth.0 + 1;
        self.depth = (here, self.depth.1.max(here));
        let made = make(self);
        self.depth.0 = here - 1;
        made
    }

    /// An entry of `prefixes` that have the first `at` bits in common and are longer; `outer` is the class of what is in none.
    fn entry(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> u32 {
        let [first, ..] = prefixes else { return u32::from(outer) };
        let last = prefixes.last().unwrap_or(first);
        let shortest = prefixes.iter().map(|prefix| prefix.length).min().unwrap_or(0);
        let common = (first.bits ^ last.bits).leading_zeros().min(shortest);
        let few_bits = rest(prefixes, at) <= BITMAP_BITS.min(left_of_half(at));
        self.deeper(|nodes| {
            if let Some(classes) = few_bits.then(|| two(prefixes, outer)).flatten() {
                nodes.bitmap(prefixes, at, classes)
            } else if common >= at + SKIP {
                nodes.comparison(prefixes, at, common, outer)
            } else if prefixes.len() <= FEW {
                nodes.comparison(prefixes, at, first.length, outer)
            } else {
                nodes.branch(prefixes, at, outer)
            }
        })
    }

    /// Whether an address goes on as the first prefix does up to `end`. No prefix here is around that.
    fn comparison(&mut self, prefixes: &[Prefix], at: u32, end: u32, outer: u16) -> u32 {
        let Some(first) = prefixes.first() else { return u32::from(outer) };
        let length = (end - at).min(COMPARED).min(left_of_half(at));
        let block = Block::around(first.bits, at + length);
        let (inside, others) = prefixes.split_at(prefixes.partition_point(|one| block.holds(one.block())));
        let node = self.reserve(4, 4);
        let same = match inside.split_first() {
            Some((whole, within)) if whole.length == block.length => {
                self.below(within, block.length, whole.class)
            }
            _ => self.below(inside, block.length, outer),
        };
        let other = self.entry(others, at, outer);
        self.write(node, &[block.part(at, length), length, same, other]);
        COMPARE << NODE_SHIFT | (self.base + node)
    }

    /// Which of two classes an address has whose bits behind `at` are few.
    fn bitmap(&mut self, prefixes: &[Prefix], at: u32, [clear, set]: [u16; 2]) -> u32 {
        let mut map = 0_u64;
        for prefix in prefixes {
            let over = (at + BITMAP_BITS).saturating_sub(prefix.length);
            let covered = (u64::MAX >> (64 - (1 << over))) << prefix.block().part(at, BITMAP_BITS);
            if prefix.class == set { map |= covered } else { map &= !covered }
        }
        let words = [map as u32, (map >> 32) as u32, clear.into(), set.into()];
        let node = self.bitmaps.get(&words).copied().unwrap_or_else(|| {
            let node = self.reserve(4, 4);
            self.write(node, &words);
            self.bitmaps.insert(words, node);
            node
        });
        BITMAP << NODE_SHIFT | (self.base + node)
    }

    fn branch(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> u32 {
        let bits = bits_of_branch(prefixes, at, outer).min(left_of_half(at));
        let entries = 1_u32 << bits;
        let node = self.reserve(entries, entries.min(LINE as u32));
        let (mut classes, mut done) = (vec![outer; entries as usize], 0);
        let mut filled: Vec<(u32, u32)> = Vec::new();
        while let Some(prefix) = prefixes.get(done) {
            let index = prefix.block().part(at, bits);
            if let Some(over) = (at + bits).checked_sub(prefix.length) {
                let covered = classes.iter_mut().skip(index as usize).take(1 << over);
                covered.for_each(|class| *class = prefix.class);
                done += 1;
            } else {
                let below = prefixes.get(done..).unwrap_or_default();
                let count = below.partition_point(|one| one.block().part(at, bits) == index);
                let class = classes.get(index as usize).copied().unwrap_or(outer);
                let entry = self.below(below.get(..count).unwrap_or_default(), at + bits, class);
                filled.push((index, entry));
                done += count;
            }
        }
        let words: Vec<u32> = classes.into_iter().map(u32::from).collect();
        self.write(node, &words);
        for (index, entry) in filled {
            self.write(node + index, &[entry]);
        }
        bits << NODE_SHIFT | (self.base + node)
    }

    fn reserve(&mut self, words: u32, alignment: u32) -> u32 {
        let node = self.words.len().next_multiple_of(alignment as usize);
        self.words.resize(node + words as usize, 0);
        node as u32
    }

    fn write(&mut self, at: u32, words: &[u32]) {
        let place = self.words.iter_mut().skip(at as usize);
        place.zip(words).for_each(|(to, word)| *to = *word);
    }
}

/// Bits of the same half behind the first `at`.
fn left_of_half(at: u32) -> u32 {
    HALF - at % HALF
}

/// Bits that a branch on prefixes behind `at` has. Where maps of bits can follow, it leaves them their bits; otherwise it has two to
/// four entries a prefix; eight where nothing more comes below.
fn bits_of_branch(prefixes: &[Prefix], at: u32, outer: u16) -> u32 {
    let (rest, count) = (rest(prefixes, at), prefixes.len());
    let enough = (2 * count).ilog2().clamp(BITS_MIN, BITS_MAX);
    if rest > BITMAP_BITS && rest - BITMAP_BITS <= enough && two(prefixes, outer).is_some() {
        return rest - BITMAP_BITS;
    }
    if rest <= BITS_MAX && 1 << rest <= 8 * count {
        return rest;
    }
    enough.min(rest)
}

/// How many bits behind the first `at` the longest prefix has.
fn rest(prefixes: &[Prefix], at: u32) -> u32 {
    prefixes.iter().map(|prefix| prefix.length).max().map_or(0, |longest| longest - at)
}

/// What is in none of the prefixes has one class, and what is in one has it or another one: both, where there are no more.
fn two(prefixes: &[Prefix], outer: u16) -> Option<[u16; 2]> {
    let other = prefixes.iter().map(|prefix| prefix.class).find(|class| *class != outer).unwrap_or(outer);
    prefixes.iter().all(|prefix| [outer, other].contains(&prefix.class)).then_some([outer, other])
}

/// New nodes and, by the word where it stands, each entry that is stored once they are in the table.
#[derive(Debug)]
pub(crate) struct Patch {
    pub(crate) nodes: Nodes,
    pub(crate) entries: Vec<(u32, u32)>,
}

/// What makes a trie, whose first entry stands at the word `root`, say what `prefixes` say, if it does already but for `changed`:
/// that one came, went or has another class. New nodes lie from `base` on. Nothing where the trie would be too deep, or the
/// words are none.
pub(crate) fn patch(
    words: &impl Words,
    root: u32,
    prefixes: &[Prefix],
    changed: Prefix,
    base: u32,
) -> Option<Patch> {
    let changed = changed.block();
    let mut patch = Patch { nodes: Nodes::new(base), entries: Vec::new() };
    let (mut place, mut entry, mut at, mut aside) = (root, words.word(root)?, 0, Vec::new());
    // Whether the place is in the half that `at` is in: where the first ends, it may stand before the node that leads on.
    let mut in_half = true;
    for steps in 0..STEPS_MAX {
        patch.nodes.depth.0 = steps;
        let (kind, node) = (entry >> NODE_SHIFT, entry & (NODE - 1));
        let here = Block::around(changed.bits, at);
        if matches!(kind, 0 | BITMAP) || changed.length <= at {
            patch.anew(prefixes, here, &aside, (place, in_half));
            return patch.if_shallow();
        }
        if kind == REST {
            (place, entry, in_half) = (node, words.word(node)?, true);
        } else if kind == COMPARE {
            let [value, length, same, other] = words.four(node)?;
            let shared = length.min(changed.length - at);
            let differ = (changed.part(at, shared) ^ (value >> (length - shared))) != 0;
            if differ {
                let bits = here.bits | (u128::from(value) << (128 - length)) >> at;
                aside.push(Block { bits, length: at + length });
                (place, entry) = (node + 3, other);
            } else if changed.length >= at + length {
                (place, entry, at) = (node + 2, same, at + length);
                in_half = at != HALF;
                aside.clear();
            } else {
                patch.anew(prefixes, here, &aside, (place, in_half));
                return patch.if_shallow();
            }
        } else {
            let over = (at + kind).saturating_sub(changed.length);
            let (first, count) = (changed.part(at, kind), 1_u32 << over);
            if over == 0 {
                (place, at) = (node + first, at + kind);
                entry = words.word(place)?;
                in_half = at != HALF;
                aside.clear();
            } else if count <= SINGLY {
                patch.nodes.depth.0 = steps + 1;
                let length = at + kind;
                for index in first..first + count {
                    let bits = here.bits | (u128::from(index) << (128 - kind)) >> at;
                    patch.anew(prefixes, Block { bits, length }, &[], (node + index, length != HALF));
                }
                return patch.if_shallow();
            } else {
                patch.anew(prefixes, here, &aside, (place, in_half));
                return patch.if_shallow();
            }
        }
    }
    None
}

impl Patch {
    /// Nothing where a search could pass more nodes than it may: changes side by side make a trie deeper, and then it has to be
    /// built as a whole.
    fn if_shallow(self) -> Option<Self> {
        (self.nodes.depth.1 < STEPS_MAX).then_some(self)
    }

    /// Builds the entry at a place from all prefixes in a block, without those in the blocks aside.
    fn anew(&mut self, prefixes: &[Prefix], block: Block, aside: &[Block], (place, in_half): (u32, bool)) {
        let start = prefixes.partition_point(|one| (one.bits, one.length) <= (block.bits, block.length));
        let rest = prefixes.get(start..).unwrap_or_default();
        let count = rest.partition_point(|one| block.holds(one.block()));
        let inside = rest.get(..count).unwrap_or_default();
        let outer = outer(prefixes, block);
        let here = |one: &&Prefix| !aside.iter().any(|block| block.holds(one.block()));
        let without: Vec<Prefix>;
        let inside = if aside.is_empty() {
            inside
        } else {
            without = inside.iter().filter(here).copied().collect();
            &without
        };
        let entry = match in_half {
            true => self.nodes.entry(inside, block.length, outer),
            false => self.nodes.below(inside, block.length, outer),
        };
        self.entries.push((place, entry));
    }
}

/// The class of the longest prefix around a block.
fn outer(prefixes: &[Prefix], block: Block) -> u16 {
    let of = |length| {
        let around = Block::around(block.bits, length);
        let found = prefixes.binary_search_by_key(&(around.bits, length), |one| (one.bits, one.length));
        found.ok().and_then(|at| prefixes.get(at)).map(|one| one.class)
    };
    (0..=block.length).rev().find_map(of).unwrap_or(0)
}

#[cfg(test)]
mod tests;
