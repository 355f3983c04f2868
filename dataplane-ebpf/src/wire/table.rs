//! The table of one generation: what is known of sources, destinations and both, in words of 32 bits. Its form is part of the
//! layout, by the number in the name [`super::maps::SHARED`].
//!
//! The first [`Chunk`] lies where the kernel finds it without a call, and most tables are no larger. In this order:
//!
//! 1. the [`Head`], in the first [`LINE`] words;
//! 2. the pairs of classes that lines of bits have, from [`PAIRS`] on, a word each: the class where a bit is 0 in its lower
//!    half, the class where it is 1 in its upper;
//! 3. the cells, two words each, from [`Head::cells`] on: in the head's line, where they are few;
//! 4. the nodes of both tries, in no order;
//! 5. from [`Head::columns`] on the classes of destinations by slot, 16 bits each, where there is more than one class;
//! 6. nodes that came later.
//!
//! A trie's entry is a word. Below [`NODE`] it is a class: the search is over. Otherwise its upper five bits say what node
//! follows and the others at which word:
//!
//! - 1 to [`BITS_MAX`]: a branch on that many bits of the address: as many entries as those bits have values.
//! - [`REST`]: 64 bits have been consumed; the entry there goes on with the others.
//! - [`COMPARE`]: four words in one line: 1 to 32 bits, right-aligned; how many; the entry where the address goes on with
//!   these, the entry where it does not, which then goes on at the same bit.
//! - [`BITMAP`]: four words in one line: a bit for each value of the next [`BITMAP_BITS`] bits, the lower half of the values first;
//!   the class where it is 0, the class where it is 1. The search is over. A list has one class, and what is not in it another:
//!   so a list whose prefixes lie close takes a few bits for each, and stays in the caches.
//! - [`WIDE`]: a line, with a bit for each value of the next [`WIDE_BITS`] bits, the lowest values in the first word. The entry's
//!   lowest four bits say which of the [`PAIRS`] of classes it has. The search is over.
//! - [`RUNS`]: a line about the next [`RUNS_BITS`] bits: where runs of values end that have one class, in their order; the last run
//!   has no end, and places left over have the highest value. The last word says which class of the pair, named as for [`WIDE`], the
//!   first run has, 0 or 1; the others alternate. The search is over. Or the last word is an entry of a node, with which the search
//!   goes on at the same bit: what the line said was too much for it, or has changed.
//! - [`SPREAD`]: two words in one line: how many bits, 1 to [`BITS_MAX`]; the entry of a [`WIDE`] or [`RUNS`] line. The lines for the
//!   other values of these bits lie behind it in their order: a branch whose entries are counted rather than read, which spares
//!   the line in which the entry would stand.
//!
//! Both families have the same nodes: an address is a string of bits, consumed from the highest on. No node consumes bits of both
//! halves, so that a search has one word of them in hand.

/// Words of a chunk.
pub const CHUNK: usize = 32 * 1024;
/// A chunk, 128 KiB.
pub type Chunk = [u32; CHUNK];

/// Words that one cache line holds. What is read together lies in one.
pub const LINE: usize = 16;

/// Words that hold the classes of all slots.
pub const COLUMN_WORDS: u32 = super::slot::SLOTS / 2;

/// The first entry that is a node rather than a class.
pub const NODE: u32 = 1 << NODE_SHIFT;
/// How far up the kind of a node stands.
pub const NODE_SHIFT: u32 = 27;
/// Bits that a branch can have at most.
pub const BITS_MAX: u32 = 20;
/// The word where the [`LINE`] pairs of classes begin that lines of bits can have. They never change within a table.
pub const PAIRS: u32 = LINE as u32;
/// The kind of a row of lines.
pub const SPREAD: u32 = 26;
/// The kind of a line of ends of runs.
pub const RUNS: u32 = 27;
/// Bits of an address that a line of ends looks at; behind an address's last bit it takes them for 0.
pub const RUNS_BITS: u32 = 32;
/// Ends that a line has room for.
pub const ENDS: usize = LINE - 1;
/// The kind of a line of bits.
pub const WIDE: u32 = 28;
/// Bits of an address that a line of bits looks at; behind an address's last bit it takes them for 0.
pub const WIDE_BITS: u32 = 9;
/// The kind of a map of bits.
pub const BITMAP: u32 = 29;
/// Bits of an address that a map of bits looks at; behind an address's last bit it takes them for 0.
pub const BITMAP_BITS: u32 = 6;
/// The kind of what leads to the second half of an address.
pub const REST: u32 = 30;
/// The kind of a comparison.
pub const COMPARE: u32 = 31;
/// Nodes that a search can pass; the tries are made so that none has more.
pub const STEPS_MAX: u32 = 40;

const _: () = assert!(CHUNK.is_multiple_of(LINE) && 32 * LINE == 1 << WIDE_BITS);
const _: () = assert!(
    BITS_MAX < SPREAD && SPREAD < RUNS && RUNS < WIDE && WIDE < BITMAP && BITMAP < REST && REST < COMPARE
);

/// What a table begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Head {
    /// The first entry of the IPv4 trie.
    pub four: u32,
    /// The first entry of the IPv6 trie.
    pub six: u32,
    /// How many classes of destinations there are; 0: no packet is judged by the table.
    pub destinations: u32,
    /// The word where the cells begin; 0: there is no table.
    pub cells: u32,
    /// The word where the classes of destinations begin; 0: there is one class.
    pub columns: u32,
}

impl Head {
    /// Words.
    pub const WORDS: usize = 5;
    /// The word with the first entry of the IPv4 trie.
    pub const FOUR: u32 = 0;
    /// The word with the first entry of the IPv6 trie.
    pub const SIX: u32 = 1;
    /// The word that says how many classes of destinations there are.
    pub const DESTINATIONS: usize = 2;
    /// The word that says where the cells begin.
    pub const CELLS: usize = 3;
    /// The word that says where the classes of destinations begin.
    pub const COLUMNS: usize = 4;

    /// As words, in the order in which they lie in the table.
    pub const fn to_words(self) -> [u32; Self::WORDS] {
        [self.four, self.six, self.destinations, self.cells, self.columns]
    }

    /// From how they lie in the table.
    #[inline(always)]
    pub const fn from_words([four, six, destinations, cells, columns]: [u32; Self::WORDS]) -> Self {
        Self { four, six, destinations, cells, columns }
    }
}

const _: () = assert!(Head::WORDS <= LINE);
