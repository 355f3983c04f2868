//! Who is sending.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::filter::{Payload, protocol_word};
use model::listen::Atlas;
use model::name::Name;
use model::problem::Code;
use model::senders::{Senders, Sums};
use model::snapshot::Snapshot;
use serde::Serialize;
use time::OffsetDateTime;

use super::nodes::no_node_words;
use super::{Node, Ops, OpsError};
use crate::clock;
use crate::publish::Current;

/// What a node has recorded, without the senders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Where it begins: an hour ago at most.
    #[serde(with = "clock::rfc3339")]
    pub since: OffsetDateTime,
    /// Where it ends.
    #[serde(with = "clock::rfc3339")]
    pub until: OffsetDateTime,
    /// One packet in so many was looked at in the busiest part of it; 1: each was, and figures are exact.
    pub one_in: u64,
    /// What is of nobody told by himself: too little to be kept, or pushed out.
    pub others: Sums,
}

impl Record {
    fn of(senders: &Senders) -> Self {
        Self {
            since: clock::from_ms(senders.since_ms),
            until: clock::from_ms(senders.at_ms),
            one_in: senders.one_in(),
            others: senders.others,
        }
    }
}

/// A node and what it has recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Which.
    pub node: String,
    /// The record; absent where there is none.
    pub record: Option<Record>,
    /// Why there is none, one sentence.
    pub why: Option<String>,
}

/// One source on one node, whatever it sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The node that says so.
    pub node: String,
    /// The source.
    pub source: IpAddr,
    /// How much.
    #[serde(flatten)]
    pub sums: Sums,
    /// When its first packet came.
    #[serde(with = "clock::rfc3339")]
    pub first: OffsetDateTime,
    /// When its last did.
    #[serde(with = "clock::rfc3339")]
    pub last: OffsetDateTime,
    /// What it sent to, most packets first.
    pub to: Vec<SentTo>,
}

/// What a source sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SentTo {
    /// The destination address.
    pub address: IpAddr,
    /// What the packets carry, such as `TCP 443` or `ICMP type 8`.
    pub what: String,
    /// The listener there, if there is one.
    pub listener: Option<String>,
    /// How much.
    #[serde(flatten)]
    pub sums: Sums,
}

/// `TCP 443`.
pub(crate) fn what(payload: Payload) -> String {
    match payload {
        Payload::Tcp(port) => format!("TCP {port}"),
        Payload::Udp(port) => format!("UDP {port}"),
        Payload::Icmp(kind) => format!("ICMP type {kind}"),
        Payload::Icmpv6(kind) => format!("ICMPv6 type {kind}"),
        Payload::Other(protocol) => format!("protocol {}", protocol_word(protocol)),
        Payload::Later(0) => "later fragments".to_owned(),
        Payload::Later(protocol) => format!("later fragments of {}", protocol_word(protocol)),
    }
}

impl Ops {
    /// Every node that may send traffic on, and what it has recorded.
    pub(super) async fn recorded(&self) -> Result<Vec<(Node, Option<Arc<Senders>>)>, OpsError> {
        let live = self.live().all();
        let mut nodes = self.nodes().await?;
        nodes.retain(|node| !node.revoked && node.enrolled);
        let with = |node: Node| {
            let senders = live.get(&node.name).and_then(|live| live.senders.clone());
            (node, senders)
        };
        Ok(nodes.into_iter().map(with).collect())
    }

    /// Who is sending: every node's record (or that of `only`), and every source on each of them, most packets first.
    ///
    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn senders(&self, only: Option<&str>) -> Result<(Vec<Recorded>, Vec<Source>), OpsError> {
        if let Some(name) = only
            && self.store().node(name).await?.is_none()
        {
            return Err(OpsError::problem("", "node", Code::UnknownReference, no_node_words(name)));
        }
        let current = self.current();
        let (mut records, mut sources) = (Vec::new(), Vec::new());
        let mut nodes = self.recorded().await?;
        nodes.retain(|(node, _)| only.is_none_or(|only| node.name == only));
        for (node, senders) in nodes {
            records.push(recorded(&node, senders.as_deref()));
            let Some(senders) = senders else { continue };
            let listeners = Listeners::of(snapshot(&current, &node));
            sources.extend(by_source(&node.name, &senders, &listeners));
        }
        if let Some(name) = only.filter(|_| records.is_empty()) {
            let why = Some("it is revoked, or was never enrolled".to_owned());
            records.push(Recorded { node: name.to_owned(), record: None, why });
        }
        sources.sort_by(|a, b| (b.sums.packets, a.source, &a.node).cmp(&(a.sums.packets, b.source, &b.node)));
        Ok((records, sources))
    }
}

pub(super) fn recorded(node: &Node, senders: Option<&Senders>) -> Recorded {
    let filters = node.features.iter().any(|one| one.name.starts_with("xdp") && one.on);
    let why = match senders {
        Some(_) => None,
        None if node.connected.is_none() => Some("it has not been connected since this console started"),
        None if !filters => Some("its packet filter is off"),
        None => Some("it has told nothing yet, which takes it ten seconds, or is of a release that does not"),
    };
    Recorded { node: node.name.clone(), record: senders.map(Record::of), why: why.map(str::to_owned) }
}

fn snapshot(current: &Current, node: &Node) -> Option<Snapshot> {
    current.snapshot_for(&node.name.parse::<Name>().ok()?, &node.labels)
}

/// Where a node's listeners accept, and the routes they have.
#[derive(Default)]
pub(super) struct Listeners {
    snapshot: Option<Snapshot>,
    places: Atlas<Name>,
}

impl Listeners {
    pub(super) fn of(snapshot: Option<Snapshot>) -> Self {
        let listeners = snapshot.iter().flat_map(|snapshot| &snapshot.listeners);
        let places = listeners.flat_map(|one| one.places().map(|place| (place, one.name.clone()))).collect();
        Self { snapshot, places }
    }

    /// The listener that packets to an address are for.
    pub(super) fn at(&self, address: IpAddr, payload: Payload) -> Option<&Name> {
        let Payload::Tcp(port) = payload else { return None };
        self.places.get(SocketAddr::new(address, port))
    }

    pub(super) fn routes(&self, listener: &Name) -> Vec<String> {
        let routes = self.snapshot.iter().flat_map(|snapshot| &snapshot.routes);
        let on = routes.filter(|route| route.listeners.contains(listener));
        on.map(|route| route.name.to_string()).collect()
    }
}

fn by_source(node: &str, senders: &Senders, listeners: &Listeners) -> impl Iterator<Item = Source> {
    let mut sources: BTreeMap<IpAddr, Source> = BTreeMap::new();
    // They come by packets, so what each sent to does too.
    for sender in &senders.senders {
        let to = SentTo {
            address: sender.destination,
            what: what(sender.payload),
            listener: listeners.at(sender.destination, sender.payload).map(Name::to_string),
            sums: sender.sums,
        };
        let (first, last) = (clock::from_ms(sender.first_ms), clock::from_ms(sender.last_ms));
        let source = sources.entry(sender.source).or_insert_with(|| Source {
            node: node.to_owned(),
            source: sender.source,
            sums: Sums::default(),
            first,
            last,
            to: Vec::new(),
        });
        source.sums = source.sums.plus(sender.sums);
        (source.first, source.last) = (source.first.min(first), source.last.max(last));
        source.to.push(to);
    }
    sources.into_values()
}
