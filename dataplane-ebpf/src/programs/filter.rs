//! The packet filter.

use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{Decision, judge, parse};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::Active;

use crate::budget::{self, Then};
use crate::cookie::{self, Tail};
use crate::flows;
use crate::judged::Judged;
use crate::maps::{self, InForce};
use crate::packet::XdpFrame;
use crate::sample::sampled;

/// Judges a frame and counts it.
#[inline(always)]
pub(crate) fn filter(context: &XdpContext) -> Reason {
    let Some(in_force) = InForce::read() else { return counted(Reason::NoTable) };
    let Some(tables) = in_force.tables() else { return counted(Reason::NoTable) };
    let word = in_force.word();
    let packet = match parse(&XdpFrame(context)) {
        Ok(packet) => packet,
        Err(reason) => return unread(context, word, reason),
    };
    let decision = judge(&packet, &tables).unwrap_or_else(Decision::without_rule);
    let (sampled, then) = (sampled(), budget::then(word, &packet, decision));
    // What follows is asked of few packets only, however many there are.
    if sampled != 0 || word.is_watched() || then != Then::Done {
        Judged::leave(word, &packet, decision, sampled);
        if then == Then::Spend {
            // Counts and tells by itself, and comes back only where it is missing.
            cookie::enter(context, Tail::Spend);
        }
        Judged::tell(context);
    }
    maps::count_rule(decision.counter);
    maps::count(decision.reason);
    if then == Then::Learn {
        cookie::enter(context, Tail::Learn);
    }
    decision.reason
}

/// A frame that the tables are not asked about: it has no sender that could be summed up, and no rule.
#[inline(always)]
fn unread(context: &XdpContext, word: Active, reason: Reason) -> Reason {
    if word.is_watched() {
        Judged::leave_unread(reason);
        flows::tell(context);
    }
    counted(reason)
}

#[inline(always)]
fn counted(reason: Reason) -> Reason {
    maps::count(reason);
    reason
}
