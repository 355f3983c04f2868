//! Flows: sampled packets as they come, and captures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri, header};
use model::flow::{FlowEvent, Verdict};
use model::problem::Problem;
use time::OffsetDateTime;

use super::captures::CaptureRow;
use super::chart::figure;
use super::shell::{Section, Shell};
use super::when::absolute;
use super::{PageResult, page};
use crate::flows::{Flow, NodeState, Rates, View};
use crate::ops::{FlowQuery, Numbered, Ops, OpsError};
use crate::session::SignedIn;

/// Rules that can be chosen from a list; of more one is written.
const LISTED: usize = 200;

/// Packets on the page: more are kept, and none looks through them.
const SHOWN: usize = 50;

/// The reason of a SYN that was answered with a cookie.
const ANSWERED: &str = "syn-cookie";

/// How long a page that is the first to ask waits for the nodes' first answer.
const FIRST_ANSWER: Duration = Duration::from_millis(600);

/// A control of the filter.
struct Control {
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    value: String,
    /// What is wrong with it.
    wrong: Vec<String>,
    /// What can be chosen; text where there is nothing.
    choices: Vec<String>,
    /// Those of them that are no more.
    removed: BTreeSet<String>,
}

struct Row {
    at: String,
    full: String,
    node: String,
    interface: String,
    class: &'static str,
    verdict: &'static str,
    reason: String,
    rule: String,
    /// The rule's filter, for a link.
    filter: String,
    source: String,
    destination: String,
    protocol: String,
    bytes: u32,
    one_in: u32,
    head: String,
}

struct NodeRow {
    node: String,
    words: String,
    /// Why it tells nothing.
    cannot: bool,
    lost: u64,
}

#[derive(Template)]
#[template(path = "flows.html")]
struct FlowsPage {
    shell: Shell,
    controls: Vec<Control>,
    /// Something in the query is wrong, so nothing is watched.
    wrong: bool,
    /// What is wrong with the query as a whole.
    problems: Vec<String>,
    /// The query again, for links and forms.
    pairs: Vec<(String, String)>,
    url: String,
    paused: bool,
    rows: Vec<Row>,
    nodes: Vec<NodeRow>,
    captures: Vec<CaptureRow>,
    /// What a capture would be of; empty where the filter names neither a rule nor a reason.
    capturable: bool,
    command: String,
}

/// `GET /flows`.
pub(crate) async fn show(
    State(ops): State<Ops>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    user: SignedIn,
) -> PageResult {
    let (query, left) = (asked(&pairs), left(&headers));
    let paused = pairs.iter().any(|(name, _)| name == "pause");
    let (view, problems) = match ops.look_at_flows(&query, left.as_ref()).await {
        Ok(view) if view.nodes.values().any(|state| *state == NodeState::Asked) => {
            tokio::time::sleep(FIRST_ANSWER).await;
            (ops.look_at_flows(&query, None).await?, Vec::new())
        }
        Ok(view) => (view, Vec::new()),
        Err(OpsError::Problems(problems)) => (View::default(), problems),
        Err(error) => return Err(error.into()),
    };
    let numbered = ops.rules();
    let rules = numbered.iter().map(|one| (one.id, one.label.clone())).collect();
    let nodes: Vec<String> =
        ops.nodes().await?.into_iter().filter(|node| !node.revoked).map(|node| node.name).collect();
    let shell = Shell::load(&ops, &user, Section::Flows, "Flows").await?;
    let captures = if shell.operator { ops.captures(&user.actor)? } else { Vec::new() };
    let written: Vec<(String, String)> =
        query.pairs().into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    let unplaced = problems.iter().filter(|problem| problem.field.is_empty());
    page(&FlowsPage {
        shell,
        wrong: !problems.is_empty(),
        problems: unplaced.map(|problem| problem.message.clone()).collect(),
        controls: controls(&query, &problems, nodes, &numbered),
        url: url(&written),
        command: command(&written),
        capturable: problems.is_empty() && (!query.rule.trim().is_empty() || !query.reason.trim().is_empty()),
        pairs: written,
        paused,
        rows: view.flows.iter().take(SHOWN).map(|flow| row(flow, &rules)).collect(),
        nodes: view.nodes.into_iter().map(node_row).collect(),
        captures: captures.into_iter().map(CaptureRow::of).collect(),
    })
}

