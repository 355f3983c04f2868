//! Who is sending, and by which numbers rules are counted.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiError;
use super::query::Asked;
use crate::ops::{Ops, Source};

/// Sources in an answer, unless asked otherwise.
const USUAL: usize = 100;

/// What is wanted of the sources.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    node: Option<String>,
    #[serde(default)]
    sort: By,
    top: Option<usize>,
}

/// What they are sorted by, most first.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum By {
    #[default]
    Packets,
    Bytes,
    Syns,
    Drops,
}

impl By {
    fn of(self, source: &Source) -> u64 {
        match self {
            Self::Packets => source.sums.packets,
            Self::Bytes => source.sums.bytes,
            Self::Syns => source.sums.syns,
            Self::Drops => source.sums.drops,
        }
    }
}

/// The numbers that nodes count rules under, as their metrics and flows have them: of each rule, list of protocols and budget, also of
/// those that are gone, whose number nothing else gets.
#[utoipa::path(get, path = "/api/v1/rules", tag = "nodes",
    responses((status = 200, description = "{\"items\": [{\"id\", \"rule\": \"FILTER/RULE\", \"removed\"}...]}, by id")))]
pub(super) async fn rules(State(ops): State<Ops>) -> Json<Value> {
    let items: Vec<Value> = ops
        .rules()
        .into_iter()
        .map(|one| json!({ "id": one.id, "rule": one.label, "removed": one.removed }))
        .collect();
    Json(json!({ "items": items }))
}

/// Who sent to the nodes in the last hour, as far as their packet filters looked at packets.
#[utoipa::path(get, path = "/api/v1/sources", tag = "nodes",
    params(("node" = Option<String>, Query, description = "Only this node"),
           ("sort" = Option<String>, Query, description = "packets (the default), bytes, syns or drops; most first"),
           ("top" = Option<u32>, Query, description = "So many sources at most; 100 unless given, 0 for all")),
    responses((status = 200, description = "{\"nodes\": [{\"node\", \"record\": {\"since\", \"until\", \"oneIn\", \"others\"} or null, \"why\"}...], \"items\": [{\"node\", \"source\", \"packets\", \"bytes\", \"syns\", \"drops\", \"first\", \"last\", \"to\": [{\"address\", \"what\", \"listener\", \"packets\", ...}...]}...], \"total\": n}"),
              (status = 400, body = super::error::Problems),
              (status = 422, description = "There is no such node", body = super::error::Problems)))]
pub(super) async fn list(
    State(ops): State<Ops>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>, ApiError> {
    let (nodes, mut items) = ops.senders(wanted.node.as_deref()).await?;
    let total = items.len();
    // Equal ones stay by packets.
    items.sort_by_key(|source| std::cmp::Reverse(wanted.sort.of(source)));
    items.truncate(match wanted.top {
        Some(0) => usize::MAX,
        Some(top) => top,
        None => USUAL,
    });
    Ok(Json(json!({ "nodes": nodes, "items": items, "total": total })))
}
