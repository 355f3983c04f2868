//! The budgets of the packet filter form: a row for each kind, and rows for those of ports.

use model::draft::{BudgetSpec, BudgetsSpec, PortBudgetSpec};
use model::filter::MOST_RATE;
use model::problem::{Code, Problem};

use super::fields::Fields;
use super::filter::{ENFORCE, observed};

/// Budgets that a filter has one of: field, control and how people call it.
pub(crate) const SINGLE: [(&str, &str, &str); 4] = [
    ("synPerSource", "syn", "SYNs of one source"),
    ("synPressure", "pressure", "SYNs to listeners, of all unknown sources"),
    ("udpPerSource", "udp", "UDP packets of one source"),
    ("newConnectionsPerSource", "connections", "New connections of one source"),
];

/// The budgets that a form describes; none where nothing is written.
pub(super) fn object(fields: &Fields) -> Option<BudgetsSpec> {
    let single = |control: &str| {
        let part = |part: &str| format!("budget.{control}.{part}");
        (!fields.trimmed(&part("rate")).is_empty() || !fields.trimmed(&part("burst")).is_empty()).then(|| {
            BudgetSpec {
                rate: number(fields, &part("rate")).unwrap_or(0),
                burst: number(fields, &part("burst")),
                mode: observed(fields.trimmed(&part("mode"))),
            }
        })
    };
    let port = |row: usize| {
        let part = |part: &str| format!("port.{row}.{part}");
        PortBudgetSpec {
            name: fields.trimmed(&part("name")).to_owned(),
            ports: fields.words(&part("ports")),
            rate: number(fields, &part("rate")).unwrap_or(0),
            burst: number(fields, &part("burst")),
            mode: observed(fields.trimmed(&part("mode"))),
        }
    };
    let [syn, pressure, udp, connections] = SINGLE.map(|(_, control, _)| single(control));
    let budgets = BudgetsSpec {
        syn_per_source: syn,
        syn_per_port: rows(fields).into_iter().map(port).collect(),
        syn_pressure: pressure,
        udp_per_source: udp,
        new_connections_per_source: connections,
    };
    (budgets != BudgetsSpec::default()).then_some(budgets)
}

/// The rows that hold a budget of ports.
fn rows(fields: &Fields) -> Vec<usize> {
    let blank = |row: &usize, part: &str| fields.trimmed(&format!("port.{row}.{part}")).is_empty();
    let written = |row: &usize| ["name", "ports", "rate"].iter().any(|part| !blank(row, part));
    fields.rows("port").into_iter().filter(written).collect()
}

fn number(fields: &Fields, control: &str) -> Option<u64> {
    fields.trimmed(control).parse().ok()
}

/// What is no number where one belongs.
pub(super) fn unreadable(fields: &Fields, object: &str) -> Vec<Problem> {
    let single = SINGLE.map(|(field, control, _)| (format!(".{field}"), format!("budget.{control}")));
    let ports = rows(fields).into_iter().enumerate();
    let ports = ports.map(|(index, row)| (format!(".synPerPort[{index}]"), format!("port.{row}")));
    let mut problems = Vec::new();
    for (field, control) in single.into_iter().chain(ports) {
        for part in ["rate", "burst"] {
            let text = fields.trimmed(&format!("{control}.{part}"));
            if !text.is_empty() && text.parse::<u64>().is_err() {
                let message = format!("must be a whole number from 1 to {MOST_RATE}, not \"{text}\"");
                let field = format!("spec.budgets{field}.{part}");
                problems.push(Problem::new(object, field, Code::Invalid, message));
            }
        }
    }
    problems
}

/// The form of stored budgets.
pub(super) fn fields(fields: Fields, budgets: Option<&BudgetsSpec>) -> Fields {
    let Some(budgets) = budgets else { return fields };
    let burst = |burst: Option<u64>| burst.map(|burst| burst.to_string()).unwrap_or_default();
    let mode = |mode: &Option<String>| mode.as_deref().unwrap_or(ENFORCE).to_owned();
    let mut parts: Vec<(String, String)> = Vec::new();
    for ((_, control, _), (_, _, budget)) in SINGLE.iter().zip(budgets.single()) {
        let Some(budget) = budget else { continue };
        parts.push((format!("budget.{control}.rate"), budget.rate.to_string()));
        parts.push((format!("budget.{control}.burst"), burst(budget.burst)));
        parts.push((format!("budget.{control}.mode"), mode(&budget.mode)));
    }
    for (row, port) in budgets.syn_per_port.iter().enumerate() {
        parts.push((format!("port.{row}.name"), port.name.clone()));
        parts.push((format!("port.{row}.ports"), port.ports.join(" ")));
        parts.push((format!("port.{row}.rate"), port.rate.to_string()));
        parts.push((format!("port.{row}.burst"), burst(port.burst)));
        parts.push((format!("port.{row}.mode"), mode(&port.mode)));
    }
    parts.into_iter().fold(fields, |fields, (control, text)| fields.with(&control, text))
}

/// The control beside which a problem with `spec.budgets` and `rest` belongs.
pub(super) fn place(fields: &Fields, rest: &str) -> (String, String) {
    let part = |rest: &str, parts: &[&'static str]| {
        parts.iter().find(|part| rest.contains(&format!(".{part}"))).copied().unwrap_or("rate")
    };
    for (field, control, label) in SINGLE {
        if let Some(rest) = rest.strip_prefix(&format!(".{field}")) {
            let part = part(rest, &["burst", "mode"]);
            return (format!("budget.{control}.{part}"), format!("{label}, {part}"));
        }
    }
    let index = rest.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let (index, rest) = index.map_or((0, rest), |(index, rest)| (index.parse().unwrap_or(0), rest));
    let row = rows(fields).get(index).copied().unwrap_or(0);
    let part = part(rest, &["name", "ports", "burst", "mode"]);
    (format!("port.{row}.{part}"), format!("Budget of ports {}, {part}", index + 1))
}
