//! Generations: rule tables that flip together.
//!
//! There are two outer maps, indexed by generation, of inner maps: the table of what the filter judges by, and that of
//! listeners. A change fills new inner maps, enters them in the spare generation and flips the active word; a table that
//! did not change is shared by both generations. A change of a single prefix is made in place, with stores of which each
//! turns what some addresses meet from the old answer into the new one: whichever side of it a packet meets, it meets one
//! generation's answer.

mod image;
mod places;
mod table;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::shared::Shared;
use dataplane_ebpf::wire::table::{CHUNK, Head, LINE};
use dataplane_ebpf::wire::{Active, GENERATIONS, RuleReason, maps};

use super::mapped::Mapped;
use super::pins::{INNER, Layout, Slot};
use super::{KernelError, sys};
use crate::keeper::plan::KernelPlan;
use crate::keeper::plan::trie::{self, Prefix};
use image::{Change, Rules, Sources, change, image};
pub(super) use image::{counters, spelt};
use table::{Content, Inner, Outer};

/// Room behind a table for changes in place: so many words and an eighth of the table.
const SLACK: usize = 8 * 1024;

/// The rule tables and the word that says which generation is in force.
pub(super) struct Tables {
    slot: Slot,
    active: Mapped,
    word: Active,
    shared: OwnedFd,
    tables: Outer,
    table: Table,
    listeners: Outer,
    places: (Inner, Content<20, 4>),
}

/// The table in force.
struct Table {
    inner: Inner,
    memory: Memory,
    /// What it says, once this process has said it.
    said: Option<Said>,
}

/// A table's words: the first chunk lies apart.
struct Memory {
    first: Mapped,
    rest: Mapped,
}

impl Memory {
    /// Stores words from `at` on, each in one piece; says whether they have room.
    fn store(&self, at: usize, words: &[u32]) -> bool {
        let (first, rest) = words.split_at(CHUNK.saturating_sub(at).min(words.len()));
        let stored = first.is_empty() || self.first.store(at, first);
        stored && (rest.is_empty() || self.rest.store((at + first.len()).saturating_sub(CHUNK), rest))
    }

    /// Whether it begins with these words.
    fn begins_with(&self, words: &[u32]) -> bool {
        let (first, rest) = words.split_at(CHUNK.min(words.len()));
        self.first.begins_with(first) && self.rest.begins_with(rest)
    }

    /// Whether no table was ever stored.
    fn is_none(&self) -> bool {
        self.first.load(Head::CELLS) == 0
    }
}

impl Words for Memory {
    type Line = [u32; LINE];

    fn word(&self, index: u32) -> Option<u32> {
        match index.checked_sub(CHUNK as u32) {
            None => self.first.word(index),
            Some(index) => self.rest.word(index),
        }
    }

    fn four(&self, index: u32) -> Option<[u32; 4]> {
        match index.checked_sub(CHUNK as u32) {
            None => self.first.four(index),
            Some(index) => self.rest.four(index),
        }
    }

    fn line(&self, index: u32) -> Option<[u32; LINE]> {
        match index.checked_sub(CHUNK as u32) {
            None => self.first.line(index),
            Some(index) => self.rest.line(index),
        }
    }
}

struct Said {
    rules: Rules,
    sources: Sources,
    /// Words in use.
    used: usize,
}

impl Table {
    fn of(shared: BorrowedFd<'_>, generation: u32, inner: Inner) -> Result<Self, KernelError> {
        let memory = Memory {
            first: Mapped::of(shared, generation as usize * CHUNK, CHUNK)
                .map_err(KernelError::table("mapping", maps::SHARED))?,
            rest: Mapped::of(inner.map.as_fd(), 0, inner.entries as usize * CHUNK)
                .map_err(KernelError::table("mapping", maps::TABLES))?,
        };
        Ok(Self { inner, memory, said: None })
    }

    /// A new one, for a generation that no packet is judged by.
    fn make(
        layout: &'static Layout,
        shared: BorrowedFd<'_>,
        generation: u32,
        words: &[u32],
    ) -> Result<Self, KernelError> {
        let chunks = (words.len() + words.len() / 8 + SLACK).div_ceil(CHUNK);
        let table = Self::of(shared, generation, Inner::make(layout, chunks - 1)?)?;
        match table.memory.store(0, words) {
            true => Ok(table),
            false => Err(KernelError::table("filling", maps::TABLES)(std::io::ErrorKind::StorageFull.into())),
        }
    }
}

