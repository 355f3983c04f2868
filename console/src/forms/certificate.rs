//! The certificate form: a PEM file or pasted text, or one from the internal CA.

use model::draft::{CertificateSpec, InternalCa, Kind, Metadata, Object, Spec};
use model::problem::Problem;

use super::fields::Fields;

/// PEM text, private keys apart from the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pem {
    /// Certificates, in the order they came in.
    pub(crate) chain: String,
    /// Private keys.
    pub(crate) key: String,
}

impl Pem {
    /// Takes PEM apart. People keep chain and key in one file, and paste both into one box.
    pub(crate) fn split(text: &str) -> Self {
        let mut pem = Self::default();
        let mut in_key = false;
        for line in text.lines() {
            let key_begins = line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY");
            in_key |= key_begins;
            let part = if in_key { &mut pem.key } else { &mut pem.chain };
            part.push_str(line);
            part.push('\n');
            if in_key && line.starts_with("-----END ") {
                in_key = false;
            }
        }
        if pem.chain.trim().is_empty() {
            pem.chain.clear();
        }
        pem
    }

    /// Takes chain and key out of a form's boxes and files; the form keeps the chain, and never the key.
    pub(crate) fn take(fields: &mut Fields) -> Option<String> {
        let typed = Self::split(fields.get("chain"));
        let file = Self::split(&fields.remove("chain_file"));
        let (key_box, key_file) = (fields.remove("private_key"), fields.remove("key_file"));
        let chain = if file.chain.is_empty() { typed.chain } else { file.chain };
        fields.set("chain", chain);
        let keys = [key_file, key_box, file.key, typed.key];
        keys.into_iter().find(|key| !key.trim().is_empty())
    }
}

/// See the module.
pub(crate) struct CertificateForm;

impl CertificateForm {
    /// The object that the form describes.
    pub(crate) fn object(fields: &Fields, base: Option<&Object>) -> Object {
        let name = fields.trimmed("name").to_owned();
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        Object { metadata: Metadata { name, labels }, spec: Spec::Certificate(Self::spec(fields, "hosts")) }
    }

    /// The spec; `hosts` is the control with the host names for the internal CA.
    pub(crate) fn spec(fields: &Fields, hosts: &str) -> CertificateSpec {
        if fields.get("source") == "internal" {
            let internal_ca = Some(InternalCa { hostnames: fields.words(hosts) });
            return CertificateSpec { internal_ca, ..CertificateSpec::default() };
        }
        CertificateSpec {
            // Blank is kept, so that the compiler's own sentence about a missing chain appears beside the box.
            chain: Some(fields.get("chain").to_owned()),
            private_key_ref: fields.some("key_ref"),
            ..CertificateSpec::default()
        }
    }

    /// The form of a stored certificate that is about to be replaced: its name, and nothing of its contents.
    pub(crate) fn fields(object: &Object) -> Fields {
        Fields::default().with("name", object.metadata.name.as_str()).with("source", "upload")
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        let own = format!("{:?}/{}", Kind::Certificate, fields.trimmed("name"));
        (problem.object == own || problem.object.is_empty())
            .then(|| Self::control(&problem.field, "hosts", "Hosts"))?
    }

    /// The control for a field of a certificate, also where it is part of the route form.
    pub(crate) fn control(field: &str, hosts: &str, hosts_label: &str) -> Option<(String, String)> {
        let (id, label) = match field {
            "metadata.name" => ("name", "Name"),
            field if field.starts_with("spec.privateKey") => ("private_key", "Private key"),
            field if field.starts_with("spec.internalCa") => (hosts, hosts_label),
            field if field.starts_with("spec") => ("chain", "Certificate chain"),
            _ => return None,
        };
        Some((id.to_owned(), label.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nBB\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn one_file_with_both() {
        let pem = Pem::split(&format!("{KEY}{CHAIN}{CHAIN}"));
        assert_eq!(pem, Pem { chain: format!("{CHAIN}{CHAIN}"), key: KEY.to_owned() });
        assert_eq!(Pem::split("\n \n"), Pem::default());
        assert_eq!(Pem::split("rubbish").chain, "rubbish\n");
    }

    #[test]
    fn the_key_leaves_the_form_wherever_it_was_put() {
        for name in ["chain", "chain_file", "private_key", "key_file"] {
            let text = if name.starts_with("chain") { format!("{CHAIN}{KEY}") } else { KEY.to_owned() };
            let mut fields = Fields::default().with("name", "a").with(name, text);
            assert_eq!(Pem::take(&mut fields).as_deref(), Some(KEY), "{name}");
            assert!(!format!("{fields:?}").contains("PRIVATE KEY"), "{name}");
        }
    }

    #[test]
    fn from_the_internal_ca() {
        let fields =
            Fields::default().with("name", "a").with("source", "internal").with("hosts", "a.test, *.a.test");
        let Spec::Certificate(spec) = CertificateForm::object(&fields, None).spec else { unreachable!() };
        assert_eq!(spec.internal_ca.unwrap().hostnames, ["a.test", "*.a.test"]);
        assert_eq!(spec.chain, None);
    }
}
