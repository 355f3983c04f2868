//! Flows as JSON lines, and captures.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ApiError;
use super::body::{Fields, JsonBody};
use super::query::{Asked, Parameters, Wanted};
use crate::flows::{Attended, NodeState, Reader, counts_line, flow_line, problem_line};
use crate::ops::{Actor, CaptureQuery, FlowQuery, Ops, OpsError};

/// Lines of an export unless something else is said, and at most.
const LIMIT: (u64, u64) = (1_000, 100_000);
/// Seconds it lasts, likewise.
const SECONDS: (u64, u64) = (10, 600);
/// Between two readings of rules' labels, while packets have rules that are not among them.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two lines about a capture.
const BEAT: Duration = Duration::from_millis(500);

/// Sampled packets as they come, one JSON object a line (`type` is `flow`), until `limit` of them or `seconds` are over; then a
/// line of figures for each node (`counts`: packets that matched, exactly; of how many one was told, at the coarsest in `oneIn` and
/// in `finest` at the finest; how many were lost) or why it tells none (`problem`).
#[utoipa::path(get, path = "/api/v1/flows", tag = "flows",
    params(("node" = Option<String>, Query), ("verdict" = Option<String>, Query, description = "drop, observed or pass"),
           ("reason" = Option<String>, Query), ("rule" = Option<String>, Query, description = "FILTER/RULE, or an id"),
           ("source" = Option<String>, Query, description = "a prefix"), ("port" = Option<u16>, Query, description = "destination port"),
           ("protocol" = Option<String>, Query, description = "tcp, udp, icmp, icmpv6 or a number"),
           ("limit" = Option<u64>, Query, description = "1 to 100000, 1000 when absent"),
           ("seconds" = Option<u64>, Query, description = "1 to 600, 10 when absent")),
    responses((status = 200, description = "application/x-ndjson"), (status = 400, body = super::error::Problems),
              (status = 409, body = super::error::Problems), (status = 422, body = super::error::Problems)))]
pub(super) async fn export(
    State(ops): State<Ops>,
    Asked(Export { flows, limit, seconds }): Asked<Export>,
) -> Result<Response, ApiError> {
    let reader = match ops.read_flows(&flows).await {
        // With what is wrong with rules and nodes, for all of it is said at once.
        Err(OpsError::Problems(problems)) if flows.is_unreadable() => return Err(ApiError::query(problems)),
        read => read?,
    };
    let rules = Rules::of(ops).await?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let lines = lines(Lines { reader, rules, left: limit, until, missed: 0 });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// What is wanted of flows.
#[derive(Debug)]
pub(super) struct Export {
    flows: FlowQuery,
    limit: u64,
    seconds: u64,
}

impl Wanted for Export {
    const NAMES: &'static [&'static str] =
        &["node", "verdict", "reason", "rule", "source", "port", "protocol", "limit", "seconds"];

    fn read(parameters: &mut Parameters) -> Self {
        let mut flows = FlowQuery::default();
        for name in Self::NAMES {
            // Those that are left are read below.
            let _is_of_flows = flows.set(name, parameters.text(name).unwrap_or_default());
        }
        let mut number = |name, (usual, most)| parameters.number(name, 1..=most).unwrap_or(usual);
        let (limit, seconds) = (number("limit", LIMIT), number("seconds", SECONDS));
        Self { flows, limit, seconds }
    }
}

/// The labels of rules. A rule may be published while lines are written.
struct Rules {
    ops: Ops,
    labels: BTreeMap<u32, String>,
    /// When they were read once more.
    again: Option<Instant>,
}

impl Rules {
    async fn of(ops: Ops) -> Result<Self, OpsError> {
        let labels = ops.rule_labels().await?;
        Ok(Self { ops, labels, again: None })
    }

    /// Reads them once more where this rule is not among them. What a node says is not believed to be a rule's id.
    async fn know(&mut self, rule: u32) {
        let lately = self.again.is_some_and(|again| again.elapsed() < AGAIN);
        if rule == 0 || lately || self.labels.contains_key(&rule) {
            return;
        }
        self.again = Some(Instant::now());
        match self.ops.rule_labels().await {
            Ok(labels) => self.labels = labels,
            Err(error) => {
                tracing::warn!(%error, "an export of flows goes on without the labels of newer rules")
            }
        }
    }
}

struct Lines {
    reader: Reader,
    rules: Rules,
    left: u64,
    until: Instant,
    missed: u64,
}

fn lines(export: Lines) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold(Some(export), |export| async {
        let mut export = export?;
        while export.left > 0 {
            match tokio::time::timeout_at(export.until, export.reader.next()).await {
                Ok(Ok(flow)) => {
                    export.left -= 1;
                    export.rules.know(flow.event.rule).await;
                    let line = format!("{}\n", flow_line(&flow, &export.rules.labels));
                    return Some((Ok(Bytes::from(line)), Some(export)));
                }
                Ok(Err(missed)) => export.missed += missed,
                Err(_elapsed) => break,
            }
        }
        let figures = export.reader.nodes().into_iter().map(|(node, state)| {
            let line = match state {
                NodeState::Watching(told) => counts_line(&node, &told, export.missed),
                NodeState::Asked => problem_line(&node, "it has not answered"),
                NodeState::Cannot(why) => problem_line(&node, &why),
            };
            format!("{line}\n")
        });
        Some((Ok(Bytes::from(figures.collect::<String>())), None))
    })
}

