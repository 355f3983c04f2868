//! Packet filter: lists, hits per rule, what was dropped and why.

use std::cmp::Ordering;
use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use model::draft::{FilterRuleSpec, Kind, Object, PacketFilterSpec, Spec};
use model::problem::Problem;
use model::report::Place;

use super::budgets::{self, BudgetLine};
use super::chart::{Spark, figure};
use super::editor::Editor;
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::traffic::Grid;
use super::{PageResult, page};
use crate::forms::{Fields, FilterForm, FormView, Opt, SINGLE};
use crate::ops::{DropSeries, Need, Node, Ops};
use crate::publish::Current;
use crate::session::SignedIn;

/// What the figures are of.
const WINDOW: Duration = Duration::from_secs(3_600);

struct Row {
    filter: String,
    rule: String,
    deny: bool,
    observed: bool,
    /// What it is counted under in a node's metrics; 0 where it has none yet.
    id: u32,
    /// Why it is not in force, or not as a whole; empty otherwise.
    waits: String,
    /// Protocols, ports, ICMP types and priority, where it has any.
    about: String,
    prefixes: String,
    more: usize,
    /// Packets.
    hits: u64,
    hits_words: String,
    /// What the proxy judged by the rule.
    connections: u64,
    connection_words: String,
    spark: Option<Spark>,
}

struct CookieRow {
    node: String,
    on: bool,
    detail: String,
}

struct DropRow {
    reason: String,
    place: &'static str,
    rule: String,
    count: u64,
    words: String,
    spark: Spark,
}

#[derive(Template)]
#[template(path = "packet_filter.html")]
struct FiltersPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
    budgets: Vec<BudgetLine>,
    filters: Vec<String>,
    drops: Vec<DropRow>,
    /// Nodes that do not enforce these rules.
    unfiltered: Vec<Need>,
    /// Of nodes with a budget of SYNs for all sources: whether they send cookies.
    cookies: Vec<CookieRow>,
}

/// One rule's controls.
struct RuleRow {
    name: String,
    action: String,
    prefixes: String,
    mode: String,
    priority: String,
    sets: String,
    protocols: String,
    ports: String,
    types: String,
    number: usize,
    /// Something is written in what is folded away.
    open: bool,
}

/// One budget's controls.
struct BudgetRow {
    label: &'static str,
    rate: String,
    burst: String,
    mode: String,
}

impl BudgetRow {
    fn of((_, control, label): &(&str, &str, &'static str)) -> Self {
        let part = |part: &str| format!("budget.{control}.{part}");
        Self { label, rate: part("rate"), burst: part("burst"), mode: part("mode") }
    }
}

/// The controls of a budget of ports.
struct PortRow {
    name: String,
    ports: String,
    rate: String,
    burst: String,
    mode: String,
    number: usize,
}

impl PortRow {
    fn of(row: usize) -> Self {
        let part = |part: &str| format!("port.{row}.{part}");
        Self {
            name: part("name"),
            ports: part("ports"),
            rate: part("rate"),
            burst: part("burst"),
            mode: part("mode"),
            number: row + 1,
        }
    }
}

#[derive(Template)]
#[template(path = "filter_form.html")]
struct FilterPage {
    shell: Shell,
    form: FormView,
    stored: Option<String>,
    action: String,
    rules: Vec<RuleRow>,
    budgets: Vec<BudgetRow>,
    ports: Vec<PortRow>,
    /// Some budget is written.
    budgeted: bool,
    actions: [Opt; 2],
    modes: [Opt; 2],
}

/// `GET /packet-filter`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::PacketFilter, "Packet filter").await?;
    let found = ListQuery::default().fetch(&ops, Kind::PacketFilter).await?;
    let (drops, grid) = (ops.drops(WINDOW).await?, Grid::of(&ops.traffic(WINDOW).await?));
    let nodes = ops.nodes().await?;
    let current = ops.current();
    let ids = &current.rules;
    let lines =
        found.items.iter().flat_map(|stored| budgets::lines(&stored.object, &drops, grid, &nodes, ids));
    let budgets = lines.collect();
    let filters = found.items.iter().map(|stored| stored.object.metadata.name.clone()).collect();
    let rows = found.items.iter().flat_map(|stored| {
        let Spec::PacketFilter(spec) = &stored.object.spec else { return Vec::new() };
        rules(&stored.object.metadata.name, spec, &drops, grid, &current)
    });
    let text = |row: &Row| format!("{} {} {}", row.filter, row.rule, row.prefixes);
    let (list, rows) = query.apply("/packet-filter", rows.collect(), text, order);
    let drops = drops.iter().map(|one| drop_row(one, grid)).collect();
    let unfiltered =
        nodes.iter().filter(|node| !node.revoked).filter_map(|node| ops.unfiltered(node)).collect();
    let cookies = nodes.iter().filter(|node| !node.revoked).filter_map(cookie_row).collect();
    page(&FiltersPage { shell, list, rows, budgets, filters, drops, unfiltered, cookies })
}

