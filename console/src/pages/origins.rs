//! Origins: which answer, how they are verified, their share of traffic.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use model::draft::{Kind, Object, OriginGroupSpec, OriginSpec, Spec};
use model::problem::Problem;

use super::chart::figure;
use super::editor::Editor;
use super::list::{List, ListQuery};
use super::route_form::{NODES_ROOTS, bundles};
use super::shell::{Section, Shell, plural};
use super::when::{self, When};
use super::{PageResult, page};
use crate::clock::now;
use crate::forms::{Fields, FormView, Opt, OriginForm};
use crate::ops::{Ops, OpsError, OriginState};
use crate::session::SignedIn;

/// One origin, all nodes together.
pub(crate) struct OriginView {
    pub(crate) url: String,
    /// Whether any node has said anything of it.
    pub(crate) reported: bool,
    /// `node: why`, for each node where it fails.
    pub(crate) failing: Vec<String>,
    /// `node: why`, for each node whose probes find it unhealthy.
    pub(crate) unhealthy: Vec<String>,
    /// Nodes that leave it alone after failures.
    pub(crate) ejected: Vec<String>,
    /// How many nodes' probes find it healthy, and what they take; empty where there are none.
    pub(crate) probed: String,
    /// `weight 5, priority 2`; empty where it is as usual.
    pub(crate) role: String,
    pub(crate) resolved: String,
    pub(crate) stale: Option<When>,
    pub(crate) requests: u64,
    pub(crate) share: String,
    pub(crate) failures: u64,
}

struct Row {
    name: String,
    /// Where it is not as usual.
    protocols: String,
    verified: Verified,
    origins: Vec<OriginView>,
    requests: u64,
    requests_words: String,
    failures: u64,
}

/// How a group's origins are verified, in words, and whether that is safe.
pub(crate) struct Verified {
    pub(crate) safe: bool,
    pub(crate) words: String,
}

#[derive(Template)]
#[template(path = "origins.html")]
struct OriginsPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "origin_form.html")]
struct OriginPage {
    shell: Shell,
    form: FormView,
    stored: Option<String>,
    action: String,
    bundles: Vec<Opt>,
    certificates: Vec<Opt>,
    protocols: Vec<Opt>,
    proxies: Vec<Opt>,
    origins: Vec<OriginView>,
    users: Vec<String>,
}

/// `GET /origins`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::Origins, "Origins").await?;
    let states = states(ops.origins().await?);
    let found = query.fetch(&ops, Kind::OriginGroup).await?;
    let rows = found.items.iter().filter_map(|stored| {
        let Spec::OriginGroup(spec) = &stored.object.spec else { return None };
        Some(row(&stored.object.metadata.name, spec, &states))
    });
    let (list, rows) = query.arrange("/origins", rows.collect(), found.total, found.complete, order);
    page(&OriginsPage { shell, list, rows })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "requests" => a.requests.cmp(&b.requests),
        "failures" => a.failures.cmp(&b.failures),
        _ => a.name.cmp(&b.name),
    }
}

/// What nodes say, by group.
fn states(states: Vec<OriginState>) -> BTreeMap<String, Vec<OriginState>> {
    let mut by_group: BTreeMap<String, Vec<OriginState>> = BTreeMap::new();
    for state in states {
        by_group.entry(state.report.group.to_string()).or_default().push(state);
    }
    by_group
}

fn row(name: &str, spec: &OriginGroupSpec, states: &BTreeMap<String, Vec<OriginState>>) -> Row {
    let origins = views(spec, states.get(name).map_or(&[], Vec::as_slice));
    let requests = origins.iter().map(|origin| origin.requests).sum::<u64>();
    Row {
        name: name.to_owned(),
        protocols: spec.protocols.join(" or "),
        verified: verified(spec),
        requests,
        requests_words: figure(requests as f64),
        failures: origins.iter().map(|origin| origin.failures).sum(),
        origins,
    }
}

fn verified(spec: &OriginGroupSpec) -> Verified {
    if spec.origins.iter().any(|origin| origin.url.starts_with("http://")) {
        return Verified { safe: false, words: "clear text".to_owned() };
    }
    if spec.tls.verify.as_deref() == Some("none") {
        return Verified { safe: false, words: "not verified".to_owned() };
    }
    let whom = match spec.tls.trust_bundle.as_deref() {
        None | Some("system") => "system roots",
        Some("internal") => "internal CA",
        Some(bundle) => bundle,
    };
    let name = spec.tls.expected_name.as_deref().map(|name| format!(" as {name}")).unwrap_or_default();
    let ours = if spec.tls.client_certificate.is_some() { ", with a client certificate" } else { "" };
    Verified { safe: true, words: format!("verified against {whom}{name}{ours}") }
}

