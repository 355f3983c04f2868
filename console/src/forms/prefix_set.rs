//! The prefix set form: what is written, pasted or uploaded, as a list, a table or JSON; or where it is fetched from.

use model::draft::{Kind, Metadata, Object, PrefixSetSpec, PrefixSourceSpec, Spec};
use model::filter::prefixes_in;
use model::problem::{Code, Problem};

use super::fields::Fields;
use super::parse::{Numbers, blank};

/// See the module.
pub(crate) struct SetForm;

impl SetForm {
    /// The object that the form describes; a file counts before what stands in the box.
    pub(crate) fn object(fields: &Fields, base: Option<&Object>) -> Result<Object, Vec<Problem>> {
        let file = fields.get("prefixes_file");
        let text = if file.trim().is_empty() { fields.get("prefixes") } else { file };
        let key = fields.some("key");
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        let name = fields.trimmed("name").to_owned();
        let mut numbers = Numbers::new(fields, Kind::PrefixSet, &name);
        let source = fields.some("url").map(|url| PrefixSourceSpec {
            url,
            key: key.clone(),
            interval_seconds: numbers.read("interval_seconds", "spec.source.intervalSeconds"),
            max_bytes: numbers.read("max_bytes", "spec.source.maxBytes"),
            trust_bundle: fields.some("trust_bundle").filter(|bundle| bundle != "system"),
            max_shrink_percent: numbers.read("max_shrink_percent", "spec.source.maxShrinkPercent"),
        });
        let mut problems = numbers.problems;
        let stored = match base.map(|object| &object.spec) {
            Some(Spec::PrefixSet(stored)) => Some(stored),
            _ => None,
        };
        let fetched = stored.filter(|stored| stored.source.is_some()).map(|stored| stored.prefixes.clone());
        let fetched = fetched.unwrap_or_default();
        let written = stored.map(|stored| stored.prefixes.clone());
        let prefixes = match (text.trim().is_empty(), &source) {
            // The publisher keeps what was fetched.
            (true, Some(_)) => Vec::new(),
            // It is fetched no longer, and stays.
            (true, None) if !fetched.is_empty() => fetched,
            _ => prefixes_in(text, key.as_deref())
                .map(|prefixes| {
                    // The same ones stay as they were written: no change of their order alone, which nobody asked for.
                    let stored = written.filter(|stored| {
                        prefixes_in(&stored.join("\n"), None).is_ok_and(|had| had == prefixes)
                    });
                    stored.unwrap_or_else(|| prefixes.iter().map(ToString::to_string).collect())
                })
                .unwrap_or_else(|why| {
                    let object = format!("{}/{name}", Kind::PrefixSet);
                    problems.push(Problem::new(object, "spec.prefixes", Code::Invalid, why.to_string()));
                    Vec::new()
                }),
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let spec = PrefixSetSpec { prefixes, source };
        Ok(Object { metadata: Metadata { name, labels }, spec: Spec::PrefixSet(spec) })
    }

    /// The form of a stored set; a list that is fetched is not for editing.
    pub(crate) fn fields(name: &str, spec: &PrefixSetSpec) -> Fields {
        let fields = Fields::default().with("name", name);
        let Some(source) = &spec.source else { return fields.with("prefixes", spec.prefixes.join("\n")) };
        fields
            .with("url", &*source.url)
            .with("key", source.key.as_deref().unwrap_or_default())
            .with("interval_seconds", blank(source.interval_seconds))
            .with("max_bytes", blank(source.max_bytes))
            .with("trust_bundle", source.trust_bundle.as_deref().unwrap_or("system"))
            .with("max_shrink_percent", blank(source.max_shrink_percent))
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        if problem.object != format!("{}/{}", Kind::PrefixSet, fields.trimmed("name")) {
            return None;
        }
        let (id, label) = match problem.field.as_str() {
            "metadata.name" => ("name", "Name"),
            "spec.source.key" => ("key", "Key"),
            "spec.source.intervalSeconds" => ("interval_seconds", "Interval"),
            "spec.source.maxBytes" => ("max_bytes", "Most bytes"),
            "spec.source.maxShrinkPercent" => ("max_shrink_percent", "May lose"),
            "spec.source.trustBundle" => ("trust_bundle", "Trust"),
            field if field.starts_with("spec.source") => ("url", "Address"),
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
    fn a_list_that_is_looked_at_keeps_its_order() {
        let prefixes = vec!["198.51.100.0/24".to_owned(), "192.0.2.0/24".to_owned()];
        let spec = PrefixSetSpec { prefixes, source: None };
        let base = Object::new("cloud", Spec::PrefixSet(spec.clone()));
        assert_eq!(SetForm::object(&SetForm::fields("cloud", &spec), Some(&base)).unwrap(), base);
        let more =
            SetForm::fields("cloud", &spec).with("prefixes", "198.51.100.0/24\n192.0.2.0/24\n192.0.3.0/24");
        let Spec::PrefixSet(more) = SetForm::object(&more, Some(&base)).unwrap().spec else { unreachable!() };
        assert_eq!(more.prefixes, ["192.0.2.0/24", "192.0.3.0/24", "198.51.100.0/24"]);
    }

    #[test]
    fn what_cannot_be_read_says_its_line_beside_the_box() {
        let fields = Fields::default().with("name", "cloud").with("prefixes", "10.0.0.0/8\nnonsense");
        let [problem] = &SetForm::object(&fields, None).unwrap_err()[..] else { unreachable!() };
        assert!(problem.message.starts_with("line 2: \"nonsense\""), "{problem}");
        assert_eq!(SetForm::place(&fields, problem).unwrap().0, "prefixes");
    }

    #[test]
    fn a_source_comes_back_as_it_was_and_its_list_is_not_in_the_form() {
        let fields = Fields::default()
            .with("name", "cloud")
            .with("url", "https://lists.example/a.json")
            .with("key", "v4")
            .with("interval_seconds", "600")
            .with("trust_bundle", "system");
        let object = SetForm::object(&fields, None).unwrap();
        let Spec::PrefixSet(spec) = &object.spec else { unreachable!() };
        let source = spec.source.clone().unwrap();
        assert_eq!((source.key.as_deref(), source.interval_seconds), (Some("v4"), Some(600)));
        assert_eq!((source.trust_bundle.as_deref(), spec.prefixes.len()), (None, 0));
        let fetched = PrefixSetSpec { prefixes: vec!["192.0.2.0/24".to_owned()], ..spec.clone() };
        let shown = SetForm::fields("cloud", &fetched);
        assert_eq!(shown.get("prefixes"), "");
        assert_eq!(SetForm::object(&shown, None).unwrap(), object);
        // Fetched no longer: the list stays.
        let base = Object { spec: Spec::PrefixSet(fetched), ..object };
        let kept = SetForm::object(&shown.with("url", ""), Some(&base)).unwrap();
        let Spec::PrefixSet(kept) = kept.spec else { unreachable!() };
        assert_eq!((kept.source, kept.prefixes.len()), (None, 1));
        let wrong = fields.with("max_bytes", "1 MiB").with("prefixes", "x");
        let found = SetForm::object(&wrong, None).unwrap_err();
        let places: Vec<String> =
            found.iter().filter_map(|problem| Some(SetForm::place(&wrong, problem)?.0)).collect();
        assert_eq!(places, ["max_bytes", "prefixes"]);
    }
}
