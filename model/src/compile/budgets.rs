//! A packet filter's budgets.

use std::collections::BTreeSet;

use super::filter::{Known, id, mode, port_list};
use super::notes::At;
use crate::draft::{BudgetsSpec, PacketFilterSpec};
use crate::filter::MOST_RATE;
use crate::name::Name;
use crate::problem::Code;
use crate::snapshot::{FilterBudget, FilterBudgets, FilterMode, PortBudget};

const FIELD: &str = "spec.budgets";

pub(super) fn lower(
    filter: &Name,
    spec: &PacketFilterSpec,
    known: &Known<'_>,
    at: &mut At<'_>,
) -> FilterBudgets {
    let Some(budgets) = &spec.budgets else { return FilterBudgets::default() };
    names(spec, budgets, at);
    let mut single = budgets.single().map(|(field, name, budget)| {
        let budget = budget?;
        let field = format!("{FIELD}.{field}");
        let name = format!("{filter}/{name}");
        lowered(&field, &field, name, (budget.rate, budget.burst, budget.mode.as_deref()), known, at)
    });
    let per_port = budgets.syn_per_port.iter().enumerate().filter_map(|(index, budget)| {
        let field = format!("{FIELD}.synPerPort[{index}]");
        let name = format!("{filter}/{}", budget.name);
        let parts = (budget.rate, budget.burst, budget.mode.as_deref());
        let lowered = lowered(&field, &format!("{field}.name"), name, parts, known, at);
        at.not_empty(&format!("{field}.ports"), &budget.ports, "port, such as 443");
        let ports = port_list(&field, &budget.ports, at);
        Some(PortBudget { budget: lowered?, ports })
    });
    let mut syn_per_port: Vec<PortBudget> = per_port.collect();
    syn_per_port.sort_by(|a, b| a.budget.name.cmp(&b.budget.name));
    let [syn_per_source, syn_pressure, udp_per_source, new_connections_per_source] = &mut single;
    FilterBudgets {
        syn_per_source: syn_per_source.take(),
        syn_per_port,
        syn_pressure: syn_pressure.take(),
        udp_per_source: udp_per_source.take(),
        new_connections_per_source: new_connections_per_source.take(),
    }
}

/// Budgets are counted beside rules, so no two have one name.
fn names(spec: &PacketFilterSpec, budgets: &BudgetsSpec, at: &mut At<'_>) {
    let single = budgets.single();
    let used = single.iter().filter(|(_, _, budget)| budget.is_some()).map(|(_, name, _)| *name);
    let mut seen: BTreeSet<&str> = used.collect();
    for (index, rule) in spec.rules.iter().enumerate().filter(|(_, rule)| seen.contains(&*rule.name)) {
        let message = format!("{} is how a budget of this filter is counted; rename the rule", rule.name);
        at.problem(format!("spec.rules[{index}].name"), Code::Duplicate, message);
    }
    seen.extend(spec.rules.iter().map(|rule| &*rule.name));
    for (index, budget) in budgets.syn_per_port.iter().enumerate() {
        let field = format!("{FIELD}.synPerPort[{index}].name");
        if at.parse::<Name>(&*field, &budget.name).is_some() && !seen.insert(&budget.name) {
            let message = format!(
                "a rule or budget of this filter is named {} already; choose another name",
                budget.name
            );
            at.problem(field, Code::Duplicate, message);
        }
    }
}

fn lowered(
    field: &str,
    place: &str,
    name: String,
    (rate, burst, words): (u64, Option<u64>, Option<&str>),
    known: &Known<'_>,
    at: &mut At<'_>,
) -> Option<FilterBudget> {
    let rate = at.number(&format!("{field}.rate"), Some(rate), 1, 1..=MOST_RATE);
    let burst = at.number(&format!("{field}.burst"), burst, rate, 1..=MOST_RATE);
    let mode: FilterMode = mode(format!("{field}.mode"), words, at);
    Some(FilterBudget { id: id(place, &name, known, at)?, name, rate, burst, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_budgets_are_names() {
        for (_, name, _) in BudgetsSpec::default().single() {
            assert!(name.parse::<Name>().is_ok(), "{name}");
        }
    }
}
