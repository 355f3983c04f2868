//! The one form: a route together with its certificate and its origin.

use model::draft::{Kind, MatchSpec, Metadata, Object, PASSTHROUGH, PathSpec, RouteSpec, Spec};
use model::problem::{Code, Problem};

use super::certificate::CertificateForm;
use super::fields::Fields;
use super::filters;
use super::origins::OriginForm;
use super::parse::{Numbers, blank, slug};

/// What marks a path that matches only itself.
const EXACT: &str = "exact:";

/// The names of the objects that a route form describes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) route: String,
    pub(crate) certificate: Option<String>,
    pub(crate) group: String,
}

/// See the module.
pub(crate) struct RouteForm;

impl RouteForm {
    /// What a new form starts with.
    pub(crate) fn blank() -> Fields {
        Fields::default()
            .with("path", "/")
            .with("source", "internal")
            .with("origin_source", "new")
            .with("trust_bundle", "system")
            .with("enabled", "on")
    }

    /// The names: as typed, or made of host and path.
    pub(crate) fn names(fields: &Fields) -> Names {
        let host = fields.words("host").into_iter().next().unwrap_or_default();
        let made = |text: &str, otherwise: &str| match slug(text) {
            name if name.is_empty() => otherwise.to_owned(),
            name => name,
        };
        let route = fields
            .some("name")
            .unwrap_or_else(|| made(&format!("{host}{}", fields.trimmed("path")), "route"));
        let certificate = match fields.get("source") {
            "existing" => fields.some("certificate"),
            "upload" | "internal" => {
                Some(fields.some("certificate_name").unwrap_or_else(|| made(&host, "certificate")))
            }
            _ => None,
        };
        let group = match fields.get("origin_source") {
            "existing" => fields.trimmed("origin_group").to_owned(),
            "redirect" | "fixed" => String::new(),
            _ => fields.some("group_name").unwrap_or_else(|| {
                let url = fields.words("origins").into_iter().next().unwrap_or_default();
                made(url.split_once("://").map_or(url.as_str(), |(_, rest)| rest), "origin")
            }),
        };
        Names { route, certificate, group }
    }

    /// Whether the form describes an origin group of its own.
    pub(crate) fn makes_group(fields: &Fields) -> bool {
        !matches!(fields.get("origin_source"), "existing" | "redirect" | "fixed")
    }

