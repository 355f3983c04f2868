//! Routes: which host and path goes where, both legs, traffic now.

use std::cmp::Ordering;
use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use model::diff::target;
use model::draft::{Kind, Object, Spec};

use super::chart::{Spark, figure};
use super::doors::{Doors, Front};
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::submit::{opened, promise_of};
use super::traffic::{Grid, error_share, millis};
use super::{PageResult, page};
use crate::forms::match_words;
use crate::ops::{Ops, OpsError, RouteTraffic, Stored};
use crate::session::SignedIn;

/// What "now" means for a route's figures.
const WINDOW: Duration = Duration::from_secs(3_600);

/// One route of a table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) host: String,
    /// Further hosts.
    pub(crate) more: usize,
    pub(crate) path: String,
    pub(crate) enabled: bool,
    pub(crate) doors: Doors,
    pub(crate) rate: f64,
    pub(crate) rate_words: String,
    pub(crate) p99: u64,
    pub(crate) p99_words: String,
    pub(crate) errors: f64,
    pub(crate) error_words: String,
    pub(crate) spark: Spark,
}

#[derive(Template)]
#[template(path = "routes.html")]
struct RoutesPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
}

/// `GET /routes`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::Routes, "Routes").await?;
    let found = query.fetch(&ops, Kind::Route).await?;
    let grid = Grid::of(&ops.traffic(WINDOW).await?);
    let shown = rows(&ops, found.items, WINDOW, grid).await?;
    let (list, rows) = query.arrange("/routes", shown, found.total, found.complete, order);
    page(&RoutesPage { shell, list, rows })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "rate" => a.rate.total_cmp(&b.rate),
        "p99" => a.p99.cmp(&b.p99),
        "errors" => a.errors.total_cmp(&b.errors),
        _ => (&a.host, &a.path).cmp(&(&b.host, &b.path)),
    }
}

/// Routes with their legs and figures.
pub(crate) async fn rows(
    ops: &Ops,
    stored: Vec<Stored>,
    window: Duration,
    grid: Grid,
) -> Result<Vec<Row>, OpsError> {
    let names: Vec<String> = stored.iter().map(|one| one.object.metadata.name.clone()).collect();
    let mut traffic = ops.route_traffic(&names, window).await?;
    let current = ops.current();
    let mut rows = Vec::with_capacity(stored.len());
    for one in stored {
        let Spec::Route(route) = &one.object.spec else { continue };
        let group = current.objects.get(&(Kind::OriginGroup, route.origin_group.clone()));
        let traffic = traffic.remove(&one.object.metadata.name).unwrap_or_default();
        let open = opened(route, &current.objects);
        rows.extend(row(&one.object, doors(&one.object, group, open, &traffic), &traffic, grid));
    }
    Ok(rows)
}

/// The legs of a route, as seen; `open` says that its clients may come in clear text.
pub(crate) fn doors(
    object: &Object,
    group: Option<&Object>,
    open: bool,
    traffic: &RouteTraffic,
) -> Option<Doors> {
    let Spec::Route(route) = &object.spec else { return None };
    let leg = |seen: &Option<crate::ops::SeenLeg>| seen.as_ref().map(|seen| seen.leg.clone());
    let (client, origin) = (leg(&traffic.client), leg(&traffic.origin));
    let served = route.certificate.as_deref().unwrap_or_default();
    let promise = promise_of(route, group);
    let front = Front { served, open };
    Some(Doors::new(client.as_ref(), front, origin.as_ref(), &target(route), promise))
}

fn row(object: &Object, doors: Option<Doors>, traffic: &RouteTraffic, grid: Grid) -> Option<Row> {
    let Spec::Route(route) = &object.spec else { return None };
    let host = route.hostnames.first().cloned().unwrap_or_default();
    let rates = grid.traffic(&traffic.points, |point| Some(grid.per_second(point.requests())));
    // The rate now: the last step that was reported.
    let rate = rates.iter().rev().flatten().next().copied().unwrap_or_default();
    let (requests, failed) = (traffic.sum.requests(), traffic.sum.responses[3]);
    let errors = if requests == 0 { 0.0 } else { failed as f64 / requests as f64 };
    let p99 = traffic.sum.total.quantile(990);
    let paths: Vec<String> = route.matches.iter().map(match_words).collect();
    Some(Row {
        name: object.metadata.name.clone(),
        more: route.hostnames.len().saturating_sub(1),
        path: match paths.is_empty() {
            _ if route.is_passthrough() => "TLS passthrough".to_owned(),
            true => "/".to_owned(),
            false => paths.join(" "),
        },
        enabled: route.enabled,
        doors: doors?,
        rate,
        rate_words: if requests == 0 { "–".to_owned() } else { figure(rate) },
        p99: p99.unwrap_or_default(),
        p99_words: p99.map_or("–".to_owned(), |_| format!("{} ms", millis(p99))),
        errors,
        error_words: error_share(&traffic.sum),
        spark: Spark::new(format!("requests to {host}"), if failed > 0 { "amber" } else { "teal" }, &rates),
        host,
    })
}
