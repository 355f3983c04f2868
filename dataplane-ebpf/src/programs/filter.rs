//! The packet filter.

use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{decide_packet, parse};
use dataplane_ebpf::reason::Reason;

use crate::flows;
use crate::maps::{self, InForce};
use crate::packet::XdpFrame;
use crate::sample::sample;
use crate::senders;

/// Judges a frame and counts it.
#[inline(always)]
pub(crate) fn filter(context: &XdpContext) -> Reason {
    let reason = match InForce::read() {
        Some(tables) => {
            let packet = parse(&XdpFrame(context));
            let decision = decide_packet(&packet, &tables);
            if decision.rule != 0 {
                maps::count_rule(decision.rule, decision.reason);
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
            decision.reason
        }
        None => Reason::NoTable,
    };
    maps::count(reason);
    reason
}
