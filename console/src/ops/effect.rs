//! What other packet filter rules would have done to who was sending.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::compile::Compiled;
use model::filter::{How, Index, Inputs, affected, places};
use model::listen::{Bound, Place, Port};
use model::name::Name;
use model::senders::Senders;
use model::snapshot::{Listener, Snapshot, SnapshotId};
use serde::Serialize;

use super::senders::{Listeners, Record, Recorded, recorded, what};
use super::{Node, Ops, OpsError};
use crate::publish::Current;

/// What is said of other budgets: who sent how much in an hour is recorded, and not how fast.
const BUDGETS: &str = "What the budgets would have done in the last hour is not predicted, because no rates are recorded; with mode Observe they count what they would drop, and drop nothing.";

/// Routes of a place that are named, and places and sources that are told each by itself.
const NAMED: usize = 20;

/// What a change would have done to the packets that nodes have recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterEffect {
    /// All nodes together, in sentences.
    pub words: Vec<String>,
    /// Node by node, those whose rules change.
    pub nodes: Vec<NodeEffect>,
    /// What would have been dropped (or counted as what would be, were it not only observed), by listener and its routes, or by
    /// what else it is for; most packets first, 20 at most.
    pub places: Vec<PlaceEffect>,
    /// The same by source.
    pub sources: Vec<SourceEffect>,
}

/// What a change would have done on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEffect {
    /// The node, and its record.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// What passes today and would be dropped.
    pub dropped: Count,
    /// What would be counted as what would be dropped, were it not only observed.
    pub observed: Count,
    /// What is dropped today and would pass.
    pub passed: Count,
}

/// Packets and the sources that sent them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Different sources.
    pub sources: u64,
}

/// What would happen at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceEffect {
    /// What the packets are for, such as `TCP 443`.
    pub what: String,
    /// The listener there, if there is one.
    pub listener: Option<String>,
    /// Its enabled routes, 20 at most.
    pub routes: Vec<String>,
    /// How many more it has.
    pub more_routes: usize,
    /// Only counted: the rule is observed.
    pub observed: bool,
    /// How much.
    #[serde(flatten)]
    pub count: Count,
}

/// What would happen to one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceEffect {
    /// Whom.
    pub source: IpAddr,
    /// The rules (`filter/rule`) that would; empty where it is that none allows him.
    pub rules: BTreeSet<String>,
    /// Only counted: the rules are observed.
    pub observed: bool,
    /// Packets.
    pub packets: u64,
}

impl Ops {
    /// What a change would have done to the packets of the last hour; nothing where it changes no node's packet filter. Of budgets
    /// it says that it is not known.
    pub(super) async fn filter_effect(
        &self,
        base: Arc<Current>,
        new: Compiled,
    ) -> Result<Option<FilterEffect>, OpsError> {
        let nodes = self.recorded().await?;
        // Large rule sets take a while to compile.
        let effect =
            tokio::task::spawn_blocking(move || effect(&nodes, |node| Change::of(&base, &new, node)));
        effect.await.map_err(|_panicked| OpsError::Stopped)
    }

    /// What other labels of a node, before and after, would have done to the packets of the last hour; nothing where its packet filter
    /// stays the same.
    pub(super) async fn label_effect(
        &self,
        name: &str,
        labels: (Labels, Labels),
    ) -> Result<Option<FilterEffect>, OpsError> {
        let Ok(known) = name.parse::<Name>() else { return Ok(None) };
        // Whatever it is: of one that has told nothing that is said.
        let senders = self.live().all().remove(name).and_then(|live| live.senders);
        let node = self.nodes().await?.into_iter().find(|node| node.name == name);
        let nodes: Vec<_> = node.map(|node| (node, senders)).into_iter().collect();
        let current = self.current();
        let effect = tokio::task::spawn_blocking(move || {
            let before = current.snapshot_for(&known, &labels.0)?;
            let after = current.snapshot_for(&known, &labels.1)?;
            let filter = |one: &Snapshot| {
                (one.filter.clone(), one.filter_protocols.clone(), one.filter_budgets.clone())
            };
            let same = filter(&before) == filter(&after);
            let mut change = Some(Change::between(Some(before), after)).filter(|_| !same);
            effect(&nodes, |_| change.take().unwrap_or_default())
        });
        effect.await.map_err(|_panicked| OpsError::Stopped)
    }
}

type Labels = BTreeMap<String, String>;

/// What changes of the packet filters of nodes with the same labels.
#[derive(Default)]
struct Change {
    /// Rules, lists of protocols or listeners.
    judged: Option<Judged>,
    /// Budgets.
    budgets: bool,
}

impl Change {
    fn of(base: &Current, new: &Compiled, node: &Node) -> Self {
        let Ok(name) = node.name.parse::<Name>() else { return Self::default() };
        let after = new.snapshot_for(&name, &node.labels, SnapshotId { epoch: 0, revision: 0 });
        Self::between(base.snapshot_for(&name, &node.labels), after)
    }

