//! Generations: rule tables that flip together.
//!
//! Each table is an outer map, indexed by generation, of inner maps. A change fills new inner maps, enters them in the
//! spare generation and flips the active word; tables that did not change are shared by both generations. A change of a
//! single entry is made in place: whichever side of it a packet meets, it meets one generation's answer.

mod table;
mod wanted;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dataplane_ebpf::wire::{Active, GENERATIONS, maps};

use super::pins::{INNER, Slot};
use super::{KernelError, sys};
use table::{Change, Table};
pub(super) use wanted::{Wanted, counters, reason};

/// The rule tables and the word that says which generation is in force.
pub(super) struct Tables {
    slot: Slot,
    active: OwnedFd,
    word: Active,
    budgets: (bool, bool, bool),
    sources4: Table<8, 4>,
    sources6: Table<20, 4>,
    listeners: Table<20, 4>,
    columns: Table<4, 4>,
    cells: Table<4, 16>,
}

impl Tables {
    /// Opens the slot's tables; makes empty ones where there are none.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let active = slot.open(maps::ACTIVE)?;
        let mut word = [0; 8];
        sys::map_lookup(active.as_fd(), &0_u32.to_ne_bytes(), &mut word)
            .map_err(KernelError::table("reading", maps::ACTIVE))?;
        let word = Active(u64::from_ne_bytes(word));
        let [four, six, listeners, columns, cells] = &INNER;
        Ok(Self {
            slot: slot.clone(),
            active,
            word,
            budgets: (word.has_syn_budgets(), word.has_udp_budgets(), word.has_connection_budgets()),
            sources4: Table::open(slot, four, word.generation())?,
            sources6: Table::open(slot, six, word.generation())?,
            listeners: Table::open(slot, listeners, word.generation())?,
            columns: Table::open(slot, columns, word.generation())?,
            cells: Table::open(slot, cells, word.generation())?,
        })
    }

    /// Makes the tables say what is wanted.
    pub(super) fn apply(&mut self, wanted: Wanted) -> Result<(), KernelError> {
        let rest_is_same = self.word.destinations() == u32::from(wanted.destinations)
            && self.listeners.change(&wanted.listeners) == Change::None
            && self.columns.change(&wanted.columns) == Change::None
            && self.cells.change(&wanted.cells) == Change::None;
        if rest_is_same {
            match (self.sources4.change(&wanted.sources4), self.sources6.change(&wanted.sources6)) {
                (Change::None, Change::None) => return Ok(()),
                (Change::One(edit), Change::None) if self.sources4.edit(&edit) => {
                    self.sources4.content = wanted.sources4;
                    return self.write_word(self.word.generation(), wanted.destinations);
                }
                (Change::None, Change::One(edit)) if self.sources6.edit(&edit) => {
                    self.sources6.content = wanted.sources6;
                    return self.write_word(self.word.generation(), wanted.destinations);
                }
                _ => {}
            }
        }
        self.swap(wanted)
    }

    fn swap(&mut self, wanted: Wanted) -> Result<(), KernelError> {
        let fours = self.sources4.make(&wanted.sources4)?;
        let sixes = self.sources6.make(&wanted.sources6)?;
        let listeners = self.listeners.make(&wanted.listeners)?;
        let columns = self.columns.make(&wanted.columns)?;
        let cells = self.cells.make(&wanted.cells)?;
        self.quiesce()?;
        let spare = (self.word.generation() + 1) % GENERATIONS;
        self.sources4.enter(&self.slot, spare, &fours)?;
        self.sources6.enter(&self.slot, spare, &sixes)?;
        self.listeners.enter(&self.slot, spare, &listeners)?;
        self.columns.enter(&self.slot, spare, &columns)?;
        self.cells.enter(&self.slot, spare, &cells)?;
        // What the word says of empty tables must be of the new ones, so they are in place before it is written.
        let before = (
            self.sources4.replace(fours, wanted.sources4),
            self.sources6.replace(sixes, wanted.sources6),
            self.listeners.replace(listeners, wanted.listeners),
            self.columns.replace(columns, wanted.columns),
            self.cells.replace(cells, wanted.cells),
        );
        self.write_word(spare, wanted.destinations).inspect_err(|_| {
            let (fours, sixes, listeners, columns, cells) = before;
            self.sources4.restore(fours);
            self.sources6.restore(sixes);
            self.listeners.restore(listeners);
            self.columns.restore(columns);
            self.cells.restore(cells);
        })
    }

    /// Waits until no packet is being judged by the generation that is about to be overwritten: one that read the word
    /// before the last flip would otherwise see two generations. The kernel waits for all running programs whenever a map
    /// of maps is written, so writing what is already there is enough.
    fn quiesce(&self) -> Result<(), KernelError> {
        self.listeners.rewrite(self.word.generation())
    }

    /// One aligned store: generation, number of classes and empty tables flip together.
    fn write_word(&mut self, generation: u32, destinations: u16) -> Result<(), KernelError> {
        let flipped = u32::from(generation != self.word.generation());
        let word = Active::new(
            generation,
            destinations,
            !self.sources4.content.is_empty(),
            !self.sources6.content.is_empty(),
            self.word.swaps().wrapping_add(flipped),
        );
        let (syn, udp, connections) = self.budgets;
        self.write(word.with_watched(self.word.is_watched()).with_budgets(syn, udp, connections))
    }

    /// Says in the word whether somebody watches packets.
    pub(super) fn set_watched(&mut self, watched: bool) -> Result<(), KernelError> {
        self.write(self.word.with_watched(watched))
    }

    fn write(&mut self, word: Active) -> Result<(), KernelError> {
        if word != self.word {
            sys::map_update(self.active.as_fd(), &0_u32.to_ne_bytes(), &word.0.to_ne_bytes())
                .map_err(KernelError::table("switching", maps::ACTIVE))?;
            self.word = word;
        }
        Ok(())
    }

    /// Says whether there are budgets of SYNs, of UDP packets and of new connections.
    pub(super) fn set_budgets(&mut self, budgets: (bool, bool, bool)) -> Result<(), KernelError> {
        self.budgets = budgets;
        self.write_word(self.word.generation(), self.word.destinations() as u16)
    }

    /// Tells that the slot's directory has another name now.
    pub(super) fn moved(&mut self, slot: &Slot) {
        self.slot = slot.clone();
    }

    /// How many swaps there have been.
    pub(super) fn swaps(&self) -> u32 {
        self.word.swaps()
    }
}

fn index(generation: u32) -> [u8; 4] {
    generation.to_ne_bytes()
}

fn set_outer(
    outer: BorrowedFd<'_>,
    generation: u32,
    inner: BorrowedFd<'_>,
    name: &'static str,
) -> Result<(), KernelError> {
    use std::os::fd::AsRawFd;
    let value = inner.as_raw_fd().to_ne_bytes();
    sys::map_update(outer, &index(generation), &value)
        .map_err(KernelError::table("entering a generation of", name))
}
