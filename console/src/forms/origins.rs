//! The origin group form.

use model::draft::{
    Kind, Metadata, Object, OriginGroupSpec, OriginLimits, OriginSpec, OriginTls, ProbeSpec, Spec,
};
use model::problem::{Code, Problem};

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
        let before = match base.map(|object| &object.spec) {
            Some(Spec::OriginGroup(spec)) => spec.clone(),
            _ => OriginGroupSpec::default(),
        };
        let spec = OriginGroupSpec {
            origins: origins(&fields.words("origins"), name, &mut numbers.problems),
            tls: OriginTls {
                trust_bundle: fields.some("trust_bundle").filter(|bundle| bundle != "system"),
                expected_name: fields.some("expected_name"),
                verify: fields.ticked("verify_none").then(|| "none".to_owned()),
                client_certificate: fields.some("client_certificate"),
                ..before.tls.clone()
            },
            clear_text: fields.ticked("clear_text").then(|| "allow".to_owned()),
            connect_timeout_ms: numbers.read("connect_timeout_ms", "spec.connectTimeoutMs"),
            proxy_protocol: fields.some("proxy_protocol"),
            protocols: match fields.get("protocols") {
                "" => Vec::new(),
                some => some.split(',').map(str::to_owned).collect(),
            },
            latency_sensitivity_ms: numbers.read("latency_sensitivity_ms", "spec.latencySensitivityMs"),
            probe: fields.ticked("probe").then(|| ProbeSpec {
                path: fields.some("probe_path"),
                interval_ms: numbers.read("probe_interval_ms", "spec.probe.intervalMs"),
                ..before.probe.clone().unwrap_or_default()
            }),
            limits: OriginLimits {
                connections: numbers.read("origin_connections", "spec.limits.connections"),
                ..before.limits.clone()
            },
            // What the form does not show stays as it is.
            ..before
        };
        if !numbers.problems.is_empty() {
            return Err(numbers.problems);
        }
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        Ok(Object { metadata: Metadata { name: name.to_owned(), labels }, spec: Spec::OriginGroup(spec) })
    }

    /// The form of a stored origin group.
    pub(crate) fn fields(name: &str, spec: &OriginGroupSpec) -> Fields {
        let urls: Vec<String> = spec.origins.iter().map(line).collect();
        let probe = spec.probe.clone().unwrap_or_default();
        let tick = |ticked: bool| if ticked { "on" } else { "" };
        Fields::default()
            .with("name", name)
            .with("origins", urls.join("\n"))
            .with("trust_bundle", spec.tls.trust_bundle.as_deref().unwrap_or("system"))
            .with("expected_name", spec.tls.expected_name.as_deref().unwrap_or_default())
            .with("client_certificate", spec.tls.client_certificate.as_deref().unwrap_or_default())
            .with("verify_none", tick(spec.tls.verify.as_deref() == Some("none")))
            .with("clear_text", tick(spec.clear_text.as_deref() == Some("allow")))
            .with("connect_timeout_ms", blank(spec.connect_timeout_ms))
            .with("protocols", spec.protocols.join(","))
            .with("proxy_protocol", spec.proxy_protocol.as_deref().unwrap_or_default())
            .with("latency_sensitivity_ms", blank(spec.latency_sensitivity_ms))
            .with("probe", tick(spec.probe.is_some()))
            .with("probe_path", probe.path.unwrap_or_default())
            .with("probe_interval_ms", blank(probe.interval_ms))
            .with("origin_connections", blank(spec.limits.connections))
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
            field if field.starts_with("spec.tls.clientCertificate") => {
                ("client_certificate", "Client certificate")
            }
            field if field.starts_with("spec.tls") => ("verify_none", "Verification"),
            field if field.starts_with("spec.clearText") => ("clear_text", "Clear text"),
            field if field.starts_with("spec.connectTimeoutMs") => ("connect_timeout_ms", "Connect timeout"),
            field if field.starts_with("spec.latency") => ("latency_sensitivity_ms", "Latency sensitivity"),
            field if field.starts_with("spec.probe.interval") => ("probe_interval_ms", "Probe interval"),
            field if field.starts_with("spec.probe") => ("probe_path", "Probe path"),
            field if field.starts_with("spec.limits.connections") => {
                ("origin_connections", "Exchanges at once")
            }
            field if field.starts_with("spec.protocols") => ("protocols", "HTTP version"),
            field if field.starts_with("spec.proxyProtocol") => ("proxy_protocol", "PROXY protocol"),
            _ => return None,
        };
        Some((id.to_owned(), label.to_owned()))
    }
}

