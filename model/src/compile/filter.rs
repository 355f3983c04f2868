//! `PacketFilter`.

use std::collections::{BTreeMap, BTreeSet};

use super::budgets;
use super::notes::{At, shown};
use super::prefix_set::Sets;
use crate::draft::{FilterRuleSpec, PacketFilterSpec, ProtocolListSpec};
use crate::filter::{ICMP, ICMPV6, TCP, UDP, protocol_number, protocol_word};
use crate::name::Name;
use crate::problem::Code;
use crate::snapshot::{FilterAction, FilterBudgets, FilterMode, FilterRule, PortRange, ProtocolList};

/// The name of a filter's protocol list among its rules.
const PROTOCOLS: &str = "protocols";

/// Linux's ports for connections that a machine opens itself (`ip_local_port_range`): replies arrive there.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A filter's rules, sorted by name, its protocol list, and the nodes that have them.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) rules: Vec<FilterRule>,
    pub(super) protocols: Option<ProtocolList>,
    pub(super) budgets: FilterBudgets,
    pub(super) selector: BTreeMap<String, String>,
}

/// What a filter is compiled with.
pub(super) struct Known<'a> {
    pub(super) ids: &'a BTreeMap<String, u32>,
    pub(super) sets: Sets<'a>,
}

pub(super) fn lower(
    name: &Name,
    spec: &PacketFilterSpec,
    known: &Known<'_>,
    at: &mut At<'_>,
) -> Option<Lowered> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::with_capacity(spec.rules.len());
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        if let Some(short) = at.parse::<Name>(format!("{field}.name"), &rule.name)
            && !seen.insert(short)
        {
            let message = format!("two rules of this filter are named {}; rename one", rule.name);
            at.problem(format!("{field}.name"), Code::Duplicate, message);
        }
        if spec.protocols.is_some() && rule.name == PROTOCOLS {
            let message = format!("{PROTOCOLS} is how the list of protocols is counted; rename the rule");
            at.problem(format!("{field}.name"), Code::Duplicate, message);
        }
        rules.extend(self::rule(&field, format!("{name}/{}", rule.name), rule, known, at));
    }
    rules.sort_by(|a: &FilterRule, b| a.name.cmp(&b.name));
    let protocols = spec.protocols.as_ref().and_then(|list| self::list(name, list, known, at));
    let budgets = budgets::lower(name, spec, known, at);
    Some(Lowered { rules, protocols, budgets, selector: at.selector(&spec.node_selector) })
}

fn rule(
    field: &str,
    name: String,
    spec: &FilterRuleSpec,
    known: &Known<'_>,
    at: &mut At<'_>,
) -> Option<FilterRule> {
    let words = [("Deny", FilterAction::Deny), ("Allow", FilterAction::Allow)];
    let action = at.word(format!("{field}.action"), &spec.action, &words);
    if spec.prefix_sets.is_empty() {
        at.not_empty(
            &format!("{field}.prefixes"),
            &spec.prefixes,
            "prefix, such as 192.0.2.0/24 or 2001:db8::/32, or name a prefix set",
        );
    }
    let own = at.prefixes(&format!("{field}.prefixes"), &spec.prefixes);
    let prefixes = known.sets.add(&spec.name, &format!("{field}.prefixSets"), &spec.prefix_sets, own, at);
    let mode = mode(format!("{field}.mode"), spec.mode.as_deref(), at);
    let priority = at.number(&format!("{field}.priority"), spec.priority, 0, 0..=u16::MAX.into());
    let mut protocols = protocols(&format!("{field}.protocols"), &spec.protocols, at);
    if spec.protocols.is_empty() && !spec.ports.is_empty() {
        protocols = vec![TCP];
    }
    let ports = ports(field, spec, &protocols, at);
    let icmp_types = icmp_types(field, spec, &protocols, at);
    if action == Some(FilterAction::Allow) {
        replies(field, spec, (&protocols, &ports), at);
    }
    let id = id(&format!("{field}.name"), &name, known, at);
    // An Allow rule shuts everybody else out: not before the list is there of those it lets in.
    let waits = known.sets.wait(&spec.prefix_sets);
    if waits && (prefixes.is_empty() || action == Some(FilterAction::Allow)) {
        return None;
    }
    let rule = FilterRule::new(id?, &name, action?, prefixes);
    Some(FilterRule { mode, priority, protocols, ports, icmp_types, ..rule })
}

fn list(filter: &Name, spec: &ProtocolListSpec, known: &Known<'_>, at: &mut At<'_>) -> Option<ProtocolList> {
    let field = "spec.protocols.allow";
    at.not_empty(field, &spec.allow, "protocol, such as TCP");
    let allow = protocols(field, &spec.allow, at);
    if !spec.allow.is_empty() && !allow.contains(&TCP) {
        let message = "TCP is not in the list, and without it nobody reaches the listeners or this node's console; add it";
        at.problem(field, Code::Missing, message);
    }
    let mode = mode("spec.protocols.mode".to_owned(), spec.mode.as_deref(), at);
    let name = format!("{filter}/{PROTOCOLS}");
    let id = id("spec.protocols", &name, known, at);
    Some(ProtocolList { id: id?, name, allow, mode })
}

