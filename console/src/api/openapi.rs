//! The API's own description.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::{error, flows, nodes, objects, revisions, senders, sources};

#[derive(OpenApi)]
#[openapi(
    info(title = "Sallyport", description = "Everything the console can do."),
    paths(
        objects::list, objects::get, objects::put, objects::remove, objects::apply, revisions::list, revisions::get,
        revisions::rollback, revisions::confirm, nodes::list, nodes::enrol, nodes::label, nodes::revoke, nodes::drain, nodes::resume,
        nodes::status, nodes::reset_user, sources::show, sources::fetch, sources::metrics, senders::list, senders::rules,
        flows::export, flows::captures, flows::capture, flows::pcap, flows::stop
    ),
    components(schemas(error::Problems, error::ApiProblem, objects::ApplyRequest)),
    security(("token" = []))
)]
struct Description;

/// `GET /api/v1/openapi.json`.
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    let mut description = Description::openapi();
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    description.components.get_or_insert_default().add_security_scheme("token", token);
    Json(description)
}
