//! Captures on the page Flows: begun, stopped and downloaded.

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Redirect, Response};

use super::flows::url;
use super::when::When;
use super::{PageError, PageResult};
use crate::api::pcap_answer;
use crate::clock::now;
use crate::flows::CaptureView;
use crate::forms::Fields;
use crate::ops::{CaptureQuery, FlowQuery, Ops};
use crate::session::SignedIn;
use crate::state::AppState;

/// What of the page's filter a capture has too.
const FILTER: [&str; 6] = ["node", "reason", "rule", "source", "port", "protocol"];

/// A capture in the list.
pub(super) struct CaptureRow {
    pub(super) at: When,
    pub(super) view: CaptureView,
}

impl CaptureRow {
    pub(super) fn of(view: CaptureView) -> Self {
        Self { at: When::relative(view.at, now()), view }
    }
}

/// The page with the filter that the form had.
fn back(query: &FlowQuery) -> Response {
    let pairs: Vec<(String, String)> =
        query.pairs().into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    Redirect::to(&format!("{}#captures", url(&pairs))).into_response()
}

/// `POST /flows/capture`.
pub(crate) async fn begin(State(state): State<AppState>, user: SignedIn, fields: Fields) -> PageResult {
    user.check(fields.get("csrf"))?;
    let mut query = CaptureQuery {
        packets: fields.get("packets").to_owned(),
        snap: fields.get("snap").to_owned(),
        seconds: fields.get("seconds").to_owned(),
        ..CaptureQuery::default()
    };
    for name in FILTER {
        query.flows.set(name, fields.get(name));
    }
    state.ops.capture(&query, &user.actor).await?.leave();
    Ok(back(&query.flows))
}

/// `POST /flows/stop`.
pub(crate) async fn stop(State(state): State<AppState>, user: SignedIn, fields: Fields) -> PageResult {
    user.check(fields.get("csrf"))?;
    let id = fields.get("capture");
    let number =
        id.parse().map_err(|_not_a_number| PageError::NotFound(format!("There is no capture {id:?}.")))?;
    state.ops.stop_capture(number, &user.actor).await?;
    let mut query = FlowQuery::default();
    for name in FILTER.into_iter().chain(["verdict"]) {
        query.set(name, fields.get(name));
    }
    Ok(back(&query))
}

/// `GET /flows/captures/{file}`, `file` being `NUMBER.pcap`.
pub(crate) async fn pcap(
    State(ops): State<Ops>,
    Path(file): Path<String>,
    uri: Uri,
    user: SignedIn,
) -> Result<Response, PageError> {
    let number = file.strip_suffix(".pcap").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| PageError::NotFound(format!("There is no page at {}.", uri.path())))?;
    let (view, file) = ops.pcap(number, &user.actor).await?;
    Ok(pcap_answer(&view, file))
}