pub(super) fn id(field: &str, name: &str, known: &Known<'_>, at: &mut At<'_>) -> Option<u32> {
    let id = known.ids.get(name).copied().filter(|id| *id != 0);
    if id.is_none() {
        // The console numbers rules before it compiles: a fault of ours, named so that it can be reported.
        let message = "the console gave this rule no number; please report this, and save the filter again";
        at.problem(field, Code::Conflict, message);
    }
    id
}

pub(super) fn mode(field: String, text: Option<&str>, at: &mut At<'_>) -> FilterMode {
    let words = [("Enforce", FilterMode::Enforce), ("Observe", FilterMode::Observe)];
    text.and_then(|text| at.word(field, text, &words)).unwrap_or_default()
}

/// Protocols, sorted; a repeated one is a problem.
fn protocols(field: &str, texts: &[String], at: &mut At<'_>) -> Vec<u8> {
    let mut protocols = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match protocol_number(text) {
            None => {
                let message = format!(
                    "{} is no IP protocol; write TCP, UDP, ICMP, ICMPv6, GRE, ESP, AH, SCTP, IGMP or a number from 0 to 255",
                    shown(text)
                );
                at.problem(field, Code::Invalid, message);
            }
            Some(number) if !protocols.insert(number) => {
                let message = format!("{} is in this list twice; remove one", protocol_word(number));
                at.problem(field, Code::Duplicate, message);
            }
            Some(_) => {}
        }
    }
    protocols.into_iter().collect()
}

/// The ports of a rule.
fn ports(field: &str, spec: &FilterRuleSpec, protocols: &[u8], at: &mut At<'_>) -> Vec<PortRange> {
    if !spec.ports.is_empty() && protocols.iter().any(|protocol| !matches!(*protocol, TCP | UDP)) {
        let message = "only TCP and UDP have ports; name these protocols alone, or write another rule";
        at.problem(format!("{field}.ports"), Code::Invalid, message);
    }
    port_list(field, &spec.ports, at)
}

/// The ports in `ports` of a field, sorted; ranges that meet are told.
pub(super) fn port_list(field: &str, texts: &[String], at: &mut At<'_>) -> Vec<PortRange> {
    let mut ports: Vec<PortRange> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        let Some(range) = at.parse::<PortRange>(&*field, text) else { continue };
        match ports.iter().find(|other| range.first() <= other.last() && other.first() <= range.last()) {
            Some(other) => {
                let message =
                    format!("{range} and {other} of this list have ports in common; write each port once");
                at.problem(field, Code::Duplicate, message);
            }
            None => ports.push(range),
        }
    }
    ports.sort_unstable();
    ports
}

fn icmp_types(field: &str, spec: &FilterRuleSpec, protocols: &[u8], at: &mut At<'_>) -> Vec<u8> {
    let field = format!("{field}.icmpTypes");
    let other = |protocol: &u8| !matches!(*protocol, ICMP | ICMPV6);
    if !spec.icmp_types.is_empty() && (protocols.is_empty() || protocols.iter().any(other)) {
        let message =
            "only ICMP and ICMPv6 have types; name one of them or both in `protocols`, and nothing else";
        at.problem(&*field, Code::Invalid, message);
    }
    let number = |(index, kind): (usize, &u64)| {
        at.number(&format!("{field}[{index}]"), Some(*kind), 0, 0..=u8::MAX.into())
    };
    let types: BTreeSet<u8> = spec.icmp_types.iter().enumerate().map(number).collect();
    types.into_iter().collect()
}

/// An allow rule makes everything it is about need one: it must not be about the replies to this node's own connections.
fn replies(field: &str, spec: &FilterRuleSpec, (protocols, ports): (&[u8], &[PortRange]), at: &mut At<'_>) {
    if spec.ports.is_empty()
        && let Some(protocol) = protocols.iter().find(|protocol| matches!(**protocol, TCP | UDP))
    {
        let message = format!(
            "an Allow rule for {} needs ports: without them the replies to this node's own connections, from origins, name servers and the console, would need it too",
            protocol_word(*protocol)
        );
        at.problem(format!("{field}.ports"), Code::Missing, message);
    }
    for (index, text) in spec.ports.iter().enumerate() {
        let meets =
            |range: &&PortRange| range.first() <= *OWN_PORTS.end() && *OWN_PORTS.start() <= range.last();
        if let Some(range) = text.parse().ok().as_ref().filter(meets).filter(|range| ports.contains(range)) {
            let message = format!(
                "{range} reaches into {}-{}, where the replies to this node's own connections arrive: they would need this Allow rule too; write lower ports, or deny the sources you do not want",
                OWN_PORTS.start(),
                OWN_PORTS.end()
            );
            at.problem(format!("{field}.ports[{index}]"), Code::Invalid, message);
        }
    }
}