    fn between(before: Option<Snapshot>, after: Snapshot) -> Self {
        let budgets = match &before {
            Some(before) => before.filter_budgets != after.filter_budgets,
            None => !after.filter_budgets.is_empty(),
        };
        Self { judged: Judged::of(before, after), budgets }
    }
}

/// What packets are judged by, before and after.
struct Judged {
    before: Index,
    after: Index,
    listeners: Listeners,
    names: BTreeMap<u32, String>,
}

impl Judged {
    /// Nothing where nothing changes; rules that are too many for the tables are refused before this is asked.
    fn of(before: Option<Snapshot>, after: Snapshot) -> Option<Self> {
        let (no_rules, no_lists) = (Vec::new(), Vec::new());
        let (rules, lists) =
            before.as_ref().map_or((&no_rules, &no_lists), |old| (&old.filter, &old.filter_protocols));
        let was = before.as_ref().map(|old| judged(&old.listeners)).unwrap_or_default();
        let is = judged(&after.listeners);
        if *rules == after.filter && *lists == after.filter_protocols && was == is {
            return None;
        }
        let index = |rules, protocols, (listeners, ranges): &(Vec<_>, Vec<_>)| {
            Index::new(Inputs { rules, protocols, listeners, ranges, own: &[] }).ok()
        };
        let rules_named = after.filter.iter().map(|rule| (rule.id, rule.name.clone()));
        let lists_named = after.filter_protocols.iter().map(|list| (list.id, list.name.clone()));
        Some(Self {
            before: index(rules, lists, &was)?,
            after: index(&after.filter, &after.filter_protocols, &is)?,
            names: rules_named.chain(lists_named).collect(),
            listeners: Listeners::of(Some(after)),
        })
    }
}

/// The places where packets are judged by a listener's being there. At any port nothing recorded says whether a packet was a
/// reply, or for a service to which the port was left: there new connections alone are asked for an allow rule, by the worker.
fn judged(listeners: &[Listener]) -> (Vec<Bound>, Vec<Place>) {
    let (bound, mut ranges) = places(listeners);
    ranges.retain(|place| place.port() != Port::Any);
    (bound, ranges)
}

/// What is added up.
#[derive(Default)]
struct Adding {
    packets: u64,
    sources: BTreeSet<IpAddr>,
}

impl Adding {
    fn add(&mut self, source: IpAddr, packets: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.sources.insert(source);
    }

    fn count(&self) -> Count {
        Count { packets: self.packets, sources: self.sources.len() as u64 }
    }
}

/// By what the packets are for, its listener, and how.
type Places = BTreeMap<(How, Option<Name>, String), (Adding, BTreeSet<String>)>;
/// By source and how, with the rules that would do it.
type Sources = BTreeMap<(How, IpAddr), (u64, BTreeSet<String>)>;

fn effect(
    nodes: &[(Node, Option<Arc<Senders>>)],
    mut change: impl FnMut(&Node) -> Change,
) -> Option<FilterEffect> {
    let mut changes: BTreeMap<_, Change> = BTreeMap::new();
    let mut budgets = false;
    let (mut told, mut by_place, mut by_source) = (Vec::new(), Places::new(), Sources::new());
    let mut all: BTreeMap<How, Adding> = BTreeMap::new();
    for (node, senders) in nodes {
        let change = changes.entry(&node.labels).or_insert_with(|| change(node));
        budgets |= change.budgets;
        let Some(change) = &change.judged else { continue };
        let mut here: BTreeMap<How, Adding> = BTreeMap::new();
        for one in senders.iter().flat_map(|senders| affected(senders, &change.before, &change.after)) {
            let source = one.sender.source;
            here.entry(one.how).or_default().add(source, one.packets);
            all.entry(one.how).or_default().add(source, one.packets);
            if one.how == How::Passed {
                continue;
            }
            let listener = change.listeners.at(one.sender.destination, one.sender.payload);
            let place = (one.how, listener.cloned(), what(one.sender.payload));
            let (adding, routes) = by_place.entry(place).or_default();
            adding.add(source, one.packets);
            if routes.is_empty() {
                routes.extend(listener.map(|listener| change.listeners.routes(listener)).unwrap_or_default());
            }
            let (packets, rules) = by_source.entry((one.how, source)).or_default();
            *packets = packets.saturating_add(one.packets);
            rules.extend(change.names.get(&one.rule).cloned());
        }
        let count = |how| here.get(&how).map(Adding::count).unwrap_or_default();
        told.push(NodeEffect {
            recorded: recorded(node, senders.as_deref()),
            dropped: count(How::Dropped),
            observed: count(How::Observed),
            passed: count(How::Passed),
        });
    }
    let count = |how| all.get(&how).map(Adding::count).unwrap_or_default();
    let mut words = words(&told, count(How::Dropped), count(How::Observed), count(How::Passed));
    words.extend(budgets.then(|| BUDGETS.to_owned()));
    (!words.is_empty()).then(|| FilterEffect {
        words,
        nodes: told,
        places: most_places(by_place),
        sources: most_sources(by_source),
    })
}

