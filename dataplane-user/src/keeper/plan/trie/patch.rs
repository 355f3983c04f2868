//! A change of one prefix, where the table stands.

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::table::{
    BITMAP, COMPARE, ENDS, LINE, NODE, NODE_SHIFT, PAIRS, REST, RUNS, SPREAD, STEPS_MAX, WIDE, WIDE_BITS,
};

use super::maps::{Maps, fill};
use super::{Block, HALF, Nodes, Prefix, SINGLY, left_of_half, rest};

/// New nodes and, by where it stands, each word that is stored once they are in the table: an entry, or a word of a line of bits.
#[derive(Debug)]
pub(crate) struct Patch {
    pub(crate) nodes: Nodes,
    pub(crate) entries: Vec<(u32, u32)>,
}

/// What makes a trie, whose first entry stands at the word `root`, say what `prefixes` say, if it does already but for `changed`:
/// that one came, went or has another class. New nodes lie from `base` on. Nothing where the trie would be too deep, or the
/// words are none.
pub(crate) fn patch(
    words: &impl Words<Line = [u32; LINE]>,
    root: u32,
    prefixes: &[Prefix],
    changed: Prefix,
    base: u32,
) -> Option<Patch> {
    let nodes = Nodes { maps: Maps::of(words), ..Nodes::new(base) };
    let mut patch = Patch { nodes, entries: Vec::new() };
    let change = Change { words, prefixes, block: changed.block() };
    let mut here = Here {
        place: Place { word: root, in_half: true, is_last_word: false },
        entry: words.word(root)?,
        at: 0,
        passed: 0,
        aside: Vec::new(),
    };
    while here.passed < STEPS_MAX {
        patch.nodes.depth.0 = here.passed;
        match patch.follow(&change, &mut here)? {
            Way::On => {}
            Way::Anew => {
                let block = Block::around(change.block.bits, here.at);
                patch.anew(prefixes, block, &here.aside, here.place);
                return patch.if_shallow();
            }
            Way::Made => return patch.if_shallow(),
        }
    }
    None
}

/// What is there and what changed in it.
struct Change<'a, W> {
    words: &'a W,
    prefixes: &'a [Prefix],
    block: Block,
}

/// How far the search for the changed prefix came.
struct Here {
    place: Place,
    /// The entry there.
    entry: u32,
    /// Bits that were consumed.
    at: u32,
    /// Nodes that were passed.
    passed: u32,
    /// What the nodes since the last of these bits lead elsewhere.
    aside: Vec<Block>,
}

/// Where an entry stands.
#[derive(Clone, Copy)]
struct Place {
    word: u32,
    /// Whether it is in the half of the address that its bits are in: where the first ends, it may stand before the node that leads on.
    in_half: bool,
    /// Whether it is the last word of a line of ends, where a class is none.
    is_last_word: bool,
}

/// What is to be done about an entry.
enum Way {
    /// The change is behind it.
    On,
    /// It is to be built anew.
    Anew,
    /// Nothing more.
    Made,
}

impl Here {
    /// Behind one more node.
    fn go_on(&mut self, word: u32, entry: u32) {
        self.place = Place { word, in_half: self.at != HALF, is_last_word: false };
        (self.entry, self.passed) = (entry, self.passed + 1);
    }
}

impl Patch {
    fn follow<W: Words<Line = [u32; LINE]>>(
        &mut self,
        change: &Change<'_, W>,
        here: &mut Here,
    ) -> Option<Way> {
        let (kind, node) = (here.entry >> NODE_SHIFT, here.entry & (NODE - 1));
        if matches!(kind, 0 | BITMAP | WIDE | RUNS) || change.block.length <= here.at {
            return Some(Way::Anew);
        }
        match kind {
            REST => {
                here.go_on(node, change.words.word(node)?);
                here.place.in_half = true;
                Some(Way::On)
            }
            COMPARE => compare(change, here, node),
            SPREAD => self.row(change, here, node),
            bits => self.branch(change, here, (bits, node)),
        }
    }

    fn branch<W: Words>(
        &mut self,
        change: &Change<'_, W>,
        here: &mut Here,
        (bits, node): (u32, u32),
    ) -> Option<Way> {
        let (at, (first, count)) = (here.at, change.values(here.at, bits));
        if count == 1 {
            here.at += bits;
            here.go_on(node + first, change.words.word(node + first)?);
            here.aside.clear();
            return Some(Way::On);
        }
        if count > SINGLY {
            return Some(Way::Anew);
        }
        self.nodes.depth.0 += 1;
        for index in first..first + count {
            let block = change.below(at, bits, index);
            let place = Place { word: node + index, in_half: block.length != HALF, is_last_word: false };
            self.anew(change.prefixes, block, &[], place);
        }
        Some(Way::Made)
    }

