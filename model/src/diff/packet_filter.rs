//! A packet filter's rules and budgets in words: told by their names, and as a whole where they are new or gone.

use serde_json::{Map, Value};

use super::words::list;
use crate::draft::{BudgetSpec, FilterRuleSpec, PacketFilterSpec};

/// A rule or a budget.
struct Entry {
    /// `rule edge`, `budget synPressure`: it is told by this, and no other of the filter has it.
    key: String,
    /// As `key`, with what a reader needs beside it.
    noun: String,
    /// What it does.
    what: String,
    /// How it is told among others.
    words: String,
    /// Its fields, by their names.
    fields: Value,
}

/// What a filter says: each rule, the protocols, each budget.
pub(super) fn words(spec: &PacketFilterSpec) -> Vec<String> {
    let protocols = spec.protocols.iter().map(|list| format!("only {}", list.allow.join(", ")));
    let told = |entry: Entry| entry.words;
    rules(spec).map(told).chain(protocols).chain(budgets(spec).map(told)).collect()
}

/// Puts rules and budgets among the fields of a filter's spec by their names, each as an object.
pub(super) fn by_name(spec: &PacketFilterSpec, fields: &mut Map<String, Value>) {
    fields.remove("rules");
    fields.remove("budgets");
    fields.extend(rules(spec).chain(budgets(spec)).map(|entry| (entry.key, entry.fields)));
}

/// Tells what only one of two filters has, and takes it out of its fields.
pub(super) fn whole(
    (old, before): (&PacketFilterSpec, &mut Value),
    (new, after): (&PacketFilterSpec, &mut Value),
) -> Vec<String> {
    let mut found = Vec::new();
    let (Some(before), Some(after)) = (before.as_object_mut(), after.as_object_mut()) else { return found };
    for entry in rules(old).chain(budgets(old)).filter(|entry| !after.contains_key(&entry.key)) {
        before.remove(&entry.key);
        found.push(format!("{} removed: {}", entry.noun, entry.what));
    }
    let had: Vec<String> = rules(old).chain(budgets(old)).map(|entry| entry.key).collect();
    for entry in rules(new).chain(budgets(new)).filter(|entry| !had.contains(&entry.key)) {
        after.remove(&entry.key);
        found.push(format!("{} added: {}", entry.noun, entry.what));
    }
    found
}

fn rules(spec: &PacketFilterSpec) -> impl Iterator<Item = Entry> {
    spec.rules.iter().map(|rule| {
        let key = format!("rule {}", rule.name);
        let (action, about) = (rule.action.to_lowercase(), about(rule));
        Entry {
            noun: key.clone(),
            what: format!("{action} ({about})"),
            words: format!("{action} {} ({about})", rule.name),
            fields: nameless(serde_json::to_value(rule)),
            key,
        }
    })
}

fn budgets(spec: &PacketFilterSpec) -> impl Iterator<Item = Entry> {
    let entry = |name: &str, ports: &[String], what: String, fields: Value| {
        let key = format!("budget {name}");
        let noun = match ports {
            [] => key.clone(),
            ports => format!("{key} of ports {}", list(ports.iter().cloned())),
        };
        Entry { words: format!("{noun} ({what})"), key, noun, what, fields }
    };
    let single = spec.budgets.iter().flat_map(|budgets| budgets.single());
    let single = single.filter_map(move |(field, _, budget)| {
        let BudgetSpec { rate, burst, mode } = budget?;
        let fields = serde_json::to_value(budget).unwrap_or_default();
        Some(entry(field, &[], amount(*rate, *burst, mode.as_deref()), fields))
    });
    let ports = spec.budgets.iter().flat_map(|budgets| &budgets.syn_per_port);
    single.chain(ports.map(move |budget| {
        let what = amount(budget.rate, budget.burst, budget.mode.as_deref());
        entry(&budget.name, &budget.ports, what, nameless(serde_json::to_value(budget)))
    }))
}

/// An entry's fields but for its name, which is the key.
fn nameless(fields: serde_json::Result<Value>) -> Value {
    let mut fields = fields.unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("name");
    }
    fields
}

/// `set cloud-a, 192.0.2.0/24 to TCP 443`.
fn about(rule: &FilterRuleSpec) -> String {
    let sets = rule.prefix_sets.iter().map(|set| format!("set {set}"));
    let sources = list(sets.chain(rule.prefixes.iter().cloned()));
    let protocols = match (&*rule.protocols, &*rule.ports) {
        ([], []) => String::new(),
        ([], _) => "TCP".to_owned(),
        (some, _) => some.join(", "),
    };
    let types = rule.icmp_types.iter().map(ToString::to_string);
    let details = list(rule.ports.iter().cloned().chain(types));
    let what: Vec<String> = [protocols, details].into_iter().filter(|text| !text.is_empty()).collect();
    let what = if what.is_empty() { String::new() } else { format!(" to {}", what.join(" ")) };
    format!("{sources}{what}{}", observed(rule.mode.as_deref()))
}

/// `3000/s, 6000 at once`.
fn amount(rate: u64, burst: Option<u64>, mode: Option<&str>) -> String {
    format!("{rate}/s, {} at once{}", burst.unwrap_or(rate), observed(mode))
}

fn observed(mode: Option<&str>) -> &'static str {
    if mode == Some("Observe") { ", observed only" } else { "" }
}
