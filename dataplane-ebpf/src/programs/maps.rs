//! The maps, and the few operations the programs have on them.
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, SockMap};
use aya_ebpf::macros::btf_map;
use dataplane_ebpf::decide::Tables;
use dataplane_ebpf::reason::{Reason, SLOTS};
use dataplane_ebpf::wire::{
    Active, Address, CPUS_MAX, Cell, GENERATIONS, RULES_MAX, RuleReason, Steering, THREADS_MAX, listener,
    listener_key, slot,
};

/// An inner map's number of entries in the definition; userspace makes each as large as it has to be.
const TEMPLATE: usize = 1;
const NO_PREALLOC: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;

/// Arrays of other sizes may take the template's place.
const INNER_MAP: usize = aya_ebpf::bindings::BPF_F_INNER_MAP as usize;

type Sources<const N: usize> = LpmTrie<[u8; N], u32, TEMPLATE>;
type Listeners = HashMap<[u8; 20], u32, TEMPLATE>;
type Columns = Array<u32, { slot::SLOTS as usize }>;
/// A cell's words rather than [`Cell`]: up to Linux 6.1 at least, an inner map that userspace makes without BTF is not taken in
/// the place of one whose values are a structure.
type Cells = Array<[u32; 4], TEMPLATE, INNER_MAP>;

#[btf_map]
static SOURCES4: ArrayOfMaps<Sources<4>, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static SOURCES6: ArrayOfMaps<Sources<16>, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static LISTENERS: ArrayOfMaps<Listeners, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static COLUMNS: ArrayOfMaps<Columns, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static CELLS: ArrayOfMaps<Cells, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static ACTIVE: Array<u64, 1> = Array::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
static RULES: PerCpuHashMap<RuleReason, u64, { RULES_MAX as usize }, NO_PREALLOC> = PerCpuHashMap::new();
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
    pub(crate) fn read() -> Option<Self> {
        let word = ACTIVE.get_ptr(0)?;
        // SAFETY: the pointer is to the map's aligned 8-byte value, which lives as long as the program runs; a volatile
        // read cannot be repeated by the compiler, and 8 aligned bytes cannot tear.
        Some(Self(Active(unsafe { word.read_volatile() })))
    }

    /// Whether somebody watches packets.
    #[inline(always)]
    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_watched()
    }

    /// The generation of a word that was read.
    #[inline(always)]
    pub(crate) const fn of(word: u64) -> Self {
        Self(Active(word))
    }

    /// The word.
    #[inline(always)]
    pub(crate) const fn word(&self) -> u64 {
        self.0.0
    }

    /// As [`Self::listens`], with the keys of the address and of every address.
    #[inline(always)]
    pub(crate) fn listens_at(&self, address: &[u8; 20], anywhere: &[u8; 20]) -> bool {
        LISTENERS
            .get(self.0.generation())
            .is_some_and(|table| table.get_ptr(address).is_some() || table.get_ptr(anywhere).is_some())
    }

    /// Whether there are budgets of SYNs.
    #[inline(always)]
    pub(crate) fn has_syn_budgets(&self) -> bool {
        self.0.has_syn_budgets()
    }

    /// Whether there are budgets of UDP packets.
    #[inline(always)]
    pub(crate) fn has_udp_budgets(&self) -> bool {
        self.0.has_udp_budgets()
    }

    /// Whether there are budgets of new connections.
    #[inline(always)]
    pub(crate) fn has_connection_budgets(&self) -> bool {
        self.0.has_connection_budgets()
    }

    /// Whether a listener accepts at this address and port: exactly, or at every address of the family.
    #[inline(always)]
    pub(crate) fn listens(&self, address: &Address, port: u16) -> bool {
        self.listens_at(&listener_key(*address, port), &listener_key(address.any(), port))
    }
}

impl Tables for InForce {
    #[inline(always)]
    fn any(&self) -> bool {
        self.0.destinations() != 0
    }

    #[inline(always)]
    fn source(&self, source: &Address) -> Result<u32, Reason> {
        let generation = self.0.generation();
        let class = match source {
            Address::V4(_) if !self.0.has_sources4() => None,
            Address::V6(_) if !self.0.has_sources6() => None,
            Address::V4(address) => {
                let trie = SOURCES4.get(generation).ok_or(Reason::NoTable)?;
                trie.get(&Key::new(32, *address)).copied()
            }
            Address::V6(address) => {
                let trie = SOURCES6.get(generation).ok_or(Reason::NoTable)?;
                trie.get(&Key::new(128, *address)).copied()
            }
        };
        Ok(class.unwrap_or(0))
    }

    #[inline(always)]
    fn column(&self, slot: u32) -> Result<u32, Reason> {
        let table = COLUMNS.get(self.0.generation()).ok_or(Reason::NoTable)?;
        table.get(slot).copied().ok_or(Reason::NoTable)
    }

    #[inline(always)]
    fn exact(&self, address: &Address, port: u16) -> Result<Option<u32>, Reason> {
        let table = LISTENERS.get(self.0.generation()).ok_or(Reason::NoTable)?;
        // SAFETY: the pointer is to the map's aligned 4-byte value.
        let class = table.get_ptr(listener_key(*address, port)).map(|class| unsafe { *class });
        Ok(class.filter(|class| *class != listener::NO_CLASS))
    }

    #[inline(always)]
    fn cell(&self, source: u32, destination: u32) -> Result<Cell, Reason> {
        let table = CELLS.get(self.0.generation()).ok_or(Reason::NoTable)?;
        let index = source.wrapping_mul(self.0.destinations()).wrapping_add(destination);
        table.get(index).copied().map(Cell::from_words).ok_or(Reason::NoTable)
    }
}

/// Counts a packet under its reason.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    count_number(reason.number());
}

/// Counts a packet under its reason's number.
#[inline(always)]
pub(crate) fn count_number(reason: u32) {
    if let Some(counter) = REASONS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own counter; a program does not interrupt itself on one CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet under the rule that decided. Userspace makes the counters before a rule comes into force; where it
/// had no room for one, the packet is counted by reason alone.
#[inline(always)]
pub(crate) fn count_rule(rule: u32, reason: Reason) {
    count_rule_by_number(rule, reason.number());
}

/// As [`count_rule`], by the reason's number.
#[inline(always)]
pub(crate) fn count_rule_by_number(rule: u32, reason: u32) {
    if let Some(counter) = RULES.get_ptr_mut(RuleReason { rule, reason }) {
        // SAFETY: as in `count`.
        unsafe { *counter += 1 };
    }
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
