//! Prefixes -> a trie of words, as `dataplane_ebpf::wire::table` has it; pure.
//!
//! A branch has about as many entries as there are prefixes below it, so that whatever the prefixes are, few steps lead to a
//! class: a trie is as deep as they are uneven. Bits that all prefixes below have in common are compared at once, and so
//! are few prefixes, one after the other. Where only two classes are left, the last bits are looked up in a map of bits
//! (`maps`) or among the ends of runs (`rows`).
//!
//! A change (`patch`) builds anew what the changed prefix reaches, behind what is there, and then enters it with one store: a
//! packet meets what was or what is.

mod maps;
mod patch;
mod rows;

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane_ebpf::wire::table::{
    BITMAP_BITS, BITS_MAX, COMPARE, LINE, NODE_SHIFT, REST, STEPS_MAX, WIDE_BITS,
};
use ipnet::IpNet;
use maps::{LINE_MIN, Maps, two};
pub(crate) use patch::patch;
use rows::{ROW_BITS, are_different};

/// Prefixes that are compared one after the other rather than branched on.
const FEW: usize = 3;
/// Bits in common from which a comparison is worth its step.
const SKIP: u32 = 4;
/// Bits of a branch at least, where there are as many: 16 entries fill a line.
const BITS_MIN: u32 = 4;
/// Bits of the first branch at least: every search begins there, and the least that lists have in common is not worth a step.
const ROOT: u32 = 8;
/// Bits of a branch that is made however much of it is empty: a kilobyte.
const SMALL: u32 = 8;
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
    /// The maps of bits among them.
    maps: Maps,
    /// How many nodes lie one behind the other where the entry being made stands, and at most so far.
    depth: (u32, u32),
}

impl Nodes {
    /// None yet. `base` is a line's first word.
    pub(crate) fn new(base: u32) -> Self {
        Self { base, words: Vec::new(), maps: Maps::default(), depth: (0, 0) }
    }

    /// The first entry of the trie of these prefixes, sorted.
    pub(crate) fn trie(&mut self, prefixes: &[Prefix]) -> u32 {
        match prefixes.split_first() {
            Some((everything, others)) if everything.length == 0 => self.entry(others, 0, everything.class),
            _ => self.entry(prefixes, 0, 0),
        }
    }

