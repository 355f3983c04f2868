//! Keeps the sums of who is sending: see [`dataplane_ebpf::wire::sender`].
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_get_buff_len};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::reason::DROPS;
use dataplane_ebpf::wire::sample::{SHIFT_MAX, Sample};
use dataplane_ebpf::wire::sender::{SENDERS_MAX, Sender, Sent};

use crate::judged::Judged;

#[btf_map]
static SENDERS: LruHashMap<Sender, Sent, { SENDERS_MAX as usize }> = LruHashMap::new();

/// Packets that samples stood for, entered or not: what of them is no longer in [`SENDERS`] was pushed out.
#[btf_map]
static SAMPLED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Where an entry is put together: the stack has no room for one.
#[btf_map]
static ENTRY: PerCpuArray<Entry, 1> = PerCpuArray::new();

#[repr(C)]
struct Entry {
    sender: Sender,
    sent: Sent,
}

/// Adds a sampled packet that was judged to its sender's sums.
#[inline(always)]
pub(crate) fn record(context: &XdpContext, sample: Sample) {
    sallyport_record(context.ctx, sample.shift);
}

/// A function of its own in the object too.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sallyport_record(context: *mut xdp_md, shift: u32) -> u32 {
    add_up(&XdpContext::new(context), Sample { shift: if shift > SHIFT_MAX { SHIFT_MAX } else { shift } });
    0
}

#[inline(always)]
fn add_up(context: &XdpContext, sample: Sample) {
    let Some(judged) = Judged::find() else { return };
    // What cannot be read has no sender.
    if judged.family == 0 {
        return;
    }
    let packets = sample.packets();
    let (Some(sum), Some(entry)) = (SAMPLED.get_ptr_mut(0), ENTRY.get_ptr_mut(0)) else { return };
    // SAFETY: the helpers change nothing; the context is the kernel's for as long as the program runs.
    let (now, length, cpu) =
        unsafe { (bpf_ktime_get_ns(), bpf_xdp_get_buff_len(context.ctx), bpf_get_smp_processor_id()) };
    // SAFETY: this CPU's own aligned values, which live as long as the program runs; it does not interrupt itself.
    let Entry { sender, sent } = unsafe {
        *sum += packets;
        &mut *entry
    };
    *sender = Sender::new(judged.source(), judged.destination(), judged.kind().slot(), cpu);
    *sent = Sent {
        packets,
        bytes: length << sample.shift,
        syns: if judged.kind().is_syn() { packets } else { 0 },
        drops: if judged.reason >= DROPS { packets } else { 0 },
        first: now,
        last: now,
    };
    match SENDERS.get_ptr_mut(&*sender) {
        Some(sums) => add(sums, sent),
        // Where there is no room for a moment, the packet is in `SAMPLED` alone.
        None => drop(SENDERS.insert(&*sender, &*sent, u64::from(aya_ebpf::bindings::BPF_NOEXIST))),
    }
}

/// An entry is one CPU's, so nobody else adds to it.
#[inline(always)]
fn add(sums: *mut Sent, sent: &Sent) {
    // SAFETY: the pointer is to the map's aligned value, which lives as long as the program runs.
    unsafe {
        (*sums).packets += sent.packets;
        (*sums).bytes += sent.bytes;
        (*sums).syns += sent.syns;
        (*sums).drops += sent.drops;
        (*sums).last = sent.last;
    }
}
