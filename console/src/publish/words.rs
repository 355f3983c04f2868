//! Differences in words.

use std::collections::{BTreeMap, BTreeSet};

use model::certificate::Facts;
use model::draft::{Kind, Object, Spec};
use serde_json::Value;

use super::prepare::Prepared;
use crate::ops::{Action, ChangeLine};
use crate::store::object_key;

/// How much of a text a sentence shows.
const SHOWN: usize = 60;
/// How many names a sentence lists.
const LISTED: usize = 5;

/// The difference between two sets of objects.
pub fn difference(before: &[Object], after: &[Object]) -> Vec<ChangeLine> {
    let index = |objects: &[Object]| -> BTreeMap<_, Object> {
        objects.iter().map(|object| (object_key(object), object.clone())).collect()
    };
    let (before, after) = (index(before), index(after));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let lines = keys.into_iter().filter_map(|key| {
        let (old, new) = (before.get(key), after.get(key));
        let action = match (old, new) {
            (old, new) if old == new => return None,
            (None, _) => Action::Add,
            (Some(_), None) => Action::Remove,
            (Some(_), Some(_)) => Action::Change,
        };
        Some(ChangeLine { action, object: format!("{}/{}", key.0, key.1), words: of_change(old, new) })
    });
    lines.collect()
}

/// One object's change.
pub(super) fn of_change(before: Option<&Object>, after: Option<&Object>) -> String {
    match (before, after) {
        (None, Some(object)) => format!("new: {}", summary(object)),
        (Some(object), None) => format!("goes: {}", summary(object)),
        (Some(before), Some(after)) => changed(before, after),
        (None, None) => String::new(),
    }
}

/// An object in half a sentence.
fn summary(object: &Object) -> String {
    match &object.spec {
        Spec::Listener(spec) => format!("port {}", spec.port),
        Spec::Route(spec) => {
            let paths: Vec<&str> = spec.matches.iter().map(|one| one.path.value.as_str()).collect();
            let paths = if paths.is_empty() { String::new() } else { format!(" {}", list(&paths)) };
            let off = if spec.enabled { "" } else { " (disabled)" };
            format!("{}{paths} goes to origin group {}{off}", list(&spec.hostnames), spec.origin_group)
        }
        Spec::OriginGroup(spec) => {
            let urls: Vec<&str> = spec.origins.iter().map(|origin| origin.url.as_str()).collect();
            format!("{}{}", list(&urls), unsafe_words(spec.tls.verify.as_deref(), spec.clear_text.as_deref()))
        }
        Spec::Certificate(spec) => certificate(spec.chain.as_deref().unwrap_or_default()),
        Spec::TrustBundle(spec) => bundle(&spec.certificates),
        Spec::PacketFilter(spec) => {
            let rules: Vec<String> = spec
                .rules
                .iter()
                .map(|rule| format!("{} {} {}", rule.name, rule.action.to_lowercase(), list(&rule.prefixes)))
                .collect();
            list(&rules)
        }
    }
}

fn unsafe_words(verify: Option<&str>, clear_text: Option<&str>) -> String {
    let mut words = String::new();
    if verify == Some("none") {
        words.push_str(", WITHOUT verifying their certificates");
    }
    if clear_text == Some("allow") {
        words.push_str(", clear text ALLOWED");
    }
    words
}

fn certificate(chain: &str) -> String {
    match Facts::of_chain(chain) {
        Ok(facts) => {
            let hosts: Vec<String> = facts.hostnames.iter().map(ToString::to_string).collect();
            format!("for {}, by {}, ends {}", list(&hosts), facts.issuer, facts.not_after.date())
        }
        Err(_) => "an unreadable chain".to_owned(),
    }
}

fn bundle(pem: &str) -> String {
    match pem.matches("-----BEGIN CERTIFICATE-----").count() {
        1 => "1 authority".to_owned(),
        count => format!("{count} authorities"),
    }
}

fn changed(before: &Object, after: &Object) -> String {
    let mut clauses = Vec::new();
    if before.metadata.labels != after.metadata.labels {
        clauses.push("labels differ".to_owned());
    }
    fields("", &before.spec.to_value(), &after.spec.to_value(), &mut clauses);
    clauses.join("; ")
}