    fn row<W: Words<Line = [u32; LINE]>>(
        &mut self,
        change: &Change<'_, W>,
        here: &mut Here,
        node: u32,
    ) -> Option<Way> {
        let [bits, lines, ..] = change.words.four(node)?;
        let (kind, lines) = (lines >> NODE_SHIFT, lines & (NODE - 1));
        let (at, (first, count)) = (here.at, change.values(here.at, bits));
        let line = |index: u32| lines / LINE as u32 * LINE as u32 + index * LINE as u32;
        if kind == WIDE {
            let made = count == 1
                && self
                    .words(change, change.below(at, bits, first), (line(first), lines % LINE as u32))
                    .is_some();
            return Some(if made { Way::Made } else { Way::Anew });
        }
        if count == 1 {
            here.at += bits;
            let last = line(first) + ENDS as u32;
            let entry = change.words.word(last)?;
            here.go_on(last, if entry < NODE { RUNS << NODE_SHIFT } else { entry });
            here.place.is_last_word = true;
            here.passed += 1;
            here.aside.clear();
            return Some(Way::On);
        }
        if count > SINGLY {
            return Some(Way::Anew);
        }
        self.nodes.depth.0 += 2;
        for index in first..first + count {
            let place = Place { word: line(index) + ENDS as u32, in_half: true, is_last_word: true };
            self.anew(change.prefixes, change.below(at, bits, index), &[], place);
        }
        Some(Way::Made)
    }

    /// Changes a line of bits in its place, word by word. Nothing where the line cannot say it.
    fn words<W: Words<Line = [u32; LINE]>>(
        &mut self,
        change: &Change<'_, W>,
        block: Block,
        (line, pair): (u32, u32),
    ) -> Option<()> {
        let pair = change.words.word(PAIRS + pair)?;
        let classes @ [_, set] = [pair as u16, (pair >> 16) as u16];
        let (inside, outer) = (inside(change.prefixes, block), outer(change.prefixes, block));
        let is_said =
            inside.iter().map(|prefix| prefix.class).chain([outer]).all(|class| classes.contains(&class));
        if !is_said || rest(inside, block.length) > WIDE_BITS.min(left_of_half(block.length)) {
            return None;
        }
        let mut map = [if outer == set { u32::MAX } else { 0 }; LINE];
        fill(&mut map, inside, block.length, classes);
        let was = change.words.line(line)?;
        let differ = (line..).zip(was.iter().zip(map)).filter(|(_, (was, is))| *was != is);
        self.entries.extend(differ.map(|(at, (_, word))| (at, word)));
        Some(())
    }

    /// Nothing where a search could pass more nodes than it may: changes side by side make a trie deeper, and then it has to be
    /// built as a whole.
    fn if_shallow(self) -> Option<Self> {
        self.nodes.is_shallow().then_some(self)
    }

    /// Builds the entry at a place from all prefixes in a block, without those in the blocks aside.
    fn anew(&mut self, prefixes: &[Prefix], block: Block, aside: &[Block], place: Place) {
        let (mut inside, outer) = (inside(prefixes, block), outer(prefixes, block));
        let here = |one: &&Prefix| !aside.iter().any(|block| block.holds(one.block()));
        let without: Vec<Prefix>;
        if !aside.is_empty() {
            without = inside.iter().filter(here).copied().collect();
            inside = &without;
        }
        let mut entry = match place.in_half {
            true => self.nodes.entry(inside, block.length, outer),
            false => self.nodes.below(inside, block.length, outer),
        };
        if place.is_last_word {
            entry = self.nodes.last_word(entry);
        }
        self.entries.push((place.word, entry));
    }
}

fn compare<W: Words>(change: &Change<'_, W>, here: &mut Here, node: u32) -> Option<Way> {
    let [value, length, same, other] = change.words.four(node)?;
    let (changed, at) = (change.block, here.at);
    let shared = length.min(changed.length - at);
    if (changed.part(at, shared) ^ (value >> (length - shared))) != 0 {
        let bits = Block::around(changed.bits, at).bits | (u128::from(value) << (128 - length)) >> at;
        here.aside.push(Block { bits, length: at + length });
        let in_half = here.place.in_half;
        here.go_on(node + 3, other);
        here.place.in_half = in_half;
    } else if changed.length >= at + length {
        here.at += length;
        here.go_on(node + 2, same);
        here.aside.clear();
    } else {
        return Some(Way::Anew);
    }
    Some(Way::On)
}

impl<W> Change<'_, W> {
    /// The first of the values of the `bits` behind `at` that the changed prefix holds, and how many it does: one where it is longer.
    fn values(&self, at: u32, bits: u32) -> (u32, u32) {
        (self.block.part(at, bits), 1 << (at + bits).saturating_sub(self.block.length))
    }

    /// What has a value of the `bits` behind `at`, and before these what the changed prefix has.
    fn below(&self, at: u32, bits: u32, index: u32) -> Block {
        let around = Block::around(self.block.bits, at).bits;
        Block { bits: around | (u128::from(index) << (128 - bits)) >> at, length: at + bits }
    }
}

/// The prefixes in a block and longer.
fn inside(prefixes: &[Prefix], block: Block) -> &[Prefix] {
    let start = prefixes.partition_point(|one| (one.bits, one.length) <= (block.bits, block.length));
    let rest = prefixes.get(start..).unwrap_or_default();
    rest.get(..rest.partition_point(|one| block.holds(one.block()))).unwrap_or_default()
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
