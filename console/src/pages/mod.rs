//! The pages: a file per page, with its template's struct, its handlers and their tests.
//!
//! In: requests of people who signed in, and what the operations answer. Out: HTML that works without script.
//! Deliberately absent: SQL, and any rule that the REST API would not know too.

pub(crate) mod assets;
mod certificates;
mod changes;
mod chart;
mod doors;
mod error;
mod events;
mod list;
mod listeners;
mod login;
mod nodes;
mod origins;
mod overview;
mod packet_filter;
mod route_form;
mod routes;
mod setup;
mod shell;
mod submit;
mod traffic;
mod trust_bundles;
mod when;

#[cfg(test)]
mod tests;

use askama::Template;
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};

use crate::state::AppState;

pub(crate) use error::PageError;

/// What a handler gives.
pub(crate) type PageResult = Result<Response, PageError>;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Every page's URL. Who is signed in stands in the request's extensions (see [`crate::session::SignedIn`]).
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(overview::show))
        .route("/routes", get(routes::list))
        .route("/routes/new", get(route_form::new).post(route_form::create))
        .route("/routes/{name}", get(route_form::edit).post(route_form::update))
        .route("/routes/{name}/remove", post(routes::remove))
        .route("/listeners", get(listeners::list))
        .route("/listeners/new", get(listeners::new).post(listeners::create))
        .route("/listeners/{name}", get(listeners::edit).post(listeners::update))
        .route("/listeners/{name}/remove", post(listeners::remove))
        .route("/origins", get(origins::list))
        .route("/origins/new", get(origins::new).post(origins::create))
        .route("/origins/{name}", get(origins::edit).post(origins::update))
        .route("/origins/{name}/remove", post(origins::remove))
        .route("/certificates", get(certificates::list))
        .route("/certificates/new", get(certificates::new).post(certificates::create))
        .route("/certificates/{name}", get(certificates::edit).post(certificates::update))
        .route("/certificates/{name}/remove", post(certificates::remove))
        .route("/trust-bundles", get(trust_bundles::list))
        .route("/trust-bundles/new", get(trust_bundles::new).post(trust_bundles::create))
        .route("/trust-bundles/{name}", get(trust_bundles::edit).post(trust_bundles::update))
        .route("/trust-bundles/{name}/remove", post(trust_bundles::remove))
        .route("/packet-filter", get(packet_filter::list))
        .route("/packet-filter/new", get(packet_filter::new).post(packet_filter::create))
        .route("/packet-filter/{name}", get(packet_filter::edit).post(packet_filter::update))
        .route("/packet-filter/{name}/remove", post(packet_filter::remove))
        .route("/nodes", get(nodes::list).post(nodes::enrol))
        .route("/nodes/{name}", get(nodes::show))
        .route("/nodes/{name}/revoke", post(nodes::revoke))
        .route("/changes", get(changes::list))
        .route("/changes/{number}", get(changes::show))
        .route("/changes/{number}/rollback", post(changes::rollback))
        .route("/changes/{number}/confirm", post(changes::confirm))
        .route("/login", get(login::show).post(login::login))
        .route("/logout", post(login::logout))
        .route("/setup", get(setup::show).post(setup::create))
        .route("/events", get(events::stream))
        .route("/static/{hash}/{name}", get(assets::serve))
        .fallback(error::not_found)
        .layer(axum::middleware::map_response(secure))
}

/// The headers every page has.
async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Renders a page.
pub(crate) fn page(template: &impl Template) -> PageResult {
    Ok(Html(template.render()?).into_response())
}
