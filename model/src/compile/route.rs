//! `Route`.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::{At, Names, shown};
use super::{conditions, filters, listener};
use crate::clear_text::ClearText;
use crate::draft::{FiltersSpec, Kind, MatchSpec, PASSTHROUGH, RouteSpec};
use crate::name::{HostPattern, Name};
use crate::problem::Code;
use crate::route::NormalPath;
use crate::snapshot::{PathMatch, Route, RouteMatch};
use crate::transform::Transform;
use crate::upgrade::{self, Protocol};

/// A route, with what its spec called each of its hosts and paths (for problems that show only across routes).
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) route: Route,
    pub(super) enabled: bool,
}

const DEFAULT_RESPONSE_TIMEOUT_MS: u32 = 60_000;

/// Who may carry routes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carriers<'a> {
    pub(super) names: &'a Names,
    /// The listeners without a problem that hides what they are.
    pub(super) known: &'a BTreeMap<Name, listener::Lowered>,
}

impl Carriers<'_> {
    /// What a listener without TLS does.
    fn clear_text(&self, listener: &Name) -> Option<&ClearText> {
        self.known.get(listener)?.listener.clear_text.as_ref()
    }

    /// Why a route cannot be on a listener.
    fn refusal(&self, listener: &Name, passthrough: bool) -> Option<String> {
        let clear = self.clear_text(listener)?;
        match (clear.carries_routes(), passthrough) {
            (true, false) => None,
            (true, true) => Some(format!(
                "listener {listener} has protocol HTTP, and there is no TLS to pass through on it; name one of protocol HTTPS"
            )),
            (false, _) => Some(format!(
                "listener {listener} has protocol HTTP and answers by itself: it carries no routes; name one of protocol HTTPS, or give it h2cPrefixes"
            )),
        }
    }
}

/// A route without `matches` has this one.
pub(super) fn whole_host() -> PathMatch {
    PathMatch::Prefix("/".to_owned())
}

pub(super) fn lower(
    name: &Name,
    spec: &RouteSpec,
    carriers: &Carriers<'_>,
    at: &mut At<'_>,
) -> Option<Lowered> {
    let names = carriers.names;
    let tls = spec.tls.as_deref().and_then(|text| at.word("spec.tls", text, &TLS));
    let listeners = listeners(&spec.listeners, tls == Some(true), carriers, at);
    let hostnames = hostnames(&spec.hostnames, at);
    if tls == Some(true) {
        let route = passthrough(name, spec, (listeners, hostnames), names, at)?;
        return Some(Lowered { route, enabled: spec.enabled });
    }
    let (paths, matches) = matches(&spec.matches, spec.allow_encoded_slash, at);
    let certificate = spec
        .certificate
        .as_ref()
        .map(|text| at.reference("spec.certificate", Kind::Certificate, text, names));
    let around = filters::Around {
        paths: &paths.iter().chain(matches.iter().map(|one| &one.path)).collect::<Vec<_>>(),
        allow_encoded_slash: spec.allow_encoded_slash,
        has_origin: !spec.origin_group.is_empty(),
    };
    let transform = filters::lower(&spec.filters, &around, at);
    let origin_group = origin_group(spec, names, at);
    let response_timeout_ms = at.number(
        "spec.responseTimeoutMs",
        spec.response_timeout_ms,
        DEFAULT_RESPONSE_TIMEOUT_MS,
        1..=86_400_000,
    );
    let certificate = match certificate {
        // A reference that leads nowhere is a problem already; judging the route as one without would add a second.
        Some(None) => return None,
        Some(found) => found,
        None => None,
    };
    let route = Route {
        name: name.clone(),
        listeners,
        hostnames,
        passthrough: false,
        paths,
        matches,
        certificate,
        origin_group: origin_group?,
        allow_encoded_slash: spec.allow_encoded_slash,
        response_timeout_ms,
        transform: transform?,
        upgrades: upgrades(spec.upgrades.as_deref(), at),
    };
    Some(Lowered { route, enabled: spec.enabled })
}

/// What `tls` may say, and whether it is a passthrough.
const TLS: [(&str, bool); 2] = [("Terminate", false), (PASSTHROUGH, true)];

/// A route that passes TLS on: nothing of HTTP can be asked or changed.
fn passthrough(
    name: &Name,
    spec: &RouteSpec,
    (listeners, hostnames): (Vec<Name>, Vec<HostPattern>),
    names: &Names,
    at: &mut At<'_>,
) -> Option<Route> {
    let before = at.count();
    for (field, present) in [
        ("spec.matches", !spec.matches.is_empty()),
        ("spec.certificate", spec.certificate.is_some()),
        ("spec.filters", spec.filters != FiltersSpec::default()),
        ("spec.upgrades", spec.upgrades.is_some()),
        ("spec.allowEncodedSlash", spec.allow_encoded_slash),
        ("spec.responseTimeoutMs", spec.response_timeout_ms.is_some()),
    ] {
        if present {
            let message = "means nothing for `tls: Passthrough`, whose connections are not decrypted; remove it, or let the listener terminate TLS";
            at.problem(field, Code::Invalid, message);
        }
    }
    if spec.origin_group.is_empty() {
        at.problem("spec.originGroup", Code::Missing, "is required; name the origins that connections go to");
        return None;
    }
    let origin_group = at.reference("spec.originGroup", Kind::OriginGroup, &spec.origin_group, names)?;
    (at.count() == before).then(|| Route {
        name: name.clone(),
        listeners,
        hostnames,
        passthrough: true,
        paths: Vec::new(),
        matches: Vec::new(),
        certificate: None,
        origin_group: Some(origin_group),
        allow_encoded_slash: false,
        response_timeout_ms: DEFAULT_RESPONSE_TIMEOUT_MS,
        transform: Transform::default(),
        upgrades: upgrade::usual(),
    })
}

