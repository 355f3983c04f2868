//! Differences in words, and who uses what.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

use model::diff::Change;
use model::draft::{Kind, Object, Spec};
use model::filter::{ICMP, ICMPV6, UDP, protocol_word};
use model::snapshot::FilterMode;

use super::prepare::Prepared;
use crate::ops::ChangeLine;
use crate::store::object_key;

/// How many names a sentence lists.
const LISTED: usize = 5;

/// The difference between two sets of objects.
pub fn difference(before: &[Object], after: &[Object]) -> Vec<ChangeLine> {
    model::diff::changes(before, after).into_iter().map(line).collect()
}

/// One object's change; nothing when there is none.
pub(super) fn of_change(before: Option<&Object>, after: Option<&Object>) -> Vec<ChangeLine> {
    let slice = |object: Option<&Object>| object.map(from_ref).unwrap_or_default().to_vec();
    difference(&slice(before), &slice(after))
}

/// Action and object stand in columns of their own here: the words go on after them.
fn line(change: Change) -> ChangeLine {
    let words = match change.words.split_once(": ") {
        Some((_, words)) => words.to_owned(),
        None => change.words,
    };
    ChangeLine { action: change.action, object: change.object, words }
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let shown: Vec<&str> = items.iter().take(LISTED).map(AsRef::as_ref).collect();
    match items.len() {
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

/// What no longer works where a list of protocols that is new or differs leaves out one that a node needs itself.
pub(super) fn left_out(prepared: &Prepared) -> Vec<String> {
    let Some(compiled) = &prepared.compiled else { return Vec::new() };
    let mut sentences = Vec::new();
    for object in &prepared.put {
        let Spec::PacketFilter(spec) = &object.spec else { continue };
        if spec.protocols.is_none() {
            continue;
        }
        // Several filters' lists add up; those that are only observed drop nothing.
        let lists = compiled.filter_protocols_for(&spec.node_selector.match_labels);
        let lists: Vec<_> = lists.filter(|list| list.mode == FilterMode::Enforce).collect();
        let missing = |protocol: &u8| lists.iter().all(|list| !list.allow.contains(protocol));
        let filter = &object.metadata.name;
        for (protocol, breaks) in NEEDED.iter().filter(|(protocol, _)| !lists.is_empty() && missing(protocol))
        {
            let word = protocol_word(*protocol);
            sentences
                .push(format!("{word} is not in the list of protocols of packet filter {filter}: {breaks}"));
        }
    }
    sentences
}

/// Protocols that nodes need, and what comes of it without.
const NEEDED: [(u8, &str); 3] = [
    (
        UDP,
        "the replies of name servers, time servers and DHCP are dropped, so that origins and a console that are given by name cannot be found",
    ),
    (
        ICMP,
        "pings are not answered, and an IPv4 host that cannot be reached is found out by waiting alone (messages about path MTU pass)",
    ),
    (
        ICMPV6,
        "pings are not answered, and an IPv6 host that cannot be reached is found out by waiting alone (messages about path MTU and neighbour discovery pass)",
    ),
];

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
        Spec::Listener(spec) => {
            let served = spec.default_certificate.iter().chain(&spec.certificates);
            let asked = spec.http.acme_origin_group.iter().map(|name| (Kind::OriginGroup, name.as_str()));
            served.map(|name| (Kind::Certificate, name.as_str())).chain(asked).collect()
        }
        Spec::Route(spec) => {
            let mut found: Vec<_> =
                spec.listeners.iter().map(|name| (Kind::Listener, name.as_str())).collect();
            found.extend(spec.certificate.iter().map(|name| (Kind::Certificate, name.as_str())));
            found.extend(Some((Kind::OriginGroup, &*spec.origin_group)).filter(|(_, name)| !name.is_empty()));
            found
        }
        Spec::OriginGroup(spec) => {
            let bundle = spec.tls.trust_bundle.iter().map(|name| (Kind::TrustBundle, name.as_str()));
            let shown = spec.tls.client_certificate.iter().map(|name| (Kind::Certificate, name.as_str()));
            bundle.chain(shown).collect()
        }
        Spec::PacketFilter(spec) => {
            let named: BTreeSet<&str> =
                spec.rules.iter().flat_map(|rule| &rule.prefix_sets).map(String::as_str).collect();
            named.into_iter().map(|name| (Kind::PrefixSet, name)).collect()
        }
        Spec::PrefixSet(spec) => {
            let bundle = spec.source.iter().filter_map(|source| source.trust_bundle.as_deref());
            bundle.map(|name| (Kind::TrustBundle, name)).collect()
        }
        Spec::Certificate(_) | Spec::TrustBundle(_) => Vec::new(),
    }
}
