//! Leaves a record of packets that somebody watches: see [`dataplane_ebpf::wire::flow`].
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::helpers::bpf_xdp_load_bytes;
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_get_buff_len,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::reason::{DROPS, Reason};
use dataplane_ebpf::wire::flow::{
    Head, NO_SLOT, NOT_TAKEN, RING_BYTES, ROOM, SHIFT_MAX, SNAP_MAX, Seen, WATCHES_MAX, Watched, Watches,
};

use crate::judged::Judged;

#[btf_map]
static WATCHES: Array<Watches, 1> = Array::new();

/// Packets that watches have left in the ring, by watch: where one has a limit, it counts these.
#[btf_map]
static CAPTURED: Array<[u64; WATCHES_MAX], 1> = Array::new();

#[btf_map]
static SEEN: PerCpuArray<Seen, 1> = PerCpuArray::new();

#[btf_map]
static FLOWS: RingBuf<(), { RING_BYTES as usize }> = RingBuf::new();

/// Where a record is put together: the stack has no room for one.
#[btf_map]
static RECORD: PerCpuArray<Record, 1> = PerCpuArray::new();

#[repr(C)]
struct Record {
    head: Head,
    bytes: [u8; ROOM as usize],
}

/// Leaves a record of the packet that was judged, where a watch is about it and its turn has come. Asked only while something
/// is watched.
#[inline(always)]
pub(crate) fn tell(context: &XdpContext) {
    sallyport_tell(context.ctx);
}

/// A function of its own in the object too.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sallyport_tell(context: *mut xdp_md) -> u32 {
    leave(&XdpContext::new(context));
    0
}

#[inline(always)]
fn leave(context: &XdpContext) {
    let Some(judged) = Judged::find() else { return };
    let (Some(watches), Some(seen), Some(captured), Some(record)) =
        (WATCHES.get_ptr(0), SEEN.get_ptr_mut(0), CAPTURED.get_ptr_mut(0), RECORD.get_ptr_mut(0))
    else {
        return;
    };
    // SAFETY: the maps' aligned values, which live as long as the program runs; SEEN and RECORD are this CPU's own, and a
    // program does not interrupt itself. Others may write WATCHES and CAPTURED meanwhile: whoever reads a record asks again
    // whether the watch is about it, and takes no more than the limit.
    let (watches, seen, captured, record) = unsafe { (&*watches, &mut *seen, &mut *captured, &mut *record) };
    // SAFETY: the helpers change nothing; the context is the kernel's for as long as the program runs.
    let (now, random, length) =
        unsafe { (bpf_ktime_get_ns(), bpf_get_prandom_u32(), bpf_xdp_get_buff_len(context.as_ptr().cast())) };
    let packet = Watched {
        source: if judged.family == 0 { [0; 2] } else { judged.source().words() },
        family: judged.family,
        slot: if judged.family == 0 { NO_SLOT } else { judged.kind().slot() },
        reason: judged.reason,
        rule: judged.rule,
    };
    let passes = usize::from(judged.reason < DROPS && judged.reason != Reason::Observed.number());
    // Written where it is sent from: the stack has no room for it.
    let head = &mut record.head;
    head.shifts = [NOT_TAKEN; WATCHES_MAX];
    let (mut taken, mut snap) = (false, 1);
    let places = watches.iter().zip(&mut seen.matched).zip(&*captured).zip(&mut head.shifts);
    for (((watch, matched), captured), shift) in places {
        if watch.until <= now || !watch.is_about(&packet) {
            continue;
        }
        matched[passes & 1] += 1;
        let exponent = watch.shifts[passes & 1] & SHIFT_MAX;
        if random & ((1 << exponent) - 1) != 0 || has_enough(*captured, watch.limit) {
            continue;
        }
        *shift = exponent as u8;
        taken = true;
        snap = if watch.snap > snap { watch.snap } else { snap };
    }
    if !taken {
        return;
    }
    let snap = if snap > SNAP_MAX { SNAP_MAX } else { snap };
    let kept = if length < u64::from(snap) { length as u32 } else { snap };
    // SAFETY: the field is read through the context the kernel gave.
    let interface = unsafe { (*context.ctx).ingress_ifindex };
    (head.time, head.length, head.captured) = (now, length as u32, kept);
    (head.interface, head.reason, head.rule) = (interface, packet.reason, packet.rule);
    // What the ring had no room for is lost, and none of those that a limit counts.
    let sent = u64::from(send(context, record));
    let counts = captured.iter_mut().zip(&mut seen.lost);
    for ((captured, lost), shift) in counts.zip(&record.head.shifts) {
        let taken = u64::from(*shift != NOT_TAKEN);
        *captured += taken & sent;
        lost[passes & 1] += taken & (sent ^ 1);
    }
}

/// Whether a watch with a limit has all it wants. CPUs that ask at the same time take more than that, and may count one where they
/// took two (this target has no atomic addition in stable Rust): the keeper leaves aside what is too much.
#[inline(always)]
fn has_enough(captured: u64, limit: u32) -> bool {
    limit != 0 && captured >= u64::from(limit)
}

/// Whether the ring had room. The reader is woken when it has read all that was there before.
#[inline(always)]
fn send(context: &XdpContext, record: &mut Record) -> bool {
    // SAFETY: the field was written above. It is read anew, so that the compiler does not know that it is 1 to SNAP_MAX, and so at
    // most ROOM: Linux 6.1 takes a bound from the very register alone that the calls get, and the mask gives it one.
    let captured = unsafe { (&raw const record.head.captured).read_volatile() };
    let captured = (captured.wrapping_sub(1) & (ROOM - 1)) + 1;
    // SAFETY: the buffer is ROOM bytes long and ours; the record's first bytes up to there are initialised by the map.
    unsafe {
        if bpf_xdp_load_bytes(context.ctx, 0, record.bytes.as_mut_ptr().cast(), captured) != 0 {
            return false;
        }
        let size = (Head::SIZE as u64) + u64::from(captured);
        bpf_ringbuf_output((&raw const FLOWS).cast_mut().cast(), (&raw mut *record).cast(), size, 0) == 0
    }
}