fn fields(path: &str, before: &Value, after: &Value, clauses: &mut Vec<String>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let none = Value::Null;
                fields(&path, old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none), clauses);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let gone: Vec<String> = old.iter().filter(|one| !new.contains(one)).map(value).collect();
            let come: Vec<String> = new.iter().filter(|one| !old.contains(one)).map(value).collect();
            match (gone.is_empty(), come.is_empty()) {
                (true, true) => clauses.push(format!("{path}: another order")),
                (false, true) => clauses.push(format!("{path}: without {}", list(&gone))),
                (true, false) => clauses.push(format!("{path}: also {}", list(&come))),
                (false, false) => clauses.push(format!("{path}: {} instead of {}", list(&come), list(&gone))),
            }
        }
        (Value::Null, new) => clauses.push(leaf(path, None, Some(new))),
        (old, Value::Null) => clauses.push(leaf(path, Some(old), None)),
        (old, new) => clauses.push(leaf(path, Some(old), Some(new))),
    }
}

/// One field; PEM is told by what it says, a key's digest not at all (the chain tells it).
fn leaf(path: &str, before: Option<&Value>, after: Option<&Value>) -> String {
    match (path, before, after) {
        ("chain", _, Some(Value::String(chain))) => format!("another certificate: {}", certificate(chain)),
        ("certificates", _, Some(Value::String(pem))) => format!("certificates: now {}", bundle(pem)),
        ("privateKeyRef", ..) => "another private key".to_owned(),
        (_, Some(old), Some(new)) => format!("{path}: {} becomes {}", value(old), value(new)),
        (_, None, Some(new)) => format!("{path}: now {}", value(new)),
        (_, Some(old), None) => format!("{path}: no longer {}", value(old)),
        (_, None, None) => String::new(),
    }
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let shown: Vec<&str> = items.iter().take(LISTED).map(AsRef::as_ref).collect();
    match items.len() {
        0 => "nothing".to_owned(),
        n if n <= LISTED => shown.join(", "),
        n => format!("{} and {} more", shown.join(", "), n - LISTED),
    }
}

/// What a change touches beside the objects it changes.
pub(super) fn touches(before: &BTreeMap<(Kind, String), Object>, prepared: &Prepared) -> Vec<String> {
    let mut sentences = Vec::new();
    for object in &prepared.put {
        let key = object_key(object);
        let users = used_by(&prepared.objects, &key);
        if before.contains_key(&key) && !users.is_empty() {
            sentences.push(format!("{} {} is used by {}", key.0.words(), key.1, list(&labels(&users))));
        }
    }
    for key in &prepared.remove {
        let users = used_by(before, key);
        if !users.is_empty() {
            sentences.push(format!("{} {} was used by {}", key.0.words(), key.1, list(&labels(&users))));
        }
    }
    sentences
}

/// Which objects name this one.
pub(crate) fn used_by(
    objects: &BTreeMap<(Kind, String), Object>,
    key: &(Kind, String),
) -> Vec<(Kind, String)> {
    let names =
        |object: &Object| references(object).iter().any(|(kind, name)| *kind == key.0 && *name == key.1);
    objects.iter().filter(|(_, object)| names(object)).map(|(user, _)| user.clone()).collect()
}

fn labels(users: &[(Kind, String)]) -> Vec<String> {
    users.iter().map(|(kind, name)| format!("{} {name}", kind.words())).collect()
}

/// What each object of a kind is named by: one pass for a whole table.
pub(crate) fn users_of(
    objects: &BTreeMap<(Kind, String), Object>,
    kind: Kind,
) -> BTreeMap<&str, Vec<(Kind, String)>> {
    let mut users: BTreeMap<&str, Vec<(Kind, String)>> = BTreeMap::new();
    for object in objects.values() {
        let names: BTreeSet<&str> =
            references(object).into_iter().filter(|(of, _)| *of == kind).map(|(_, name)| name).collect();
        for name in names {
            users.entry(name).or_default().push((object.kind(), object.metadata.name.clone()));
        }
    }
    users
}

/// What an object names.
fn references(object: &Object) -> Vec<(Kind, &str)> {
    match &object.spec {
        Spec::Listener(spec) => spec
            .default_certificate
            .iter()
            .chain(&spec.certificates)
            .map(|n| (Kind::Certificate, n.as_str()))
            .collect(),
        Spec::Route(spec) => {
            let mut found: Vec<_> =
                spec.listeners.iter().map(|name| (Kind::Listener, name.as_str())).collect();
            found.extend(spec.certificate.iter().map(|name| (Kind::Certificate, name.as_str())));
            found.push((Kind::OriginGroup, &spec.origin_group));
            found
        }
        Spec::OriginGroup(spec) => {
            spec.tls.trust_bundle.iter().map(|name| (Kind::TrustBundle, name.as_str())).collect()
        }
        Spec::Certificate(_) | Spec::TrustBundle(_) | Spec::PacketFilter(_) => Vec::new(),
    }
}
