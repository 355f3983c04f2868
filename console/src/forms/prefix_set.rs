//! The prefix set form: what is written, pasted or uploaded, as a list, a table or JSON.

use model::draft::{Kind, Metadata, Object, PrefixSetSpec, Spec};
use model::filter::prefixes_in;
use model::problem::{Code, Problem};

use super::fields::Fields;

/// See the module.
pub(crate) struct SetForm;

impl SetForm {
    /// The object that the form describes; a file counts before what stands in the box.
    pub(crate) fn object(fields: &Fields, base: Option<&Object>) -> Result<Object, Problem> {
        let file = fields.get("prefixes_file");
        let text = if file.trim().is_empty() { fields.get("prefixes") } else { file };
        let key = Some(fields.trimmed("key")).filter(|key| !key.is_empty());
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        let name = fields.trimmed("name").to_owned();
        let prefixes = prefixes_in(text, key).map_err(|why| {
            let object = format!("{}/{name}", Kind::PrefixSet);
            Problem::new(object, "spec.prefixes", Code::Invalid, why.to_string())
        })?;
        let spec = PrefixSetSpec { prefixes: prefixes.iter().map(ToString::to_string).collect() };
        Ok(Object { metadata: Metadata { name, labels }, spec: Spec::PrefixSet(spec) })
    }

    /// The form of a stored set.
    pub(crate) fn fields(name: &str, spec: &PrefixSetSpec) -> Fields {
        Fields::default().with("name", name).with("prefixes", spec.prefixes.join("\n"))
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        if problem.object != format!("{}/{}", Kind::PrefixSet, fields.trimmed("name")) {
            return None;
        }
        let (id, label) = match problem.field.as_str() {
            "metadata.name" => ("name", "Name"),
            field if field.starts_with("spec") => ("prefixes", "Prefixes"),
            _ => return None,
        };
        Some((id.to_owned(), label.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_before_the_box_and_json_has_a_key() {
        let fields = Fields::default()
            .with("name", "cloud")
            .with("prefixes", "10.0.0.0/8")
            .with("key", "v4")
            .with("prefixes_file", r#"{"v4": ["192.0.2.0/24"], "v6": ["2001:db8::/32"]}"#);
        let Spec::PrefixSet(spec) = SetForm::object(&fields, None).unwrap().spec else { unreachable!() };
        assert_eq!(spec.prefixes, ["192.0.2.0/24"]);
        assert_eq!(SetForm::fields("cloud", &spec).get("prefixes"), "192.0.2.0/24");
    }

    #[test]
    fn what_cannot_be_read_says_its_line_beside_the_box() {
        let fields = Fields::default().with("name", "cloud").with("prefixes", "10.0.0.0/8\nnonsense");
        let problem = SetForm::object(&fields, None).unwrap_err();
        assert!(problem.message.starts_with("line 2: \"nonsense\""), "{problem}");
        assert_eq!(SetForm::place(&fields, &problem).unwrap().0, "prefixes");
    }
}
