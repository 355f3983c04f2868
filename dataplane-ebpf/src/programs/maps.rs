//! The maps, and the few operations the programs have on them.
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use core::cell::UnsafeCell;

use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, SockMap};
use aya_ebpf::macros::btf_map;
use dataplane_ebpf::decide::Tables;
use dataplane_ebpf::decide::walk::{self, Words};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::sample::Gate;
use dataplane_ebpf::wire::shared::Shared;
use dataplane_ebpf::wire::table::{CHUNK, Chunk, Head, LINE};
use dataplane_ebpf::wire::{
    Active, Address, CPUS_MAX, Cell, GENERATIONS, RULES_MAX, Steering, THREADS_MAX, listener, listener_words,
};

use crate::packet::hidden;
use crate::ranges;

/// An inner map's number of entries in the definition; userspace makes each as large as it has to be.
const TEMPLATE: usize = 1;

/// Userspace writes through a mapping: aligned stores, which no packet sees half of.
const MAPPED: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;
/// The same, and arrays of other sizes may take the template's place.
const MAPPED_INNER: usize = MAPPED | aya_ebpf::bindings::BPF_F_INNER_MAP as usize;

type Listeners = HashMap<[u32; 5], u32, TEMPLATE>;
type Table = Array<Chunk, TEMPLATE, MAPPED_INNER>;

/// Memory that the programs only read, and userspace writes.
#[repr(transparent)]
struct Memory(UnsafeCell<Shared>);

// SAFETY: all words are read by volatile loads, none of which tears.
unsafe impl Sync for Memory {}

/// Exported: the loader finds by its name what it has to fill with what is in force, before it loads the programs. And of what nobody
/// else could write to, the compiler would know what it says.
#[unsafe(no_mangle)]
static SHARED_4: Memory = Memory(UnsafeCell::new(Shared::EMPTY));

#[btf_map]
static TABLES: ArrayOfMaps<Table, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static LISTENERS: ArrayOfMaps<Listeners, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static RULES: PerCpuArray<u64, { RULES_MAX as usize }> = PerCpuArray::new();
#[btf_map]
static THREADS: Array<u32, { CPUS_MAX as usize }> = Array::new();
#[btf_map]
static STEERING: Array<u32, 1> = Array::new();
#[btf_map]
pub(crate) static SOCKETS: SockMap<{ 2 * THREADS_MAX as usize }> = SockMap::new();

/// The generation in force. The word is read once; whatever is asked of this value is answered by one generation.
pub(crate) struct InForce(Active);

impl InForce {
    #[inline(always)]
    pub(crate) fn read() -> Self {
        // SAFETY: an aligned word of memory that lives as long as the program; a volatile read cannot be repeated by the
        // compiler, and an aligned word cannot tear.
        Self(Active(unsafe { (&raw const (*SHARED_4.0.get()).active).read_volatile() }))
    }

    /// The generation of a word that was read.
    #[inline(always)]
    pub(crate) const fn of(word: Active) -> Self {
        Self(word)
    }

    /// The word.
    #[inline(always)]
    pub(crate) const fn word(&self) -> Active {
        self.0
    }

    /// Whether a listener accepts at this address and port: exactly, on a range, or at every address of the family.
    #[inline(always)]
    pub(crate) fn listens(&self, address: &Address, port: u16) -> bool {
        let Some(table) = LISTENERS.get(self.0.generation()) else { return false };
        let anywhere = || table.get_ptr(listener_words(address.any(), port)).is_some();
        table.get_ptr(listener_words(*address, port)).is_some()
            || ranges::steered(*address, port).unwrap_or_else(anywhere)
    }

    /// What the filter judges by.
    #[inline(always)]
    pub(crate) fn tables<const INLINE: bool>(&self) -> Option<Judges<INLINE>> {
        let generation = self.0.generation();
        // SAFETY: a generation is a number of one bit, and there are two.
        let first =
            unsafe { (&raw const (*SHARED_4.0.get()).first).cast::<Chunk>().add(generation as usize) };
        let judges = Judges { generation, first: first.cast() };
        // No table was made yet: the filter is closed, never open.
        if judges.head(Head::CELLS) == 0 {
            return None;
        }
        Some(judges)
    }
}

