//! A change of one prefix, where the table stands.

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::table::{BITMAP, COMPARE, NODE, NODE_SHIFT, REST, STEPS_MAX, WIDE};

use super::maps::Maps;
use super::{Block, HALF, Nodes, Prefix, SINGLY};

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
    let nodes = Nodes { maps: Maps::of(words), ..Nodes::new(base) };
    let mut patch = Patch { nodes, entries: Vec::new() };
    let (mut place, mut entry, mut at, mut aside) = (root, words.word(root)?, 0, Vec::new());
    // Whether the place is in the half that `at` is in: where the first ends, it may stand before the node that leads on.
    let mut in_half = true;
    for steps in 0..STEPS_MAX {
        patch.nodes.depth.0 = steps;
        let (kind, node) = (entry >> NODE_SHIFT, entry & (NODE - 1));
        let here = Block::around(changed.bits, at);
        if matches!(kind, 0 | BITMAP | WIDE) || changed.length <= at {
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
        self.nodes.is_shallow().then_some(self)
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
