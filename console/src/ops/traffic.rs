//! Figures for pages.

use std::collections::BTreeMap;
use std::time::Duration;

use model::report::{Leg, Place};

use super::{DropSeries, Ops, OpsError, OriginState, RouteTraffic, SeenLeg, Traffic, TrafficPoint};
use crate::clock;
use crate::store::{DropRow, TrafficRow};

/// Seconds per point.
const STEP: u32 = 60;

fn minute_before(window: Duration) -> (i64, i64) {
    let now = clock::now().unix_timestamp();
    let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX / 2);
    ((now - window).div_euclid(60), now)
}

fn add(sum: &mut TrafficPoint, row: &TrafficRow) {
    for (all, one) in sum.responses.iter_mut().zip(row.responses) {
        *all += one;
    }
    sum.added.merge(&row.added);
    sum.total.merge(&row.total);
}

/// Stored rows with those in memory, which are newer, in their place.
fn overlay(stored: Vec<TrafficRow>, newer: Vec<TrafficRow>, from: i64) -> (Vec<TrafficPoint>, TrafficPoint) {
    let mut rows: BTreeMap<i64, TrafficRow> = stored.into_iter().map(|row| (row.minute, row)).collect();
    rows.extend(newer.into_iter().filter(|row| row.minute >= from).map(|row| (row.minute, row)));
    let mut sum = TrafficPoint { at: from * 60, ..TrafficPoint::default() };
    let mut points = Vec::with_capacity(rows.len());
    for row in rows.into_values() {
        add(&mut sum, &row);
        points.push(TrafficPoint {
            at: row.minute * 60,
            responses: row.responses,
            added: row.added,
            total: row.total,
        });
    }
    (points, sum)
}

impl Ops {
    /// All traffic of the last `window`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn traffic(&self, window: Duration) -> Result<Traffic, OpsError> {
        let (from, now) = minute_before(window);
        let stored = self.store().traffic("", from).await?;
        let (points, sum) = overlay(stored, self.figures().traffic(""), from);
        Ok(Traffic { from: from * 60, to: now, step: STEP, points, sum })
    }

    /// Traffic of these routes in the last `window`, with their legs; a route without any has an empty entry.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn route_traffic(
        &self,
        routes: &[String],
        window: Duration,
    ) -> Result<BTreeMap<String, RouteTraffic>, OpsError> {
        let (from, _) = minute_before(window);
        let mut found = BTreeMap::new();
        for route in routes {
            // "" is the sum of all, not a route.
            if route.is_empty() {
                continue;
            }
            let stored = self.store().traffic(route, from).await?;
            let (points, sum) = overlay(stored, self.figures().traffic(route), from);
            let (client, origin) = self.store().legs(route).await?;
            let newer = |is_client, stored| match self.figures().leg(route, is_client) {
                Some(leg) => Some(seen(leg)),
                None => stored,
            };
            let (client, origin) = (newer(true, client), newer(false, origin));
            found.insert(route.clone(), RouteTraffic { points, sum, client, origin });
        }
        Ok(found)
    }

    /// Origins' state by group, then address, then node.
    ///
    /// # Errors
    /// None at present.
    pub async fn origins(&self) -> Result<Vec<OriginState>, OpsError> {
        let mut states = Vec::new();
        for (node, live) in self.live().all() {
            let Some((at, report)) = live.report.filter(|_| live.connected.is_some()) else { continue };
            for one in &report.origins {
                let key = (one.group.as_str().to_owned(), one.address.clone());
                let (requests, failures) = live.origins.get(&key).copied().unwrap_or_default();
                let report = model::report::OriginReport { requests, failures, ..one.clone() };
                states.push(OriginState { node: node.clone(), report, at });
            }
        }
        states.sort_by(|a, b| {
            (&a.report.group, &a.report.address, &a.node).cmp(&(&b.report.group, &b.report.address, &b.node))
        });
        Ok(states)
    }

    /// Drops and refusals of the last `window`, most first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn drops(&self, window: Duration) -> Result<Vec<DropSeries>, OpsError> {
        let (from, _) = minute_before(window);
        let mut rows: BTreeMap<(i64, Place, String, u32), u64> = BTreeMap::new();
        let newer = self.figures().drops().into_iter().filter(|row| row.minute >= from);
        for DropRow { minute, place, reason, rule, count } in
            self.store().drops(from).await?.into_iter().chain(newer)
        {
            rows.insert((minute, place, reason, rule), count);
        }
        let names: BTreeMap<u32, String> =
            self.store().rule_ids().await?.into_iter().map(|(name, id)| (id, name)).collect();
        let mut series: BTreeMap<(Place, String, u32), Vec<(i64, u64)>> = BTreeMap::new();
        for ((minute, place, reason, rule), count) in rows {
            series.entry((place, reason, rule)).or_default().push((minute * 60, count));
        }
        let mut all: Vec<DropSeries> = series
            .into_iter()
            .map(|((place, reason, rule), points)| DropSeries {
                place,
                reason,
                rule: names.get(&rule).cloned(),
                count: points.iter().map(|(_, count)| count).sum(),
                points,
            })
            .collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
        Ok(all)
    }
}

fn seen((leg, at): (Leg, i64)) -> SeenLeg {
    SeenLeg { leg, at: clock::from_ms(at) }
}
