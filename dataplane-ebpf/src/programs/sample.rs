//! Which packets are looked at more closely: see [`dataplane_ebpf::wire::sample`].
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use dataplane_ebpf::wire::sample::{Gate, SHIFT_MAX};

#[btf_map]
static GATE: PerCpuArray<Gate, 1> = PerCpuArray::new();

/// One more than the exponent of the sample that this packet is; 0 where it is none. Asked once a frame.
/// A number and no `Option` of one: the compiler saves what a `None` has beside it, which the verifier sees nobody wrote.
#[inline(always)]
pub(crate) fn sampled() -> u32 {
    let Some(gate) = GATE.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own aligned value, which lives as long as the program runs; userspace may write it meanwhile, a word
    // at a time, and volatile accesses are made once each.
    let (state, shift) =
        unsafe { ((&raw const (*gate).state).read_volatile(), (&raw const (*gate).shift).read_volatile()) };
    let state = Gate::next(state);
    // SAFETY: as above.
    unsafe { (&raw mut (*gate).state).write_volatile(state) };
    let shift = if shift > SHIFT_MAX as u64 { SHIFT_MAX } else { shift as u32 };
    if Gate::passes(state, shift) { shift + 1 } else { 0 }
}
