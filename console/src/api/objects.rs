//! Objects.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use model::draft::{Kind, Object, parse};
use model::problem::{Code, Problem};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::ApiError;
use super::body::{Fields, JsonBody};
use super::query::{Asked, Parameters, Wanted};
use crate::ops::{Actor, Changes, ListQuery, MAX_PER_PAGE, Ops, OpsError, PublishOptions, Published, Sort};

/// What is wanted of a list.
#[derive(Debug)]
pub(super) struct List {
    kind: Option<Kind>,
    name: Option<String>,
    search: Option<String>,
    page: Option<u32>,
    per_page: Option<u32>,
}

impl Wanted for List {
    const NAMES: &'static [&'static str] = &["kind", "name", "search", "page", "perPage"];

    fn read(parameters: &mut Parameters) -> Self {
        Self {
            kind: parameters.parsed("kind", Kind::parse),
            name: parameters.text("name").map(str::to_owned),
            search: parameters.text("search").map(str::to_owned),
            page: parameters.number("page", 1..=u32::MAX),
            per_page: parameters.number("perPage", 1..=MAX_PER_PAGE),
        }
    }
}

/// The body of `apply`. (For the description; bodies are read field by field, so that every problem is named.)
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApplyRequest {
    /// Objects as documents: apiVersion, kind, metadata, spec.
    objects: Vec<Value>,
    /// Remove every stored object that is not among them.
    prune: bool,
    /// Only say what would change.
    dry_run: bool,
    /// Publish even though it would shut out you or a node.
    confirm: bool,
    /// Why, for the list of changes.
    message: String,
    /// Roll back by itself unless confirmed in time.
    rollback_after_seconds: Option<u64>,
    /// Refuse when another revision has been published since this one.
    base_revision: Option<u64>,
}

pub(super) fn kind(text: &str) -> Result<Kind, ApiError> {
    Kind::parse(text)
        .map_err(|error| ApiError::sentence(StatusCode::NOT_FOUND, "unknown-kind", error.to_string()))
}

pub(super) fn documents(objects: impl IntoIterator<Item = Object>) -> Vec<Value> {
    objects.into_iter().map(|object| object.to_value()).collect()
}

/// All objects that are of the kind and the name, or a page of those that match besides.
#[utoipa::path(get, path = "/api/v1/objects", tag = "objects",
    params(("kind" = Option<String>, Query, description = "Only this kind"),
           ("name" = Option<String>, Query, description = "Only this name"),
           ("search" = Option<String>, Query, description = "Up to four words that must each occur"),
           ("page" = Option<u32>, Query, description = "From 1; without this, perPage and search everything is given"),
           ("perPage" = Option<u32>, Query, description = "Objects on a page, 1 to 1000; 50 unless given")),
    responses((status = 200, description = "{\"items\": [object...], \"total\": n}"),
              (status = 400, body = super::error::Problems),
              (status = 401, body = super::error::Problems)))]
pub(super) async fn list(
    State(ops): State<Ops>,
    Asked(wanted): Asked<List>,
) -> Result<Json<Value>, ApiError> {
    if wanted.page.or(wanted.per_page).is_none() && wanted.search.is_none() {
        let items = documents(ops.export(wanted.kind, wanted.name.as_deref()).await?);
        return Ok(Json(json!({ "total": items.len(), "items": items })));
    }
    let query = ListQuery {
        kind: wanted.kind,
        name: wanted.name,
        search: wanted.search.unwrap_or_default(),
        sort: Sort::Name,
        page: wanted.page.unwrap_or(1),
        per_page: wanted.per_page.unwrap_or(0),
    };
    let page = ops.list(&query).await?;
    let items = documents(page.items.into_iter().map(|stored| stored.object));
    Ok(Json(json!({ "items": items, "total": page.total, "page": page.page, "perPage": page.per_page })))
}

/// One object.
#[utoipa::path(get, path = "/api/v1/{kind}/{name}", tag = "objects",
    params(("kind" = String, Path, description = "listeners, routes, origin-groups, certificates, trust-bundles, prefix-sets, packet-filters"),
           ("name" = String, Path)),
    responses((status = 200, description = "The object"), (status = 404, body = super::error::Problems)))]
pub(super) async fn get(
    State(ops): State<Ops>,
    Path((segment, name)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let kind = kind(&segment)?;
    match ops.get(kind, &name).await? {
        Some(stored) => Ok(Json(stored.object.to_value())),
        None => Err(OpsError::NotFound(format!("there is no {} named {name}", kind.words())).into()),
    }
}

/// Adds or replaces one object.
#[utoipa::path(put, path = "/api/v1/{kind}/{name}", tag = "objects",
    params(("kind" = String, Path), ("name" = String, Path), ("confirm" = Option<bool>, Query)),
    responses((status = 200, description = "{\"revision\": n, \"changes\": [...]}"),
              (status = 400, body = super::error::Problems),
              (status = 409, body = super::error::Problems), (status = 422, body = super::error::Problems)))]