impl Tables {
    /// Opens the slot's tables; makes empty ones where there are none.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let shared = slot.open(maps::SHARED)?;
        let active = Mapped::of(shared.as_fd(), Shared::ACTIVE, 1)
            .map_err(KernelError::table("mapping", maps::SHARED))?;
        let word = Active(active.load(0));
        let [tables, listeners] = &INNER;
        let (tables, table) = Outer::open(slot, tables, word.generation())?;
        let table = Table::of(shared.as_fd(), word.generation(), table)?;
        if table.memory.is_none() {
            table.memory.store(0, &image(&Rules::default(), &Sources::default())?);
        }
        let (outer, inner) = Outer::open(slot, listeners, word.generation())?;
        let content = table::read(listeners, &inner)?;
        Ok(Self {
            slot: slot.clone(),
            active,
            word,
            shared,
            tables,
            table,
            listeners: outer,
            places: (inner, content),
        })
    }

    /// Makes the tables say what is wanted. `counter` gives each rule's, 0 where it has none.
    pub(super) fn apply(
        &mut self,
        plan: &KernelPlan,
        counter: impl Fn(RuleReason) -> u32,
    ) -> Result<(), KernelError> {
        let (rules, mut sources) = (Rules::of(&plan.filter, counter), Sources::of(&plan.filter));
        let places = places::places(plan);
        let same_places = places == self.places.1;
        if same_places && self.table.change(&rules, &mut sources) {
            return Ok(());
        }
        let image = image(&rules, &sources)?;
        let said = Said { rules, sources, used: image.len() };
        // The tables of an earlier process may say this already.
        if same_places && self.table.said.is_none() && self.table.memory.begins_with(&image) {
            self.table.said = Some(said);
            return Ok(());
        }
        self.swap(&image, said, places)
    }

    fn swap(&mut self, image: &[u32], said: Said, places: Content<20, 4>) -> Result<(), KernelError> {
        let [tables, listeners] = &INNER;
        let places = match places == self.places.1 {
            true => self.places.clone(),
            false => (table::hash(listeners, &places)?, places),
        };
        self.quiesce()?;
        let spare = (self.word.generation() + 1) % GENERATIONS;
        let table = Table::make(tables, self.shared.as_fd(), spare, image)?;
        self.tables.enter(&self.slot, spare, &table.inner)?;
        self.listeners.enter(&self.slot, spare, &places.0)?;
        self.set(self.word.flipped());
        (self.table, self.places) = (Table { said: Some(said), ..table }, places);
        Ok(())
    }

    /// Waits until no packet is being judged by the generation that is about to be overwritten: one that read the word
    /// before the last flip would otherwise see two generations. The kernel waits for all running programs whenever a map
    /// of maps is written, so writing what is already there is enough.
    fn quiesce(&self) -> Result<(), KernelError> {
        self.listeners.rewrite(self.word.generation(), &self.places.0)
    }

    /// One aligned store: everything that the word says changes together.
    fn set(&mut self, word: Active) {
        self.word = word;
        self.active.store(0, &[word.0]);
    }

    /// Says in the word whether somebody watches packets.
    pub(super) fn set_watched(&mut self, watched: bool) {
        self.set(self.word.with_watched(watched));
    }

    /// Says in the word whether there are budgets of SYNs, of UDP packets and of new connections.
    pub(super) fn set_budgets(&mut self, (syn, udp, connections): (bool, bool, bool)) {
        self.set(self.word.with_budgets(syn, udp, connections));
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

impl Table {
    /// Makes a change of at most one prefix where it stands, and keeps the sources; says whether it is made.
    fn change(&mut self, rules: &Rules, sources: &mut Sources) -> bool {
        let Self { memory, said: Some(said), .. } = self else { return false };
        if said.rules != *rules {
            return false;
        }
        let changes = (change(&said.sources.four, &sources.four), change(&said.sources.six, &sources.six));
        let made = match changes {
            (Change::None, Change::None) => true,
            (Change::One(changed), Change::None) => said.edit(memory, Head::FOUR, &sources.four, changed),
            (Change::None, Change::One(changed)) => said.edit(memory, Head::SIX, &sources.six, changed),
            _ => false,
        };
        if made {
            said.sources = std::mem::take(sources);
        }
        made
    }
}

impl Said {
    /// Makes the trie whose first entry stands at `root` say what these prefixes say, one of which changed.
    fn edit(&mut self, memory: &Memory, root: u32, prefixes: &[Prefix], changed: Prefix) -> bool {
        let base = self.used.next_multiple_of(LINE);
        let Ok(base32) = u32::try_from(base) else { return false };
        let Some(patch) = trie::patch(memory, root, prefixes, changed, base32) else { return false };
        if !memory.store(base, &patch.nodes.words) {
            return false;
        }
        self.used = base + patch.nodes.words.len();
        patch.entries.into_iter().all(|(place, entry)| memory.store(place as usize, &[entry]))
    }
}

fn set_outer(
    outer: BorrowedFd<'_>,
    generation: u32,
    inner: BorrowedFd<'_>,
    name: &'static str,
) -> Result<(), KernelError> {
    use std::os::fd::AsRawFd;
    let value = inner.as_raw_fd().to_ne_bytes();
    sys::map_update(outer, &generation.to_ne_bytes(), &value)
        .map_err(KernelError::table("entering a generation of", name))
}
