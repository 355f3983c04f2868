//! `PacketFilter`.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::At;
use crate::draft::{FilterRuleSpec, PacketFilterSpec};
use crate::name::Name;
use crate::problem::Code;
use crate::snapshot::{FilterAction, FilterRule};

/// A filter's rules, sorted by name, and the nodes that have them.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) rules: Vec<FilterRule>,
    pub(super) selector: BTreeMap<String, String>,
}

pub(super) fn lower(
    name: &Name,
    spec: &PacketFilterSpec,
    rule_ids: &BTreeMap<String, u32>,
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
        rules.extend(self::rule(&field, format!("{name}/{}", rule.name), rule, rule_ids, at));
    }
    rules.sort_by(|a: &FilterRule, b| a.name.cmp(&b.name));
    Some(Lowered { rules, selector: at.selector(&spec.node_selector) })
}

fn rule(
    field: &str,
    name: String,
    spec: &FilterRuleSpec,
    rule_ids: &BTreeMap<String, u32>,
    at: &mut At<'_>,
) -> Option<FilterRule> {
    let words = [("Deny", FilterAction::Deny), ("Allow", FilterAction::Allow)];
    let action = at.word(format!("{field}.action"), &spec.action, &words);
    at.not_empty(
        &format!("{field}.prefixes"),
        &spec.prefixes,
        "prefix, such as 192.0.2.0/24 or 2001:db8::/32",
    );
    let prefixes = at.prefixes(&format!("{field}.prefixes"), &spec.prefixes);
    let id = rule_ids.get(&name).copied().filter(|id| *id != 0);
    if id.is_none() {
        // The console numbers rules before it compiles: a fault of ours, named so that it can be reported.
        let message = "the console gave this rule no number; please report this, and save the filter again";
        at.problem(format!("{field}.name"), Code::Conflict, message);
    }
    Some(FilterRule::new(id?, &name, action?, prefixes))
}
