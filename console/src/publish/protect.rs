//! Changes that would shut out the person who makes them, or a node, need a second confirmation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use model::compile::Compiled;
use model::filter::{CellVerdict, Index, Inputs, Payload};
use model::problem::{Code, Problem};
use model::snapshot::FilterRule;

use super::Current;
use crate::ops::Actor;

/// The addresses that nodes and console use to reach each other: both ends of every open link. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<BTreeMap<String, [IpAddr; 2]>>>);

impl Links {
    /// A node's link is open between these addresses.
    pub fn opened(&self, node: &str, ends: [IpAddr; 2]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), ends);
    }

    /// It is closed. The address stays protected: the node comes back from there.
    fn all(&self) -> BTreeMap<String, [IpAddr; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What of the change needs a confirmation: only what was not so before.
    pub(super) fn protect(&self, base: &Current, new: &Compiled, actor: &Actor) -> Vec<Problem> {
        let before: Vec<FilterRule> =
            base.compiled.iter().flat_map(|compiled| compiled.filter_rules().cloned()).collect();
        let after: Vec<FilterRule> = new.filter_rules().cloned().collect();
        if before == after {
            return Vec::new();
        }
        let mut problems = Vec::new();
        if let Some(address) = actor.address
            && let Some(rule) = newly_denied(&before, &after, address)
        {
            let whose =
                format!("your own address {address}: you may lose access to this console and its machine");
            problems.push(problem(rule, &whose));
        }
        for (node, ends) in self.all() {
            if let Some((address, rule)) =
                ends.iter().find_map(|a| Some((a, newly_denied(&before, &after, *a)?)))
            {
                let whose = format!("{address}, which node {node} and this console use to reach each other");
                problems.push(problem(rule, &whose));
            }
        }
        problems
    }
}

fn newly_denied<'a>(
    before: &[FilterRule],
    after: &'a [FilterRule],
    address: IpAddr,
) -> Option<&'a FilterRule> {
    let denied = |rules| {
        let index = Index::new(Inputs { rules, ..Inputs::default() }).ok()?;
        let cell = index.cell(address, address, Payload::Tcp(0));
        (cell.verdict == CellVerdict::Denied).then_some(cell.rule)
    };
    let rule = denied(after)?;
    if denied(before).is_some() {
        return None;
    }
    after.iter().find(|known| known.id == rule)
}

fn problem(rule: &FilterRule, whose: &str) -> Problem {
    let (filter, name) = rule.name.split_once('/').unwrap_or((&rule.name, ""));
    let message = format!(
        "rule {name} would drop {whose}; leave the address out, or confirm that you mean it (the review's tick box, `sallyport apply --yes`, `\"confirm\": true` in the API)"
    );
    Problem::new(format!("PacketFilter/{filter}"), "spec.rules", Code::NeedsConfirmation, message)
}