    /// The objects that the form describes: the route last, so that what it needs stands before it.
    ///
    /// # Errors
    /// What is no number where one belongs.
    pub(crate) fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        let names = Self::names(fields);
        let mut objects = Vec::with_capacity(3);
        // What is blank is said once, beside its own control, and not as what would follow from it.
        let mut problems = blanks(fields, &names.route);
        if !problems.is_empty() {
            return Err(problems);
        }
        if let (Some(name), "upload" | "internal") = (&names.certificate, fields.get("source")) {
            let spec = Spec::Certificate(CertificateForm::spec(fields, "host"));
            objects.push(Object { metadata: Metadata { name: name.clone(), ..Metadata::default() }, spec });
        }
        if Self::makes_group(fields) {
            match OriginForm::object(fields, &names.group, None) {
                Ok(group) => objects.push(group),
                Err(found) => problems.extend(found),
            }
        }
        let mut numbers = Numbers::new(fields, Kind::Route, &names.route);
        let spec = RouteSpec {
            listeners: fields.words("listeners"),
            hostnames: fields.words("host"),
            tls: (fields.get("source") == "passthrough").then(|| PASSTHROUGH.to_owned()),
            matches: matches(fields, base),
            certificate: names.certificate.clone(),
            origin_group: names.group.clone(),
            enabled: fields.ticked("enabled"),
            allow_encoded_slash: fields.ticked("allow_encoded_slash"),
            response_timeout_ms: numbers.read("response_timeout_ms", "spec.responseTimeoutMs"),
            filters: filters::read(fields, &mut numbers),
            upgrades: upgrades(fields),
        };
        problems.append(&mut numbers.problems);
        let labels = base.map(|object| object.metadata.labels.clone()).unwrap_or_default();
        objects.push(Object { metadata: Metadata { name: names.route, labels }, spec: Spec::Route(spec) });
        if problems.is_empty() { Ok(objects) } else { Err(problems) }
    }

    /// The form of a stored route.
    pub(crate) fn fields(name: &str, spec: &RouteSpec) -> Fields {
        let tick = |ticked: bool| if ticked { "on" } else { "" };
        let plain = spec.matches.iter().filter(|one| !one.is_conditional());
        let paths: Vec<String> = plain.map(|one| path_text(&one.path)).collect();
        let path = if spec.matches.is_empty() { "/".to_owned() } else { paths.join(" ") };
        let certificate = spec.certificate.as_deref();
        let fields = Fields::default()
            .with("name", name)
            .with("host", spec.hostnames.join(" "))
            .with("path", path)
            .with(
                "source",
                match certificate {
                    _ if spec.is_passthrough() => "passthrough",
                    Some(_) => "existing",
                    None => "listener",
                },
            )
            .with("certificate", certificate.unwrap_or_default())
            .with("origin_source", "existing")
            .with("origin_group", spec.origin_group.as_str())
            .with("trust_bundle", "system")
            .with("listeners", spec.listeners.join(" "))
            .with("enabled", tick(spec.enabled))
            .with("allow_encoded_slash", tick(spec.allow_encoded_slash))
            .with("response_timeout_ms", blank(spec.response_timeout_ms))
            .with("upgrades", upgrades_text(spec.upgrades.as_deref()));
        filters::show(&spec.filters, fields)
    }

    /// The control beside which a problem belongs.
    pub(crate) fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        let names = Self::names(fields);
        let (kind, name) = problem.object.split_once('/').unwrap_or_default();
        match kind {
            "Route" if name == names.route => Self::control(fields, &problem.field),
            "OriginGroup" if name == names.group && !name.is_empty() => match problem.field.as_str() {
                "metadata.name" => Some(control("group_name", "Origin group's name")),
                field => OriginForm::control(field),
            },
            "Certificate" if Some(name) == names.certificate.as_deref() => match problem.field.as_str() {
                "metadata.name" => Some(control("certificate_name", "Certificate's name")),
                field if fields.get("source") == "internal" && field.starts_with("spec") => {
                    Some(control("host", "Host"))
                }
                field => CertificateForm::control(field, "host", "Host"),
            },
            _ => None,
        }
    }

    fn control(fields: &Fields, field: &str) -> Option<(String, String)> {
        let (id, label) = match field {
            "metadata.name" => ("name", "Name"),
            field if field.starts_with("spec.hostnames") => ("host", "Host"),
            field if field.starts_with("spec.matches") => ("path", "Path"),
            field if field.starts_with("spec.tls") => ("source-passthrough", "Certificate"),
            field if field.starts_with("spec.certificate") => match fields.get("source") {
                "existing" => ("certificate", "Certificate"),
                "upload" => ("chain", "Certificate chain"),
                _ => ("host", "Host"),
            },
            field if field.starts_with("spec.originGroup") => match fields.get("origin_source") {
                "existing" => ("origin_group", "Origin group"),
                _ => ("origins", "Origin"),
            },
            field if field.starts_with("spec.listeners") => ("listeners", "Listeners"),
            field if field.starts_with("spec.responseTimeoutMs") => {
                ("response_timeout_ms", "Response timeout")
            }
            field if field.starts_with("spec.upgrades") => ("upgrades", "Upgrades"),
            field => filters::control(field)?,
        };
        Some(control(id, label))
    }
}

/// The controls without which there is no route.
fn blanks(fields: &Fields, route: &str) -> Vec<Problem> {
    let at = |field: &str, message: &str| {
        Problem::new(format!("{:?}/{route}", Kind::Route), field, Code::Missing, message)
    };
    let mut problems = Vec::new();
    if fields.words("host").is_empty() {
        problems.push(at("spec.hostnames", "say which host, such as shop.example.com"));
    }
    if RouteForm::makes_group(fields) && fields.words("origins").is_empty() {
        problems.push(at("spec.originGroup", "say where requests go, such as https://origin.internal:8443"));
    }
    problems
}

/// The paths as typed. What the form does not show, the matches with conditions, stays as it is stored.
fn matches(fields: &Fields, base: Option<&Object>) -> Vec<MatchSpec> {
    let mut matches: Vec<MatchSpec> = fields.words("path").iter().map(|path| path_match(path)).collect();
    if let Some(Spec::Route(stored)) = base.map(|object| &object.spec) {
        matches.extend(stored.matches.iter().filter(|one| one.is_conditional()).cloned());
    }
    if matches == [root()] { Vec::new() } else { matches }
}

/// Blank is the default, and this word an empty list.
const NO_UPGRADE: &str = "none";

fn upgrades(fields: &Fields) -> Option<Vec<String>> {
    let mut words = fields.words("upgrades");
    if words.is_empty() {
        return None;
    }
    words.retain(|word| word != NO_UPGRADE);
    Some(words)
}

fn upgrades_text(upgrades: Option<&[String]>) -> String {
    match upgrades {
        None => String::new(),
        Some([]) => NO_UPGRADE.to_owned(),
        Some(some) => some.join(" "),
    }
}

fn control(id: &str, label: &str) -> (String, String) {
    (id.to_owned(), label.to_owned())
}

fn path_match(text: &str) -> MatchSpec {
    let (kind, value) = match text.strip_prefix(EXACT) {
        Some(path) => ("Exact", path),
        None => ("PathPrefix", text),
    };
    let path = PathSpec { kind: kind.to_owned(), value: value.to_owned() };
    MatchSpec { path, ..MatchSpec::default() }
}

