//! Snapshot -> wanted kernel tables; pure.

use std::net::IpAddr;

use ipnet::IpNet;
use model::snapshot::Snapshot;

/// What the kernel's tables are to say, as one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// Source prefixes that are dropped, each with its rule's id; sorted, one entry a prefix.
    pub deny: Vec<(IpNet, u32)>,
    /// Source prefixes that may reach listeners, each with its rule's id; sorted, one entry a prefix.
    pub allow: Vec<(IpNet, u32)>,
    /// Whether packets to listeners need an entry in `allow`.
    pub allow_required: bool,
    /// Where listeners accept: steered by `sk_lookup`, judged by the allow list. `None` is every local address.
    pub listeners: Vec<(Option<IpAddr>, u16)>,
}

/// The tables for a snapshot.
pub fn plan(snapshot: &Snapshot) -> KernelPlan {
    let _ = snapshot;
    KernelPlan::default()
}
