//! Revisions.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::ApiError;
use super::body::{Fields, JsonBody};
use super::query::{Asked, Parameters, Wanted};
use crate::ops::{Actor, MAX_PER_PAGE, Ops, OpsError, Page, PublishOptions, Published, Revision};

/// Which page.
#[derive(Debug)]
pub(super) struct Part {
    page: u32,
    per_page: u32,
}

impl Wanted for Part {
    const NAMES: &'static [&'static str] = &["page", "perPage"];

    fn read(parameters: &mut Parameters) -> Self {
        Self {
            page: parameters.number("page", 1..=u32::MAX).unwrap_or(1),
            per_page: parameters.number("perPage", 1..=MAX_PER_PAGE).unwrap_or(0),
        }
    }
}

fn number(text: &str) -> Result<u64, ApiError> {
    let message =
        || format!("{text:?} is no revision; revisions are numbers, GET /api/v1/revisions lists them");
    text.parse().map_err(|_number| ApiError::sentence(StatusCode::NOT_FOUND, "not-found", message()))
}

/// Revisions, newest first.
#[utoipa::path(get, path = "/api/v1/revisions", tag = "revisions",
    params(("page" = Option<u32>, Query), ("perPage" = Option<u32>, Query)),
    responses((status = 200, description = "{\"items\": [revision...], \"total\": n}"),
              (status = 400, body = super::error::Problems)))]
pub(super) async fn list(
    State(ops): State<Ops>,
    Asked(wanted): Asked<Part>,
) -> Result<Json<Page<Revision>>, ApiError> {
    Ok(Json(ops.revisions(wanted.page, wanted.per_page).await?))
}

/// One revision with its changes and what the nodes answered.
#[utoipa::path(get, path = "/api/v1/revisions/{number}", tag = "revisions", params(("number" = u64, Path)),
    responses((status = 200, description = "The revision"), (status = 404, body = super::error::Problems)))]
pub(super) async fn get(
    State(ops): State<Ops>,
    Path(text): Path<String>,
) -> Result<Json<Revision>, ApiError> {
    let number = number(&text)?;
    let found = ops.revision(number).await?;
    Ok(Json(found.ok_or_else(|| OpsError::NotFound(format!("there is no revision {number}")))?))
}

/// A new revision with the objects of this one.
#[utoipa::path(post, path = "/api/v1/revisions/{number}/rollback", tag = "revisions", params(("number" = u64, Path)),
    responses((status = 200, description = "{\"revision\": n, \"changes\": [...]}"),
              (status = 404, body = super::error::Problems), (status = 409, body = super::error::Problems)))]
pub(super) async fn rollback(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Published>, ApiError> {
    let number = number(&text)?;
    let mut fields = Fields::of(body, &["confirm", "message", "rollbackAfterSeconds"]);
    let options = PublishOptions {
        confirm: fields.flag("confirm"),
        message: fields.text("message"),
        rollback_after: fields.number("rollbackAfterSeconds").map(Duration::from_secs),
        ..PublishOptions::default()
    };
    fields.finish()?;
    Ok(Json(ops.rollback(number, &actor, options).await?))
}

/// Keeps a revision that would roll back by itself.
#[utoipa::path(post, path = "/api/v1/revisions/{number}/confirm", tag = "revisions", params(("number" = u64, Path)),
    responses((status = 200, description = "{\"confirmed\": n}"), (status = 409, body = super::error::Problems)))]
pub(super) async fn confirm(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(text): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let number = number(&text)?;
    ops.confirm(number, &actor).await?;
    Ok(Json(json!({ "confirmed": number })))
}
