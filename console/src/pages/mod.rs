//! The pages: a file per page, with its template's struct, its handlers and their tests.
//!
//! In: requests of people who signed in, and what the operations answer. Out: HTML that works without script.
//! Deliberately absent: SQL, and any rule that the REST API would not know too.

pub(crate) mod assets;
mod budgets;
mod captures;
mod certificates;
mod changes;
mod chart;
mod doors;
mod editor;
mod error;
mod events;
mod flows;
mod list;
mod listeners;
mod login;
mod nodes;
mod origins;
mod overview;
mod packet_filter;
mod prefix_sets;
mod route_form;
mod route_names;
mod routes;
mod setup;
mod shell;
mod sources;
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

use editor::Editor;
pub(crate) use error::PageError;

/// What a handler gives.
pub(crate) type PageResult = Result<Response, PageError>;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Every page's URL. Who is signed in stands in the request's extensions (see [`crate::session::SignedIn`]).
pub fn router() -> Router<AppState> {
    let editors = editor::<route_form::Routes>()
        .merge(editor::<listeners::Listeners>())
        .merge(editor::<origins::Origins>())
        .merge(editor::<certificates::Certificates>())
        .merge(editor::<trust_bundles::TrustBundles>())
        .merge(editor::<prefix_sets::PrefixSets>())
        .merge(editor::<packet_filter::PacketFilters>());
    Router::new()
        .merge(editors)
        .route("/", get(overview::show))
        .route("/routes", get(routes::list))
        .route("/listeners", get(listeners::list))
        .route("/origins", get(origins::list))
        .route("/certificates", get(certificates::list))
        .route("/trust-bundles", get(trust_bundles::list))
        .route("/packet-filter", get(packet_filter::list))
        .route("/prefix-sets", get(prefix_sets::list))
        .route("/prefix-sets/{name}/fetch", post(prefix_sets::fetch))
        .route("/sources", get(sources::list))
        .route("/flows", get(flows::show))
        .route("/flows/capture", post(captures::begin))
        .route("/flows/stop", post(captures::stop))
        .route("/flows/captures/{file}", get(captures::pcap))
        .route("/nodes", get(nodes::list).post(nodes::enrol))
        .route("/nodes/{name}", get(nodes::show))
        .route("/nodes/{name}/revoke", post(nodes::revoke))
        .route("/nodes/{name}/labels", post(nodes::label))
        .route("/nodes/{name}/drain", post(nodes::drain))
        .route("/nodes/{name}/resume", post(nodes::resume))
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

/// The pages that add, change and remove one kind of object.
fn editor<E: Editor>() -> Router<AppState> {
    Router::new()
        .route(&format!("{}/new", E::PATH), get(editor::new::<E>).post(editor::create::<E>))
        .route(&format!("{}/{{name}}", E::PATH), get(editor::edit::<E>).post(editor::update::<E>))
        .route(&format!("{}/{{name}}/remove", E::PATH), post(editor::remove::<E>))
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