/// Where requests go: an origin group, or nowhere where a filter answers. Nothing means a problem.
fn origin_group(spec: &RouteSpec, names: &Names, at: &mut At<'_>) -> Option<Option<Name>> {
    let answered = spec.filters.request_redirect.is_some() || spec.filters.direct_response.is_some();
    match spec.origin_group.as_str() {
        "" if answered => Some(None),
        "" => {
            let message = "is required; name an origin group, or answer with a filter (requestRedirect, directResponse)";
            at.problem("spec.originGroup", Code::Missing, message);
            None
        }
        text => at.reference("spec.originGroup", Kind::OriginGroup, text, names).map(Some),
    }
}

/// All that speak TLS, unless some are named: in clear text only those are reached that say so themselves.
fn listeners(texts: &[String], passthrough: bool, carriers: &Carriers<'_>, at: &mut At<'_>) -> Vec<Name> {
    if texts.is_empty() {
        let all = carriers.names.all(Kind::Listener);
        return all.filter(|name| carriers.clear_text(name).is_none()).cloned().collect();
    }
    let mut listeners = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        let Some(name) = at.reference(&*field, Kind::Listener, text, carriers.names) else { continue };
        if let Some(message) = carriers.refusal(&name, passthrough) {
            at.problem(field, Code::Invalid, message);
        }
        listeners.insert(name);
    }
    listeners.into_iter().collect()
}

fn hostnames(texts: &[String], at: &mut At<'_>) -> Vec<HostPattern> {
    at.not_empty("spec.hostnames", texts, "host name, such as shop.example.com or *.example.com");
    let mut hostnames = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("spec.hostnames[{index}]");
        if let Some(host) = at.parse::<HostPattern>(&*field, text)
            && !hostnames.insert(host)
        {
            at.problem(field, Code::Duplicate, format!("{} is in this list twice; remove one", shown(text)));
        }
    }
    hostnames.into_iter().collect()
}

fn upgrades(texts: Option<&[String]>, at: &mut At<'_>) -> Vec<Protocol> {
    let Some(texts) = texts else { return upgrade::usual() };
    let mut protocols = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("spec.upgrades[{index}]");
        if let Some(protocol) = at.parse::<Protocol>(&*field, text)
            && !protocols.insert(protocol)
        {
            at.problem(field, Code::Duplicate, format!("{} is in this list twice; remove one", shown(text)));
        }
    }
    protocols.into_iter().collect()
}

/// The matches: those that ask for a path only, and the others.
fn matches(
    specs: &[MatchSpec],
    allow_encoded_slash: bool,
    at: &mut At<'_>,
) -> (Vec<PathMatch>, Vec<RouteMatch>) {
    if specs.is_empty() {
        return (vec![whole_host()], Vec::new());
    }
    let mut found = BTreeSet::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("spec.matches[{index}]");
        let make: Option<fn(String) -> PathMatch> = at.word(
            format!("{field}.path.type"),
            &spec.path.kind,
            &[("PathPrefix", prefix as _), ("Exact", PathMatch::Exact as _)],
        );
        let path = path(&format!("{field}.path.value"), &spec.path.value, allow_encoded_slash, at);
        let conditions = conditions::lower(&field, spec, at);
        if let (Some(make), Some(path), Some(conditions)) = (make, path, conditions)
            && !found.insert(RouteMatch { path: make(path.to_string()), conditions })
        {
            let message = format!("{} is in this list twice; remove one", shown(&spec.path.value));
            at.problem(format!("{field}.path.value"), Code::Duplicate, message);
        }
    }
    let (plain, demanding): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.conditions.is_empty());
    (plain.into_iter().map(|one| one.path).collect(), demanding)
}

pub(super) fn path(
    field: &str,
    text: &str,
    allow_encoded_slash: bool,
    at: &mut At<'_>,
) -> Option<NormalPath> {
    if text.contains(['?', '#']) {
        let message =
            format!("{} has a query or fragment; routes are chosen by the path before it", shown(text));
        at.problem(field, Code::Invalid, message);
        return None;
    }
    match NormalPath::parse(text) {
        Ok(path) if path.has_encoded_slash() && !allow_encoded_slash => {
            let message = format!(
                "{} has an encoded slash, which this route refuses; set allowEncodedSlash",
                shown(text)
            );
            at.problem(field, Code::Invalid, message);
            None
        }
        Ok(path) => Some(path),
        Err(why) => {
            at.problem(field, Code::Invalid, format!("{} is not valid: {why}", shown(text)));
            None
        }
    }
}

/// Gateway API: a trailing slash of a prefix is ignored.
fn prefix(path: String) -> PathMatch {
    match path.trim_end_matches('/') {
        "" => whole_host(),
        trimmed => PathMatch::Prefix(trimmed.to_owned()),
    }
}
