//! The listener form.

use model::draft::{
    ErrorPageSpec, Kind, LimitsSpec, ListenerHttp, ListenerSpec, ListenerTls, Metadata, NodeSelector, Object,
    PortSpec, ProxyProtocolSpec, Spec,
};
use model::problem::Problem;

use super::fields::Fields;
use super::parse::{Numbers, blank, labels, selector_text};

/// One limit: control, field, what it is called, its unit.
pub(crate) struct Limit {
    pub(crate) id: &'static str,
    pub(crate) field: &'static str,
    pub(crate) label: &'static str,
    value: fn(&mut LimitsSpec) -> &mut Option<u64>,
}

macro_rules! limit {
    ($id:ident, $field:literal, $label:literal) => {
        Limit {
            id: stringify!($id),
            field: concat!("spec.limits.", $field),
            label: $label,
            value: |limits| &mut limits.$id,
        }
    };
}

/// Every bound on what a client controls.
pub(crate) const LIMITS: [Limit; 16] = [
    limit!(connections, "connections", "Connections"),
    limit!(connections_per_address, "connectionsPerAddress", "Connections per address"),
    limit!(streams, "streams", "HTTP/2 streams per connection"),
    limit!(requests_per_connection, "requestsPerConnection", "Requests per connection"),
    limit!(header_bytes, "headerBytes", "Header, bytes"),
    limit!(header_count, "headerCount", "Header fields"),
    limit!(target_bytes, "targetBytes", "Request target, bytes"),
    limit!(body_bytes, "bodyBytes", "Body, bytes"),
    limit!(handshake_ms, "handshakeMs", "Handshake, ms"),
    limit!(handshake_bytes, "handshakeBytes", "Handshake, bytes"),
    limit!(header_ms, "headerMs", "Header received within, ms"),
    limit!(idle_ms, "idleMs", "Idle, ms"),
    limit!(stall_ms, "stallMs", "Stalled, ms"),
    limit!(body_bytes_per_second, "bodyBytesPerSecond", "Body, least bytes per second"),
    limit!(drain_ms, "drainMs", "Drain, ms"),
    limit!(tunnel_idle_ms, "tunnelIdleMs", "WebSocket idle, ms"),
];

/// The word for TLS, which is also the default.
const HTTPS: &str = "HTTPS";
/// The default answer in clear text.
const REDIRECT: &str = "Redirect";

/// See the module.
pub(crate) struct ListenerForm;

impl ListenerForm {
    /// What a new form starts with.
    pub(crate) fn blank() -> Fields {
        Fields::default()
            .with("port", "443")
            .with("protocol", HTTPS)
            .with("min_version", "1.2")
            .with("http_answer", REDIRECT)
    }

    /// The object that the form describes.
    ///
    /// # Errors
    /// What is no number where one belongs.
    pub(crate) fn object(fields: &Fields, base: Option<&Object>) -> Result<Object, Vec<Problem>> {
        let name = fields.trimmed("name").to_owned();
        let mut numbers = Numbers::new(fields, Kind::Listener, &name);
        let mut limits = LimitsSpec::default();
        for limit in &LIMITS {
            *(limit.value)(&mut limits) = numbers.read(limit.id, limit.field);
        }
        let mut spec = ListenerSpec {
            addresses: fields.words("addresses"),
            // A blank port is 0, which the compiler refuses in its own words, as it does any other word.
            port: fields.some("port").map_or_else(PortSpec::default, |port| PortSpec::from(&*port)),
            trusted_prefixes: fields.words("trusted_prefixes"),
            proxy_protocol: Some(fields.words("proxy_prefixes"))
                .filter(|prefixes| !prefixes.is_empty())
                .map(|prefixes| ProxyProtocolSpec { prefixes }),
            take_over: fields.ticked("take_over"),
            node_selector: NodeSelector { match_labels: labels(&fields.words("node_selector")) },
            limits,
            error_pages: error_pages(fields, base),
            ..ListenerSpec::default()
        };
        // What was typed for the other protocol is kept in the form, and is no part of the object.
        if fields.get("protocol") == ListenerSpec::HTTP {
            spec.protocol = Some(ListenerSpec::HTTP.to_owned());
            spec.http = http(fields, &mut numbers);
        } else {
            let min_version = fields.some("min_version").filter(|version| version != "1.2");
            spec.default_certificate = fields.some("default_certificate");
            spec.certificates = fields.words("certificates");
            spec.tls = ListenerTls { min_version };
        }
        if !numbers.problems.is_empty() {
            return Err(numbers.problems);
        }
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        Ok(Object { metadata: Metadata { name, labels }, spec: Spec::Listener(spec) })
    }

