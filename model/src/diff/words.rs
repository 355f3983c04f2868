//! The words of one change.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{defaults, filters, packet_filter};
use crate::certificate::{Facts, trust_bundle};
use crate::digest::Digest;
use crate::draft::{
    CertificateSpec, ErrorPageSpec, ListenerSpec, MatchSpec, Object, PortSpec, RouteSpec, Spec,
};

/// More of a list than this is counted, not told.
const TOLD: usize = 4;

/// Objects that turn something on by being there, whatever is in them.
const BY_BEING_THERE: [&str; 3] = ["probe", "protocols", "proxyProtocol"];

/// An object that is new or gone.
pub(super) fn of(object: &Object) -> String {
    match &object.spec {
        Spec::Listener(spec) => listener(spec),
        Spec::Route(spec) => route(spec),
        Spec::OriginGroup(spec) => list(spec.origins.iter().map(|origin| origin.url.clone())),
        Spec::Certificate(spec) => certificate(spec),
        Spec::TrustBundle(spec) => bundle(&spec.certificates),
        Spec::PrefixSet(spec) => match (&spec.source, spec.prefixes.is_empty()) {
            (None, _) => list(spec.prefixes.iter().cloned()),
            (Some(source), true) => format!("from {}", source.url),
            (Some(source), false) => {
                format!("from {}, now {}", source.url, list(spec.prefixes.iter().cloned()))
            }
        },
        Spec::PacketFilter(spec) => list(packet_filter::words(spec).into_iter()),
    }
}

/// What is different between two objects of one name.
pub(super) fn between(old: &Object, new: &Object) -> String {
    let mut found = Vec::new();
    compare("labels", &labels(old), &labels(new), &mut found);
    if let (Spec::Certificate(old), Spec::Certificate(new)) = (&old.spec, &new.spec)
        && old.private_key != new.private_key
    {
        found.push("private key replaced".to_owned());
    }
    let (mut before, mut after) = (shown(&old.spec), shown(&new.spec));
    if let (Spec::PacketFilter(old), Spec::PacketFilter(new)) = (&old.spec, &new.spec) {
        found.extend(packet_filter::whole((old, &mut before), (new, &mut after)));
    }
    compare("", &before, &after, &mut found);
    if found.is_empty() { "written differently, same meaning".to_owned() } else { found.join("; ") }
}

fn labels(object: &Object) -> Value {
    object
        .metadata
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

/// The spec with PEM texts in words and named entries by their names.
fn shown(spec: &Spec) -> Value {
    let mut value = spec.to_value();
    let Some(fields) = value.as_object_mut() else { return value };
    match spec {
        Spec::Certificate(spec) => {
            fields.remove("privateKey");
            if let Some(chain) = &spec.chain {
                fields.insert("chain".to_owned(), self::chain(chain).into());
            }
            if let Some(reference) = &spec.private_key_ref {
                fields.insert("privateKeyRef".to_owned(), short(reference).into());
            }
        }
        Spec::TrustBundle(spec) => {
            fields.insert("certificates".to_owned(), bundle(&spec.certificates).into());
        }
        Spec::Route(spec) => {
            let paths: Vec<Value> = spec.matches.iter().map(|spec| path(spec).into()).collect();
            fields.insert("matches".to_owned(), paths.into());
            fields.remove("filters");
            fields.extend(filters::shown(&spec.filters));
        }
        Spec::OriginGroup(spec) => {
            let urls: Vec<Value> = spec.origins.iter().map(|origin| origin.url.clone().into()).collect();
            fields.insert("origins".to_owned(), urls.into());
        }
        Spec::PacketFilter(spec) => {
            packet_filter::by_name(spec, fields);
        }
        // As it stands: its entries are told one by one.
        Spec::PrefixSet(_) => {}
        Spec::Listener(spec) => {
            let pages: Vec<Value> = spec.error_pages.iter().map(|page| error_page(page).into()).collect();
            fields.insert("errorPages".to_owned(), pages.into());
        }
    }
    value
}

/// Field by field: objects inside, lists as sets of entries, everything else before and after.
fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let is_on = |side: &Map<String, Value>| side.get(key).is_some_and(Value::is_object);
                if BY_BEING_THERE.contains(&inner.as_str()) && is_on(old) != is_on(new) {
                    let said = |side| if is_on(side) { "on" } else { "off" };
                    found.push(format!("{inner} {} → {}", said(old), said(new)));
                    if !is_on(new) {
                        continue;
                    }
                }
                let side = |side: &Map<String, Value>, other: &Map<String, Value>| {
                    side.get(key).cloned().unwrap_or_else(|| empty_like(other.get(key)))
                };
                compare(&inner, &side(old, new), &side(new, old), found);
            }
        }
        (Value::Array(old), Value::Array(new)) => entries(path, old, new, found),
        (old, new) => {
            let side = |value: &Value| match defaults::of(path) {
                Some(unsaid) if value.is_null() => unsaid.to_owned(),
                _ => plain(value),
            };
            let (old, new) = (side(old), side(new));
            // A default that is written, or no longer, is no change.
            if old != new {
                found.push(format!("{path} {old} → {new}"));
            }
        }
    }
}

