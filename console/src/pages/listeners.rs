//! Listeners: where nodes accept connections, and how each does it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use model::draft::{Kind, ListenerSpec, Object, PortSpec, Spec};
use model::problem::Problem;
use model::report::ListenerReport;

use super::editor::Editor;
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::{PageResult, page};
use crate::forms::{Fields, FormView, LIMITS, Limit, ListenerForm, Opt};
use crate::ops::{Node, Ops, OpsError};
use crate::session::SignedIn;

/// What one node says of a listener.
pub(crate) struct OnNode {
    pub(crate) node: String,
    pub(crate) mode: &'static str,
    pub(crate) addresses: String,
    /// Of any port, what others on the node listen on.
    pub(crate) left_out: Vec<String>,
    pub(crate) connections: u32,
    pub(crate) problem: Option<String>,
}

struct Row {
    name: String,
    accepts: String,
    port: PortSpec,
    tls: String,
    /// Routes are reached on it in clear text.
    open: bool,
    served: String,
    nodes: Vec<OnNode>,
    connections: u32,
}

#[derive(Template)]
#[template(path = "listeners.html")]
struct ListenersPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "listener_form.html")]
struct ListenerPage {
    shell: Shell,
    form: FormView,
    stored: Option<String>,
    action: String,
    certificates: Vec<Opt>,
    versions: [Opt; 2],
    answers: [Opt; 2],
    groups: Vec<Opt>,
    limits: &'static [Limit],
    nodes: Vec<OnNode>,
}

/// `GET /listeners`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let status = ops.status().await?;
    let shell = Shell::with(&ops, &user, Section::Listeners, "Listeners", &status).await?;
    let mut reports = reports(&status.nodes);
    let found = query.fetch(&ops, Kind::Listener).await?;
    let rows = found.items.iter().filter_map(|stored| {
        let Spec::Listener(spec) = &stored.object.spec else { return None };
        Some(row(&stored.object.metadata.name, spec, &mut reports))
    });
    let (list, rows) = query.arrange("/listeners", rows.collect(), found.total, found.complete, order);
    page(&ListenersPage { shell, list, rows })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "port" => number(&a.port).cmp(&number(&b.port)),
        "connections" => a.connections.cmp(&b.connections),
        _ => a.name.cmp(&b.name),
    }
}

/// Any port comes before the first.
fn number(port: &PortSpec) -> u32 {
    match port {
        PortSpec::Number(number) => *number,
        PortSpec::Word(_) => 0,
    }
}

/// What the nodes say, by listener.
fn reports(nodes: &[Node]) -> BTreeMap<String, Vec<OnNode>> {
    let mut reports: BTreeMap<String, Vec<OnNode>> = BTreeMap::new();
    for (node, report) in
        nodes.iter().flat_map(|node| node.listeners.iter().map(move |report| (node, report)))
    {
        reports.entry(report.listener.to_string()).or_default().push(on_node(&node.name, report));
    }
    reports
}

fn on_node(node: &str, report: &ListenerReport) -> OnNode {
    OnNode {
        node: node.to_owned(),
        mode: if report.mode == "steered" { "steered by the kernel" } else { "plain sockets" },
        addresses: (report.addresses.iter().map(ToString::to_string))
            .chain(report.ranges.iter().map(ToString::to_string))
            .collect::<Vec<_>>()
            .join(", "),
        left_out: report.left_out.iter().map(ToString::to_string).collect(),
        connections: report.connections,
        problem: report.problem.clone(),
    }
}

fn row(name: &str, spec: &ListenerSpec, reports: &mut BTreeMap<String, Vec<OnNode>>) -> Row {
    let nodes = reports.remove(name).unwrap_or_default();
    let everywhere = "every local address".to_owned();
    Row {
        name: name.to_owned(),
        accepts: if spec.addresses.is_empty() { everywhere } else { spec.addresses.join(", ") },
        port: spec.port.clone(),
        tls: security(spec),
        open: spec.opens_routes(),
        served: spec.default_certificate.clone().unwrap_or_default(),
        connections: nodes.iter().map(|node| node.connections).sum(),
        nodes,
    }
}

fn security(spec: &ListenerSpec) -> String {
    match (spec.is_clear_text(), spec.http.answer.as_deref()) {
        (true, Some("Refuse")) => "clear text, refuses requests".to_owned(),
        (true, _) => format!("clear text, redirects to HTTPS on {}", spec.http.https_port.unwrap_or(443)),
        (false, _) => format!("TLS {} and newer", spec.tls.min_version.as_deref().unwrap_or("1.2")),
    }
}

/// Editing listeners.
pub(crate) struct Listeners;

impl Editor for Listeners {
    const KIND: Kind = Kind::Listener;
    const SECTION: Section = Section::Listeners;
    const PATH: &'static str = "/listeners";

    fn blank() -> Fields {
        ListenerForm::blank()
    }

    fn fields(object: &Object) -> Fields {
        let Spec::Listener(spec) = &object.spec else { return Fields::default() };
        ListenerForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        ListenerForm::object(fields, base).map(|object| vec![object])
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        ListenerForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let status = ops.status().await?;
        let name = base.map(|object| object.metadata.name.clone());
        let nodes = name.as_ref().and_then(|name| reports(&status.nodes).remove(name)).unwrap_or_default();
        page(&ListenerPage {
            shell: Shell::with(ops, user, Section::Listeners, &Self::title(base), &status).await?,
            stored: name,
            action: Self::action(base),
            certificates: certificates(ops).await?,
            versions: [Opt::new("1.2", "TLS 1.2"), Opt::new("1.3", "TLS 1.3")],
            answers: [
                Opt::new("Redirect", "is redirected to HTTPS (308)"),
                Opt::new("Refuse", "is refused (403)"),
            ],
            groups: groups(ops).await?,
            limits: &LIMITS,
            nodes,
            form,
        })
    }
}

async fn groups(ops: &Ops) -> Result<Vec<Opt>, OpsError> {
    let mut options = vec![Opt::new("", "nowhere")];
    options.extend(ops.names(Kind::OriginGroup).await?.iter().map(|name| Opt::same(name)));
    Ok(options)
}

async fn certificates(ops: &Ops) -> Result<Vec<Opt>, OpsError> {
    let mut options = vec![Opt::new("", "none: such a handshake is refused")];
    options.extend(ops.names(Kind::Certificate).await?.iter().map(|name| Opt::same(name)));
    Ok(options)
}