    /// The form of a stored listener.
    pub(crate) fn fields(name: &str, spec: &ListenerSpec) -> Fields {
        let mut limits = spec.limits.clone();
        let tick = |on: bool| if on { "on" } else { "" };
        let fields = Fields::default()
            .with("name", name)
            .with("addresses", spec.addresses.join(" "))
            .with("port", spec.port.to_string())
            .with("protocol", spec.protocol.as_deref().unwrap_or(HTTPS))
            .with("http_answer", spec.http.answer.as_deref().unwrap_or(REDIRECT))
            .with("https_port", blank(spec.http.https_port))
            .with("health_path", spec.http.health_path.as_deref().unwrap_or_default())
            .with("acme_origin_group", spec.http.acme_origin_group.as_deref().unwrap_or_default())
            .with("h2c_prefixes", spec.http.h2c_prefixes.join(" "))
            .with("h2c_clear_text", tick(spec.http.clear_text.as_deref() == Some("allow")))
            .with("default_certificate", spec.default_certificate.as_deref().unwrap_or_default())
            .with("certificates", spec.certificates.join(" "))
            .with("min_version", spec.tls.min_version.as_deref().unwrap_or("1.2"))
            .with("trusted_prefixes", spec.trusted_prefixes.join(" "))
            .with(
                "proxy_prefixes",
                spec.proxy_protocol.as_ref().map(|proxy| proxy.prefixes.join(" ")).unwrap_or_default(),
            )
            .with("take_over", tick(spec.take_over))
            .with("node_selector", selector_text(&spec.node_selector))
            .with(
                "error_html",
                spec.error_pages.iter().find(|page| shown(page)).map_or("", |page| &page.body),
            );
        LIMITS.iter().fold(fields, |fields, limit| fields.with(limit.id, blank(*(limit.value)(&mut limits))))
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        let own = format!("{:?}/{}", Kind::Listener, fields.trimmed("name"));
        if problem.object != own {
            return None;
        }
        let (id, label) = match problem.field.as_str() {
            "metadata.name" => ("name", "Name"),
            field if field.starts_with("spec.addresses") => ("addresses", "Addresses"),
            field if field.starts_with("spec.port") => ("port", "Port"),
            field if field.starts_with("spec.protocol") => ("protocol-https", "Protocol"),
            field if field.starts_with("spec.http.answer") => ("http_answer", "Everything else"),
            field if field.starts_with("spec.http.httpsPort") => ("https_port", "HTTPS port"),
            field if field.starts_with("spec.http.healthPath") => ("health_path", "Health path"),
            field if field.starts_with("spec.http.acmeOriginGroup") => {
                ("acme_origin_group", "ACME challenges")
            }
            field if field.starts_with("spec.http.h2cPrefixes") => ("h2c_prefixes", "Routes by h2c for"),
            field if field.starts_with("spec.http.clearText") => ("h2c_clear_text", "Routes in clear text"),
            field if field.starts_with("spec.defaultCertificate") => {
                ("default_certificate", "Default certificate")
            }
            field if field.starts_with("spec.certificates") => ("certificates", "More certificates"),
            field if field.starts_with("spec.tls") => ("min_version", "Lowest TLS version"),
            field if field.starts_with("spec.trustedPrefixes") => ("trusted_prefixes", "Trusted prefixes"),
            field if field.starts_with("spec.proxyProtocol") => ("proxy_prefixes", "PROXY protocol from"),
            field if field.starts_with("spec.takeOver") => ("take_over", "Take the port over"),
            field if field.starts_with("spec.errorPages") => ("error_html", "Error page"),
            field if field.starts_with("spec.nodeSelector") => ("node_selector", "Nodes"),
            field => LIMITS.iter().find(|limit| limit.field == field).map(|limit| (limit.id, limit.label))?,
        };
        Some((id.to_owned(), label.to_owned()))
    }
}

fn http(fields: &Fields, numbers: &mut Numbers<'_>) -> ListenerHttp {
    let answer = fields.some("http_answer").filter(|answer| answer != REDIRECT);
    // Nothing leads there where nothing is redirected.
    let https_port = match answer {
        None => numbers.read("https_port", "spec.http.httpsPort"),
        Some(_) => None,
    };
    ListenerHttp {
        answer,
        https_port,
        health_path: fields.some("health_path"),
        acme_origin_group: fields.some("acme_origin_group"),
        h2c_prefixes: fields.words("h2c_prefixes"),
        clear_text: fields.ticked("h2c_clear_text").then(|| "allow".to_owned()),
    }
}

/// The page that the form shows: for every status, in HTML.
fn shown(page: &ErrorPageSpec) -> bool {
    page.status.as_deref().is_none_or(|status| status == "all")
        && page.form.as_deref().is_none_or(|form| form == "html")
}

