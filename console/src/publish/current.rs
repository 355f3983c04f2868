//! What is in force.

use std::collections::{BTreeMap, BTreeSet};

use model::compile::{Compiled, FactsCache, Input, compile_with};
use model::digest::Digest;
use model::draft::{Kind, Object};
use model::name::Name;
use model::snapshot::{Snapshot, SnapshotId};

use crate::clock;
use crate::ops::OpsError;
use crate::secrets::Authority;
use crate::store::{NewRevision, Store, object_key};

/// What is in force: the newest revision, compiled.
#[derive(Debug)]
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
}

impl Current {
    pub(super) async fn load(
        store: &Store,
        authority: &Authority,
        cache: &mut FactsCache,
    ) -> Result<Self, OpsError> {
        let newest = store.newest().await?;
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
        Ok(Self { id, objects, compiled: Some(compiled), keys, rules })
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
        Self { id: SnapshotId { epoch, revision }, objects, compiled, keys, rules }
    }

    /// What a node must obey.
    pub fn snapshot_for(&self, node: &Name, labels: &BTreeMap<String, String>) -> Option<Snapshot> {
        Some(self.compiled.as_ref()?.snapshot_for(node, labels, self.id))
    }
}