fn asked(pairs: &[(String, String)]) -> FlowQuery {
    let mut query = FlowQuery::default();
    for (name, text) in pairs {
        query.set(name, text);
    }
    query
}

/// What the same tab had before, where it was this page: whoever chooses another filter has left the one before. When the page looks
/// again by itself, it is the page's own filter.
fn left(headers: &HeaderMap) -> Option<FlowQuery> {
    let before: Uri = headers.get(header::REFERER)?.to_str().ok()?.parse().ok()?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&before).ok()?;
    (before.path() == "/flows").then(|| asked(&pairs))
}

fn controls(query: &FlowQuery, problems: &[Problem], nodes: Vec<String>, all: &[Numbered]) -> Vec<Control> {
    let control = |name: &'static str, label, hint, value: &str, choices| {
        let wrong = problems.iter().filter(|problem| problem.field == name);
        let wrong = wrong.map(|problem| problem.message.clone()).collect();
        Control {
            name,
            label,
            hint,
            value: value.trim().to_owned(),
            wrong,
            choices,
            removed: BTreeSet::new(),
        }
    };
    // What somebody wrote stays, also where it is none of the choices.
    let with = |mut choices: Vec<String>, value: &str| {
        let value = value.trim().to_owned();
        if !value.is_empty() && !choices.contains(&value) {
            choices.push(value);
        }
        choices
    };
    let verdicts = Verdict::ALL.map(|verdict| verdict.word().to_owned()).to_vec();
    // A list that nobody would scroll through is text.
    let rules: Vec<String> = match all.len() {
        0..=LISTED => all.iter().map(|one| one.label.clone()).collect(),
        _ => Vec::new(),
    };
    let removed = all.iter().filter(|one| one.removed).map(|one| one.label.clone()).collect();
    let rules = if rules.is_empty() { rules } else { with(rules, &query.rule) };
    let protocols = ["tcp", "udp", "icmp", "icmpv6"].map(str::to_owned).to_vec();
    vec![
        control("node", "Node", "", &query.node, with(nodes, &query.node)),
        control("verdict", "Verdict", "", &query.verdict, with(verdicts, &query.verdict)),
        control("reason", "Reason", "denied", &query.reason, Vec::new()),
        Control { removed, ..control("rule", "Rule", "filter/rule", &query.rule, rules) },
        control("source", "Source", "192.0.2.0/24", &query.source, Vec::new()),
        control("port", "Port", "443", &query.port, Vec::new()),
        control("protocol", "Protocol", "", &query.protocol, with(protocols, &query.protocol)),
    ]
}

/// The page's own address with this query.
pub(super) fn url(pairs: &[(String, String)]) -> String {
    let query = pairs.iter().map(|(name, text)| format!("{name}={}", escaped(text)));
    format!("/flows?{}", query.collect::<Vec<_>>().join("&"))
}

/// Percent-encoded, but for what needs it nowhere.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/' | b':');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn command(pairs: &[(String, String)]) -> String {
    let options = pairs.iter().map(|(name, text)| {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._/:".contains(c));
        if plain {
            format!(" --{name} {text}")
        } else {
            format!(" --{name} '{}'", text.replace('\'', "'\\''"))
        }
    });
    format!("sallyport flows --json{}", options.collect::<String>())
}

fn row(flow: &Flow, rules: &BTreeMap<u32, String>) -> Row {
    let event = &flow.event;
    let at = OffsetDateTime::from_unix_timestamp_nanos(event.time_ns.into());
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (class, verdict) = match event.verdict {
        Verdict::Drop => ("bad", "drop"),
        Verdict::Observed => ("warn", "observed"),
        // The filter's verdict is that it did not drop it; it went no further all the same.
        Verdict::Pass if event.reason == ANSWERED => ("warn", "answered"),
        Verdict::Pass => ("good", "pass"),
    };
    let rule = match event.rule {
        0 => String::new(),
        id => rules.get(&id).cloned().unwrap_or_else(|| format!("rule {id}")),
    };
    Row {
        at: format!("{:02}:{:02}:{:02}.{:03}", at.hour(), at.minute(), at.second(), at.millisecond()),
        full: absolute(at),
        node: flow.node.clone(),
        interface: event.interface.clone(),
        class,
        verdict,
        reason: event.reason.replace('-', " "),
        filter: rule.split_once('/').map(|(filter, _)| filter.to_owned()).unwrap_or_default(),
        rule,
        source: end(event.source, event.source_port),
        destination: end(event.destination, event.destination_port),
        protocol: protocol(event),
        bytes: event.bytes,
        one_in: event.one_in,
        head: event.head.clone().unwrap_or_default(),
    }
}