/// The page as typed; the others stay as they are stored.
fn error_pages(fields: &Fields, base: Option<&Object>) -> Vec<ErrorPageSpec> {
    let mut pages = match base.map(|object| &object.spec) {
        Some(Spec::Listener(stored)) => stored.error_pages.clone(),
        Some(_) | None => Vec::new(),
    };
    let body = fields.get("error_html");
    match pages.iter_mut().find(|page| shown(page)) {
        Some(page) => body.clone_into(&mut page.body),
        None => pages.push(ErrorPageSpec { body: body.to_owned(), ..ErrorPageSpec::default() }),
    }
    pages.retain(|page| !shown(page) || !page.body.trim().is_empty());
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::problem::Code;

    #[test]
    fn there_and_back() {
        let typed = LIMITS.iter().fold(
            ListenerForm::blank()
                .with("name", "edge")
                .with("addresses", "192.0.2.1 ::")
                .with("proxy_prefixes", "10.0.0.0/8 2001:db8::/32")
                .with("node_selector", "zone=a"),
            |fields, limit| fields.with(limit.id, "7"),
        );
        let object = ListenerForm::object(&typed, None).unwrap();
        let Spec::Listener(spec) = &object.spec else { unreachable!() };
        assert_eq!(ListenerForm::object(&ListenerForm::fields("edge", spec), None).unwrap(), object);
        assert_eq!(ListenerForm::fields("edge", spec).get("node_selector"), "zone=a");
    }

    #[test]
    fn a_protocol_has_its_own_fields_and_the_form_keeps_the_others() {
        let typed = ListenerForm::blank()
            .with("name", "http")
            .with("port", "80")
            .with("default_certificate", "shop")
            .with("min_version", "1.3")
            .with("https_port", "8443")
            .with("health_path", "/healthz")
            .with("acme_origin_group", "certbot")
            .with("h2c_prefixes", "10.0.0.0/8 2001:db8::/32")
            .with("h2c_clear_text", "on");
        let spec = |fields: &Fields| {
            let Spec::Listener(spec) = ListenerForm::object(fields, None).unwrap().spec else {
                unreachable!()
            };
            spec
        };
        let secured = spec(&typed);
        assert_eq!(secured.default_certificate.as_deref(), Some("shop"));
        assert_eq!((secured.protocol, secured.http), (None, ListenerHttp::default()));
        let open = spec(&typed.clone().with("protocol", "HTTP"));
        assert_eq!((&open.default_certificate, &open.tls), (&None, &ListenerTls::default()));
        assert_eq!((open.http.answer.as_ref(), open.http.https_port), (None, Some(8443)));
        assert_eq!(open.http.h2c_prefixes, ["10.0.0.0/8", "2001:db8::/32"]);
        assert_eq!(open.http.clear_text.as_deref(), Some("allow"));
        assert!(open.opens_routes());
        assert_eq!(spec(&ListenerForm::fields("http", &open)), open);
        let closed = spec(&typed.with("protocol", "HTTP").with("http_answer", "Refuse"));
        assert_eq!((closed.http.answer.as_deref(), closed.http.https_port), (Some("Refuse"), None));
        assert_eq!(spec(&ListenerForm::fields("http", &closed)), closed);
    }

    #[test]
    fn any_port_and_prefixes_come_back_as_they_were_typed() {
        let typed = ListenerForm::blank().with("name", "edge").with("addresses", "10.0.7.0/24 2001:db8::1");
        for (port, expected) in [
            ("any", PortSpec::Word("any".to_owned())),
            (" 8443 ", PortSpec::Number(8443)),
            ("https", PortSpec::Word("https".to_owned())),
            ("", PortSpec::default()),
        ] {
            let object = ListenerForm::object(&typed.clone().with("port", port), None).unwrap();
            let Spec::Listener(spec) = &object.spec else { unreachable!() };
            assert_eq!((&spec.port, spec.addresses.len()), (&expected, 2), "{port:?}");
            let again = ListenerForm::object(&ListenerForm::fields("edge", spec), Some(&object)).unwrap();
            assert_eq!(again, object);
        }
    }

    #[test]
    fn error_pages_that_the_form_does_not_show_stay() {
        let mut stored = ListenerForm::object(&ListenerForm::blank().with("name", "edge"), None).unwrap();
        let Spec::Listener(spec) = &mut stored.spec else { unreachable!() };
        assert!(spec.error_pages.is_empty());
        let page = |status: Option<&str>| ErrorPageSpec {
            status: status.map(str::to_owned),
            form: None,
            body: "<p>{{status}}".to_owned(),
        };
        spec.error_pages = vec![page(Some("4xx")), page(None)];
        let fields = ListenerForm::fields("edge", spec);
        assert_eq!(ListenerForm::object(&fields, Some(&stored)).unwrap(), stored);
        let without = ListenerForm::object(&fields.with("error_html", ""), Some(&stored)).unwrap();
        let Spec::Listener(spec) = &without.spec else { unreachable!() };
        assert_eq!(spec.error_pages, [page(Some("4xx"))]);
    }

    #[test]
    fn every_field_of_a_listener_has_a_control() {
        let fields = ListenerForm::blank().with("name", "edge");
        let known = [
            "metadata.name",
            "spec.port",
            "spec.addresses[1]",
            "spec.trustedPrefixes[0]",
            "spec.proxyProtocol.prefixes[0]",
            "spec.tls.minVersion",
            "spec.protocol",
            "spec.http.answer",
            "spec.http.httpsPort",
            "spec.http.healthPath",
            "spec.http.acmeOriginGroup",
            "spec.http.h2cPrefixes[1]",
            "spec.http.clearText",
        ];
        for field in known.into_iter().chain(LIMITS.iter().map(|limit| limit.field)) {
            let problem = Problem::new("Listener/edge", field, Code::Invalid, "x");
            assert!(ListenerForm::place(&fields, &problem).is_some(), "{field}");
        }
    }
}
