//! Sources: who sends to the nodes, by packets, bytes, connections asked for and drops.

use std::cmp::Ordering;

use askama::Template;
use axum::extract::{Query, State};

use super::chart::figure;
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::when::When;
use super::{PageResult, page};
use crate::clock::now;
use crate::ops::{Ops, Recorded, SentTo, Source, span};
use crate::session::SignedIn;

/// Destinations of a source that are shown.
const SHOWN: usize = 3;

struct Row {
    source: String,
    node: String,
    to: Vec<String>,
    more: usize,
    /// Packets, bytes, SYNs, drops: the number, and how it is written.
    figures: [(u64, String); 4],
    first: When,
    last: When,
    of: Source,
}

/// A node's record in words.
struct RecordRow {
    node: String,
    /// Why there is none.
    why: Option<String>,
    span: String,
    until: Option<When>,
    /// One packet in so many was looked at, where not every one was.
    one_in: Option<String>,
    others: Option<String>,
}

#[derive(Template)]
#[template(path = "sources.html")]
struct SourcesPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
    records: Vec<RecordRow>,
    /// Some figure is an estimate.
    estimates: bool,
}

/// `GET /sources`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::PacketFilter, "Sources").await?;
    let (records, sources) = ops.senders(None).await?;
    let rows = sources.into_iter().map(row).collect();
    let text = |row: &Row| {
        let to = row.of.to.iter().map(|to| format!("{} {}", words(to), to.address));
        format!("{} {} {}", row.source, row.node, to.collect::<Vec<_>>().join(" "))
    };
    let (list, rows) = query.apply("/sources", rows, text, order);
    let estimates = records.iter().flat_map(|one| &one.record).any(|record| record.one_in > 1);
    let records = records.into_iter().map(record).collect();
    page(&SourcesPage { shell, list, rows, records, estimates })
}

/// Without a column asked for, they stay as they come: most packets first.
fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    let (one, other) = (&a.of.sums, &b.of.sums);
    match key {
        "source" => a.of.source.cmp(&b.of.source),
        "node" => a.node.cmp(&b.node),
        "packets" => one.packets.cmp(&other.packets),
        "bytes" => one.bytes.cmp(&other.bytes),
        "syns" => one.syns.cmp(&other.syns),
        "drops" => one.drops.cmp(&other.drops),
        "last" => a.of.last.cmp(&b.of.last),
        _ => Ordering::Equal,
    }
}

fn row(of: Source) -> Row {
    let sums = of.sums;
    let figures = [sums.packets, sums.bytes, sums.syns, sums.drops];
    let [packets, bytes, syns, drops] = figures.map(|count| (count, figure(count as f64)));
    let (first, last) = (When::relative(of.first, now()), When::relative(of.last, now()));
    Row {
        source: of.source.to_string(),
        node: of.node.clone(),
        to: of.to.iter().take(SHOWN).map(words).collect(),
        more: of.to.len().saturating_sub(SHOWN),
        figures: [packets, (bytes.0, size(bytes.0)), syns, drops],
        first,
        last,
        of,
    }
}

/// `listener https, TCP 443`.
fn words(to: &SentTo) -> String {
    match &to.listener {
        Some(listener) => format!("{} ({listener})", to.what),
        None => to.what.clone(),
    }
}

/// Bytes as people read them, in powers of 1,000.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            return format!("{} {unit}", figure((value * 10.0).round() / 10.0));
        }
        value /= 1000.0;
    }
    format!("{} PB", figure(value))
}

fn record(of: Recorded) -> RecordRow {
    let record = of.record;
    let one_in = record.as_ref().map(|record| record.one_in).filter(|one_in| *one_in > 1);
    let others = record.as_ref().map(|record| record.others.packets).filter(|others| *others != 0);
    RecordRow {
        node: of.node,
        why: of.why,
        span: record.as_ref().map(|record| span(record.until - record.since)).unwrap_or_default(),
        until: record.as_ref().map(|record| When::relative(record.until, now())),
        one_in: one_in.map(|one_in| figure(one_in as f64)),
        others: others.map(|others| figure(others as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (1_540, "1.5 kB"),
            (12_345_678, "12 MB"),
            (u64::MAX, "18,447 PB"),
        ];
        for (bytes, words) in cases {
            assert_eq!(size(bytes), words);
        }
    }
}