/// One generation of what the filter judges by. `INLINE`: searches in the first chunk are made where they are asked for, and not by
/// a call.
pub(crate) struct Judges<const INLINE: bool> {
    generation: u32,
    /// The first chunk, which most tables have nothing behind.
    first: *const u32,
}

impl<const INLINE: bool> Judges<INLINE> {
    /// A word of the head. It is read where it is needed: it lies in a line that every packet meets, and registers are few.
    #[inline(always)]
    fn head(&self, word: usize) -> u32 {
        // SAFETY: a word of the first chunk. A trie's first entry may be changed in place.
        unsafe { self.first.add(word).read_volatile() }
    }

    /// The chunk of a word, and the word's place in it.
    #[inline(always)]
    fn reach(&self, index: u32) -> Option<(*const u32, usize)> {
        let (chunk, at) = (index / CHUNK as u32, in_chunk(index));
        if chunk == 0 {
            return Some((self.first, at));
        }
        Some((TABLES.get(self.generation)?.get_ptr(chunk - 1)?.cast(), at))
    }
}

/// A line of a table.
pub(crate) struct Line(*const u32);

impl walk::Line for Line {
    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        const { assert!(AT < LINE) };
        // SAFETY: one of the line's words, which lie in one chunk. An entry may be changed in place: it is read once.
        unsafe { self.0.add(AT).read_volatile() }
    }
}

impl<const INLINE: bool> Words for Judges<INLINE> {
    type Line = Line;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<Line> {
        let (chunk, at) = self.reach(index)?;
        // SAFETY: a line begins at a multiple of its words, so it ends inside the chunk.
        Some(Line(unsafe { chunk.add(at & !(LINE - 1)) }))
    }

    #[inline(always)]
    fn forget(&self, number: u64) -> u64 {
        hidden(number)
    }

    #[inline(always)]
    fn word(&self, index: u32) -> Option<u32> {
        let (chunk, at) = self.reach(index)?;
        // SAFETY: one of the chunk's words. An entry may be changed in place: it is read once.
        Some(unsafe { chunk.add(at).read_volatile() })
    }

    #[inline(always)]
    fn four(&self, index: u32) -> Option<[u32; 4]> {
        let (chunk, at) = self.reach(index)?;
        // Four words begin at a multiple of four, so they end inside the chunk.
        let at = at & !3;
        // SAFETY: as above.
        let word = |offset| unsafe { chunk.add(at + offset).read_volatile() };
        Some([word(0), word(1), word(2), word(3)])
    }
}

/// Where a word stands in its chunk. The compiler must not know why that may be there already: the verifier knows only what it sees.
#[inline(always)]
fn in_chunk(index: u32) -> usize {
    hidden(index.into()) as usize % CHUNK
}

/// The first chunk alone.
struct Near(*const u32);

impl Near {
    /// Where a word stands, if it is here.
    #[inline(always)]
    fn at(index: u32) -> Option<usize> {
        (index < CHUNK as u32).then(|| in_chunk(index))
    }
}

impl Words for Near {
    type Line = Line;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<Line> {
        // SAFETY: as for all chunks.
        Self::at(index).map(|at| Line(unsafe { self.0.add(at & !(LINE - 1)) }))
    }

    #[inline(always)]
    fn forget(&self, number: u64) -> u64 {
        hidden(number)
    }

    #[inline(always)]
    fn word(&self, index: u32) -> Option<u32> {
        // SAFETY: one of the chunk's words, as for all chunks.
        Self::at(index).map(|at| unsafe { self.0.add(at).read_volatile() })
    }

    #[inline(always)]
    fn four(&self, index: u32) -> Option<[u32; 4]> {
        // Four words begin at a multiple of four, so they end inside the chunk.
        let at = Self::at(index)? & !3;
        // SAFETY: as above.
        let word = |offset| unsafe { self.0.add(at + offset).read_volatile() };
        Some([word(0), word(1), word(2), word(3)])
    }
}

impl<const INLINE: bool> Tables for Judges<INLINE> {
    #[inline(always)]
    fn any(&self) -> bool {
        self.head(Head::DESTINATIONS) != 0
    }

