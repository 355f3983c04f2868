//! The JSON lines of an export.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{Flow, Told};

/// RFC 3339 in UTC, all nine digits: lines are as wide whenever they come, and sort by their text.
const TIME: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// One packet; `rules` are the labels of rule ids.
pub fn flow_line(flow: &Flow, rules: &BTreeMap<u32, String>) -> Value {
    let event = &flow.event;
    let at = OffsetDateTime::from_unix_timestamp_nanos(event.time_ns.into());
    let at = at.ok().and_then(|at| at.format(TIME).ok());
    json!({
        "type": "flow",
        "time": at,
        "node": flow.node,
        "interface": event.interface,
        "verdict": event.verdict,
        "reason": event.reason,
        "rule": rules.get(&event.rule),
        "ruleId": event.rule,
        "source": event.source,
        "sourcePort": event.source_port,
        "destination": event.destination,
        "destinationPort": event.destination_port,
        "protocol": event.protocol,
        "icmpType": event.icmp_type,
        "bytes": event.bytes,
        "oneIn": event.one_in,
        "head": event.head,
    })
}

/// The figures of a node; `missed` packets were left out because the reader was too slow.
pub fn counts_line(node: &str, told: &Told, missed: u64) -> Value {
    let rates = told.rates();
    json!({
        "type": "counts",
        "node": node,
        "matched": told.counts.matched,
        "oneIn": { "drops": rates.drops.coarsest, "passes": rates.passes.coarsest },
        "finest": { "drops": rates.drops.finest, "passes": rates.passes.finest },
        "lost": told.counts.lost,
        "missed": missed,
    })
}

/// A node that tells nothing, and why.
pub fn problem_line(node: &str, why: &str) -> Value {
    json!({ "type": "problem", "node": node, "message": why })
}
