//! A packet that more is to be done with than to judge it: whoever does that is a function or a program of its own, and finds it
//! here. So the filter keeps its stack, and the verifier walks what is rare once and not in every state a packet can come from.
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{Decision, Kind, Packet};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::sample::Sample;
use dataplane_ebpf::wire::{Active, Address};

use crate::{flows, senders};

/// Numbers alone: what lies in a map may have been written by another release.
#[repr(C)]
pub(crate) struct Judged {
    source: [u64; 2],
    destination: [u64; 2],
    kind: u32,
    /// 4 or 6; 0 where the packet cannot be read, and then nothing above is meant.
    pub(crate) family: u32,
    /// The reason's number.
    pub(crate) reason: u32,
    pub(crate) rule: u32,
    pub(crate) counter: u32,
    word: u32,
    /// One more than the exponent of the sample that this packet is; 0 where it is none. A number and no `Option` of one: the
    /// compiler saves what a `None` has beside it, which the verifier sees nobody wrote.
    sampled: u32,
    reserved: u32,
}

#[btf_map]
static JUDGED: PerCpuArray<Judged, 1> = PerCpuArray::new();

impl Judged {
    /// Leaves a packet for what follows.
    #[inline(always)]
    pub(crate) fn leave(word: Active, packet: &Packet, decision: Decision, sampled: u32) {
        let Some(judged) = JUDGED.get_ptr_mut(0) else { return };
        // SAFETY: this CPU's own aligned value, which lives as long as the program runs; it does not interrupt itself.
        unsafe {
            (*judged).source = packet.source.words();
            (*judged).destination = packet.destination.words();
            (*judged).kind = packet.kind.to_number();
            (*judged).family = if packet.source.is_v6() { 6 } else { 4 };
            (*judged).reason = decision.reason.number();
            (*judged).rule = decision.rule;
            (*judged).counter = decision.counter;
            (*judged).word = word.0;
            (*judged).sampled = sampled;
        }
    }

    /// Decides otherwise: a budget did.
    #[inline(always)]
    pub(crate) fn overrule(reason: Reason, rule: u32) {
        let Some(judged) = JUDGED.get_ptr_mut(0) else { return };
        // SAFETY: as above.
        unsafe {
            (*judged).reason = reason.number();
            (*judged).rule = rule;
        }
    }

    /// Whoever is asked for it learns of the packet as it is judged now: the sums of senders, and who watches.
    #[inline(always)]
    pub(crate) fn tell(context: &XdpContext) {
        let Some(judged) = JUDGED.get_ptr(0) else { return };
        // SAFETY: as above.
        let (sampled, word) = unsafe { ((*judged).sampled, Active((*judged).word)) };
        if sampled != 0 {
            senders::record(context, Sample { shift: sampled - 1 });
        }
        if word.is_watched() {
            flows::tell(context);
        }
    }

    /// Leaves what could not be read.
    #[inline(always)]
    pub(crate) fn leave_unread(reason: Reason) {
        let Some(judged) = JUDGED.get_ptr_mut(0) else { return };
        // SAFETY: as above.
        unsafe {
            (*judged).family = 0;
            (*judged).reason = reason.number();
            (*judged).rule = 0;
        }
    }

    /// What was left on this CPU.
    #[inline(always)]
    pub(crate) fn find() -> Option<&'static Self> {
        // SAFETY: as in `leave`.
        JUDGED.get_ptr(0).map(|judged| unsafe { &*judged })
    }

    pub(crate) const fn source(&self) -> Address {
        Address::from_words(self.source, self.family == 6)
    }

    pub(crate) const fn destination(&self) -> Address {
        Address::from_words(self.destination, self.family == 6)
    }

    pub(crate) const fn kind(&self) -> Kind {
        Kind::from_number(self.kind)
    }

    /// The word by which it was judged.
    pub(crate) const fn word(&self) -> Active {
        Active(self.word)
    }
}
