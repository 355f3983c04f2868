//! What every packet meets, in one piece of memory: an array of one value, of which the programs have the address in their code and
//! the keeper a mapping. Asking a map costs each packet as much as a step of a search.

use super::GENERATIONS;
use super::table::Chunk;

/// Both generations' first chunks, and the words that say what is in force. All words are stored and read in one piece.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Shared {
    /// Generation -> the first chunk of its table.
    pub first: [Chunk; GENERATIONS as usize],
    /// The [`super::Active`] word.
    pub active: u32,
    /// The [`super::sample::Gate`].
    pub gate: u32,
}

impl Shared {
    /// Of an object that nothing was written to: there is no table.
    pub const EMPTY: Self = Self { first: [[0; _]; _], active: 0, gate: 0 };
    /// The word at which [`Self::active`] lies. It begins a page, whatever pages are.
    pub const ACTIVE: usize = core::mem::offset_of!(Self, active) / 4;
    /// The word at which [`Self::gate`] lies.
    pub const GATE: usize = core::mem::offset_of!(Self, gate) / 4;
}

// Pages have up to 64 KiB.
const _: () = assert!(Shared::ACTIVE.is_multiple_of(64 * 1024 / 4));
