//! Overview: is traffic fine, is every leg encrypted, what needs me?

use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use model::draft::Kind;
use model::report::Place;
use serde::Deserialize;

use super::chart::{Chart, Style, figure};
use super::routes::{Row, rows};
use super::shell::{Section, Shell};
use super::traffic::{Grid, RANGES, Range, classes, drop_series, millis, percentiles};
use super::{PageResult, page};
use crate::ops::{DropSeries, ListQuery, Need, Ops, Severity, Traffic};
use crate::session::SignedIn;

/// Hops shown here; the rest is on Routes.
const HOPS: u32 = 20;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    shell: Shell,
    range: Range,
    needs: Vec<NeedView>,
    requests: Panel,
    added: Panel,
    drops: Panel,
    /// There are drops and refusals; their chart may begin with the next step all the same.
    dropped: bool,
    hops: Vec<Row>,
    routes: u64,
}

/// One figure with its chart.
pub(crate) struct Panel {
    pub(crate) figure: String,
    pub(crate) words: String,
    pub(crate) chart: Option<Chart>,
}

struct NeedView {
    class: &'static str,
    word: &'static str,
    message: String,
    link: String,
}

/// What the overview's URL says.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct OverviewQuery {
    #[serde(default)]
    range: String,
}

/// `GET /`.
pub(crate) async fn show(
    State(ops): State<Ops>,
    Query(query): Query<OverviewQuery>,
    user: SignedIn,
) -> PageResult {
    let range = Range::of(&query.range);
    let window = Duration::from_secs(range.seconds);
    let status = ops.status().await?;
    let shell = Shell::with(&ops, &user, Section::Overview, "Overview", &status).await?;
    let (traffic, mut drops) = (ops.traffic(window).await?, ops.drops(window).await?);
    drops.retain(|one| !one.passed());
    let grid = Grid::of(&traffic);
    let listed = ops
        .list(&ListQuery { kind: Some(Kind::Route), per_page: HOPS, page: 1, ..ListQuery::default() })
        .await?;
    let hops = rows(&ops, listed.items, window, grid).await?;
    page(&Overview {
        shell,
        range,
        needs: status.needs.iter().map(need).collect(),
        requests: requests(&grid, &traffic),
        added: added(&grid, &traffic),
        drops: dropped(&grid, &traffic, &drops),
        dropped: !drops.is_empty(),
        hops,
        routes: listed.total,
    })
}

fn need(need: &Need) -> NeedView {
    let (class, word) = match need.severity {
        Severity::Bad => ("bad", "Fix"),
        Severity::Warning => ("warn", "Look"),
        Severity::Note => ("muted", "Details"),
    };
    NeedView { class, word, message: need.message.clone(), link: need.link.clone() }
}

fn requests(grid: &Grid, traffic: &Traffic) -> Panel {
    let series = classes(grid, &traffic.points);
    let now: Option<f64> = series
        .iter()
        .filter_map(|one| one.values.iter().rev().flatten().next().copied())
        .reduce(|a, b| a + b);
    Panel {
        figure: now.map_or("–".to_owned(), figure),
        words: "per second".to_owned(),
        chart: now
            .map(|_| Chart::new("Requests per second by class", "/s", Style::Stacked, grid.axis(), &series)),
    }
}

fn added(grid: &Grid, traffic: &Traffic) -> Panel {
    let (added, total) = (traffic.sum.added.quantile(990), traffic.sum.total.quantile(990));
    let series = percentiles(grid, &traffic.points, |point| &point.added);
    Panel {
        figure: millis(added),
        words: format!("ms at p99 · {} ms with origin", millis(total)),
        chart: added
            .map(|_| Chart::new("Latency added by Sallyport", "ms", Style::Lines, grid.axis(), &series)),
    }
}

fn dropped(grid: &Grid, traffic: &Traffic, drops: &[DropSeries]) -> Panel {
    let sum = |place| drops.iter().filter(|one| one.place == place).map(|one| one.count).sum::<u64>() as f64;
    let (kernel, proxy) = (sum(Place::Kernel), sum(Place::Proxy));
    let reported = grid.traffic(&traffic.points, |point| Some(point.requests() as f64));
    let heard = grid.values(
        &drops.iter().flat_map(|one| one.points.clone()).collect::<Vec<_>>(),
        |(at, _)| *at,
        |_| Some(0.0),
    );
    let reported: Vec<Option<f64>> = reported.into_iter().zip(heard).map(|(a, b)| a.or(b)).collect();
    let series = drop_series(grid, drops, &reported);
    let unit = format!("/{}", grid.step_words());
    let drawn = series.iter().flat_map(|one| &one.values).flatten().any(|value| *value > 0.0);
    Panel {
        figure: figure(kernel),
        words: format!("packets · {} request{} refused", figure(proxy), if proxy == 1.0 { "" } else { "s" }),
        chart: drawn
            .then(|| Chart::new("Drops and refusals by reason", &unit, Style::Stacked, grid.axis(), &series)),
    }
}

/// For the template: what else can be chosen.
fn ranges() -> [Range; 4] {
    RANGES
}
