//! The packet filter form: one row per rule.

use model::draft::{
    FilterRuleSpec, Kind, Metadata, NodeSelector, Object, PacketFilterSpec, ProtocolListSpec, Spec,
};
use model::problem::{Code, Problem};

use super::budgets;
use super::fields::Fields;
use super::parse::{labels, selector_text};

/// See the module.
pub(crate) struct FilterForm;

impl FilterForm {
    /// The object that the form describes. Rows without name and prefixes are left out: that is how a rule is taken away.
    pub(crate) fn object(fields: &Fields, base: Option<&Object>) -> Object {
        let rules = Self::rows(fields).into_iter().map(|row| {
            let control = |name: &str| format!("rule.{row}.{name}");
            FilterRuleSpec {
                name: fields.trimmed(&control("name")).to_owned(),
                action: fields.trimmed(&control("action")).to_owned(),
                mode: observed(fields.trimmed(&control("mode"))),
                priority: fields.trimmed(&control("priority")).parse().ok(),
                prefixes: fields.words(&control("prefixes")),
                prefix_sets: fields.words(&control("sets")),
                protocols: fields.words(&control("protocols")),
                ports: fields.words(&control("ports")),
                icmp_types: fields
                    .words(&control("types"))
                    .iter()
                    .filter_map(|text| text.parse().ok())
                    .collect(),
            }
        });
        let allow = fields.words("protocols");
        let mode = observed(fields.trimmed("protocols_mode"));
        let spec = PacketFilterSpec {
            rules: rules.collect(),
            protocols: (!allow.is_empty()).then_some(ProtocolListSpec { allow, mode }),
            budgets: budgets::object(fields),
            node_selector: NodeSelector { match_labels: labels(&fields.words("node_selector")) },
        };
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        let name = fields.trimmed("name").to_owned();
        Object { metadata: Metadata { name, labels }, spec: Spec::PacketFilter(spec) }
    }

    /// What is no number where one belongs: the object has nothing there.
    pub(crate) fn unreadable(fields: &Fields) -> Vec<Problem> {
        let object = format!("{:?}/{}", Kind::PacketFilter, fields.trimmed("name"));
        let wrong = |text: &&str| !text.is_empty() && text.parse::<u64>().is_err();
        let problem = |index: usize, field: &str, text: &str| {
            let message = format!("\"{text}\" is not a whole number; write digits only");
            Problem::new(&*object, format!("spec.rules[{index}].{field}"), Code::Invalid, message)
        };
        let mut problems = budgets::unreadable(fields, &object);
        for (index, row) in Self::rows(fields).into_iter().enumerate() {
            let priority = fields.trimmed(&format!("rule.{row}.priority"));
            problems.extend(Some(priority).filter(wrong).map(|text| problem(index, "priority", text)));
            for text in fields.words(&format!("rule.{row}.types")) {
                problems.extend(Some(&*text).filter(wrong).map(|text| problem(index, "icmpTypes", text)));
            }
        }
        problems
    }

    /// The rows that hold a rule.
    pub(crate) fn rows(fields: &Fields) -> Vec<usize> {
        let blank = |row: &usize, name: &str| fields.trimmed(&format!("rule.{row}.{name}")).is_empty();
        let written = |row: &usize| ["name", "prefixes", "sets"].iter().any(|name| !blank(row, name));
        fields.rows("rule").into_iter().filter(written).collect()
    }

    /// The form of a stored filter.
    pub(crate) fn fields(name: &str, spec: &PacketFilterSpec) -> Fields {
        let fields =
            Fields::default().with("name", name).with("node_selector", selector_text(&spec.node_selector));
        let fields = match &spec.protocols {
            Some(list) => fields
                .with("protocols", list.allow.join(" "))
                .with("protocols_mode", list.mode.as_deref().unwrap_or(ENFORCE)),
            None => fields,
        };
        let fields = budgets::fields(fields, spec.budgets.as_ref());
        spec.rules.iter().enumerate().fold(fields, |fields, (row, rule)| {
            let types: Vec<String> = rule.icmp_types.iter().map(ToString::to_string).collect();
            let priority = rule.priority.map(|priority| priority.to_string()).unwrap_or_default();
            let mode = rule.mode.as_deref().unwrap_or(ENFORCE).to_owned();
            let parts = [
                ("name", rule.name.clone()),
                ("action", rule.action.clone()),
                ("mode", mode),
                ("priority", priority),
                ("prefixes", rule.prefixes.join("\n")),
                ("sets", rule.prefix_sets.join(" ")),
                ("protocols", rule.protocols.join(" ")),
                ("ports", rule.ports.join(" ")),
                ("types", types.join(" ")),
            ];
            parts
                .into_iter()
                .fold(fields, |fields, (part, text)| fields.with(&format!("rule.{row}.{part}"), text))
        })
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        let own = format!("{:?}/{}", Kind::PacketFilter, fields.trimmed("name"));
        if problem.object != own {
            return None;
        }
        if problem.field == "metadata.name" {
            return Some(("name".to_owned(), "Name".to_owned()));
        }
        if problem.field.starts_with("spec.nodeSelector") {
            return Some(("node_selector".to_owned(), "Nodes".to_owned()));
        }
        if problem.field.starts_with("spec.protocols.mode") {
            return Some(("protocols_mode".to_owned(), "Protocols, mode".to_owned()));
        }
        if problem.field.starts_with("spec.protocols") {
            return Some(("protocols".to_owned(), "Protocols".to_owned()));
        }
        if let Some(rest) = problem.field.strip_prefix("spec.budgets") {
            return Some(budgets::place(fields, rest));
        }
        let (index, rest) = problem.field.strip_prefix("spec.rules[")?.split_once(']')?;
        let index: usize = index.parse().ok()?;
        let row = Self::rows(fields).get(index).copied()?;
        let of = |(field, part, words)| rest.starts_with(field).then_some((part, words));
        let (part, words) = PARTS.into_iter().find_map(of).unwrap_or(("prefixes", "prefixes"));
        Some((format!("rule.{row}.{part}"), format!("Rule {}, {words}", index + 1)))
    }
}

