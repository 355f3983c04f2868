//! Nodes: what each has applied, which kernel features it uses and why one is off.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use model::labels::Labels;
use model::problem::{Code, Problem};
use model::report::{Feature, Overload};

use super::list::{List, ListQuery};
use super::shell::{Section, Shell, plural};
use super::when::When;
use super::{PageError, PageResult, page};
use crate::clock::now;
use crate::forms::Fields;
use crate::ops::{FilterEffect, LabelReview, Node, Ops, OpsError, Status};
use crate::publish::HOW_LABELS;
use crate::session::SignedIn;
use crate::state::AppState;

/// One node.
struct View {
    name: String,
    labels: String,
    /// What it says of itself, where that is something else.
    said: String,
    version: String,
    class: &'static str,
    state: String,
    refused: Option<String>,
    applied: Option<u64>,
    current: bool,
    on: usize,
    off: Vec<Feature>,
    features: Vec<Feature>,
    connections: u32,
    threads: u32,
    overload: Option<String>,
    address: String,
    last_seen: Option<When>,
    certificate: Option<When>,
    listeners: Vec<(String, String, bool)>,
    revoked: bool,
    drained: bool,
}

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    shell: Shell,
    list: List,
    rows: Vec<View>,
    enrol: Enrol,
    /// Why a token made here is of no use to other machines.
    near: Option<String>,
}

#[derive(Template)]
#[template(path = "node.html")]
struct NodePage {
    shell: Shell,
    node: View,
    /// What stands in the labels' field.
    labels: String,
    /// Labels that change the packet filter, before they are given.
    review: Option<Review>,
}

/// What has to be read before a node gets other labels.
struct Review {
    /// The labels it is about.
    labels: String,
    confirmations: Vec<String>,
    effect: Option<FilterEffect>,
}

/// The form that makes a token, as typed, and what came of it.
#[derive(Default)]
struct Enrol {
    name: String,
    labels: String,
    wrong: Vec<String>,
    /// What of the labels of a known node has to be confirmed.
    confirmations: Vec<String>,
    token: Option<String>,
}

/// `GET /nodes`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    draw(&ops, &user, &query, Enrol::default()).await
}

async fn draw(ops: &Ops, user: &SignedIn, query: &ListQuery, enrol: Enrol) -> PageResult {
    let status = ops.status().await?;
    let nodes = ops.nodes().await?;
    let views = nodes.iter().map(|node| view(node, &status)).collect();
    let text = |view: &View| format!("{} {} {}", view.name, view.labels, view.state);
    let (list, rows) = query.apply("/nodes", views, text, order);
    let shell = Shell::with(ops, user, Section::Nodes, "Nodes", &status).await?;
    page(&NodesPage { shell, list, rows, enrol, near: ops.near_only() })
}

fn order(key: &str, a: &View, b: &View) -> Ordering {
    match key {
        "applied" => a.applied.cmp(&b.applied),
        "connections" => a.connections.cmp(&b.connections),
        _ => (a.revoked, &a.name).cmp(&(b.revoked, &b.name)),
    }
}

/// `POST /nodes`: a one-time token, shown once with the command to paste.
pub(crate) async fn enrol(State(state): State<AppState>, user: SignedIn, fields: Fields) -> PageResult {
    user.check(fields.get("csrf"))?;
    let (name, labels) = (fields.trimmed("name").to_owned(), fields.trimmed("labels").to_owned());
    let query = ListQuery::default();
    let made = match Labels::parse(fields.words("labels").iter().map(String::as_str)) {
        Ok(given) => {
            // Whoever writes another name or other labels beside the box has not read about those.
            let read = fields.is("reviewed_name", &name) && fields.is("reviewed", &labels);
            state.ops.enrol_node(&name, &given, read && fields.ticked("confirm"), &user.actor).await
        }
        Err(why) => Err(OpsError::problem("", "labels", Code::Invalid, why.to_string())),
    };
    match made {
        Ok(token) => {
            let enrol = Enrol { name, token: Some(token), ..Enrol::default() };
            draw(&state.ops, &user, &query, enrol).await
        }
        Err(error) if error.needs_confirmation() => {
            let enrol = Enrol { name, labels, confirmations: questions(error), ..Enrol::default() };
            let answer = draw(&state.ops, &user, &query, enrol).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, answer).into_response())
        }
        Err(OpsError::Problems(problems)) => {
            let wrong = problems.into_iter().map(|problem| problem.message).collect();
            let enrol = Enrol { name, labels, wrong, ..Enrol::default() };
            let answer = draw(&state.ops, &user, &query, enrol).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, answer).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// What has to be confirmed, beside the box that does it.
fn questions(error: OpsError) -> Vec<String> {
    let OpsError::Problems(problems) = error else { return Vec::new() };
    problems.iter().map(question).collect()
}

fn question(problem: &Problem) -> String {
    problem.message.strip_suffix(HOW_LABELS).unwrap_or(&problem.message).to_owned()
}

