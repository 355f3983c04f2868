//! Draft -> snapshot or problems. Deterministic: equal inputs give equal bytes.
//!
//! One file per kind lowers a spec into its snapshot form, noting what is wrong on the way; `across` then looks at what
//! only several objects together can get wrong. Nothing stops at the first problem.

mod across;
mod budgets;
mod certificate;
mod choice;
mod clear_text;
mod compiled;
mod conditions;
mod error_pages;
mod filter;
mod filters;
mod listener;
mod notes;
mod origin;
mod prefix_set;
mod route;
mod served;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::certificate::{Facts, InvalidChain};
use crate::digest::Digest;
use crate::draft::{Kind, Object, Spec};
use crate::name::Name;
use crate::problem::{Code, Problem};

pub use compiled::{Compiled, selects};
use notes::{At, Names};
use route::Carriers;

/// Everything the compiler may look at.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// All objects; order does not matter.
    pub objects: &'a [Object],
    /// Digests of the stored private keys.
    pub keys: &'a BTreeSet<Digest>,
    /// The console CA's certificate, PEM: the trust bundle `internal`.
    pub internal_ca: &'a str,
    /// Stable ids of packet filter rules, by `filter/rule`; every rule among `objects` has one, unique and not 0.
    pub rule_ids: &'a BTreeMap<String, u32>,
    /// What was there and goes with this change, so that whoever still names it is told so.
    pub removed: &'a BTreeSet<(Kind, String)>,
    /// What is wanted and is not among `objects`, because something is wrong with it that is told already: whoever names it is right to.
    pub refused: &'a BTreeSet<(Kind, String)>,
    /// The time certificates are judged at.
    pub now: OffsetDateTime,
}

/// Facts of chains that were read before, by the text's digest: reading 10,000 chains is most of a compilation's work.
#[derive(Debug, Clone, Default)]
pub struct FactsCache {
    facts: BTreeMap<Digest, Arc<Facts>>,
}

impl FactsCache {
    /// The facts of a chain, from memory where it was read before.
    ///
    /// # Errors
    /// See [`InvalidChain`].
    pub fn facts(&mut self, chain: &str) -> Result<Arc<Facts>, InvalidChain> {
        match self.facts.entry(Digest::of(chain.as_bytes())) {
            std::collections::btree_map::Entry::Occupied(known) => Ok(Arc::clone(known.get())),
            std::collections::btree_map::Entry::Vacant(new) => {
                Ok(Arc::clone(new.insert(Arc::new(Facts::of_chain(chain)?))))
            }
        }
    }

    /// Forgets every chain but those of `compiled`, so that the cache does not grow with history.
    pub fn keep_only(&mut self, compiled: &Compiled) {
        let used = compiled.chain_digests();
        self.facts.retain(|chain, _| used.contains(chain));
    }
}

/// Checks all objects together.
///
/// # Errors
/// Every problem found, sorted by object and field; never an empty list.
pub fn compile(input: Input<'_>) -> Result<Compiled, Vec<Problem>> {
    compile_with(input, &mut FactsCache::default(), &BTreeSet::new())
}

/// [`compile`] with a cache that outlives it, and forbearance with what is in force already.
///
/// `in_force` has the labels (`Certificate/shop`) of objects that are published and unchanged. That a certificate among
/// them has ended since is not held against a change of something else: the change may be what the operator needs most.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    input: Input<'_>,
    cache: &mut FactsCache,
    in_force: &BTreeSet<String>,
) -> Result<Compiled, Vec<Problem>> {
    let mut problems = Vec::new();
    let objects = catalogue(input.objects, &mut problems);
    let names = Names::of(objects.iter().map(|(kind, name, _)| (*kind, name)), input.removed, input.refused);
    let mut compiled = Compiled::new(input.internal_ca);
    for (kind, name, object) in &objects {
        let mut at = At::new(&mut problems, format!("{kind}/{name}"));
        let tolerant = in_force.contains(at.object());
        let name = name.clone();
        match &object.spec {
            Spec::Listener(spec) => {
                compiled
                    .listeners
                    .extend(listener::lower(&name, spec, &names, &mut at).map(|listener| (name, listener)));
            }
            Spec::Route(spec) => {
                // Listeners come before routes.
                let carriers = Carriers { names: &names, known: &compiled.listeners };
                let route = route::lower(&name, spec, &carriers, &mut at);
                compiled.routes.extend(route.map(|route| (name, route)));
            }
            Spec::OriginGroup(spec) => {
                let group = origin::lower(&name, spec, &names, input.internal_ca, &mut at);
                compiled.groups.extend(group.map(|group| (name, group)));
            }
            Spec::Certificate(spec) => {
                let judge = certificate::Judge { keys: input.keys, now: input.now, tolerant };
                let lowered = certificate::lower(&name, spec, &judge, cache, &mut at);
                compiled.certificates.extend(lowered.map(|certificate| (name, certificate)));
            }
            Spec::TrustBundle(spec) => {
                let bundle = trust::lower(&name, spec, input.now, tolerant, &mut at);
                compiled.bundles.extend(bundle.map(|bundle| (name, bundle)));
            }
            Spec::PrefixSet(spec) => {
                let set = prefix_set::lower(&name, spec, &names, &mut at);
                compiled.sets.insert(name, set);
            }
            Spec::PacketFilter(spec) => {
                // So do prefix sets before filters.
                let sets = prefix_set::Sets { names: &names, known: &compiled.sets };
                let filter =
                    filter::lower(&name, spec, &filter::Known { ids: input.rule_ids, sets }, &mut at);
                compiled.filters.extend(filter.map(|filter| (name, filter)));
            }
        }
    }
    across::check(&compiled, &names, &mut problems);
    if problems.is_empty() {
        return Ok(compiled.finished());
    }
    sort(&mut problems);
    Err(problems)
}

/// The objects that have a name, by kind and name. Of two with one name both are looked at further: each may have
/// problems of its own.
fn catalogue<'a>(objects: &'a [Object], problems: &mut Vec<Problem>) -> Vec<(Kind, Name, &'a Object)> {
    let mut seen = BTreeSet::new();
    let mut catalogue = Vec::with_capacity(objects.len());
    for object in objects {
        let mut at = At::new(problems, object.label());
        for key in object.metadata.labels.keys().filter(|key| key.is_empty()) {
            at.problem(
                format!("metadata.labels[{key:?}]"),
                Code::Invalid,
                "a label needs a name; remove it or name it",
            );
        }
        let Some(name) = at.parse::<Name>("metadata.name", object.name()) else { continue };
        if !seen.insert((object.kind(), name.clone())) {
            let message =
                format!("two objects of kind {} have this name; rename or remove one", object.kind());
            at.problem("metadata.name", Code::Duplicate, message);
        }
        catalogue.push((object.kind(), name, object));
    }
    catalogue.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    catalogue
}

/// By object, then by field with `[10]` behind `[2]`.
fn sort(problems: &mut Vec<Problem>) {
    let natural = |field: &str| -> Vec<(String, u32)> {
        field
            .split_inclusive(']')
            .map(|part| match part.split_once('[') {
                Some((before, index)) => {
                    (before.to_owned(), index.trim_end_matches(']').parse().unwrap_or_default())
                }
                None => (part.to_owned(), 0),
            })
            .collect()
    };
    problems.sort_by_cached_key(|problem| (problem.object.clone(), natural(&problem.field), problem.clone()));
    problems.dedup();
}

#[cfg(test)]
mod tests;