    /// Whether every search comes to an end within the steps there can be. So it is in a trie that is built as a whole: all nodes
    /// take four bits or more, but for the last few prefixes' and the one in the middle of an address.
    pub(crate) fn is_shallow(&self) -> bool {
        self.depth.1 < STEPS_MAX
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
            } else if let Some((classes, pair)) = nodes.pair_of_line(prefixes, at, outer) {
                nodes.line(prefixes, at, (classes, pair))
            } else if let Some(node) = nodes.row_of_bits(prefixes, at, outer) {
                node
            } else if let Some(node) = nodes.runs(prefixes, at, outer) {
                node
            } else if common >= at + if at == 0 { ROOT } else { SKIP } {
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

    fn branch(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> u32 {
        let bits = match bits_of_branch(prefixes, at, outer) {
            Some(bits) => bits,
            None => match self.row_of_runs(prefixes, at, outer) {
                Some(node) => return node,
                None => filled(prefixes, at),
            },
        };
        let bits = bits.min(left_of_half(at));
        let entries = 1_u32 << bits;
        let node = self.reserve(entries, entries.min(LINE as u32));
        let Below { classes, longer } = Below::of(prefixes, at, bits, outer);
        let words: Vec<u32> = classes.iter().copied().map(u32::from).collect();
        self.write(node, &words);
        for (index, class, below) in longer {
            let entry = self.below(below, at + bits, class);
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

/// What there is for each value of the next few bits.
struct Below<'a> {
    /// The class of what is in no longer prefix.
    classes: Vec<u16>,
    /// The longer prefixes, where there are any: the value, its class, and they.
    longer: Vec<(u32, u16, &'a [Prefix])>,
}

impl<'a> Below<'a> {
    fn of(prefixes: &'a [Prefix], at: u32, bits: u32, outer: u16) -> Self {
        let (mut classes, mut longer) = (vec![outer; 1 << bits], Vec::new());
        for some in prefixes.chunk_by(|one, next| one.block().part(at, bits) == next.block().part(at, bits)) {
            let index = some.first().map_or(0, |first| first.block().part(at, bits));
            // Sorted, so those that are shorter come first, and what they hold comes later.
            let (over, below) = some.split_at(some.partition_point(|one| one.length <= at + bits));
            for prefix in over {
                let covered = classes.iter_mut().skip(index as usize).take(1 << (at + bits - prefix.length));
                covered.for_each(|class| *class = prefix.class);
            }
            if !below.is_empty() {
                longer.push((index, classes.get(index as usize).copied().unwrap_or(outer), below));
            }
        }
        Self { classes, longer }
    }
}

/// Bits of the same half behind the first `at`.
fn left_of_half(at: u32) -> u32 {
    HALF - at % HALF
}

/// Bits that a branch has on prefixes behind `at` that lie close. Where maps of bits can follow, it leaves them their bits, whatever a
/// few of the prefixes are; where nothing more comes below, it has up to eight entries a prefix.
fn bits_of_branch(prefixes: &[Prefix], at: u32, outer: u16) -> Option<u32> {
    let (rest, count) = (rest(prefixes, at), prefixes.len());
    let least = least(at);
    let lines = usual(prefixes).saturating_sub(at + WIDE_BITS);
    if (least..=BITS_MAX).contains(&lines) && count >> lines >= LINE_MIN {
        // Fewer would be a row already, could they be one.
        let rows = lines.checked_sub(ROW_BITS).filter(|rows| *rows > 0).map(|rows| rows.max(least));
        let rows = rows.filter(|rows| are_lists(prefixes, at, *rows) && are_different(prefixes, at, lines));
        if rows.is_some() {
            return rows;
        }
        if are_lists(prefixes, at, lines) {
            return Some(lines);
        }
    }
    let maps = rest.checked_sub(BITMAP_BITS).filter(|bits| (1..=count.ilog2()).contains(bits));
    if let Some(maps) = maps.filter(|_| two(prefixes, outer).is_some()) {
        return Some(maps);
    }
    (rest <= BITS_MAX && 1 << rest <= 8 * count).then_some(rest)
}

/// Bits of a branch at least.
fn least(at: u32) -> u32 {
    if at == 0 { ROOT } else { BITS_MIN }
}

/// Bits of a branch on prefixes that are far from one another: the most of which a quarter of the values or more have prefixes. Large
/// tables are slow by the lines that packets touch, and fast as long as the kernel has them in one piece.
fn filled(prefixes: &[Prefix], at: u32) -> u32 {
    let most = (2 * prefixes.len()).ilog2().clamp(least(at), BITS_MAX);
    let least = most.min(SMALL);
    // How many neighbours differ in which bit first: so many values more does it take to tell all apart up to there.
    let mut differ = [0_u64; BITS_MAX as usize];
    for (one, next) in prefixes.iter().zip(prefixes.iter().skip(1)) {
        let same = (one.bits ^ next.bits).leading_zeros().saturating_sub(at);
        if let Some(count) = differ.get_mut(same as usize) {
            *count += 1;
        }
    }
    let values = |bits: u32| 1 + differ.iter().take(bits as usize).sum::<u64>();
    let bits = (least..=most).rev().find(|bits| 4 * values(*bits) >= 1 << bits).unwrap_or(least);
    bits.min(rest(prefixes, at))
}

/// Whether most prefixes are among others of their class alone, as far as their next `bits` say.
fn are_lists(prefixes: &[Prefix], at: u32, bits: u32) -> bool {
    let place = |prefix: &Prefix| prefix.block().part(at, bits);
    let together = prefixes.chunk_by(|one, next| place(one) == place(next));
    let alike = together
        .filter(|some| some.iter().zip(some.iter().skip(1)).all(|(one, next)| one.class == next.class));
    2 * alike.map(<[Prefix]>::len).sum::<usize>() >= prefixes.len()
}

/// The length that all but a sixteenth of the prefixes do not exceed: a host or two in a list of networks are no reason to spread it.
fn usual(prefixes: &[Prefix]) -> u32 {
    let mut lengths = [0_usize; 129];
    for prefix in prefixes {
        if let Some(count) = lengths.get_mut(prefix.length as usize) {
            *count += 1;
        }
    }
    let mut longer = 0;
    let length = (0..129_u32).rev().zip(lengths.iter().rev()).find(|(_, count)| {
        longer += *count;
        16 * longer > prefixes.len()
    });
    length.map_or(0, |(length, _)| length)
}

/// How many bits behind the first `at` the longest prefix has.
fn rest(prefixes: &[Prefix], at: u32) -> u32 {
    prefixes.iter().map(|prefix| prefix.length).max().map_or(0, |longest| longest - at)
}

#[cfg(test)]
mod tests;