fn cookie_row(node: &Node) -> Option<CookieRow> {
    let feature = node.features.iter().find(|feature| feature.name == "syn-cookies")?;
    Some(CookieRow { node: node.name.to_string(), on: feature.on, detail: feature.detail.clone() })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "hits" => (a.hits, a.connections).cmp(&(b.hits, b.connections)),
        "action" => a.deny.cmp(&b.deny),
        _ => (&a.filter, &a.rule).cmp(&(&b.filter, &b.rule)),
    }
}

fn rules(
    filter: &str,
    spec: &PacketFilterSpec,
    drops: &[DropSeries],
    grid: Grid,
    current: &Current,
) -> Vec<Row> {
    let row = |rule: &FilterRuleSpec| {
        let label = format!("{filter}/{}", rule.name);
        let mine = drops.iter().filter(|one| one.rule.as_deref() == Some(&label));
        // A connection's packets are counted where the kernel filters: the two are never added up.
        let (kernel, proxy): (Vec<&DropSeries>, Vec<&DropSeries>) =
            mine.partition(|one| one.place == Place::Kernel);
        let sum = |series: &[&DropSeries]| series.iter().map(|one| one.count).sum::<u64>();
        let (hits, connections) = (sum(&kernel), sum(&proxy));
        let spark = kernel.first().or(proxy.first()).map(|one| line(one, grid));
        let sets = rule.prefix_sets.iter().map(|set| format!("set {set}"));
        let sources: Vec<String> = sets.chain(rule.prefixes.iter().cloned()).collect();
        let shown: Vec<&str> = sources.iter().take(6).map(String::as_str).collect();
        Row {
            filter: filter.to_owned(),
            rule: rule.name.clone(),
            deny: rule.action == "Deny",
            observed: rule.mode.as_deref() == Some("Observe"),
            id: current.rules.get(&label).copied().unwrap_or(0),
            waits: waits(rule, &label, current),
            about: about(rule),
            prefixes: shown.join(", "),
            more: sources.len() - shown.len(),
            hits,
            hits_words: figure(hits as f64),
            connections,
            connection_words: figure(connections as f64),
            spark,
        }
    };
    spec.rules.iter().map(row).collect()
}

/// `not in force: set cloud-a was never fetched`.
fn waits(rule: &FilterRuleSpec, label: &str, current: &Current) -> String {
    let empty = |set: &&String| {
        let object = current.objects.get(&(Kind::PrefixSet, (*set).clone())).map(|object| &object.spec);
        matches!(object, Some(Spec::PrefixSet(spec)) if spec.source.is_some() && spec.prefixes.is_empty())
    };
    let sets: Vec<String> =
        rule.prefix_sets.iter().filter(empty).map(|set| format!("set {set} was never fetched")).collect();
    let compiled = current.compiled.as_ref();
    let there = compiled.is_none_or(|all| all.filter_rules().any(|known| known.name == label));
    match (sets.is_empty(), there) {
        (true, _) => String::new(),
        (false, true) => sets.join(", "),
        (false, false) => format!("not in force: {}", sets.join(", ")),
    }
}