/// The prefix `/`, which is what a route without matches means.
fn root() -> MatchSpec {
    path_match("/")
}

/// A path as it is typed and listed.
fn path_text(path: &PathSpec) -> String {
    if path.kind == "Exact" { format!("{EXACT}{}", path.value) } else { path.value.clone() }
}

/// A match in the words of a list: its path, and what else it asks for.
pub(crate) fn match_words(one: &MatchSpec) -> String {
    let method = one.method.iter().cloned();
    let headers = one.headers.iter().map(|one| format!("{}: {}", one.name, one.value));
    let query = one.query_params.iter().map(|one| format!("?{}={}", one.name, one.value));
    let conditions: Vec<String> = method.chain(headers).chain(query).collect();
    let path = path_text(&one.path);
    if conditions.is_empty() { path } else { format!("{path} ({})", conditions.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed() -> Fields {
        RouteForm::blank().with("host", "shop.example.com").with("origins", "https://origin.internal:8443")
    }

    #[test]
    fn one_form_makes_three_objects() {
        insta::assert_debug_snapshot!(RouteForm::objects(&typed(), None).unwrap());
    }

    #[test]
    fn there_and_back() {
        let fields = typed()
            .with("path", "/v2 exact:/health")
            .with("source", "existing")
            .with("certificate", "shop-2027")
            .with("origin_source", "existing")
            .with("origin_group", "shop")
            .with("allow_encoded_slash", "on")
            .with("response_timeout_ms", "1500")
            .with("upgrades", "none");
        let objects = RouteForm::objects(&fields, None).unwrap();
        assert_eq!(objects.len(), 1);
        let Spec::Route(spec) = &objects[0].spec else { unreachable!() };
        let again = RouteForm::fields(&objects[0].metadata.name, spec);
        for name in [
            "host",
            "path",
            "source",
            "certificate",
            "origin_group",
            "enabled",
            "allow_encoded_slash",
            "response_timeout_ms",
            "upgrades",
        ] {
            assert_eq!(again.get(name), fields.get(name), "{name}");
        }
        assert_eq!(RouteForm::objects(&again, None).unwrap(), objects);
    }

    #[test]
    fn passthrough_there_and_back() {
        let typed = typed().with("source", "passthrough").with("certificate", "left-over");
        let objects = RouteForm::objects(&typed, None).unwrap();
        assert_eq!(objects.len(), 2, "an origin group and a route, no certificate");
        let Spec::Route(spec) = &objects[1].spec else { unreachable!() };
        assert!(spec.is_passthrough() && spec.certificate.is_none() && spec.matches.is_empty());
        let again = RouteForm::fields(&objects[1].metadata.name, spec);
        assert_eq!(again.get("source"), "passthrough");
        assert_eq!(RouteForm::objects(&again, None).unwrap(), objects[1..]);
    }

    #[test]
    fn what_the_form_does_not_show_stays() {
        let objects = RouteForm::objects(&typed().with("path", "/ /v2"), None).unwrap();
        let mut stored = objects.last().unwrap().clone();
        let name = stored.metadata.name.clone();
        let Spec::Route(spec) = &mut stored.spec else { unreachable!() };
        assert_eq!(spec.matches.len(), 2);
        spec.matches.push(MatchSpec { method: Some("GET".to_owned()), ..MatchSpec::default() });
        let again = RouteForm::fields(&name, spec);
        assert_eq!(again.get("path"), "/ /v2");
        assert_eq!(RouteForm::objects(&again, Some(&stored)).unwrap(), [stored]);
    }

    #[test]
    fn each_problem_finds_its_control() {
        let fields = typed();
        let at = |object: &str, field: &str| {
            RouteForm::place(&fields, &Problem::new(object, field, Code::Invalid, "x")).map(|(id, _)| id)
        };
        assert_eq!(at("Route/shop-example-com", "spec.hostnames[0]").as_deref(), Some("host"));
        assert_eq!(at("Route/shop-example-com", "spec.matches[0].path.value").as_deref(), Some("path"));
        assert_eq!(at("Route/shop-example-com", "spec.upgrades[0]").as_deref(), Some("upgrades"));
        assert_eq!(at("OriginGroup/origin-internal-8443", "spec.origins[0].url").as_deref(), Some("origins"));
        assert_eq!(
            at("Certificate/shop-example-com", "spec.internalCa.hostnames[0]").as_deref(),
            Some("host")
        );
        assert_eq!(at("Route/other", "spec.hostnames[0]"), None);
    }

    #[test]
    fn numbers_are_numbers() {
        let problems = RouteForm::objects(
            &typed().with("response_timeout_ms", "soon").with("connect_timeout_ms", "-"),
            None,
        )
        .unwrap_err();
        assert_eq!(problems.len(), 2);
    }
}
