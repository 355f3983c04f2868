//! Who is sending, and by which numbers rules are counted.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::ApiError;
use super::query::{Asked, Parameters, Wanted};
use crate::ops::{Ops, Source};

/// Sources in an answer, unless asked otherwise.
const USUAL: u32 = 100;

/// What is wanted of the sources.
#[derive(Debug)]
pub(super) struct Talkers {
    node: Option<String>,
    sort: By,
    top: u32,
}

impl Wanted for Talkers {
    const NAMES: &'static [&'static str] = &["node", "sort", "top"];

    fn read(parameters: &mut Parameters) -> Self {
        let sorts =
            [("packets", By::Packets), ("bytes", By::Bytes), ("syns", By::Syns), ("drops", By::Drops)];
        Self {
            node: parameters.text("node").map(str::to_owned),
            sort: parameters.choice("sort", &sorts).unwrap_or_default(),
            top: parameters.number("top", 0..=u32::MAX).unwrap_or(USUAL),
        }
    }
}

/// What they are sorted by, most first.
#[derive(Debug, Clone, Copy, Default)]
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
    Asked(wanted): Asked<Talkers>,
) -> Result<Json<Value>, ApiError> {
    let (nodes, mut items) = ops.senders(wanted.node.as_deref()).await?;
    let total = items.len();
    // Equal ones stay by packets.
    items.sort_by_key(|source| std::cmp::Reverse(wanted.sort.of(source)));
    items.truncate(match wanted.top {
        0 => usize::MAX,
        top => usize::try_from(top).unwrap_or(usize::MAX),
    });
    Ok(Json(json!({ "nodes": nodes, "items": items, "total": total })))
}
