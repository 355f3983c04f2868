//! Prefix sets whose lists are fetched: who says where from, and what is written of them without a list.

use model::draft::{Object, PrefixSetSpec, Spec};
use model::problem::{Code, Problem};

use super::Current;
use crate::ops::{Actor, Role};
use crate::store::object_key;

/// The console connects to what a source names, from where it stands: that is not for everybody who changes objects.
pub(super) const ADMINISTRATORS: &str = "only administrators say where prefix sets are fetched from";

fn set(object: Option<&Object>) -> Option<&PrefixSetSpec> {
    let Spec::PrefixSet(spec) = &object?.spec else { return None };
    Some(spec)
}

/// Sources that are new or differ, where the actor may not say so. Removing one is for everybody.
pub(super) fn unpermitted(base: &Current, put: &[Object], actor: &Actor) -> Vec<Problem> {
    if actor.role >= Role::Administrator {
        return Vec::new();
    }
    let differs = |object: &&Object| {
        let source = set(Some(*object)).and_then(|spec| spec.source.as_ref());
        let before = set(base.objects.get(&object_key(object))).and_then(|spec| spec.source.as_ref());
        source.is_some() && source != before
    };
    let problem = |object: &Object| {
        let message = format!("{ADMINISTRATORS}; ask one, or leave it as it is");
        Problem::new(object.label(), "spec.source.url", Code::Conflict, message)
    };
    put.iter().filter(differs).map(problem).collect()
}

/// A set that is written without prefixes keeps those that were fetched from the same place: nobody writes them by hand.
pub(super) fn keep_list(base: &Current, object: &mut Object) {
    let key = object_key(object);
    let Spec::PrefixSet(spec) = &mut object.spec else { return };
    let Some(source) = spec.source.as_ref().filter(|_| spec.prefixes.is_empty()) else { return };
    if let Some(stored) = set(base.objects.get(&key))
        && stored.source.as_ref().is_some_and(|known| (&known.url, &known.key) == (&source.url, &source.key))
    {
        spec.prefixes.clone_from(&stored.prefixes);
    }
}
