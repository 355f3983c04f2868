//! The requests of `model::link`.

use std::net::IpAddr;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::digest::Digest;
use model::link::{ENDS, EnrolRequest, EnrolResponse, REFUSALS, RenewRequest, RenewResponse, SENDERS};
use serde::de::DeserializeOwned;

use super::Caller;
use super::identity::Stranger;
use super::link::begin;
use crate::clock;
use crate::ops::{Event, Ops, OpsError};
use crate::secrets::IssueError;
use crate::store::SecretOutcome;

/// A certificate request and a few labels.
const BODY: usize = 64 << 10;

/// Every URL of the node port; the server adds a [`Caller`] to each request's extensions.
pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/node/v1/enrol", post(enrol))
        .route("/node/v1/renew", post(renew))
        .route("/node/v1/keys/{digest}", get(key))
        .layer(DefaultBodyLimit::max(BODY))
        .route("/node/v1/link", post(link))
        .route("/node/v1/flows", post(flows))
        .with_state(ops)
}

/// An error answer: `{"message": "..."}`.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "message": self.1 }))).into_response()
    }
}

impl From<Stranger> for Refused {
    fn from(error: Stranger) -> Self {
        match error {
            Stranger::Ops(error) => error.into(),
            known @ (Stranger::NoCertificate | Stranger::Revoked(_) | Stranger::Ended(_)) => {
                Self(StatusCode::FORBIDDEN, known.to_string())
            }
        }
    }
}

impl From<OpsError> for Refused {
    fn from(error: OpsError) -> Self {
        tracing::error!(%error, "a node's request failed");
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<IssueError> for Refused {
    fn from(error: IssueError) -> Self {
        Self(StatusCode::BAD_REQUEST, error.to_string())
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}")))
}

async fn enrol(
    State(ops): State<Ops>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<EnrolResponse>, Refused> {
    let request: EnrolRequest = parse(&body)?;
    let hash = Digest::of(request.secret.as_bytes());
    let wrong = || {
        let message = "this enrolment token was used or has ended; make a new one: sallyport node enrol NAME";
        Refused(StatusCode::FORBIDDEN, message.to_owned())
    };
    let store = ops.store();
    let name = store.node_of_secret(&hash).await.map_err(OpsError::from)?.ok_or_else(wrong)?;
    let issued = ops.authority().node(&request.csr, &name, clock::now())?;
    match store.enrol(&hash, &request.labels, &issued.serial, issued.ends).await.map_err(OpsError::from)? {
        SecretOutcome::Used => {}
        SecretOutcome::Unknown => return Err(wrong()),
    }
    tracing::info!(node = name, peer = %caller.peer, "node enrolled");
    // Whoever held the name before has an older certificate.
    ops.live().order(&name, |orders| orders.close = true);
    ops.tell(Event::Node { node: name });
    Ok(Json(EnrolResponse { certificate: issued.pem, ca: ops.authority().pem().to_owned() }))
}

async fn renew(
    State(ops): State<Ops>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<RenewResponse>, Refused> {
    let now = clock::now();
    let (name, _) = caller.node(&ops, true, now).await?;
    let request: RenewRequest = parse(&body)?;
    let issued = ops.authority().node(&request.csr, name.as_str(), now)?;
    let renewed = ops.store().renewed(name.as_str(), caller.serial(), &issued.serial, issued.ends).await;
    if !renewed.map_err(OpsError::from)? {
        return Err(Stranger::Revoked(name).into());
    }
    tracing::info!(node = %name, "node's certificate renewed");
    Ok(Json(RenewResponse { certificate: issued.pem }))
}

async fn key(
    State(ops): State<Ops>,
    Extension(caller): Extension<Caller>,
    Path(digest): Path<String>,
) -> Result<Response, Refused> {
    let (name, _) = caller.node(&ops, false, clock::now()).await?;
    let none = || Refused(StatusCode::NOT_FOUND, "this node's snapshot names no such key".to_owned());
    let digest: Digest = digest.parse().map_err(|_invalid| none())?;
    if !ops.live().fetchable(name.as_str(), &digest) {
        return Err(none());
    }
    let key = ops.private_key(&digest).await?.ok_or_else(none)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], key.to_vec()).into_response())
}

async fn link(
    State(ops): State<Ops>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Refused> {
    let (name, row) = caller.node(&ops, false, clock::now()).await?;
    let seen = ends(&caller, request.headers().get(ENDS));
    let body = begin(ops, (caller, seen), name, row, request.into_body());
    let stream = (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let senders = (HeaderName::from_static(SENDERS), HeaderValue::from_static("1"));
    Ok(([stream, senders], body).into_response())
}

/// Both ends of a connection, as this console sees them (first the node's) and, where its release says it, as the node does.
fn ends(caller: &Caller, said: Option<&HeaderValue>) -> Vec<IpAddr> {
    let (node, console) = (caller.peer.ip(), caller.local.ip());
    let mut ends = vec![node, console];
    let said = said.and_then(|value| value.to_str().ok()).unwrap_or_default();
    for end in said.split(' ').take(2).filter_map(|text| text.parse().ok()) {
        if may_end(end, node) && !ends.contains(&end) {
            ends.push(end);
        }
    }
    ends
}

/// Whether a link may end there as a node sees it that this console sees at `node`. Only what is on the same machine, or comes through a
/// proxy there, connects to a loopback address.
fn may_end(end: IpAddr, node: IpAddr) -> bool {
    let (end, node) = (end.to_canonical(), node.to_canonical());
    !end.is_unspecified() && !end.is_multicast() && (!end.is_loopback() || node.is_loopback())
}

async fn flows(
    State(ops): State<Ops>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Refused> {
    let (name, _) = caller.node(&ops, false, clock::now()).await?;
    let body = super::flows::begin(ops, caller, name, request.into_body());
    let stream = (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let refusals = (HeaderName::from_static(REFUSALS), HeaderValue::from_static("1"));
    Ok(([stream, refusals], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_no_end_that_no_link_has() {
        let seen = |peer: &str, said: &'static str| {
            let address = |text: &str| format!("{text}:1").parse().unwrap();
            let caller = Caller { peer: address(peer), local: address("203.0.113.1"), certificate: None };
            let ends = ends(&caller, Some(&HeaderValue::from_static(said)));
            ends[2..].iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let away = "198.51.100.7";
        assert_eq!(seen(away, "10.0.0.7 10.0.0.1"), "10.0.0.7 10.0.0.1");
        assert_eq!(seen(away, "198.51.100.7 fd00::1 10.0.0.1"), "fd00::1");
        for strange in
            ["0.0.0.0 224.0.0.1", ":: ff02::1", "127.0.0.1 ::1", "::ffff:127.0.0.1 ::ffff:0.0.0.0", "a b"]
        {
            assert_eq!(seen(away, strange), "", "{strange}");
        }
        for here in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert_eq!(seen(here, "127.0.0.2 ::"), "127.0.0.2", "{here}");
        }
    }
}