/// `TCP 443, 8000-8010, priority 10`.
fn about(rule: &FilterRuleSpec) -> String {
    let tcp = (rule.protocols.is_empty() && !rule.ports.is_empty()).then(|| "TCP".to_owned());
    let types: Vec<String> = rule.icmp_types.iter().map(|kind| format!("type {kind}")).collect();
    let what: Vec<String> =
        [rule.protocols.join(", "), tcp.unwrap_or_default(), rule.ports.join(", "), types.join(", ")]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
    let priority = rule.priority.filter(|priority| *priority != 0).map(|number| format!("priority {number}"));
    let what = Some(what.join(" ")).filter(|text| !text.is_empty());
    what.into_iter().chain(priority).collect::<Vec<_>>().join(", ")
}

pub(super) fn line(one: &DropSeries, grid: Grid) -> Spark {
    let values = grid.values(&one.points, |(at, _)| *at, |(_, count)| Some(*count as f64));
    Spark::new(
        format!("{} over the last hour", one.reason),
        if one.place == Place::Kernel { "blue" } else { "amber" },
        &values,
    )
}

fn drop_row(one: &DropSeries, grid: Grid) -> DropRow {
    DropRow {
        reason: one.reason.replace('-', " "),
        place: match one.place {
            // Of what passes by `passed`, this alone goes no further.
            Place::Kernel if one.reason == "syn-cookie" => "kernel, packets answered",
            Place::Kernel if one.passed() => "kernel, packets that passed",
            Place::Kernel => "kernel, packets",
            Place::Proxy if one.passed() => "proxy, connections that passed",
            Place::Proxy => "proxy, requests and connections",
        },
        rule: one.rule.clone().unwrap_or_default(),
        count: one.count,
        words: figure(one.count as f64),
        spark: line(one, grid),
    }
}

/// Editing packet filters.
pub(crate) struct PacketFilters;

impl Editor for PacketFilters {
    const KIND: Kind = Kind::PacketFilter;
    const SECTION: Section = Section::PacketFilter;
    const PATH: &'static str = "/packet-filter";

    fn blank() -> Fields {
        Fields::default()
    }

    fn fields(object: &Object) -> Fields {
        let Spec::PacketFilter(spec) = &object.spec else { return Fields::default() };
        FilterForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        match FilterForm::unreadable(fields) {
            problems if problems.is_empty() => Ok(vec![FilterForm::object(fields, base)]),
            problems => Err(problems),
        }
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        FilterForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let mut rows = form.fields().rows("rule");
        // Always a blank row to write into: without script there is no other way to get one.
        rows.push(rows.last().map_or(0, |last| last + 1));
        let details = ["priority", "protocols", "ports", "types"];
        let rule = |number: usize| {
            let control = |part: &str| format!("rule.{number}.{part}");
            RuleRow {
                name: control("name"),
                action: control("action"),
                prefixes: control("prefixes"),
                mode: control("mode"),
                priority: control("priority"),
                sets: control("sets"),
                protocols: control("protocols"),
                ports: control("ports"),
                types: control("types"),
                number: number + 1,
                open: details
                    .iter()
                    .any(|part| form.filled(&[&control(part)]) || form.any_of(&[&control(part)])),
            }
        };
        let mut ports = form.fields().rows("port");
        ports.push(ports.last().map_or(0, |last| last + 1));
        let controls: Vec<String> = SINGLE
            .iter()
            .map(|(_, control, _)| format!("budget.{control}"))
            .chain(ports.iter().map(|row| format!("port.{row}")))
            .flat_map(|control| ["rate", "burst", "name"].map(|part| format!("{control}.{part}")))
            .collect();
        let controls: Vec<&str> = controls.iter().map(String::as_str).collect();
        page(&FilterPage {
            shell: Shell::load(ops, user, Section::PacketFilter, &Self::title(base)).await?,
            stored: base.map(|object| object.metadata.name.clone()),
            action: Self::action(base),
            rules: rows.into_iter().map(rule).collect(),
            budgeted: form.filled(&controls) || form.any_of(&controls),
            budgets: SINGLE.iter().map(BudgetRow::of).collect(),
            ports: ports.into_iter().map(PortRow::of).collect(),
            actions: [Opt::same("Deny"), Opt::same("Allow")],
            modes: [Opt::same("Enforce"), Opt::same("Observe")],
            form,
        })
    }
}
