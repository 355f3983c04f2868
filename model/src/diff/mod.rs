//! Two sets of objects, told apart in words: the review page, the command line and the list of revisions say the same.
//!
//! Never with key material; certificates by name, end and fingerprint.

mod defaults;
mod filters;
mod packet_filter;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::draft::{Kind, Object, RouteSpec};

/// What happens to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// `Kind/name`.
    pub object: String,
    /// One line: `+ route shop: shop.example.com/ → shop-origin`, `~ listener https: port 443 → 8443`.
    pub words: String,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// It is new.
    Add,
    /// It is there before and after, and different.
    Change,
    /// It is gone.
    Remove,
}

impl Action {
    /// `+`, `~` or `-`, as it starts a change's words.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Remove => "-",
        }
    }
}

/// What turns `old` into `new`, sorted by kind and name; nothing for what is equal. Order within the slices is no change.
pub fn changes(old: &[Object], new: &[Object]) -> Vec<Change> {
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<&(Kind, &str)> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter_map(|name| change(old.get(name).copied(), new.get(name).copied())).collect()
}

/// Where a route leads: its origin group's name, or in words what it answers.
pub fn target(spec: &RouteSpec) -> String {
    filters::target(spec)
}

fn by_name(objects: &[Object]) -> BTreeMap<(Kind, &str), &Object> {
    objects.iter().map(|object| ((object.kind(), object.name()), object)).collect()
}

fn change(old: Option<&Object>, new: Option<&Object>) -> Option<Change> {
    let (action, object, words) = match (old, new) {
        (None, Some(new)) => (Action::Add, new, words::of(new)),
        (Some(old), None) => (Action::Remove, old, words::of(old)),
        (Some(old), Some(new)) if old != new => (Action::Change, new, words::between(old, new)),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let words = format!("{} {} {}: {words}", action.sign(), object.kind().words(), object.name());
    Some(Change { action, object: object.label(), words })
}

#[cfg(test)]
mod tests;