/// `192.0.2.1:443` or `[2001:db8::1]:443`.
fn end(address: Option<std::net::IpAddr>, port: Option<u16>) -> String {
    match (address, port) {
        (None, _) => String::new(),
        (Some(address), None) => address.to_string(),
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    }
}

fn protocol(event: &FlowEvent) -> String {
    match (event.protocol, event.icmp_type) {
        (None, _) => String::new(),
        (Some(protocol), None) => protocol.to_string(),
        (Some(protocol), Some(kind)) => format!("{protocol} type {kind}"),
    }
}

fn node_row((node, state): (String, NodeState)) -> NodeRow {
    let one_in = |rates: Rates| match (figure(rates.finest.into()), figure(rates.coarsest.into())) {
        _ if rates.coarsest == 1 => "every one shown".to_owned(),
        (finest, coarsest) if finest == coarsest => format!("1 in {coarsest} shown"),
        (finest, coarsest) => format!("1 in {finest} to {coarsest} shown"),
    };
    match state {
        NodeState::Asked => {
            NodeRow { node, words: "asked; no answer yet".to_owned(), cannot: false, lost: 0 }
        }
        NodeState::Cannot(words) => NodeRow { node, words, cannot: true, lost: 0 },
        NodeState::Watching(told) => {
            let (matched, rates) = (told.counts.matched, told.rates());
            let words = format!(
                "{} dropped or observed ({}), {} passed ({})",
                figure(matched.drops as f64),
                one_in(rates.drops),
                figure(matched.passes as f64),
                one_in(rates.passes),
            );
            NodeRow { node, words, cannot: false, lost: told.counts.lost }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::flow::{ByVerdict, FlowCounts};

    use super::*;
    use crate::flows::Told;

    #[test]
    fn a_syn_that_was_answered_is_not_said_to_have_passed() {
        let event = |reason: &str| FlowEvent {
            time_ns: 1,
            interface: "edge0".to_owned(),
            verdict: Verdict::Pass,
            reason: reason.to_owned(),
            rule: 0,
            source: None,
            destination: None,
            source_port: None,
            destination_port: None,
            protocol: None,
            icmp_type: None,
            bytes: 60,
            one_in: 1,
            head: None,
        };
        let shown = |reason| {
            let row = row(&Flow { node: "edge".to_owned(), event: event(reason) }, &BTreeMap::new());
            (row.verdict, row.class)
        };
        assert_eq!(shown("syn-cookie"), ("answered", "warn"));
        assert_eq!(shown("no-rule"), ("pass", "good"));
    }

    #[test]
    fn a_nodes_line_says_the_rates_of_a_flood_that_is_over() {
        let mut told = Told::default();
        for (drops, one_in) in [(10, 1), (90_000, 512), (90_000, 1)] {
            let matched = ByVerdict { drops, passes: 0 };
            let one_in = ByVerdict { drops: one_in, passes: 1 };
            told.hear(&[], FlowCounts { matched, one_in, lost: 0 });
        }
        let words = node_row(("edge".to_owned(), NodeState::Watching(told))).words;
        assert_eq!(words, "90,000 dropped or observed (1 in 1 to 512 shown), 0 passed (every one shown)");
    }

    #[test]
    fn rules_that_are_gone_are_marked_where_they_can_be_chosen() {
        let rule = |id, label: &str, removed| Numbered { id, label: label.to_owned(), removed };
        let all = [rule(1, "edge/bad", false), rule(2, "edge/old", true)];
        let controls = controls(&FlowQuery::default(), &[], Vec::new(), &all);
        let rules = controls.iter().find(|control| control.name == "rule").unwrap();
        assert_eq!(rules.choices, ["edge/bad", "edge/old"]);
        assert!(rules.removed.contains("edge/old") && !rules.removed.contains("edge/bad"));
    }

    #[test]
    fn a_query_survives_its_url() {
        let pairs =
            [("rule".to_owned(), "a b/c&d".to_owned()), ("source".to_owned(), "2001:db8::/32".to_owned())];
        assert_eq!(url(&pairs), "/flows?rule=a%20b/c%26d&source=2001:db8::/32");
        assert_eq!(command(&pairs), "sallyport flows --json --rule 'a b/c&d' --source 2001:db8::/32");
    }
}