/// `POST /nodes/{name}/labels`: where they change the packet filter, what that does is shown first.
pub(crate) async fn label(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    user.check(fields.get("csrf"))?;
    let labels = Labels::parse(fields.words("labels").iter().map(String::as_str));
    let labels = labels.map_err(|why| PageError::Refused(vec![why.to_string()]))?;
    let typed = text(labels.as_map());
    // Whoever writes others into the review's field has not read about those.
    let read = fields.is("reviewed", &typed);
    let confirm = read && fields.ticked("confirm");
    if !confirm {
        let LabelReview { confirmations, effect } =
            state.ops.plan_labels(&name, &labels, &user.actor).await?;
        if !confirmations.is_empty() || (effect.is_some() && !read) {
            let confirmations = confirmations.iter().map(question).collect();
            let review = Review { labels: typed, confirmations, effect };
            let answer = draw_node(&state.ops, &name, &user, Some(review)).await?;
            let status = if read { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            return Ok((status, answer).into_response());
        }
    }
    state.ops.label_node(&name, &labels, confirm, &user.actor).await?;
    Ok(Redirect::to(&format!("/nodes/{name}")).into_response())
}

/// `GET /nodes/{name}`.
pub(crate) async fn show(State(ops): State<Ops>, Path(name): Path<String>, user: SignedIn) -> PageResult {
    draw_node(&ops, &name, &user, None).await
}

async fn draw_node(ops: &Ops, name: &str, user: &SignedIn, review: Option<Review>) -> PageResult {
    let status = ops.status().await?;
    let nodes = ops.nodes().await?;
    let missing = || PageError::NotFound(format!("There is no node {name}."));
    let node = view(nodes.iter().find(|node| node.name == name).ok_or_else(missing)?, &status);
    let shell = Shell::with(ops, user, Section::Nodes, &format!("Node {name}"), &status).await?;
    let labels = review.as_ref().map_or_else(|| node.labels.clone(), |review| review.labels.clone());
    page(&NodePage { shell, node, labels, review })
}

/// `POST /nodes/{name}/revoke`.
pub(crate) async fn revoke(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    user.check(fields.get("csrf"))?;
    if !fields.ticked("confirm") {
        let why =
            "Tick the box first: revoking cannot be undone, the node must be enrolled again.".to_owned();
        return Err(PageError::Refused(vec![why]));
    }
    state.ops.revoke_node(&name, &user.actor).await?;
    Ok(Redirect::to("/nodes").into_response())
}

/// `POST /nodes/{name}/drain`.
pub(crate) async fn drain(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    set_drained(&state, &name, &user, &fields, true).await
}

/// `POST /nodes/{name}/resume`.
pub(crate) async fn resume(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    set_drained(&state, &name, &user, &fields, false).await
}

async fn set_drained(state: &AppState, name: &str, user: &SignedIn, fields: &Fields, on: bool) -> PageResult {
    user.check(fields.get("csrf"))?;
    state.ops.drain_node(name, on, &user.actor).await?;
    Ok(Redirect::to(&format!("/nodes/{name}")).into_response())
}

/// `tier=edge zone=fra`.
fn text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn view(node: &Node, status: &Status) -> View {
    let applied = node.applied.map(|id| id.revision);
    let current = applied == Some(status.revision);
    let refused = node.refused.as_ref().map(|(id, why)| format!("refused revision {}: {why}", id.revision));
    let drained = match node.connections {
        0 => "drained".to_owned(),
        open => format!("draining: {open} connection{} still open", plural(open as usize)),
    };
    let (class, state) = match node {
        Node { revoked: true, .. } => ("muted", "revoked"),
        Node { enrolled: false, .. } => ("warn", "waiting for its token to be used"),
        Node { connected: None, .. } => ("bad", "not connected"),
        Node { drained: true, .. } => ("warn", drained.as_str()),
        _ if node.refused.as_ref().is_some_and(|(id, _)| id.revision == status.revision) => {
            ("bad", "refused the newest revision")
        }
        Node { overload: Some(_), .. } => ("bad", "overloaded"),
        _ if !current => ("warn", "catching up"),
        _ => ("good", "connected"),
    };
    let said = if node.said_labels == node.labels { String::new() } else { text(&node.said_labels) };
    let listener = |report: &model::report::ListenerReport| {
        let how = if report.mode == "steered" { "steered by the kernel" } else { "plain sockets" };
        let words = report.problem.clone().unwrap_or_else(|| format!("{how}, {} open", report.connections));
        (report.listener.to_string(), words, report.problem.is_none())
    };
    View {
        name: node.name.clone(),
        labels: text(&node.labels),
        said,
        version: node.version.clone(),
        class,
        state: state.to_owned(),
        refused,
        applied,
        current,
        on: node.features.iter().filter(|feature| feature.on).count(),
        off: node.features.iter().filter(|feature| !feature.on).cloned().collect(),
        features: node.features.clone(),
        connections: node.connections,
        threads: node.threads,
        overload: node.overload.as_ref().map(Overload::sentence),
        address: node.connected.map(|address| address.to_string()).unwrap_or_default(),
        last_seen: node.last_seen.map(|at| When::relative(at, now())),
        certificate: node.certificate_ends.map(|at| When::relative(at, now())),
        listeners: node.listeners.iter().map(listener).collect(),
        revoked: node.revoked,
        drained: node.drained,
    }
}