/// An absent list or object is an empty one, so that its entries are told.
fn empty_like(other: Option<&Value>) -> Value {
    match other {
        Some(Value::Array(_)) => Value::Array(Vec::new()),
        Some(Value::Object(_)) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

fn entries(path: &str, old: &[Value], new: &[Value], found: &mut Vec<String>) {
    let texts = |values: &[Value]| values.iter().map(plain).collect::<Vec<_>>();
    let (old, new) = (texts(old), texts(new));
    let (before, after): (BTreeSet<&String>, BTreeSet<&String>) =
        (old.iter().collect(), new.iter().collect());
    let added = list(new.iter().filter(|entry| !before.contains(entry)).cloned());
    let removed = list(old.iter().filter(|entry| !after.contains(entry)).cloned());
    match (added.is_empty(), removed.is_empty()) {
        (false, false) => found.push(format!("{path} +{added}, -{removed}")),
        (false, true) => found.push(format!("{path} +{added}")),
        (true, false) => found.push(format!("{path} -{removed}")),
        (true, true) => found.push(format!("{path} in another order: {}", list(new.iter().cloned()))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "(default)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// `a, b, c, d and 3 more`.
pub(super) fn list(entries: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = entries.collect();
    let told = all.get(..TOLD.min(all.len())).unwrap_or_default().join(", ");
    if all.len() > TOLD { format!("{told} and {} more", all.len() - TOLD) } else { told }
}

fn listener(spec: &ListenerSpec) -> String {
    let places = match spec.addresses.is_empty() {
        true => "every address".to_owned(),
        false => list(spec.addresses.iter().cloned()),
    };
    let open = match (spec.is_clear_text(), spec.http.answer.as_deref()) {
        (true, Some("Refuse")) => ", clear text, refused",
        (true, _) => ", clear text, redirected to HTTPS",
        (false, _) => "",
    };
    let h2c = match spec.opens_routes() {
        true => {
            format!(", routes in clear text (h2c) for {}", list(spec.http.h2c_prefixes.iter().cloned()))
        }
        false => String::new(),
    };
    let port = match &spec.port {
        PortSpec::Number(number) => format!("port {number}"),
        PortSpec::Word(word) => format!("{word} port"),
    };
    format!("{port} on {places}{open}{h2c}")
}

fn route(spec: &RouteSpec) -> String {
    let paths: Vec<String> = match spec.matches.is_empty() {
        true if spec.is_passthrough() => vec![" (passthrough)".to_owned()],
        true => vec!["/".to_owned()],
        false => spec.matches.iter().map(path).collect(),
    };
    let hosts = spec.hostnames.iter().flat_map(|host| paths.iter().map(move |path| format!("{host}{path}")));
    let off = if spec.enabled { "" } else { " (disabled)" };
    format!("{} → {}{off}", list(hosts), filters::target(spec))
}

fn path(spec: &MatchSpec) -> String {
    let path = match spec.path.kind.as_str() {
        "Exact" => format!("{} (exact)", spec.path.value),
        _ => spec.path.value.clone(),
    };
    let method = spec.method.iter().cloned();
    let headers = spec.headers.iter().map(|one| format!("{}: {}", one.name, one.value));
    let query = spec.query_params.iter().map(|one| format!("?{}={}", one.name, one.value));
    let conditions: Vec<String> = method.chain(headers).chain(query).collect();
    if conditions.is_empty() { path } else { format!("{path} (only {})", conditions.join(", ")) }
}

/// Not the page itself, which would fill the review; the digest tells two of them apart.
fn error_page(page: &ErrorPageSpec) -> String {
    let (status, form) = (page.status.as_deref().unwrap_or("all"), page.form.as_deref().unwrap_or("html"));
    let digest = short(&Digest::of(page.body.as_bytes()).to_string());
    format!("{status} {form} ({} bytes, {digest})", page.body.len())
}

fn certificate(spec: &CertificateSpec) -> String {
    match (&spec.chain, &spec.internal_ca) {
        (Some(chain), _) => self::chain(chain),
        (None, Some(issue)) => {
            format!("to be issued by the internal CA for {}", list(issue.hostnames.iter().cloned()))
        }
        (None, None) => "without a chain".to_owned(),
    }
}

/// `shop.example.com (until 2026-12-01, fingerprint 5d41402abc4b)`.
fn chain(pem: &str) -> String {
    match Facts::of_chain(pem) {
        Ok(facts) => format!(
            "{} (until {}, fingerprint {})",
            list(facts.hostnames.iter().map(ToString::to_string)),
            facts.not_after.date(),
            short(&facts.fingerprint.to_string())
        ),
        Err(_) => unreadable(pem),
    }
}

fn bundle(pem: &str) -> String {
    match trust_bundle(pem) {
        Ok(authorities) => list(authorities.iter().map(|authority| {
            let fingerprint = short(&authority.fingerprint.to_string());
            format!("{} (until {}, fingerprint {fingerprint})", authority.subject, authority.not_after.date())
        })),
        Err(_) => unreadable(pem),
    }
}

/// Not quoted: whatever it is, it may be a key. The digest tells two of them apart.
fn unreadable(pem: &str) -> String {
    format!("unreadable text {}", short(&Digest::of(pem.as_bytes()).to_string()))
}

/// A digest as people compare it.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
