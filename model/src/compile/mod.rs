//! Draft -> snapshot or problems. Deterministic: equal inputs give equal bytes.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::digest::Digest;
use crate::draft::Object;
use crate::name::Name;
use crate::problem::Problem;
use crate::snapshot::{Snapshot, SnapshotId};

/// Everything the compiler may look at.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// All objects; order does not matter.
    pub objects: &'a [Object],
    /// Digests of the stored private keys.
    pub keys: &'a std::collections::BTreeSet<Digest>,
    /// The console CA's certificate, PEM: the trust bundle `internal`.
    pub internal_ca: &'a str,
    /// Stable ids of packet filter rules, by `filter/rule`; every rule among `objects` has one, unique and not 0.
    pub rule_ids: &'a BTreeMap<String, u32>,
    /// The time certificates are judged at.
    pub now: OffsetDateTime,
}

/// A draft without problems: every node's snapshot can be cut from it.
#[derive(Debug, Clone)]
pub struct Compiled {
    // Checked, parsed, sorted objects; private so that only `compile` makes one.
    _private: (),
}

/// Checks all objects together.
///
/// # Errors
/// Every problem found, sorted by object and field; never an empty list.
pub fn compile(input: Input<'_>) -> Result<Compiled, Vec<Problem>> {
    let _ = input;
    Ok(Compiled { _private: () })
}

impl Compiled {
    /// What one node gets: the listeners its labels select, and only what they need.
    pub fn snapshot_for(&self, node: &Name, labels: &BTreeMap<String, String>, id: SnapshotId) -> Snapshot {
        let _ = labels;
        Snapshot {
            format: crate::snapshot::FORMAT,
            node: node.clone(),
            id,
            listeners: Vec::new(),
            certificates: Vec::new(),
            routes: Vec::new(),
            origin_groups: Vec::new(),
            trust_bundles: Vec::new(),
            filter: Vec::new(),
        }
    }
}