/// A rule's fields, their controls and how a summary calls them.
const PARTS: [(&str, &str, &str); 8] = [
    (".name", "name", "name"),
    (".action", "action", "action"),
    (".mode", "mode", "mode"),
    (".priority", "priority", "priority"),
    (".prefixSets", "sets", "prefix sets"),
    (".protocols", "protocols", "protocols"),
    (".ports", "ports", "ports"),
    (".icmpTypes", "types", "ICMP types"),
];

/// The mode that is not written.
pub(super) const ENFORCE: &str = "Enforce";

pub(super) fn observed(text: &str) -> Option<String> {
    (!text.is_empty() && text != ENFORCE).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use model::draft::{BudgetSpec, BudgetsSpec, PortBudgetSpec};

    use super::*;

    fn typed() -> Fields {
        Fields::default()
            .with("name", "edge")
            .with("rule.0.name", "")
            .with("rule.0.prefixes", " ")
            .with("rule.3.name", "scanners")
            .with("rule.3.action", "Deny")
            .with("rule.3.prefixes", "192.0.2.0/24, 2001:db8::/32")
    }

    #[test]
    fn a_blank_row_is_no_rule() {
        let Spec::PacketFilter(spec) = FilterForm::object(&typed(), None).spec else { unreachable!() };
        assert_eq!(spec.rules.len(), 1);
        assert_eq!(spec.rules[0].prefixes, ["192.0.2.0/24", "2001:db8::/32"]);
    }

    #[test]
    fn a_rule_comes_back_as_it_went() {
        let rule = FilterRuleSpec {
            name: "probes".to_owned(),
            action: "Deny".to_owned(),
            mode: Some("Observe".to_owned()),
            priority: Some(10),
            prefixes: vec!["192.0.2.0/24".to_owned()],
            prefix_sets: vec!["cloud".to_owned(), "bogons".to_owned()],
            protocols: vec!["ICMP".to_owned(), "47".to_owned()],
            ports: vec!["443".to_owned(), "8000-8010".to_owned()],
            icmp_types: vec![8, 0],
        };
        let allow = vec!["TCP".to_owned()];
        let protocols = Some(ProtocolListSpec { allow, mode: Some("Observe".to_owned()) });
        let budget =
            |rate, mode: Option<&str>| BudgetSpec { rate, burst: None, mode: mode.map(str::to_owned) };
        let budgets = BudgetsSpec {
            syn_per_source: Some(BudgetSpec { burst: Some(40), ..budget(20, None) }),
            syn_pressure: Some(budget(2000, Some("Observe"))),
            syn_per_port: vec![PortBudgetSpec {
                name: "web".to_owned(),
                ports: vec!["443".to_owned(), "8000-8010".to_owned()],
                rate: 100,
                burst: Some(1),
                mode: None,
            }],
            ..BudgetsSpec::default()
        };
        let budgets = Some(budgets);
        let spec = PacketFilterSpec { rules: vec![rule], protocols, budgets, ..PacketFilterSpec::default() };
        let fields = FilterForm::fields("edge", &spec);
        let Spec::PacketFilter(again) = FilterForm::object(&fields, None).spec else { unreachable!() };
        assert_eq!(again, spec);
        assert_eq!(FilterForm::unreadable(&fields), []);
    }

    #[test]
    fn what_is_no_number_is_told_beside_its_control() {
        let fields = typed().with("rule.3.priority", "high").with("rule.3.types", "8 echo");
        let problems = FilterForm::unreadable(&fields);
        let places: Vec<_> =
            problems.iter().map(|problem| FilterForm::place(&fields, problem).unwrap().0).collect();
        assert_eq!(places, ["rule.3.priority", "rule.3.types"]);
    }

    #[test]
    fn a_budgets_problem_finds_its_control() {
        let fields = typed()
            .with("budget.syn.rate", "fast")
            .with("port.0.name", "")
            .with("port.2.name", "web")
            .with("port.2.burst", "x");
        let problems = FilterForm::unreadable(&fields);
        let places: Vec<_> =
            problems.iter().map(|problem| FilterForm::place(&fields, problem).unwrap().0).collect();
        assert_eq!(places, ["budget.syn.rate", "port.2.burst"]);
        let conflict = Problem::new("PacketFilter/edge", "spec.budgets.synPressure", Code::Conflict, "x");
        assert_eq!(FilterForm::place(&fields, &conflict).unwrap().0, "budget.pressure.rate");
    }

    #[test]
    fn a_problem_finds_the_row_that_was_typed() {
        let problem = Problem::new("PacketFilter/edge", "spec.rules[0].prefixes[1]", Code::Invalid, "x");
        assert_eq!(FilterForm::place(&typed(), &problem).unwrap().0, "rule.3.prefixes");
        let gone = Problem::new("PacketFilter/edge", "spec.rules[7].name", Code::Invalid, "x");
        assert_eq!(FilterForm::place(&typed(), &gone), None);
    }
}
