//! REST, `/api/v1`: a token in, JSON out, the same operations as the pages.

mod auth;
mod body;
mod error;
mod flows;
mod nodes;
mod objects;
mod openapi;
mod query;
mod revisions;
mod senders;
mod sources;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post, put};

pub use error::{ApiError, ApiProblem};
pub(crate) use flows::pcap_answer;

use crate::ops::Ops;

/// 10,000 routes with their certificates.
const BODY: usize = 64 << 20;

/// Every URL of the API, and the two health checks, which need no token.
pub fn router(ops: Ops) -> Router {
    let api = Router::new()
        .route("/api/v1/objects", get(objects::list))
        .route("/api/v1/apply", post(objects::apply))
        .route("/api/v1/revisions", get(revisions::list))
        .route("/api/v1/revisions/{number}", get(revisions::get))
        .route("/api/v1/revisions/{number}/rollback", post(revisions::rollback))
        .route("/api/v1/revisions/{number}/confirm", post(revisions::confirm))
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/{name}/enrol", post(nodes::enrol))
        .route("/api/v1/nodes/{name}/labels", put(nodes::label))
        .route("/api/v1/nodes/{name}/revoke", post(nodes::revoke))
        .route("/api/v1/nodes/{name}/drain", post(nodes::drain))
        .route("/api/v1/nodes/{name}/resume", post(nodes::resume))
        .route("/api/v1/sources", get(senders::list))
        .route("/api/v1/rules", get(senders::rules))
        .route("/api/v1/status", get(nodes::status))
        .route("/api/v1/prefix-sets/{name}/source", get(sources::show))
        .route("/api/v1/prefix-sets/{name}/fetch", post(sources::fetch))
        .route("/api/v1/metrics", get(sources::metrics))
        .route("/api/v1/flows", get(flows::export))
        .route("/api/v1/captures", get(flows::captures).post(flows::capture))
        .route("/api/v1/captures/{id}/pcap", get(flows::pcap))
        .route("/api/v1/captures/{id}/stop", post(flows::stop))
        .route("/api/v1/users/{name}/reset", post(nodes::reset_user))
        .route("/api/v1/openapi.json", get(openapi::show))
        .route("/api/v1/{kind}/{name}", get(objects::get).put(objects::put).delete(objects::remove))
        .route("/api/{*rest}", any(error::no_such_url))
        .method_not_allowed_fallback(error::no_such_method)
        .route_layer(axum::middleware::from_fn_with_state(ops.clone(), auth::token))
        .layer(DefaultBodyLimit::max(BODY));
    let open = Router::new().route("/healthz", get(nodes::healthz)).route("/readyz", get(nodes::readyz));
    api.merge(open).with_state(ops)
}

#[cfg(test)]
mod tests;