pub(super) async fn put(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path((segment, name)): Path<(String, String)>,
    Asked(options): Asked<Confirm>,
    JsonBody(body): JsonBody,
) -> Result<Json<Published>, ApiError> {
    let kind = kind(&segment)?;
    let object = parse(&body).map_err(ApiError::problems)?;
    if object.kind() != kind || object.name() != name {
        let message =
            format!("the URL says {kind}/{name} and the document {}; make them agree", object.label());
        return Err(ApiError::problems(vec![Problem::new(
            object.label(),
            "metadata.name",
            Code::Invalid,
            message,
        )]));
    }
    Ok(Json(ops.publish(Changes::put(object), &actor, options.into()).await?))
}

/// The answer to a needed confirmation, in a query.
#[derive(Debug)]
pub(super) struct Confirm {
    confirm: bool,
}

impl Wanted for Confirm {
    const NAMES: &'static [&'static str] = &["confirm"];

    fn read(parameters: &mut Parameters) -> Self {
        Self { confirm: parameters.flag("confirm") }
    }
}

impl From<Confirm> for PublishOptions {
    fn from(query: Confirm) -> Self {
        Self { confirm: query.confirm, ..Self::default() }
    }
}

/// Removes one object.
#[utoipa::path(delete, path = "/api/v1/{kind}/{name}", tag = "objects",
    params(("kind" = String, Path), ("name" = String, Path), ("confirm" = Option<bool>, Query)),
    responses((status = 200, description = "{\"revision\": n, \"changes\": [...]}"),
              (status = 400, body = super::error::Problems),
              (status = 404, body = super::error::Problems), (status = 422, body = super::error::Problems)))]
pub(super) async fn remove(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path((segment, name)): Path<(String, String)>,
    Asked(options): Asked<Confirm>,
) -> Result<Json<Published>, ApiError> {
    let kind = kind(&segment)?;
    if ops.get(kind, &name).await?.is_none() {
        return Err(OpsError::NotFound(format!("there is no {} named {name}", kind.words())).into());
    }
    Ok(Json(ops.publish(Changes::remove(kind, name), &actor, options.into()).await?))
}

const APPLY: [&str; 8] =
    ["objects", "remove", "prune", "dryRun", "confirm", "message", "rollbackAfterSeconds", "baseRevision"];

/// Many objects at once: all of them, or none.
#[utoipa::path(post, path = "/api/v1/apply", tag = "objects", request_body = ApplyRequest,
    responses((status = 200, description = "{\"revision\": n, \"changes\": [{\"action\", \"object\", \"words\"}...]}"),
              (status = 409, description = "It needs a confirmation, another revision came first, or one waits to be confirmed", body = super::error::Problems),
              (status = 422, body = super::error::Problems)))]
pub(super) async fn apply(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::of(body, &APPLY);
    let mut changes = Changes { prune: fields.flag("prune"), ..Changes::default() };
    for (index, document) in fields.list("objects").iter().enumerate() {
        match parse(document) {
            Ok(object) => changes.put.push(object),
            Err(found) => fields.also(found.into_iter().map(|problem| in_list(index, problem))),
        }
    }
    let options = PublishOptions {
        confirm: fields.flag("confirm"),
        rollback_after: fields.number("rollbackAfterSeconds").map(Duration::from_secs),
        message: fields.text("message"),
        base_revision: fields.number("baseRevision"),
        ..PublishOptions::default()
    };
    let dry_run = fields.flag("dryRun");
    for label in fields.list("remove") {
        match label
            .as_str()
            .and_then(|label| label.split_once('/'))
            .map(|(kind, name)| (Kind::parse(kind), name))
        {
            Some((Ok(kind), name)) => changes.remove.push((kind, name.to_owned())),
            _ => fields.also([Problem::new(
                "",
                "remove",
                Code::Invalid,
                "names objects as Kind/name, such as Route/shop",
            )]),
        }
    }
    fields.finish()?;
    if !dry_run {
        let published = ops.publish(changes, &actor, options).await?;
        return Ok(Json(serde_json::to_value(published).unwrap_or_default()));
    }
    let review = ops.plan_with(&changes, &actor, &options).await?;
    if !review.problems.is_empty() {
        return Err(ApiError::problems(review.problems));
    }
    Ok(Json(json!({
        "revision": review.base_revision,
        "changes": review.changes,
        "touches": review.touches,
        "confirmations": review.confirmations,
        "effect": review.effect,
    })))
}

/// A document that does not say its name is found by its place.
fn in_list(index: usize, problem: Problem) -> Problem {
    if !problem.object.is_empty() {
        return problem;
    }
    let field = match problem.field.as_str() {
        "" => format!("objects[{index}]"),
        field => format!("objects[{index}].{field}"),
    };
    Problem { field, ..problem }
}
