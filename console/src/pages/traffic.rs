//! Figures ready to be drawn: points on a full time axis, gaps included.

use model::report::{Histogram, Place};

use super::chart::{Axis, Series, figure};
use super::when;
use crate::ops::{DropSeries, Traffic, TrafficPoint};

/// How far back a page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// In the URL.
    pub(crate) key: &'static str,
    /// On the page.
    pub(crate) label: &'static str,
    /// Seconds.
    pub(crate) seconds: u64,
}

/// What can be chosen.
pub(crate) const RANGES: [Range; 4] = [
    Range { key: "15m", label: "last 15 minutes", seconds: 900 },
    Range { key: "1h", label: "last hour", seconds: 3_600 },
    Range { key: "6h", label: "last 6 hours", seconds: 21_600 },
    Range { key: "24h", label: "last 24 hours", seconds: 86_400 },
];

impl Range {
    /// The one asked for; the last hour otherwise.
    pub(crate) fn of(key: &str) -> Self {
        RANGES.into_iter().find(|range| range.key == key).unwrap_or(RANGES[1])
    }
}

/// The time axis of a window, whatever points it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    from: i64,
    step: i64,
    steps: usize,
}

impl Grid {
    /// The axis of these figures. The step that has only begun is left out: half a minute's count looks like a collapse.
    pub(crate) fn of(traffic: &Traffic) -> Self {
        let step = i64::from(traffic.step.max(1));
        let from = traffic.from - traffic.from.rem_euclid(step);
        let steps = usize::try_from((traffic.to - from) / step).unwrap_or(0).min(2_000);
        Self { from, step, steps }
    }

    /// For the chart.
    pub(crate) fn axis(&self) -> Axis {
        Axis { from: when::from_ms(self.from * 1_000), step: self.step }
    }

    /// One value per step.
    pub(crate) fn values<P>(
        &self,
        points: &[P],
        at: impl Fn(&P) -> i64,
        value: impl Fn(&P) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        let mut values = vec![None; self.steps];
        for point in points {
            let step = usize::try_from((at(point) - self.from).div_euclid(self.step)).ok();
            if let Some(slot) = step.and_then(|step| values.get_mut(step)) {
                *slot = value(point);
            }
        }
        values
    }

    /// Points of traffic.
    pub(crate) fn traffic(
        &self,
        points: &[TrafficPoint],
        value: impl Fn(&TrafficPoint) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        self.values(points, |point| point.at, value)
    }

    /// A count as a rate.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.step as f64
    }

    /// The step as words.
    pub(crate) fn step_words(&self) -> String {
        match when::unit(self.step.unsigned_abs()) {
            (1, "minute") => "min".to_owned(),
            (1, unit) => unit.to_owned(),
            (count, unit) => format!("{count} {unit}s"),
        }
    }
}