fn most_places(places: Places) -> Vec<PlaceEffect> {
    let place = |((how, listener, what), (adding, routes)): (_, (Adding, BTreeSet<String>))| {
        let listener: Option<Name> = listener;
        PlaceEffect {
            what,
            listener: listener.map(|name| name.to_string()),
            more_routes: routes.len().saturating_sub(NAMED),
            routes: routes.into_iter().take(NAMED).collect(),
            observed: how == How::Observed,
            count: adding.count(),
        }
    };
    let mut places: Vec<PlaceEffect> = places.into_iter().map(place).collect();
    places.sort_by_key(|place| (place.observed, std::cmp::Reverse(place.count.packets)));
    places.truncate(NAMED);
    places
}

fn most_sources(sources: Sources) -> Vec<SourceEffect> {
    let source = |((how, source), (packets, rules))| SourceEffect {
        source,
        rules,
        observed: how == How::Observed,
        packets,
    };
    let mut sources: Vec<SourceEffect> = sources.into_iter().map(source).collect();
    sources.sort_by_key(|source| (source.observed, std::cmp::Reverse(source.packets)));
    sources.truncate(NAMED);
    sources
}

fn words(nodes: &[NodeEffect], dropped: Count, observed: Count, passed: Count) -> Vec<String> {
    let records: Vec<&Record> = nodes.iter().filter_map(|node| node.recorded.record.as_ref()).collect();
    let mut words = Vec::new();
    if let Some(longest) = records.iter().map(|record| record.until - record.since).max() {
        let exact = records.iter().all(|record| record.one_in == 1);
        let about = if exact { "" } else { "about " };
        let packets = |count: Count| {
            let (packets, sources) = (plain(count.packets, "packet"), plain(count.sources, "source"));
            format!("{about}{packets} of {sources}")
        };
        let time = span(longest);
        words.push(match dropped.packets {
            0 => format!(
                "Of what was recorded in the last {time} it would have dropped nothing that passes today."
            ),
            _ => format!("In the last {time} it would have dropped {} that pass today.", packets(dropped)),
        });
        if observed.packets != 0 {
            words.push(format!("It would have counted {} as observed.", packets(observed)));
        }
        if passed.packets != 0 {
            words.push(format!("It would have let through {} that were dropped.", packets(passed)));
        }
        if let Some(most) = records.iter().map(|record| record.one_in).max().filter(|_| !exact) {
            words.push(format!(
                "Figures are estimates: of busy times one packet in {most} was looked at, and counts as many."
            ));
        }
        let others = records.iter().fold(0_u64, |sum, record| sum.saturating_add(record.others.packets));
        if others != 0 {
            let others = plain(others, "packet");
            words.push(format!(
                "{others} of sources that were seen too seldom to be kept by themselves are not judged."
            ));
        }
    }
    for Recorded { node, why, .. } in nodes.iter().map(|node| &node.recorded) {
        words.extend(why.as_ref().map(|why| format!("Nothing is recorded on node {node}: {why}.")));
    }
    words
}

/// `57 minutes`.
pub(crate) fn span(span: time::Duration) -> String {
    match span.whole_minutes() {
        0 => plain(span.whole_seconds().max(1).unsigned_abs(), "second"),
        minutes => plain(minutes.unsigned_abs(), "minute"),
    }
}

/// `1 packet`, `2 packets`.
fn plain(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(&count.to_string()), if count == 1 { "" } else { "s" })
}

/// Digits with thousands apart: `1,234,567`.
pub(crate) fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use model::snapshot::Limits;

    use super::*;

    #[test]
    fn packets_are_judged_by_listeners_at_a_port() {
        let listener = |name: &str, addresses: &[&str], port: &str| -> Listener {
            let body = serde_json::json!({
                "name": name, "addresses": addresses, "port": port.parse::<u16>().map_or_else(|_| port.into(), serde_json::Value::from),
                "takeOver": false, "minVersion": "1.3", "defaultCertificate": null, "certificates": [],
                "trustedPrefixes": [], "limits": Limits::default(),
            });
            serde_json::from_value(body).unwrap()
        };
        let (bound, ranges) = judged(&[
            listener("one", &["192.0.2.1"], "443"),
            listener("range", &["10.0.7.0/24", "2001:db8::/64"], "8443"),
            listener("any", &["10.0.8.0/24", "10.0.9.1"], "any"),
        ]);
        assert_eq!(bound, [(Some("192.0.2.1".parse().unwrap()), 443)]);
        let words: Vec<String> = ranges.iter().map(Place::to_string).collect();
        assert_eq!(words, ["port 8443 of 10.0.7.0/24", "port 8443 of 2001:db8::/64"]);
    }
}
