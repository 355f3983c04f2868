//! Origins: which answer, how they are verified, their share of traffic.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use model::draft::{Kind, Object, OriginGroupSpec, Spec};
use model::problem::Problem;

use super::chart::figure;
use super::editor::Editor;
use super::list::{List, ListQuery};
use super::route_form::bundles;
use super::shell::{Section, Shell};
use super::when::{self, When};
use super::{PageResult, page};
use crate::clock::now;
use crate::forms::{Fields, FormView, Opt, OriginForm};
use crate::ops::{Ops, OriginState};
use crate::session::SignedIn;

/// One origin, all nodes together.
pub(crate) struct OriginView {
    pub(crate) url: String,
    /// Whether any node has said anything of it.
    pub(crate) reported: bool,
    /// `node: why`, for each node where it fails.
    pub(crate) failing: Vec<String>,
    pub(crate) resolved: String,
    pub(crate) stale: Option<When>,
    pub(crate) requests: u64,
    pub(crate) share: String,
    pub(crate) failures: u64,
}

struct Row {
    name: String,
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
    Verified { safe: true, words: format!("verified against {whom}{name}") }
}

/// Each origin of a group with what nodes say of it.
fn views(spec: &OriginGroupSpec, states: &[OriginState]) -> Vec<OriginView> {
    let all: u64 = states.iter().map(|state| state.report.requests).sum();
    let view = |url: &str| {
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
    spec.origins.iter().map(|origin| view(&origin.url)).collect()
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
            bundles: bundles(ops).await?,
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
