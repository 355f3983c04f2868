//! Rows of lines: branches whose entries are counted rather than read, so that a packet waits for a single line of a large
//! table.
//!
//! Where a list's prefixes lie close, the lines have a bit for each value. Where they are far from one another, a line says where
//! runs of one class end; what is too much for it stands elsewhere, as for any entry. A change of a line of ends does too: its last
//! word then leads there. One within a line of bits is made in its place, word by word.

use std::collections::HashSet;

use dataplane_ebpf::wire::table::{
    BITS_MAX, ENDS, LINE, NODE, NODE_SHIFT, RUNS, RUNS_BITS, SPREAD, WIDE, WIDE_BITS,
};

use super::maps::{LINE_MIN, fill, two};
use super::{Below, FEW, Nodes, Prefix, left_of_half, rest};

/// Bits of a row of lines of bits at most: eight kilobytes, which a change of many of its prefixes builds anew.
pub(super) const ROW_BITS: u32 = 7;
/// Prefixes from which a row of lines of ends is worth it: fewer stay in the caches whatever they are.
const ROW_MIN: usize = 512;
/// Prefixes that a line of ends surely has room for.
const ROOM: usize = ENDS / 2;
/// One in so many prefixes may be in lines without room for them.
const SELDOM: usize = 8;
/// Lines that are looked at to see whether they differ.
const LOOKED_AT: usize = 32;

