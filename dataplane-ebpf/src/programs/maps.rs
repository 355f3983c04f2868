//! The maps, and the few operations the programs have on them.
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, SockMap};
use aya_ebpf::macros::btf_map;
use dataplane_ebpf::decide::Tables;
use dataplane_ebpf::reason::{Reason, SLOTS};
use dataplane_ebpf::wire::{
    Active, Address, CPUS_MAX, Entry, GENERATIONS, RULES_MAX, RuleReason, Steering, THREADS_MAX, listener_key,
};

/// An inner map's number of entries in the definition; userspace makes each as large as it has to be.
const TEMPLATE: usize = 1;
const NO_PREALLOC: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;

type Sources<const N: usize> = LpmTrie<[u8; N], Entry, TEMPLATE>;
type Listeners = HashMap<[u8; 20], u32, TEMPLATE>;

#[btf_map]
static SOURCES4: ArrayOfMaps<Sources<4>, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static SOURCES6: ArrayOfMaps<Sources<16>, { GENERATIONS as usize }> = ArrayOfMaps::new();
#[btf_map]
static LISTENERS: ArrayOfMaps<Listeners, { GENERATIONS as usize }> = ArrayOfMaps::new();
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
}

impl Tables for InForce {
    #[inline(always)]
    fn allow_required(&self) -> bool {
        self.0.allow_required()
    }

    #[inline(always)]
    fn source(&self, source: &Address) -> Result<Option<Entry>, Reason> {
        let (in_use, generation) = match source {
            Address::V4(_) => (self.0.has_sources4(), self.0.generation()),
            Address::V6(_) => (self.0.has_sources6(), self.0.generation()),
        };
        if !in_use {
            return Ok(None);
        }
        match source {
            Address::V4(address) => {
                let trie = SOURCES4.get(generation).ok_or(Reason::NoTable)?;
                Ok(trie.get(&Key::new(32, *address)).copied())
            }
            Address::V6(address) => {
                let trie = SOURCES6.get(generation).ok_or(Reason::NoTable)?;
                Ok(trie.get(&Key::new(128, *address)).copied())
            }
        }
    }

    #[inline(always)]
    fn listens_exactly(&self, address: &Address, port: u16) -> Result<bool, Reason> {
        let table = LISTENERS.get(self.0.generation()).ok_or(Reason::NoTable)?;
        Ok(table.get_ptr(listener_key(*address, port)).is_some())
    }
}

/// Counts a packet under its reason.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = REASONS.get_ptr_mut(reason.number()) {
        // SAFETY: this CPU's own counter; a program does not interrupt itself on one CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet under the rule that decided. Userspace makes the counters before a rule comes into force; where it
/// had no room for one, the packet is counted by reason alone.
#[inline(always)]
pub(crate) fn count_rule(rule: u32, reason: Reason) {
    if let Some(counter) = RULES.get_ptr_mut(RuleReason { rule, reason: reason.number() }) {
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
