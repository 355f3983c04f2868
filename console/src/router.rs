//! Every URL of the console's HTTPS port in one table.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};

use crate::session::guard;
use crate::state::AppState;
use crate::{api, pages};

/// A request that takes longer is given up; the stream of events is the exception.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pages behind the session's guard, the API behind its tokens.
pub fn router(state: &AppState) -> Router {
    let guarded = pages::router().layer(from_fn_with_state(state.sessions.clone(), guard::pages));
    guarded
        .with_state(state.clone())
        .merge(api::router(state.ops.clone()))
        .layer(map_response(secure))
        .layer(from_fn(in_time))
}

/// What holds for every answer: stay on TLS, do not sniff, do not be framed.
async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("DENY"));
    headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static("max-age=31536000"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry("cross-origin-opener-policy").or_insert(HeaderValue::from_static("same-origin"));
    headers.entry("cross-origin-resource-policy").or_insert(HeaderValue::from_static("same-origin"));
    response
}

async fn in_time(request: Request, next: Next) -> Response {
    // An event stream answers at once and then goes on in its body, which this does not bound.
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => (StatusCode::SERVICE_UNAVAILABLE, "this took too long; try again\n").into_response(),
    }
}