impl Nodes {
    /// A row of lines of bits, where prefixes lie close and the lines differ: equal ones are one elsewhere.
    pub(super) fn row_of_bits(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> Option<u32> {
        let bits = rest(prefixes, at);
        let more = bits.checked_sub(WIDE_BITS).filter(|more| (1..=ROW_BITS).contains(more))?;
        if bits > left_of_half(at) || prefixes.len() >> more < LINE_MIN {
            return None;
        }
        let classes = two(prefixes, outer).filter(|[clear, set]| clear != set)?;
        let mut words = vec![0; LINE << more];
        fill(&mut words, prefixes, at, classes);
        let different: HashSet<&[u32]> = words.chunks(LINE).collect();
        if 2 * different.len() <= 1 << more {
            return None;
        }
        let pair = self.maps.pair(classes)?;
        let lines = self.reserve((LINE as u32) << more, LINE as u32);
        self.write(lines, &words);
        self.deeper(|_| ());
        Some(self.spread(more, WIDE << NODE_SHIFT | (self.base + lines) | pair))
    }

    /// A line of ends, where these prefixes need no more.
    pub(super) fn runs(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> Option<u32> {
        if prefixes.len() <= FEW || prefixes.len() > ENDS {
            return None;
        }
        let classes = two(prefixes, outer).filter(|[first, other]| first != other)?;
        let words = ends(prefixes, at, outer, classes)?;
        // Lists with more prefixes than these have a better use for a pair.
        let pair = self.maps.pair_but_for(LINE / 2, classes)?;
        let node = self.reserve(LINE as u32, LINE as u32);
        self.write(node, &words);
        Some(RUNS << NODE_SHIFT | (self.base + node) | pair)
    }

    /// A row of lines of ends, where prefixes are so far from one another that nearly all lines have room for theirs.
    pub(super) fn row_of_runs(&mut self, prefixes: &[Prefix], at: u32, outer: u16) -> Option<u32> {
        if prefixes.len() < ROW_MIN {
            return None;
        }
        let (least, most) = bits_of_rows(prefixes.len(), at);
        let first = commonest(Below::of(prefixes, at, least, outer).classes)?;
        let other = commonest(prefixes.iter().map(|prefix| prefix.class).filter(|class| *class != first))?;
        let classes = [first, other];
        let bits = (least..=most).find(|bits| is_row(prefixes, at, *bits, classes))?;
        let Below { classes: whole, longer } = Below::of(prefixes, at, bits, outer);
        // A line that a prefix of a third class is around has no room for that.
        let third = |class: &u16| !classes.contains(class);
        let lost: usize =
            longer.iter().filter(|(_, class, _)| third(class)).map(|(.., below)| below.len()).sum();
        if SELDOM * lost > prefixes.len()
            || SELDOM * whole.iter().filter(|class| third(class)).count() > whole.len()
        {
            return None;
        }
        let pair = self.maps.pair(classes)?;
        let lines = self.reserve((LINE as u32) << bits, LINE as u32);
        let line = |index: u32| lines + index * LINE as u32;
        self.deeper(|nodes| {
            for (index, class) in (0..).zip(whole) {
                let words = ends(&[], at + bits, class, classes);
                nodes.line_of_ends(line(index), words, |nodes| nodes.class(class));
            }
            for (index, class, below) in longer {
                let words = ends(below, at + bits, class, classes);
                nodes.line_of_ends(line(index), words, |nodes| nodes.below(below, at + bits, class));
            }
        });
        Some(self.spread(bits, RUNS << NODE_SHIFT | (self.base + lines) | pair))
    }

    /// A line of a row: what it says, or where that stands.
    fn line_of_ends(
        &mut self,
        at: u32,
        words: Option<[u32; LINE]>,
        elsewhere: impl FnOnce(&mut Self) -> u32,
    ) {
        let words = words.unwrap_or_else(|| {
            let mut words = [0; LINE];
            words[ENDS] = elsewhere(self);
            words
        });
        self.write(at, &words);
    }

    /// An entry as the last word of a line of ends has it, where a class would be taken for that of the first run.
    pub(super) fn last_word(&mut self, entry: u32) -> u32 {
        if entry < NODE { self.class(entry as u16) } else { entry }
    }

    fn spread(&mut self, bits: u32, lines: u32) -> u32 {
        let node = self.reserve(4, 4);
        self.write(node, &[bits, lines]);
        SPREAD << NODE_SHIFT | (self.base + node)
    }
}

/// The line that says of the bits behind `at` what the prefixes say, `outer` being the class of what is in none; nothing where it
/// has no room for that.
fn ends(prefixes: &[Prefix], at: u32, outer: u16, [first, other]: [u16; 2]) -> Option<[u32; LINE]> {
    let is_one = |class: u16| class == first || class == other;
    if !is_one(outer) || !prefixes.iter().all(|prefix| is_one(prefix.class)) {
        return None;
    }
    if rest(prefixes, at) > RUNS_BITS.min(left_of_half(at)) {
        return None;
    }
    let mut line = Runs { words: [u32::MAX; LINE], class: outer, used: 0, begun: 0 };
    line.words[ENDS] = u32::from(outer == other);
    // Prefixes that hold the place that was reached, from the outermost on: where each ends, and the class around it.
    let mut open: Vec<(u64, u16)> = Vec::new();
    for prefix in prefixes {
        let start = u64::from(prefix.block().part(at, RUNS_BITS));
        while let Some((end, around)) = open.pop_if(|(end, _)| *end <= start) {
            line.go_on(end, around)?;
        }
        open.push((start + (1 << (at + RUNS_BITS - prefix.length)), line.class));
        line.go_on(start, prefix.class)?;
    }
    while let Some((end, around)) = open.pop() {
        line.go_on(end, around)?;
    }
    Some(line.words)
}

/// A line of ends that is being written.
struct Runs {
    words: [u32; LINE],
    /// The class of the run that was begun last, and where.
    class: u16,
    begun: u64,
    /// How many runs have ended.
    used: usize,
}

impl Runs {
    /// From `at` on the class is another one, or the same. Nothing where a line has no room for that.
    fn go_on(&mut self, at: u64, class: u16) -> Option<()> {
        if class == self.class || at > u32::MAX.into() {
            return Some(());
        }
        self.class = class;
        if at == self.begun {
            // The run that was begun here is none: the one before it goes on, or, at the line's beginning, this is the first.
            match self.used.checked_sub(1) {
                None => self.words[ENDS] ^= 1,
                Some(last) => {
                    self.used = last;
                    self.words[last] = u32::MAX;
                    self.begun = last.checked_sub(1).map_or(0, |before| u64::from(self.words[before]) + 1);
                }
            }
            return Some(());
        }
        *self.words[..ENDS].get_mut(self.used)? = (at - 1) as u32;
        self.used += 1;
        self.begun = at;
        Some(())
    }
}

/// Bits of a row for so many prefixes, at least and at most: half a line's room each, or a line.
fn bits_of_rows(count: usize, at: u32) -> (u32, u32) {
    let most = count.ilog2().min(BITS_MAX).min(left_of_half(at) - 1);
    (((2 * count / ENDS).ilog2() + 1).min(most), most)
}

/// Whether a row of so many bits is worth its memory: hardly any prefixes are in lines that may have no room for them, and a quarter of
/// the lines or more have prefixes, as of a branch.
fn is_row(prefixes: &[Prefix], at: u32, bits: u32, classes: [u16; 2]) -> bool {
    let longest = at + left_of_half(at).min(bits + RUNS_BITS);
    let place = |prefix: &Prefix| prefix.block().part(at, bits);
    let fits = |some: &[Prefix]| {
        some.len() <= ROOM
            && some.iter().all(|prefix| prefix.length <= longest && classes.contains(&prefix.class))
    };
    let (mut used, mut crowded) = (0_usize, 0);
    for some in prefixes.chunk_by(|one, next| place(one) == place(next)) {
        used += 1;
        crowded += if fits(some) { 0 } else { some.len() };
    }
    SELDOM * crowded <= prefixes.len() && 4 * used >= 1 << bits
}

/// The class that is there most often.
fn commonest(classes: impl IntoIterator<Item = u16>) -> Option<u16> {
    let mut classes: Vec<u16> = classes.into_iter().collect();
    classes.sort_unstable();
    classes.chunk_by(PartialEq::eq).max_by_key(|same| same.len())?.first().copied()
}

/// Whether most lines of bits would differ from one another, by some of them.
pub(super) fn are_different(prefixes: &[Prefix], at: u32, bits: u32) -> bool {
    let place = |prefix: &Prefix| prefix.block().part(at, bits);
    let lines = prefixes.chunk_by(|one, next| place(one) == place(next)).take(LOOKED_AT);
    let within = |prefix: &Prefix| (prefix.bits << (at + bits), prefix.length, prefix.class);
    let lines: Vec<Vec<_>> = lines.map(|some| some.iter().map(within).collect()).collect();
    let different: HashSet<&Vec<_>> = lines.iter().collect();
    2 * different.len() > lines.len()
}
