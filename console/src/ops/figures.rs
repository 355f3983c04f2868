//! Figures as pages read them.

use model::report::{Histogram, Leg, OriginReport, Place};
use serde::Serialize;
use time::OffsetDateTime;

/// A minute (or several) of traffic; absent minutes are gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPoint {
    /// The interval's start, seconds since the Unix epoch.
    pub at: i64,
    /// Answers by class: 1xx-2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 4],
    /// Time we added.
    pub added: Histogram,
    /// From request head to response end.
    pub total: Histogram,
}

impl TrafficPoint {
    /// Answers of every class.
    pub fn requests(&self) -> u64 {
        self.responses.iter().sum()
    }
}

/// Traffic over a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The window's start, seconds since the Unix epoch.
    pub from: i64,
    /// Its end.
    pub to: i64,
    /// Seconds per point.
    pub step: u32,
    /// Points that have data, oldest first.
    pub points: Vec<TrafficPoint>,
    /// All points together.
    pub sum: TrafficPoint,
}

/// A leg with the time it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenLeg {
    /// The leg.
    pub leg: Leg,
    /// When.
    #[serde(with = "crate::clock::rfc3339")]
    pub at: OffsetDateTime,
}

/// One route's traffic in a window, with both legs as last seen (whenever that was).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTraffic {
    /// Points that have data, oldest first.
    pub points: Vec<TrafficPoint>,
    /// All points together.
    pub sum: TrafficPoint,
    /// The client leg; absent before the first request.
    pub client: Option<SeenLeg>,
    /// The origin leg; absent before the first request.
    pub origin: Option<SeenLeg>,
}

/// One origin's state on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginState {
    /// The node that says so.
    pub node: String,
    /// What it says. `requests` and `failures` are sums since the node connected.
    pub report: OriginReport,
    /// When it said so.
    #[serde(with = "crate::clock::rfc3339")]
    pub at: OffsetDateTime,
}

/// Drops of one reason (and rule) over a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DropSeries {
    /// Kernel or proxy.
    pub place: Place,
    /// The reason, kebab case.
    pub reason: String,
    /// `filter/rule` where a rule decided, also one that is no longer there.
    pub rule: Option<String>,
    /// The window's sum.
    pub count: u64,
    /// Start of each point (seconds since the Unix epoch) and its count; absent points are gaps.
    pub points: Vec<(i64, u64)>,
}

impl DropSeries {
    /// Nothing was dropped: a rule that is only observed counted what it would have, or a SYN was answered with a cookie.
    pub fn passed(&self) -> bool {
        matches!((self.place, &*self.reason), (_, "observed") | (Place::Kernel, "syn-cookie"))
    }
}
