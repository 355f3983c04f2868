//! The packet filter.

use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::decide;
use dataplane_ebpf::reason::Reason;

use crate::maps::{self, InForce};
use crate::packet::XdpFrame;

/// Judges a frame and counts it.
#[inline(always)]
pub(crate) fn filter(context: &XdpContext) -> Reason {
    let reason = match InForce::read() {
        Some(tables) => {
            let decision = decide(&XdpFrame(context), &tables);
            if decision.rule != 0 {
                maps::count_rule(decision.rule, decision.reason);
            }
            decision.reason
        }
        None => Reason::NoTable,
    };
    maps::count(reason);
    reason
}
