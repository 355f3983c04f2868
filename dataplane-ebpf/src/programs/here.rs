//! What a CPU has for itself of every packet: counters by reason, and the generator that samples are drawn from.
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use dataplane_ebpf::reason::{Reason, SLOTS};
use dataplane_ebpf::wire::here;
use dataplane_ebpf::wire::sample::Draw;

use crate::packet::hidden;

#[btf_map]
static HERE: PerCpuArray<here::Here, 1> = PerCpuArray::new();

/// This CPU's.
#[derive(Clone, Copy)]
pub(crate) struct Here(*mut here::Here);

impl Here {
    /// Asked for once a packet, where that is possible.
    #[inline(always)]
    pub(crate) fn find() -> Option<Self> {
        HERE.get_ptr_mut(0).map(Self)
    }

    /// What this packet draws. Asked once a frame.
    #[inline(always)]
    pub(crate) fn draw(self) -> Draw {
        // SAFETY: this CPU's own aligned value, which lives as long as the program runs; a program does not interrupt itself on one
        // CPU.
        unsafe {
            (*self.0).draw = (*self.0).draw.next();
            (*self.0).draw
        }
    }

    /// Counts a packet under its reason's number.
    #[inline(always)]
    pub(crate) fn count(self, reason: u32) {
        // The compiler must not know that it is less already: the verifier knows only what it sees.
        let slot = hidden(reason.into()) as usize % SLOTS as usize;
        // SAFETY: as above, and the slot is one of them.
        unsafe { *(&raw mut (*self.0).reasons).cast::<u64>().add(slot) += 1 };
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
    if let Some(here) = Here::find() {
        here.count(reason);
    }
}