/// `https://a.test weight=5 priority=2 enabled=false`; without what is usual.
fn line(origin: &OriginSpec) -> String {
    let number =
        |name: &str, value: Option<u64>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
    let enabled = if origin.enabled { "" } else { " enabled=false" };
    format!(
        "{}{}{}{enabled}",
        origin.url,
        number("weight", origin.weight),
        number("priority", origin.priority)
    )
}

/// Origins, each followed by what [`line`] writes.
fn origins(words: &[String], name: &str, problems: &mut Vec<Problem>) -> Vec<OriginSpec> {
    let mut origins: Vec<OriginSpec> = Vec::new();
    for word in words {
        let setting = word.split_once('=').filter(|_| !word.contains("://"));
        let Some((key, value)) = setting else {
            origins.push(OriginSpec::new(with_scheme(word.clone())));
            continue;
        };
        let known = match (origins.last_mut(), key, value) {
            (Some(origin), "weight", value) => value.parse().map(|value| origin.weight = Some(value)).is_ok(),
            (Some(origin), "priority", value) => {
                value.parse().map(|value| origin.priority = Some(value)).is_ok()
            }
            (Some(origin), "enabled", "true" | "false") => {
                origin.enabled = value == "true";
                true
            }
            _ => false,
        };
        if !known {
            let message = format!(
                "{word:?} means nothing here; behind a URL write weight=50, priority=1 or enabled=false"
            );
            let object = format!("{:?}/{name}", Kind::OriginGroup);
            problems.push(Problem::new(object, "spec.origins", Code::Invalid, message));
        }
    }
    origins
}

/// People write `origin.internal:8443`; they mean the encrypted one.
fn with_scheme(url: String) -> String {
    if url.contains("://") { url } else { format!("https://{url}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let typed = Fields::default()
            .with("name", "shop")
            .with("origins", "https://a.test:8443 weight=5 priority=2\nb.test, enabled=false")
            .with("trust_bundle", "company")
            .with("expected_name", "a.test")
            .with("client_certificate", "ours")
            .with("verify_none", "")
            .with("clear_text", "on")
            .with("connect_timeout_ms", "900")
            .with("protocols", "h2")
            .with("proxy_protocol", "v2")
            .with("latency_sensitivity_ms", "0")
            .with("probe", "on")
            .with("probe_path", "/live")
            .with("probe_interval_ms", "")
            .with("origin_connections", "100");
        let object = OriginForm::object(&typed, "shop", None).unwrap();
        let Spec::OriginGroup(spec) = &object.spec else { unreachable!() };
        assert_eq!(spec.origins[1].url, "https://b.test");
        let mut expected = typed;
        expected.set("origins", "https://a.test:8443 weight=5 priority=2\nhttps://b.test enabled=false");
        assert_eq!(OriginForm::fields("shop", spec), expected);
    }

    #[test]
    fn what_stands_behind_a_url_is_known_and_what_the_form_does_not_show_stays() {
        for wrong in ["https://a.test wait=5", "weight=5", "a.test weight=x", "a.test enabled=no"] {
            let problems =
                OriginForm::object(&Fields::default().with("origins", wrong), "g", None).unwrap_err();
            assert_eq!(OriginForm::place("g", &problems[0]).unwrap().0, "origins", "{wrong}");
        }
        let before = OriginGroupSpec {
            retry_percent: Some(5),
            probe: Some(ProbeSpec { samples: Some(8), ..ProbeSpec::default() }),
            ..OriginGroupSpec::default()
        };
        let base = Object { metadata: Metadata::default(), spec: Spec::OriginGroup(before.clone()) };
        let again = OriginForm::object(&OriginForm::fields("g", &before), "g", Some(&base)).unwrap();
        assert_eq!(again.spec, base.spec);
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
