//! A wish against what is in force: the objects there would be, what differs, and whether they compile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use model::compile::{Compiled, FactsCache, Input, compile_with};
use model::digest::Digest;
use model::draft::{Kind, Object, Spec};
use model::problem::{Code, Problem};

use super::certificates::{Origin, Resolver};
use super::staged::{self, Staged};
use super::{Current, sources, words};
use crate::clock;
use crate::ops::{ChangeLine, Changes};
use crate::secrets::{Authority, MasterKey};
use crate::store::object_key;

/// What there would be.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// All objects.
    pub(super) objects: BTreeMap<(Kind, String), Object>,
    /// Compiled; absent when there are problems.
    pub(super) compiled: Option<Compiled>,
    /// Why it cannot be published.
    pub(super) problems: Vec<Problem>,
    /// What differs, in words.
    pub(super) lines: Vec<ChangeLine>,
    /// Objects that are new or differ.
    pub(super) put: Vec<Object>,
    /// Objects that go.
    pub(super) remove: Vec<(Kind, String)>,
    /// Keys that are not stored yet, sealed.
    pub(super) keys: Vec<(Digest, Vec<u8>)>,
    /// Rules that have no number yet, with the one they get.
    pub(super) rules: Vec<(String, u32)>,
}

/// Makes [`Prepared`].
pub(super) struct Maker<'a> {
    pub(super) master: &'a MasterKey,
    pub(super) authority: &'a Authority,
    pub(super) staged: &'a Mutex<Staged>,
}

