//! The origin group form.

use model::draft::{Kind, Metadata, Object, OriginGroupSpec, OriginSpec, OriginTls, Spec};
use model::problem::Problem;

use super::fields::Fields;
use super::parse::{Numbers, blank};

/// See the module.
pub(crate) struct OriginForm;

impl OriginForm {
    /// The object that the form describes.
    ///
    /// # Errors
    /// What is no number where one belongs.
    pub(crate) fn object(fields: &Fields, name: &str, base: Option<&Object>) -> Result<Object, Vec<Problem>> {
        let mut numbers = Numbers::new(fields, Kind::OriginGroup, name);
        let spec = OriginGroupSpec {
            origins: fields
                .words("origins")
                .into_iter()
                .map(|url| OriginSpec { url: with_scheme(url) })
                .collect(),
            tls: OriginTls {
                trust_bundle: fields.some("trust_bundle").filter(|bundle| bundle != "system"),
                expected_name: fields.some("expected_name"),
                verify: fields.ticked("verify_none").then(|| "none".to_owned()),
            },
            clear_text: fields.ticked("clear_text").then(|| "allow".to_owned()),
            connect_timeout_ms: numbers.read("connect_timeout_ms", "spec.connectTimeoutMs"),
        };
        if !numbers.problems.is_empty() {
            return Err(numbers.problems);
        }
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        Ok(Object { metadata: Metadata { name: name.to_owned(), labels }, spec: Spec::OriginGroup(spec) })
    }

    /// The form of a stored origin group.
    pub(crate) fn fields(name: &str, spec: &OriginGroupSpec) -> Fields {
        let urls: Vec<&str> = spec.origins.iter().map(|origin| origin.url.as_str()).collect();
        let tick = |ticked: bool| if ticked { "on" } else { "" };
        Fields::default()
            .with("name", name)
            .with("origins", urls.join("\n"))
            .with("trust_bundle", spec.tls.trust_bundle.as_deref().unwrap_or("system"))
            .with("expected_name", spec.tls.expected_name.as_deref().unwrap_or_default())
            .with("verify_none", tick(spec.tls.verify.as_deref() == Some("none")))
            .with("clear_text", tick(spec.clear_text.as_deref() == Some("allow")))
            .with("connect_timeout_ms", blank(spec.connect_timeout_ms))
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(name: &str, problem: &Problem) -> Option<(String, String)> {
        let own = format!("{:?}/{name}", Kind::OriginGroup);
        (problem.object == own).then(|| Self::control(&problem.field))?
    }

    /// The control for a field of an origin group, also where it is part of the route form.
    pub(crate) fn control(field: &str) -> Option<(String, String)> {
        let (id, label) = match field {
            "metadata.name" => ("name", "Name"),
            field if field.starts_with("spec.origins") => ("origins", "Origin"),
            field if field.starts_with("spec.tls.trustBundle") => ("trust_bundle", "Trust"),
            field if field.starts_with("spec.tls.expectedName") => ("expected_name", "Expected name"),
            field if field.starts_with("spec.tls") => ("verify_none", "Verification"),
            field if field.starts_with("spec.clearText") => ("clear_text", "Clear text"),
            field if field.starts_with("spec.connectTimeoutMs") => ("connect_timeout_ms", "Connect timeout"),
            _ => return None,
        };
        Some((id.to_owned(), label.to_owned()))
    }
}

/// People write `origin.internal:8443`; they mean the encrypted one.
fn with_scheme(url: String) -> String {
    if url.contains("://") { url } else { format!("https://{url}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::problem::Code;

    #[test]
    fn there_and_back() {
        let typed = Fields::default()
            .with("name", "shop")
            .with("origins", "https://a.test:8443\nb.test")
            .with("trust_bundle", "company")
            .with("expected_name", "a.test")
            .with("verify_none", "")
            .with("clear_text", "on")
            .with("connect_timeout_ms", "900");
        let object = OriginForm::object(&typed, "shop", None).unwrap();
        let Spec::OriginGroup(spec) = &object.spec else { unreachable!() };
        assert_eq!(spec.origins[1].url, "https://b.test");
        let mut expected = typed;
        expected.set("origins", "https://a.test:8443\nhttps://b.test");
        assert_eq!(OriginForm::fields("shop", spec), expected);
    }

    #[test]
    fn a_bad_number_is_beside_its_box() {
        let problems =
            OriginForm::object(&Fields::default().with("connect_timeout_ms", "5s"), "g", None).unwrap_err();
        assert_eq!(OriginForm::place("g", &problems[0]).unwrap().0, "connect_timeout_ms");
        let other = Problem::new("Route/g", "spec.origins", Code::Invalid, "x");
        assert_eq!(OriginForm::place("g", &other), None);
    }
}
