//! The packet filter.

use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{decide_packet, parse};
use dataplane_ebpf::reason::Reason;

use crate::budget::{self, Then};
use crate::cookie::{self, Tail};
use crate::flows;
use crate::judged::Judged;
use crate::maps::{self, InForce};
use crate::packet::XdpFrame;
use crate::sample::sample;
use crate::senders;

/// Judges a frame and counts it.
#[inline(always)]
pub(crate) fn filter(context: &XdpContext) -> Reason {
    let Some(in_force) = InForce::read() else { return counted(Reason::NoTable) };
    let Some(tables) = in_force.tables() else { return counted(Reason::NoTable) };
    let word = in_force.word();
    let packet = parse(&XdpFrame(context));
    let decision = decide_packet(&packet, &tables);
    let sample = sample();
    let then = budget::then(word, &packet, decision);
    // What follows is asked of few packets only, however many there are.
    if sample.is_some() || word.is_watched() || then != Then::Done {
        Judged::leave(word, &packet, decision);
        if let Some(sample) = sample {
            senders::record(context, sample);
        }
        if word.is_watched() {
            flows::tell(context);
        }
        if then == Then::Spend {
            // Counts by itself, and comes back only where it is missing.
            cookie::enter(context, Tail::Spend);
        }
    }
    maps::count_rule(decision.counter);
    maps::count(decision.reason);
    if then == Then::Learn {
        cookie::enter(context, Tail::Learn);
    }
    decision.reason
}

#[inline(always)]
fn counted(reason: Reason) -> Reason {
    maps::count(reason);
    reason
}