impl Maker<'_> {
    /// What there would be after these changes.
    pub(super) fn changes(&self, base: &Current, changes: Changes, cache: &mut FactsCache) -> Prepared {
        let mut objects = base.objects.clone();
        let mut problems = Vec::new();
        let mut keys = BTreeMap::new();
        for (kind, name) in changes.remove {
            let label = format!("{kind}/{name}");
            if objects.remove(&(kind, name)).is_none() {
                let message = "there is no such object, so it cannot be removed";
                problems.push(Problem::new(label, "", Code::UnknownReference, message));
            }
        }
        let resolver = Resolver { master: self.master, authority: self.authority, now: clock::now() };
        let mut named = BTreeSet::new();
        let mut issued = BTreeMap::new();
        let mut refused = BTreeSet::new();
        for mut object in changes.put {
            let key = object_key(&object);
            if !named.insert(key.clone()) {
                let message = "stands in the input twice; keep one of them";
                problems.push(Problem::new(object.label(), "metadata.name", Code::Duplicate, message));
                continue;
            }
            let label = object.label();
            if let Spec::Certificate(spec) = &mut object.spec {
                let stored = match base.objects.get(&key).map(|object| &object.spec) {
                    Some(Spec::Certificate(stored)) => Some(stored),
                    _ => None,
                };
                match resolver.resolve(&label, spec, stored, &mut keys) {
                    Ok(Origin::Given) => {}
                    Ok(Origin::Issued(hosts)) => {
                        issued.insert(label, hosts);
                    }
                    Err(found) => {
                        problems.extend(found);
                        refused.insert(key);
                        continue;
                    }
                }
            }
            sources::keep_list(base, &mut object);
            objects.insert(key, object);
        }
        if changes.prune {
            objects.retain(|key, _| named.contains(key));
        }
        let mut prepared = self.compare(base, objects, keys, (problems, refused), cache);
        // Each publish issues anew: the fingerprint of what a review was made with would be nobody's.
        for line in &mut prepared.lines {
            if let Some(hosts) = issued.get(&line.object) {
                line.words = format!("issued by the internal CA for {}", hosts.join(", "));
            }
        }
        prepared
    }

    /// What there would be with exactly these objects, which were in force once.
    pub(super) fn set(&self, base: &Current, objects: Vec<Object>, cache: &mut FactsCache) -> Prepared {
        let objects: BTreeMap<_, _> =
            objects.into_iter().map(|object| (object_key(&object), object)).collect();
        let tolerated = objects.values().map(Object::label).collect();
        let prepared = self.differ(base, objects);
        self.compile(base, prepared, (&tolerated, &BTreeSet::new()), cache)
    }

    fn compare(
        &self,
        base: &Current,
        objects: BTreeMap<(Kind, String), Object>,
        keys: BTreeMap<Digest, Vec<u8>>,
        (problems, refused): (Vec<Problem>, BTreeSet<(Kind, String)>),
        cache: &mut FactsCache,
    ) -> Prepared {
        let mut prepared = self.differ(base, objects);
        prepared.problems = problems;
        prepared.keys = keys.into_iter().filter(|(digest, _)| !base.keys.contains(digest)).collect();
        self.use_staged(base, &mut prepared);
        let changed: BTreeSet<String> = prepared.put.iter().map(Object::label).collect();
        let in_force =
            prepared.objects.values().map(Object::label).filter(|label| !changed.contains(label)).collect();
        self.compile(base, prepared, (&in_force, &refused), cache)
    }

    fn differ(&self, base: &Current, objects: BTreeMap<(Kind, String), Object>) -> Prepared {
        let mut prepared = Prepared::default();
        for (key, object) in &objects {
            let before = base.objects.get(key);
            if before == Some(object) {
                continue;
            }
            prepared.lines.extend(words::of_change(before, Some(object)));
            prepared.put.push(object.clone());
        }
        for (key, object) in base.objects.iter().filter(|(key, _)| !objects.contains_key(key)) {
            prepared.lines.extend(words::of_change(Some(object), None));
            prepared.remove.push(key.clone());
        }
        prepared.rules = new_rules(base, &objects);
        prepared.objects = objects;
        prepared
    }

    /// Takes the staged keys that changed certificates name and the store does not have.
    fn use_staged(&self, base: &Current, prepared: &mut Prepared) {
        let staged = staged::lock(self.staged);
        let waiting = staged.digests();
        for object in &prepared.put {
            let Spec::Certificate(spec) = &object.spec else { continue };
            let Some(Ok(digest)) = spec.private_key_ref.as_deref().map(str::parse::<Digest>) else {
                continue;
            };
            if waiting.contains(&digest)
                && !base.keys.contains(&digest)
                && prepared.keys.iter().all(|(known, _)| *known != digest)
            {
                prepared.keys.extend(staged.get(&digest).map(|sealed| (digest, sealed)));
            }
        }
    }

    fn compile(
        &self,
        base: &Current,
        mut prepared: Prepared,
        (in_force, refused): (&BTreeSet<String>, &BTreeSet<(Kind, String)>),
        cache: &mut FactsCache,
    ) -> Prepared {
        let objects: Vec<Object> = prepared.objects.values().cloned().collect();
        let mut keys = base.keys.clone();
        keys.extend(prepared.keys.iter().map(|(digest, _)| *digest));
        let mut rule_ids = base.rules.clone();
        rule_ids.extend(prepared.rules.iter().cloned());
        let removed = prepared.remove.iter().cloned().collect();
        let input = Input {
            objects: &objects,
            keys: &keys,
            internal_ca: self.authority.pem(),
            rule_ids: &rule_ids,
            removed: &removed,
            refused,
            now: clock::now(),
        };
        match compile_with(input, cache, in_force) {
            // What was refused is missing in it.
            Ok(compiled) => prepared.compiled = refused.is_empty().then_some(compiled),
            Err(found) => prepared.problems.extend(found),
        }
        prepared
    }
}

/// Rules keep their number for ever; a new one gets the next.
fn new_rules(base: &Current, objects: &BTreeMap<(Kind, String), Object>) -> Vec<(String, u32)> {
    let mut next = base.rules.values().max().copied().unwrap_or(0);
    let mut new = BTreeMap::new();
    for object in objects.values() {
        let Spec::PacketFilter(spec) = &object.spec else { continue };
        for name in spec.counted(object.name()) {
            if !base.rules.contains_key(&name) && !new.contains_key(&name) {
                next = next.saturating_add(1);
                new.insert(name, next);
            }
        }
    }
    new.into_iter().collect()
}
