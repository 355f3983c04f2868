//! What is in force.

use std::collections::{BTreeMap, BTreeSet};

use model::compile::{Compiled, FactsCache, Input, compile_with};
use model::digest::Digest;
use model::draft::{Kind, Object};
use model::name::Name;
use model::snapshot::{Snapshot, SnapshotId};
use time::OffsetDateTime;

use crate::clock;
use crate::ops::OpsError;
use crate::secrets::Authority;
use crate::store::{NewRevision, Store, object_key};

/// What is in force: the newest revision, compiled.
#[derive(Debug, Clone)]
pub struct Current {
    /// Its place in the order; revision 0 before the first.
    pub id: SnapshotId,
    /// Its objects.
    pub objects: BTreeMap<(Kind, String), Object>,
    /// Compiled; absent only before the first revision.
    pub compiled: Option<Compiled>,
    /// All stored keys.
    pub keys: BTreeSet<Digest>,
    /// Numbers of all packet filter rules there ever were.
    pub rules: BTreeMap<String, u32>,
    /// When it rolls back unless confirmed; absent when it does not wait (any more).
    pub rollback_at: Option<OffsetDateTime>,
}

impl Current {
    pub(super) async fn load(
        store: &Store,
        authority: &Authority,
        cache: &mut FactsCache,
    ) -> Result<Self, OpsError> {
        let newest = store.newest().await?;
        let rollback_at = newest.as_ref().and_then(|row| row.rollback).map(|(at, _)| at);
        let id = newest.map(|row| SnapshotId { epoch: row.epoch, revision: row.number });
        let id = id.unwrap_or(SnapshotId { epoch: 1, revision: 0 });
        let objects = store.objects_at(id.revision).await?;
        let (keys, rules) = (store.key_digests().await?, store.rule_ids().await?.into_iter().collect());
        let in_force = objects.iter().map(Object::label).collect();
        let input = Input {
            objects: &objects,
            keys: &keys,
            internal_ca: authority.pem(),
            rule_ids: &rules,
            removed: &BTreeSet::new(),
            refused: &BTreeSet::new(),
            now: clock::now(),
        };
        let compiled = compile_with(input, cache, &in_force).map_err(OpsError::Problems)?;
        let objects = objects.into_iter().map(|object| (object_key(&object), object)).collect();
        Ok(Self { id, objects, compiled: Some(compiled), keys, rules, rollback_at })
    }

    pub(super) fn of(
        revision: u64,
        epoch: u64,
        objects: BTreeMap<(Kind, String), Object>,
        compiled: Option<Compiled>,
        base: &Self,
        new: &NewRevision<'_>,
    ) -> Self {
        let mut keys = base.keys.clone();
        keys.extend(new.keys.iter().map(|(digest, _)| *digest));
        let mut rules = base.rules.clone();
        rules.extend(new.rules.iter().cloned());
        let rollback_at = new.rollback.map(|(at, _)| at);
        Self { id: SnapshotId { epoch, revision }, objects, compiled, keys, rules, rollback_at }
    }

    /// What a node must obey. While it waits for its confirmation it says how long it still does, so that the node goes back by
    /// itself where it can no longer be told to.
    pub fn snapshot_for(&self, node: &Name, labels: &BTreeMap<String, String>) -> Option<Snapshot> {
        let left = self.rollback_at.map(|at| (at - clock::now()).whole_milliseconds().max(0));
        let trial_ms = left.map(|left| u32::try_from(left).unwrap_or(u32::MAX));
        let compiled = self.compiled.as_ref()?;
        Some(Snapshot { trial_ms, ..compiled.snapshot_for(node, labels, self.id) })
    }
}
