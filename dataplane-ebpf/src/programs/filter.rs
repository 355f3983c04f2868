//! The packet filter.
#![expect(unsafe_code, reason = "a function of the object has an exported name")]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{Decision, Packet, judge, parse, quick};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::Active;

use crate::budget::{self, Then};
use crate::cookie::{self, Tail};
use crate::flows;
use crate::here::{self, Here};
use crate::judged::Judged;
use crate::maps::{self, InForce};
use crate::packet::{XdpFrame, hidden};

/// Judges a frame and counts it.
#[inline(always)]
pub(crate) fn filter(context: &XdpContext) -> u32 {
    let Some(here) = Here::find() else { return sallyport_whole(context.ctx, 0) };
    let gate = maps::gate();
    if gate.passes(here.draw()) {
        return sallyport_whole(context.ctx, gate.shift() + 1);
    }
    match at_once(context, here) {
        Some(verdict) => verdict,
        None => sallyport_whole(context.ctx, 0),
    }
}

/// Judges a packet that is like nearly all, which nobody looks at more closely. What this takes is what nearly every packet takes, so
/// it lies in one piece, without a call: where the kernel guards returns, each costs as much as a third of the rest.
#[inline(always)]
fn at_once(context: &XdpContext, here: Here) -> Option<u32> {
    let in_force = InForce::read();
    let tables = in_force.tables::<true>()?;
    let word = in_force.word();
    if word.is_watched() {
        return None;
    }
    quick::decide(&XdpFrame(context), &tables, &AtOnce { context, here, word })
}

/// What follows for a packet that nobody looks at more closely.
struct AtOnce<'a> {
    context: &'a XdpContext,
    here: Here,
    word: Active,
}

impl quick::Next for AtOnce<'_> {
    type Said = u32;

    #[inline(always)]
    fn judged(&self, packet: &Packet, decision: Decision) -> u32 {
        let then = budget::then(self.word, packet.kind, decision);
        if then == Then::Spend {
            Judged::leave(self.word, packet, decision, 0);
            // Counts by itself, and comes back only where it is missing.
            cookie::enter(self.context, Tail::Spend);
        }
        maps::count_rule(decision.counter);
        self.here.count(decision.reason.number());
        learn(self.context, then);
        verdict(decision.reason)
    }
}

/// Judges any frame, and does all that is asked. A function of its own in the object too: where a tail call leaves it, the other
/// program's verdict is what it returns. Cold, for whatever leads here then lies behind what does not.
#[unsafe(no_mangle)]
// Where all functions are: the loader knows them by their address in a section alone.
#[unsafe(link_section = ".text")]
#[cold]
#[inline(never)]
extern "C" fn sallyport_whole(context: *mut xdp_md, sampled: u32) -> u32 {
    // The compiler must not know which verdicts these are: another program has others.
    hidden(whole(&XdpContext::new(context), sampled).into()) as u32
}

#[inline(always)]
fn whole(context: &XdpContext, sampled: u32) -> u32 {
    let in_force = InForce::read();
    let Some(tables) = in_force.tables::<false>() else { return counted(Reason::NoTable) };
    let word = in_force.word();
    let packet = match parse(&XdpFrame(context)) {
        Ok(packet) => packet,
        Err(reason) => return unread(context, word, reason),
    };
    let decision = judge(&packet, &tables).unwrap_or_else(Decision::without_rule);
    let then = budget::then(word, packet.kind, decision);
    // What follows is asked of few packets only, however many there are.
    if sampled != 0 || word.is_watched() || then == Then::Spend {
        Judged::leave(word, &packet, decision, sampled);
        if then == Then::Spend {
            // Counts and tells by itself, and comes back only where it is missing.
            cookie::enter(context, Tail::Spend);
        }
        Judged::tell(context);
    }
    maps::count_rule(decision.counter);
    let verdict = counted(decision.reason);
    learn(context, then);
    verdict
}

/// A frame that the tables are not asked about: it has no sender that could be summed up, and no rule.
#[inline(always)]
fn unread(context: &XdpContext, word: Active, reason: Reason) -> u32 {
    if word.is_watched() {
        Judged::leave_unread(reason);
        flows::tell(context);
    }
    counted(reason)
}

/// What may bring a cookie back is looked at once more.
#[inline(always)]
fn learn(context: &XdpContext, then: Then) {
    if then == Then::Learn {
        cookie::enter(context, Tail::Learn);
    }
}

#[inline(always)]
fn counted(reason: Reason) -> u32 {
    here::count(reason);
    verdict(reason)
}

#[inline(always)]
const fn verdict(reason: Reason) -> u32 {
    if reason.is_drop() { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}
