//! Prefix sets whose lists are fetched.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::ApiError;
use super::body::{Fields, JsonBody};
use crate::clock;
use crate::ops::{Actor, Ops, OpsError, SourceState};

/// What became of fetching a set's list.
#[utoipa::path(get, path = "/api/v1/prefix-sets/{name}/source", tag = "objects", params(("name" = String, Path)),
    responses((status = 200, description = "{\"set\", \"url\", \"prefixes\", \"currentAt\", \"triedAt\", \"nextAt\", \"running\", \"replaced\", \"failures\", \"reason\", \"problem\", \"confirmable\", \"fetches\", \"failed\"}"),
              (status = 404, body = super::error::Problems)))]
pub(super) async fn show(
    State(ops): State<Ops>,
    Path(name): Path<String>,
) -> Result<Json<SourceState>, ApiError> {
    let missing = || OpsError::NotFound(format!("there is no prefix set {name} whose prefixes are fetched"));
    Ok(Json(ops.source_state(&name).ok_or_else(missing)?))
}

/// Fetches a set's list now; with `{"confirm": true}` in the body also one that would be kept back.
#[utoipa::path(post, path = "/api/v1/prefix-sets/{name}/fetch", tag = "objects", params(("name" = String, Path)),
    responses((status = 200, description = "As .../source: `problem` says why the list stays as it was"),
              (status = 403, body = super::error::Problems), (status = 404, body = super::error::Problems),
              (status = 409, description = "It is being fetched already", body = super::error::Problems)))]
pub(super) async fn fetch(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<SourceState>, ApiError> {
    let mut fields = Fields::of(body, &["confirm"]);
    let confirm = fields.flag("confirm");
    fields.finish()?;
    Ok(Json(ops.fetch_now(&name, confirm, &actor).await?))
}

/// The console's own figures, Prometheus text format 0.0.4.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "nodes",
    responses((status = 200, description = "Prometheus text", content_type = "text/plain")))]
pub(super) async fn metrics(State(ops): State<Ops>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text(&ops.source_states())).into_response()
}

/// Names of sets are labels as they are: they have no quote, backslash or line end.
fn text(states: &[SourceState]) -> String {
    let (mut text, now) = (String::new(), clock::now());
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, Value)>| {
        // A String takes everything.
        let _never = writeln!(
            text,
            "# HELP sallyport_prefix_set_{name} {help}\n# TYPE sallyport_prefix_set_{name} {kind}"
        );
        for (labels, value) in lines {
            let _never = writeln!(text, "sallyport_prefix_set_{name}{{{labels}}} {value}");
        }
    };
    let set = |state: &SourceState| format!("set=\"{}\"", state.set);
    let each = |value: &dyn Fn(&SourceState) -> Option<Value>| {
        states.iter().filter_map(|state| Some((set(state), value(state)?))).collect::<Vec<_>>()
    };
    let age = each(&|state| state.age_seconds(now).map(Value::from));
    family("age_seconds", "gauge", "Since the origin last had the list that is in force.", age);
    let prefixes = each(&|state| Some(state.prefixes.into()));
    family("prefixes", "gauge", "Prefixes of the list in force.", prefixes);
    let failing = each(&|state| Some(state.failures.into()));
    family("failures_in_a_row", "gauge", "Fetches since the last good one.", failing);
    let fetches = each(&|state| Some(state.fetches.into()));
    family("fetches_total", "counter", "Fetches since the console started.", fetches);
    let failed = states.iter().flat_map(|state| {
        let line = |(reason, count): (&&str, &u64)| {
            (format!("{},reason=\"{reason}\"", set(state)), Value::from(*count))
        };
        state.failed.iter().map(line).collect::<Vec<_>>()
    });
    family("failures_total", "counter", "Fetches that changed nothing, by reason.", failed.collect());
    text
}