/// Requests per second by class.
pub(crate) fn classes(grid: &Grid, points: &[TrafficPoint]) -> Vec<Series> {
    let class = |(index, (label, colour)): (usize, (&str, &'static str))| Series {
        label: label.to_owned(),
        colour,
        values: grid.traffic(points, |point| point.responses.get(index).map(|count| grid.per_second(*count))),
    };
    [("2xx", "teal"), ("3xx", "blue"), ("4xx", "amber"), ("5xx", "red")]
        .into_iter()
        .enumerate()
        .map(class)
        .collect()
}

/// Percentiles in milliseconds. A step without a request has none: a gap.
pub(crate) fn percentiles(
    grid: &Grid,
    points: &[TrafficPoint],
    of: impl Fn(&TrafficPoint) -> &Histogram,
) -> Vec<Series> {
    let line = |(label, colour, per_mille): (&str, &'static str, u32)| Series {
        label: label.to_owned(),
        colour,
        values: grid
            .traffic(points, |point| of(point).quantile(per_mille).map(|micros| micros as f64 / 1_000.0)),
    };
    [("p50", "blue", 500), ("p95", "teal", 950), ("p99", "amber", 990)].map(line).into()
}

/// The classes drops are drawn in: name, colour. Each reason belongs to one, everywhere.
const DROP_CLASSES: [(&str, &str); 5] = [
    ("packet filter", "blue"),
    ("kernel, other", "grey"),
    ("policy and limits", "teal"),
    ("client's fault", "amber"),
    ("origin's fault", "red"),
];

/// Which of the classes.
fn drop_class(drops: &DropSeries) -> usize {
    const LIMITS: [&str; 8] = [
        "no-listener",
        "denied",
        "too-many-connections",
        "idle-evicted",
        "too-many-from-address",
        "upgrade-refused",
        "tunnel-idle",
        "drain-expired",
    ];
    const ORIGIN: [&str; 2] = ["malformed-response", "bad-upgrade"];
    let reason = drops.reason.as_str();
    match drops.place {
        Place::Kernel
            if drops.rule.is_some()
                || reason.contains("deny")
                || reason.contains("denied")
                || reason.contains("allow") =>
        {
            0
        }
        Place::Kernel => 1,
        Place::Proxy if LIMITS.contains(&reason) => 2,
        Place::Proxy if reason.starts_with("origin-") || ORIGIN.contains(&reason) => 4,
        Place::Proxy => 3,
    }
}

/// Drops and refusals per step by class; a class without any is left out. `reported` says in which steps anything was heard.
pub(crate) fn drop_series(grid: &Grid, drops: &[DropSeries], reported: &[Option<f64>]) -> Vec<Series> {
    let class = |(index, (label, colour)): (usize, &(&str, &'static str))| {
        let mine: Vec<&DropSeries> =
            drops.iter().filter(|one| drop_class(one) == index && one.count > 0).collect();
        // Silence about drops in a step with a report means none.
        let mut values: Vec<Option<f64>> = reported.iter().map(|heard| heard.map(|_| 0.0)).collect();
        for one in &mine {
            let counts = grid.values(&one.points, |(at, _)| *at, |(_, count)| Some(*count as f64));
            for (slot, count) in values.iter_mut().zip(counts) {
                if let Some(count) = count {
                    *slot = Some(slot.unwrap_or(0.0) + count);
                }
            }
        }
        (!mine.is_empty()).then(|| Series { label: (*label).to_owned(), colour, values })
    };
    DROP_CLASSES.iter().enumerate().filter_map(class).collect()
}

/// Microseconds as people read latency.
pub(crate) fn millis(micros: Option<u64>) -> String {
    match micros {
        None => "–".to_owned(),
        Some(micros) if micros < 1_000 => format!("{:.2}", micros as f64 / 1_000.0),
        Some(micros) => figure(micros as f64 / 1_000.0),
    }
}

/// The share of answers that are 5xx.
pub(crate) fn error_share(point: &TrafficPoint) -> String {
    let (all, errors) = (point.requests(), point.responses[3]);
    match (all, errors) {
        (0, _) => "–".to_owned(),
        (_, 0) => "0".to_owned(),
        _ => format!("{:.2} %", errors as f64 * 100.0 / all as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(points: Vec<TrafficPoint>) -> Traffic {
        Traffic { from: 1_800_000_000, to: 1_800_000_300, step: 60, points, sum: TrafficPoint::default() }
    }

    fn point(minute: i64, ok: u64) -> TrafficPoint {
        TrafficPoint { at: 1_800_000_000 + minute * 60, responses: [ok, 0, 0, 0], ..TrafficPoint::default() }
    }

    #[test]
    fn a_minute_without_a_report_is_a_gap() {
        let traffic = traffic(vec![point(0, 60), point(3, 120), point(99, 1)]);
        let grid = Grid::of(&traffic);
        let series = classes(&grid, &traffic.points);
        assert_eq!(series[0].values, [Some(1.0), None, None, Some(2.0), None]);
        let added = percentiles(&grid, &traffic.points, |point| &point.added);
        assert!(added[0].values.iter().all(Option::is_none));
    }

    #[test]
    fn every_drop_is_drawn_once() {
        let traffic = traffic(vec![point(0, 1)]);
        let grid = Grid::of(&traffic);
        let drops = |place, reason: &str| DropSeries {
            place,
            reason: reason.to_owned(),
            rule: None,
            count: 5,
            points: vec![(1_800_000_000, 5)],
        };
        let all = [
            drops(Place::Kernel, "denied"),
            drops(Place::Kernel, "malformed"),
            drops(Place::Proxy, "no-route"),
            drops(Place::Proxy, "origin-gone"),
        ];
        let heard = [Some(1.0), Some(1.0), None, None, None];
        let series = drop_series(&grid, &all, &heard);
        assert_eq!(series.iter().filter_map(|one| one.values[0]).sum::<f64>(), 20.0);
        assert_eq!(series[0].values[1..3], [Some(0.0), None]);
    }

    #[test]
    fn figures() {
        assert_eq!([None, Some(412), Some(18_200)].map(millis), ["–", "0.41", "18"]);
        assert_eq!(
            error_share(&TrafficPoint { responses: [9_998, 0, 0, 2], ..TrafficPoint::default() }),
            "0.02 %"
        );
    }
}
