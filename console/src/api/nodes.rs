//! Nodes, status, users, health.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use model::labels::Labels;
use model::problem::{Code, Problem};
use serde_json::{Value, json};

use super::ApiError;
use super::body::{Fields, JsonBody};
use crate::ops::{Actor, Node, Ops, Status};

/// All nodes.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes",
    responses((status = 200, description = "{\"items\": [node...]}")))]
pub(super) async fn list(State(ops): State<Ops>) -> Result<Json<Value>, ApiError> {
    let items: Vec<Node> = ops.nodes().await?;
    Ok(Json(json!({ "items": items })))
}

/// A one-time token that enrols a node of this name, with the labels of the body `{"labels": {"key": "value"}, "confirm": false}`; a
/// known node keeps its labels when there are none, and other ones are confirmed as by `PUT .../labels`. Administrators only: the node
/// gets private keys.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/enrol", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, description = "{\"token\": \"sallyport1....\", \"console\": \"host:port that the node will connect to\"}"),
              (status = 409, description = "The labels' packet filters would shut out you or a node", body = super::error::Problems),
              (status = 422, body = super::error::Problems)))]
pub(super) async fn enrol(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let Labelling { labels, confirm, .. } = labelling(body, &["labels", "confirm"])?;
    let token = ops.enrol_node(&name, &labels, confirm, &actor).await?;
    Ok(Json(json!({ "token": token, "console": ops.node_address(), "warning": ops.near_only() })))
}

/// Gives a node the labels of the body `{"labels": {"key": "value"}, "confirm": false, "dryRun": false}` instead of those it has.
/// Administrators only.
#[utoipa::path(put, path = "/api/v1/nodes/{name}/labels", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, description = "{}; of a dry run {\"confirmations\", \"effect\"}"), (status = 404, body = super::error::Problems),
              (status = 409, description = "The labels' packet filters would shut out you or a node", body = super::error::Problems),
              (status = 422, body = super::error::Problems)))]
pub(super) async fn label(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let Labelling { labels, confirm, dry_run } = labelling(body, &["labels", "confirm", "dryRun"])?;
    if dry_run {
        let review = ops.plan_labels(&name, &labels, &actor).await?;
        return Ok(Json(serde_json::to_value(review).unwrap_or_default()));
    }
    ops.label_node(&name, &labels, confirm, &actor).await?;
    Ok(Json(json!({})))
}

/// What a body says of labels.
struct Labelling {
    labels: Labels,
    confirm: bool,
    dry_run: bool,
}

fn labelling(body: Value, known: &[&'static str]) -> Result<Labelling, ApiError> {
    let mut fields = Fields::of(body, known);
    let pairs = fields.texts("labels");
    let labels = Labels::of(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let labels = labels.unwrap_or_else(|why| {
        fields.also([Problem::new("", "labels", Code::Invalid, why.to_string())]);
        Labels::default()
    });
    let (confirm, dry_run) = (fields.flag("confirm"), fields.flag("dryRun"));
    fields.finish()?;
    Ok(Labelling { labels, confirm, dry_run })
}

/// Shuts a node out.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/revoke", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, description = "{}"), (status = 404, body = super::error::Problems)))]
pub(super) async fn revoke(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    ops.revoke_node(&name, &actor).await?;
    Ok(Json(json!({})))
}

/// Lets a node finish what is open and accept nothing new.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/drain", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, description = "{}"), (status = 404, body = super::error::Problems)))]
pub(super) async fn drain(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    ops.drain_node(&name, true, &actor).await?;
    Ok(Json(json!({})))
}

/// Puts a drained node back to work.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/resume", tag = "nodes", params(("name" = String, Path)),
    responses((status = 200, description = "{}"), (status = 404, body = super::error::Problems)))]
pub(super) async fn resume(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    ops.drain_node(&name, false, &actor).await?;
    Ok(Json(json!({})))
}

/// Revision, nodes with what they applied or refused, features, and what needs an operator.
#[utoipa::path(get, path = "/api/v1/status", tag = "nodes",
    responses((status = 200, description = "{\"revision\", \"epoch\", \"nodes\", \"needs\"}")))]
pub(super) async fn status(State(ops): State<Ops>) -> Result<Json<Status>, ApiError> {
    Ok(Json(ops.status().await?))
}

/// Gives a user a random password; with `{"create": true}` in the body also a new one, as administrator.
#[utoipa::path(post, path = "/api/v1/users/{name}/reset", tag = "users", params(("name" = String, Path)),
    responses((status = 200, description = "{\"password\": \"...\"}"), (status = 403, body = super::error::Problems),
              (status = 404, body = super::error::Problems)))]
pub(super) async fn reset_user(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::of(body, &["create"]);
    let create = fields.flag("create");
    fields.finish()?;
    Ok(Json(json!({ "password": ops.reset_user(&name, create, &actor).await? })))
}

/// Whether the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the console can do its work.
pub(super) async fn readyz(State(ops): State<Ops>) -> (StatusCode, String) {
    match ops.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => {
            tracing::error!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n".to_owned())
        }
    }
}