    #[inline(always)]
    fn source(&self, source: &Address) -> Result<u32, Reason> {
        let root = self.head(if source.is_v6() { Head::SIX } else { Head::FOUR } as usize);
        let (first, bits @ [high, low]) = (self.first.cast(), source.bits());
        let near = match INLINE {
            true => walk::class(&Near(self.first), root, bits).unwrap_or(NO_CLASS),
            false => sallyport_class(first, root, high, low),
        };
        let class = match near {
            NO_CLASS => sallyport_class_anywhere(first, self.generation, root, high, low),
            class => class,
        };
        if class == NO_CLASS { Err(Reason::NoTable) } else { Ok(class) }
    }

    #[inline(always)]
    fn column(&self, slot: u32) -> Result<u32, Reason> {
        let columns = self.head(Head::COLUMNS);
        if columns == 0 {
            return Ok(0);
        }
        let pair = self.word(columns.wrapping_add(slot / 2)).ok_or(Reason::NoTable)?;
        Ok(if slot % 2 == 0 { pair & 0xffff } else { pair >> 16 })
    }

    #[inline(always)]
    fn exact(&self, address: &Address, port: u16) -> Result<Option<u32>, Reason> {
        let table = LISTENERS.get(self.generation).ok_or(Reason::NoTable)?;
        // SAFETY: the pointer is to the map's aligned 4-byte value.
        let class = table.get_ptr(listener_words(*address, port)).map(|class| unsafe { *class });
        Ok(class.filter(|class| *class != listener::NO_CLASS))
    }

    #[inline(always)]
    fn cell(&self, source: u32, destination: u32) -> Result<Cell, Reason> {
        let number = source.wrapping_mul(self.head(Head::DESTINATIONS)).wrapping_add(destination);
        let index = self.head(Head::CELLS).wrapping_add(number.wrapping_mul(2));
        let (chunk, at) = self.reach(index).ok_or(Reason::NoTable)?;
        // Two words begin at a multiple of two, so they end inside the chunk.
        let at = at & !1;
        // SAFETY: two of the chunk's words.
        Ok(Cell::from_words(unsafe { [chunk.add(at).read_volatile(), chunk.add(at + 1).read_volatile()] }))
    }
}

/// What no class is.
const NO_CLASS: u32 = u32::MAX;

/// The class of an address, if the way there lies in the first chunk; [`NO_CLASS`] otherwise. Most searches are over here, and
/// without a call in it one has all it needs in registers.
///
/// A function of its own in the object too, as the next one: the verifier walks it once for all states in which a packet may come
/// to it, rather than once for each.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sallyport_class(first: *const Chunk, root: u32, high: u64, low: u64) -> u32 {
    if first.is_null() {
        return NO_CLASS;
    }
    walk::class(&Near(first.cast()), root, [high, low]).unwrap_or(NO_CLASS)
}

/// The class of an address, wherever the way there lies; [`NO_CLASS`] where there is no table, or where a trie has no end.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text")]
#[cold]
#[inline(never)]
extern "C" fn sallyport_class_anywhere(
    first: *const Chunk,
    generation: u32,
    root: u32,
    high: u64,
    low: u64,
) -> u32 {
    if first.is_null() {
        return NO_CLASS;
    }
    let nodes = Judges::<false> { generation, first: first.cast() };
    walk::class(&nodes, root, [high, low]).unwrap_or(NO_CLASS)
}

/// Counts a packet under the rule that decided, where it has a counter: from 1 on. Where userspace had no room for one, the
/// packet is counted by reason alone.
#[inline(always)]
pub(crate) fn count_rule(counter: u32) {
    // Asked first: most packets that pass have none.
    if counter == 0 {
        return;
    }
    if let Some(counter) = RULES.get_ptr_mut(counter.wrapping_sub(1)) {
        // SAFETY: this CPU's own counter; a program does not interrupt itself on one CPU.
        unsafe { *counter += 1 };
    }
}

/// Which packets are looked at more closely.
#[inline(always)]
pub(crate) fn gate() -> Gate {
    // SAFETY: as in `InForce::read`.
    Gate(unsafe { (&raw const (*SHARED_4.0.get()).gate).read_volatile() })
}

/// How a thread is chosen.
#[inline(always)]
pub(crate) fn steering() -> Steering {
    Steering(STEERING.get(0).copied().unwrap_or(0))
}

/// The thread of a CPU.
#[inline(always)]
pub(crate) fn thread_of(cpu: u32) -> u32 {
    THREADS.get(cpu % CPUS_MAX).copied().unwrap_or(0)
}
