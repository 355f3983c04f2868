//! A form as it is shown: what was typed, what is wrong and where.

use model::problem::Problem;

use super::fields::Fields;

/// One choice of a select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opt {
    pub(crate) value: String,
    pub(crate) label: String,
}

impl Opt {
    /// A choice that is shown as another text than it is sent as.
    pub(crate) fn new(value: impl Into<String>, label: impl Into<String>) -> Self {
        Self { value: value.into(), label: label.into() }
    }

    /// A choice that is shown as it is sent.
    pub(crate) fn same(value: &str) -> Self {
        Self::new(value, value)
    }
}

/// One line of the list on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The control's id; empty where no control stands for the problem.
    pub(crate) anchor: String,
    /// What the control is called.
    pub(crate) label: String,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

/// A form with its state.
#[derive(Debug, Clone, Default)]
pub(crate) struct FormView {
    fields: Fields,
    wrong: Vec<Wrong>,
    /// The objects of this form as files, when asked for.
    pub(crate) yaml: Option<String>,
}

impl FormView {
    /// The form as typed.
    pub(crate) fn new(fields: Fields) -> Self {
        Self { fields, ..Self::default() }
    }

    /// Puts each problem beside the control that `place` names for it (id and label).
    pub(crate) fn refuse(
        mut self,
        problems: &[Problem],
        place: impl Fn(&Problem) -> Option<(String, String)>,
    ) -> Self {
        for problem in problems {
            let (anchor, label) = place(problem).unwrap_or_default();
            // Without a control beside it the sentence needs its own place.
            let message = if anchor.is_empty() { problem.to_string() } else { problem.message.clone() };
            let wrong = Wrong { anchor, label, message };
            if !self.wrong.contains(&wrong) {
                self.wrong.push(wrong);
            }
        }
        self
    }

    /// What was typed into a field.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.fields.get(name)
    }

    /// Whether a choice is the chosen one.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.fields.get(name) == value
    }

    /// What is wrong with a field.
    pub(crate) fn errors<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.wrong.iter().filter(move |wrong| wrong.anchor == name).map(|wrong| wrong.message.as_str())
    }

    /// Whether anything is wrong with a field.
    pub(crate) fn bad(&self, name: &str) -> bool {
        self.errors(name).next().is_some()
    }

    /// Whether anything is wrong with any of these fields: their fold-out must be open.
    pub(crate) fn any_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.bad(name))
    }

    /// Whether anything stands in any of these fields: their fold-out is open.
    pub(crate) fn filled(&self, names: &[&str]) -> bool {
        names.iter().any(|name| !self.fields.trimmed(name).is_empty())
    }

    /// Whether anything is wrong at all.
    pub(crate) fn any_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// The list's heading.
    pub(crate) fn headline(&self) -> String {
        match self.wrong.len() {
            1 => "One thing to put right; nothing has been published.".to_owned(),
            n => format!("{n} things to put right; nothing has been published."),
        }
    }

    /// Everything that is wrong.
    pub(crate) fn list(&self) -> &[Wrong] {
        &self.wrong
    }

    /// The pairs, for the objects behind them.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::problem::Code;

    #[test]
    fn a_problem_stands_beside_its_control_and_on_top() {
        let problems = [
            Problem::new("Route/a", "spec.hostnames[0]", Code::Invalid, "no host"),
            Problem::new("Listener/b", "spec.port", Code::Conflict, "taken"),
        ];
        let place = |problem: &Problem| {
            problem.field.starts_with("spec.hostnames").then(|| ("host".to_owned(), "Host".to_owned()))
        };
        let form = FormView::new(Fields::default().with("host", "a b")).refuse(&problems, place);
        assert_eq!(form.errors("host").collect::<Vec<_>>(), ["no host"]);
        assert_eq!(form.list()[1].message, "Listener/b spec.port: taken");
        assert_eq!(form.get("host"), "a b");
    }
}
