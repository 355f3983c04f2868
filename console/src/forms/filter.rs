//! The packet filter form: one row per rule.

use model::draft::{FilterRuleSpec, Kind, Metadata, NodeSelector, Object, PacketFilterSpec, Spec};
use model::problem::Problem;

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
                prefixes: fields.words(&control("prefixes")),
            }
        });
        let spec = PacketFilterSpec {
            rules: rules.collect(),
            node_selector: NodeSelector { match_labels: labels(&fields.words("node_selector")) },
        };
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        let name = fields.trimmed("name").to_owned();
        Object { metadata: Metadata { name, labels }, spec: Spec::PacketFilter(spec) }
    }

    /// The rows that hold a rule.
    pub(crate) fn rows(fields: &Fields) -> Vec<usize> {
        let blank = |row: &usize, name: &str| fields.trimmed(&format!("rule.{row}.{name}")).is_empty();
        fields.rows("rule").into_iter().filter(|row| !blank(row, "name") || !blank(row, "prefixes")).collect()
    }

    /// The form of a stored filter.
    pub(crate) fn fields(name: &str, spec: &PacketFilterSpec) -> Fields {
        let fields =
            Fields::default().with("name", name).with("node_selector", selector_text(&spec.node_selector));
        spec.rules.iter().enumerate().fold(fields, |fields, (row, rule)| {
            fields
                .with(&format!("rule.{row}.name"), rule.name.as_str())
                .with(&format!("rule.{row}.action"), rule.action.as_str())
                .with(&format!("rule.{row}.prefixes"), rule.prefixes.join("\n"))
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
        let (index, rest) = problem.field.strip_prefix("spec.rules[")?.split_once(']')?;
        let index: usize = index.parse().ok()?;
        let row = Self::rows(fields).get(index).copied()?;
        let part = match rest {
            rest if rest.starts_with(".name") => "name",
            rest if rest.starts_with(".action") => "action",
            _ => "prefixes",
        };
        Some((format!("rule.{row}.{part}"), format!("Rule {}, {part}", index + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::problem::Code;

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
    fn a_problem_finds_the_row_that_was_typed() {
        let problem = Problem::new("PacketFilter/edge", "spec.rules[0].prefixes[1]", Code::Invalid, "x");
        assert_eq!(FilterForm::place(&typed(), &problem).unwrap().0, "rule.3.prefixes");
        let gone = Problem::new("PacketFilter/edge", "spec.rules[7].name", Code::Invalid, "x");
        assert_eq!(FilterForm::place(&typed(), &gone), None);
    }
}