/// Captures, newest first. They are kept in memory, eight at most. Operators.
#[utoipa::path(get, path = "/api/v1/captures", tag = "flows",
    responses((status = 200, description = "{\"items\": [{\"id\", \"node\", \"filter\", \"actor\", \"at\", \"packets\", \"snap\", \"taken\", \"lost\", \"running\", \"problem\", \"stopped\"}]}"),
              (status = 403, body = super::error::Problems)))]
pub(super) async fn captures(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "items": ops.captures(&actor)? })))
}

/// Captures the next dropped packets of a rule or a reason at one node: `{"node", "rule", "reason", "source", "port", "protocol",
/// "packets" (1 to 1000), "snap" (bytes of each, 1 to 1500), "seconds" (1 to 300), "follow"}`. Operators; who asked is in the audit log.
///
/// With `follow` true the answer is the capture as `GET /api/v1/captures` has it, one JSON object a line, twice a second until one
/// says that it is not `running`. Where the connection ends before, the capture ends with it; what it has can still be downloaded.
#[utoipa::path(post, path = "/api/v1/captures", tag = "flows",
    responses((status = 200, description = "{\"id\": n}; with follow application/x-ndjson"), (status = 403, body = super::error::Problems),
              (status = 409, body = super::error::Problems), (status = 422, body = super::error::Problems)))]
pub(super) async fn capture(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    const NAMES: [&str; 10] =
        ["node", "rule", "reason", "source", "port", "protocol", "packets", "snap", "seconds", "follow"];
    let mut fields = Fields::of(body, &NAMES);
    let mut query = CaptureQuery::default();
    for name in &NAMES[..6] {
        query.flows.set(name, &fields.text(name));
    }
    let mut number = |name| fields.number(name).map_or_else(String::new, |number| number.to_string());
    (query.packets, query.snap, query.seconds) = (number("packets"), number("snap"), number("seconds"));
    let follow = fields.flag("follow");
    fields.finish()?;
    let capture = ops.capture(&query, &actor).await?;
    if !follow {
        return Ok(Json(json!({ "id": capture.leave() })).into_response());
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(progress(capture)))
        .into_response())
}

/// How far a capture is, until it has ended; it ends when this is dropped.
fn progress(capture: Attended) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let beat = tokio::time::interval(BEAT);
    stream::unfold(Some((capture, beat)), |state| async {
        let (capture, mut beat) = state?;
        beat.tick().await;
        let view = capture.view()?;
        let goes_on = view.running.then_some((capture, beat));
        Some((Ok(Bytes::from(format!("{}\n", json!(view)))), goes_on))
    })
}

/// What a capture has so far, as a pcap file (Ethernet, nanoseconds). Operators; who took it is in the audit log.
#[utoipa::path(get, path = "/api/v1/captures/{id}/pcap", tag = "flows", params(("id" = u64, Path)),
    responses((status = 200, description = "application/vnd.tcpdump.pcap"), (status = 403, body = super::error::Problems),
              (status = 404, body = super::error::Problems)))]
pub(super) async fn pcap(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (view, file) = ops.pcap(number(&id)?, &actor).await?;
    Ok(pcap_answer(&view, file))
}

/// Ends a capture before its time, whoever began it; what it has can still be downloaded. Of one that has ended nothing changes. The
/// answer is the capture as `GET /api/v1/captures` has it. Operators; who stopped it is in the audit log.
#[utoipa::path(post, path = "/api/v1/captures/{id}/stop", tag = "flows", params(("id" = u64, Path)),
    responses((status = 200, description = "the capture"), (status = 403, body = super::error::Problems),
              (status = 404, body = super::error::Problems)))]
pub(super) async fn stop(
    State(ops): State<Ops>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!(ops.stop_capture(number(&id)?, &actor).await?)))
}

fn number(id: &str) -> Result<u64, ApiError> {
    id.parse().map_err(|_not_a_number| {
        ApiError::sentence(StatusCode::NOT_FOUND, "not-found", format!("there is no capture {id:?}"))
    })
}

/// A file to keep.
pub(crate) fn pcap_answer(view: &crate::flows::CaptureView, file: Vec<u8>) -> Response {
    let name = format!("attachment; filename=\"sallyport-{}-{}.pcap\"", view.node, view.id);
    (
        [
            (header::CONTENT_TYPE, "application/vnd.tcpdump.pcap".to_owned()),
            (header::CONTENT_DISPOSITION, name),
        ],
        file,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;

    #[tokio::test]
    async fn labels_are_not_read_with_every_line_that_has_none() {
        let directory = Directory::new();
        let mut rules = Rules::of(directory.open().await).await.unwrap();
        rules.know(0).await;
        assert_eq!(rules.again, None);
        rules.know(9).await;
        let first = rules.again.unwrap();
        rules.know(10).await;
        assert_eq!(rules.again, Some(first));
        rules.again = first.checked_sub(AGAIN);
        rules.know(10).await;
        assert!(rules.again > Some(first));
        rules.labels.insert(11, "f/r".to_owned());
        rules.again = None;
        rules.know(11).await;
        assert_eq!(rules.again, None);
    }
}
