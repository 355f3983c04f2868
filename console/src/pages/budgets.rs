//! The packet filter page's budgets: what each lets through, what was over it, and whether SYNs are now.

use std::collections::BTreeMap;

use model::draft::{Object, Spec};
use model::report::OverBudget;

use super::chart::{Spark, figure};
use super::packet_filter::line;
use super::traffic::Grid;
use crate::forms::SINGLE;
use crate::ops::{DropSeries, Node};

/// One budget of a filter.
pub(super) struct BudgetLine {
    pub(super) filter: String,
    pub(super) name: String,
    /// What it is counted under in a node's metrics; 0 where it has none yet.
    pub(super) id: u32,
    /// What it is of, such as `SYNs of one source`.
    pub(super) about: String,
    pub(super) rate: String,
    pub(super) burst: String,
    pub(super) observed: bool,
    /// What was over it in the last hour.
    pub(super) over: u64,
    pub(super) over_words: String,
    /// The same by reason, where there is more than one.
    pub(super) parts: String,
    pub(super) spark: Option<Spark>,
    /// Of the budget of all unknown sources: how it stands at each node that has it.
    pub(super) now: Vec<Now>,
}

/// How a node stands to its budget of SYNs.
pub(super) struct Now {
    pub(super) node: String,
    /// `good`, `warn` or `bad`.
    pub(super) tone: &'static str,
    pub(super) words: &'static str,
}

impl Now {
    fn of(node: &Node) -> Option<Self> {
        let pressure = node.syn_pressure.filter(|_| !node.revoked)?;
        let (tone, words) = match (pressure.now, pressure.over) {
            (false, _) => ("good", "within it"),
            (true, OverBudget::Cookie) => ("warn", "over it, cookies answer"),
            (true, OverBudget::Drop) => ("bad", "over it, the rest is dropped"),
            (true, OverBudget::Passes) => ("warn", "over it, which is only observed"),
        };
        Some(Self { node: node.name.to_string(), tone, words })
    }
}

/// All budgets of a filter.
pub(super) fn lines(
    object: &Object,
    drops: &[DropSeries],
    grid: Grid,
    nodes: &[Node],
    ids: &BTreeMap<String, u32>,
) -> Vec<BudgetLine> {
    let Spec::PacketFilter(spec) = &object.spec else { return Vec::new() };
    let Some(budgets) = &spec.budgets else { return Vec::new() };
    let make = |name: &str, about: String, rate: u64, burst: Option<u64>, mode: Option<&str>| {
        let label = format!("{}/{name}", object.metadata.name);
        let mine: Vec<&DropSeries> = drops.iter().filter(|one| one.rule.as_deref() == Some(&label)).collect();
        let over = mine.iter().map(|one| one.count).sum();
        let part =
            |one: &&DropSeries| format!("{} {}", figure(one.count as f64), one.reason.replace('-', " "));
        let parts: Vec<String> = mine.iter().filter(|_| mine.len() > 1).map(part).collect();
        BudgetLine {
            filter: object.metadata.name.clone(),
            id: ids.get(&label).copied().unwrap_or(0),
            name: name.to_owned(),
            about,
            rate: figure(rate as f64),
            burst: figure(burst.unwrap_or(rate) as f64),
            observed: mode == Some("Observe"),
            over,
            over_words: figure(over as f64),
            parts: parts.join(", "),
            spark: mine.iter().max_by_key(|one| one.count).map(|one| line(one, grid)),
            now: Vec::new(),
        }
    };
    let single = SINGLE.iter().zip(budgets.single()).filter_map(|((field, _, about), (_, name, budget))| {
        let budget = budget?;
        let mut line = make(name, (*about).to_owned(), budget.rate, budget.burst, budget.mode.as_deref());
        if *field == "synPressure" {
            line.now = nodes.iter().filter_map(Now::of).collect();
        }
        Some(line)
    });
    let ports = budgets.syn_per_port.iter().map(|budget| {
        let about = format!("SYNs to each port of {}", budget.ports.join(", "));
        make(&budget.name, about, budget.rate, budget.burst, budget.mode.as_deref())
    });
    single.chain(ports).collect()
}
