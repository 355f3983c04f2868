//! The trust bundle form.

use model::draft::{Kind, Metadata, Object, Spec, TrustBundleSpec};
use model::problem::Problem;

use super::fields::Fields;

/// See the module.
pub(crate) struct BundleForm;

impl BundleForm {
    /// The object that the form describes; a file counts before what stands in the box.
    pub(crate) fn object(fields: &Fields, base: Option<&Object>) -> Object {
        let file = fields.get("certificates_file");
        let certificates = if file.trim().is_empty() { fields.get("certificates") } else { file };
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        let name = fields.trimmed("name").to_owned();
        let spec = TrustBundleSpec { certificates: certificates.to_owned() };
        Object { metadata: Metadata { name, labels }, spec: Spec::TrustBundle(spec) }
    }

    /// The form of a stored bundle.
    pub(crate) fn fields(name: &str, spec: &TrustBundleSpec) -> Fields {
        Fields::default().with("name", name).with("certificates", spec.certificates.as_str())
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        if problem.object != format!("{:?}/{}", Kind::TrustBundle, fields.trimmed("name")) {
            return None;
        }
        let (id, label) = match problem.field.as_str() {
            "metadata.name" => ("name", "Name"),
            field if field.starts_with("spec") => ("certificates", "Certificates"),
            _ => return None,
        };
        Some((id.to_owned(), label.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_before_the_box() {
        let fields =
            Fields::default().with("name", "a").with("certificates", "box").with("certificates_file", "file");
        let Spec::TrustBundle(spec) = BundleForm::object(&fields, None).spec else { unreachable!() };
        assert_eq!(spec.certificates, "file");
        assert_eq!(BundleForm::fields("a", &spec).get("certificates"), "file");
    }
}