/// Each origin of a group with what nodes say of it.
fn views(spec: &OriginGroupSpec, states: &[OriginState]) -> Vec<OriginView> {
    let all: u64 = states.iter().map(|state| state.report.requests).sum();
    let view = |origin: &OriginSpec| {
        let url = origin.url.as_str();
        let mine: Vec<&OriginState> =
            states.iter().filter(|state| same(url, &state.report.address.to_string())).collect();
        let requests = mine.iter().map(|state| state.report.requests).sum::<u64>();
        let mut resolved: Vec<String> =
            mine.iter().flat_map(|state| state.report.resolved.iter().map(ToString::to_string)).collect();
        resolved.sort();
        resolved.dedup();
        let failing =
            |state: &&OriginState| state.report.failing.as_ref().map(|why| format!("{}: {why}", state.node));
        OriginView {
            url: url.to_owned(),
            reported: !mine.is_empty(),
            failing: mine.iter().filter_map(failing).collect(),
            unhealthy: mine.iter().filter_map(unhealthy).collect(),
            ejected: mine
                .iter()
                .filter(|state| state.report.ejected)
                .map(|state| state.node.to_string())
                .collect(),
            probed: probed(&mine),
            role: role(origin),
            resolved: resolved.join(", "),
            stale: mine
                .iter()
                .filter_map(|state| state.report.stale_since_ms)
                .min()
                .map(|ms| When::relative(when::from_ms(ms), now())),
            requests,
            share: if all == 0 {
                "–".to_owned()
            } else {
                format!("{:.0} %", requests as f64 * 100.0 / all as f64)
            },
            failures: mine.iter().map(|state| state.report.failures).sum(),
        }
    };
    spec.origins.iter().map(view).collect()
}

fn unhealthy(state: &&OriginState) -> Option<String> {
    let probe = state.report.probe.as_ref().filter(|probe| !probe.healthy)?;
    Some(format!("{}: {}", state.node, probe.why.as_deref().unwrap_or("too few good probes yet")))
}

fn probed(states: &[&OriginState]) -> String {
    let probes: Vec<_> = states.iter().filter_map(|state| state.report.probe.as_ref()).collect();
    if probes.is_empty() {
        return String::new();
    }
    let healthy = probes.iter().filter(|probe| probe.healthy).count();
    let slowest = probes.iter().filter_map(|probe| probe.latency_us).max();
    let takes = slowest.map(|micros| format!(", {:.1} ms", f64::from(micros) / 1000.0)).unwrap_or_default();
    format!("healthy on {healthy} of {} node{}{takes}", probes.len(), plural(probes.len()))
}

fn role(origin: &OriginSpec) -> String {
    let number = |name: &str, value: Option<u64>| value.map(|value| format!("{name} {value}"));
    let disabled = (!origin.enabled).then(|| "disabled".to_owned());
    let parts = [disabled, number("weight", origin.weight), number("priority", origin.priority)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Whether an origin's URL is this `host:port`.
fn same(url: &str, address: &str) -> bool {
    let (port, rest) = match url.split_once("://") {
        Some(("http", rest)) => (":80", rest),
        Some((_, rest)) => (":443", rest),
        None => (":443", url),
    };
    let rest = rest.trim_end_matches('/').to_ascii_lowercase();
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if has_port { rest == address } else { format!("{rest}{port}") == address }
}

async fn certificates(ops: &Ops) -> Result<Vec<Opt>, OpsError> {
    let mut options = vec![Opt::new("", "None")];
    options.extend(ops.names(Kind::Certificate).await?.iter().map(|name| Opt::same(name)));
    Ok(options)
}

/// The choices of versions, and what was written elsewhere in another order.
fn protocols(form: &FormView) -> Vec<Opt> {
    let mut choices = vec![
        Opt::new("", "HTTP/1.1, and HTTP/2 for gRPC"),
        Opt::new("http/1.1", "HTTP/1.1 only"),
        Opt::new("h2", "HTTP/2 only"),
        Opt::new("h2,http/1.1", "HTTP/2 where the origin offers it"),
    ];
    let given = form.get("protocols");
    if !choices.iter().any(|choice| choice.value == given) {
        choices.push(Opt::same(given));
    }
    choices
}

/// Editing origin groups.
pub(crate) struct Origins;

impl Editor for Origins {
    const KIND: Kind = Kind::OriginGroup;
    const SECTION: Section = Section::Origins;
    const PATH: &'static str = "/origins";

    fn blank() -> Fields {
        Fields::default().with("trust_bundle", "system")
    }

    fn fields(object: &Object) -> Fields {
        let Spec::OriginGroup(spec) = &object.spec else { return Fields::default() };
        OriginForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        OriginForm::object(fields, fields.trimmed("name"), base).map(|object| vec![object])
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        OriginForm::place(fields.trimmed("name"), problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let stored = base.map(|object| object.metadata.name.clone());
        let (mut origins, mut users) = (Vec::new(), Vec::new());
        if let Some(Object { metadata, spec: Spec::OriginGroup(spec) }) = base {
            let states = states(ops.origins().await?);
            origins = views(spec, states.get(&metadata.name).map_or(&[], Vec::as_slice));
            let named = ops.used_by(Kind::OriginGroup, &metadata.name).await?;
            users = named.into_iter().map(|(_, name)| name).collect();
        }
        page(&OriginPage {
            shell: Shell::load(ops, user, Section::Origins, &Self::title(base)).await?,
            stored,
            action: Self::action(base),
            bundles: bundles(ops, NODES_ROOTS).await?,
            certificates: certificates(ops).await?,
            protocols: protocols(&form),
            proxies: vec![Opt::new("", "None"), Opt::new("v1", "Version 1"), Opt::new("v2", "Version 2")],
            origins,
            users,
            form,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_found_by_its_address() {
        assert!(same("https://A.test", "a.test:443"));
        assert!(same("http://a.test/", "a.test:80"));
        assert!(same("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"));
        assert!(same("https://[2001:db8::1]", "[2001:db8::1]:443"));
        assert!(!same("https://a.test:8443", "a.test:443"));
    }
}
