//! The packet filter.

use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{decide_packet, parse};
use dataplane_ebpf::reason::Reason;

use crate::budget::{self, Then};
use crate::cookie::{self, Tail};
use crate::flows;
use crate::maps::{self, InForce};
use crate::packet::XdpFrame;
use crate::sample::sample;
use crate::senders;

/// Judges a frame and counts it.
#[inline(always)]
pub(crate) fn filter(context: &XdpContext) -> Reason {
    let Some(tables) = InForce::read() else {
        maps::count(Reason::NoTable);
        return Reason::NoTable;
    };
    let packet = parse(&XdpFrame(context));
    let decision = decide_packet(&packet, &tables);
    let mut then = Then::Done;
    if let Ok(packet) = &packet {
        then = budget::then(&tables, packet, decision);
    }
    // What follows is asked of few packets only, however many there are.
    if let Some(sample) = sample() {
        if let Ok(packet) = &packet {
            senders::record(context, sample, packet, decision.reason.is_drop());
        }
    }
    if tables.is_watched() {
        flows::tell(context, &packet, decision);
    }
    if then == Then::Spend {
        // Counts by itself, and comes back only where it is missing.
        cookie::enter(context, Tail::Spend);
    }
    if decision.rule != 0 {
        maps::count_rule(decision.rule, decision.reason);
    }
    maps::count(decision.reason);
    if then == Then::Learn {
        cookie::enter(context, Tail::Learn);
    }
    decision.reason
}
