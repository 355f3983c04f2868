//! Flows: what somebody asks to watch or to capture, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use model::draft::Spec;
use model::flow::{
    CAPTURE_PACKETS_MAX, CAPTURE_SNAP, CAPTURE_SNAP_MAX, Capture, FlowFilter, Protocol, Verdict,
};
use model::problem::{Code, Problem};

use super::nodes::no_node_words;
use super::{Actor, Ops, OpsError, Role, allowed};
use crate::flows::{Attended, Busy, CaptureOrder, CaptureView, Key, Reader, View};

/// Seconds a capture lasts at most, and unless something else is said.
const LASTS: (u64, u64) = (300, 60);
/// Packets a capture takes unless something else is said.
const PACKETS: u32 = 100;

/// Which packets, as somebody wrote it: in a URL, a form or JSON. What is blank is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// A node's name.
    pub node: String,
    /// `drop`, `observed` or `pass`.
    pub verdict: String,
    /// A reason.
    pub reason: String,
    /// `FILTER/RULE`, or a rule's id.
    pub rule: String,
    /// A prefix.
    pub source: String,
    /// A TCP or UDP port.
    pub port: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    pub protocol: String,
}

/// What to capture, as somebody wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptureQuery {
    /// Which packets, of those that are dropped.
    pub flows: FlowQuery,
    /// How many.
    pub packets: String,
    /// Bytes of each.
    pub snap: String,
    /// Seconds after which it ends.
    pub seconds: String,
}

/// Problems, each at its field, as they are found.
#[derive(Default)]
struct Reading(Vec<Problem>);

impl Reading {
    fn fault(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Problem::new("", field, Code::Invalid, message));
    }

    /// A field's value; nothing where it is blank or wrong.
    fn read<T: FromStr>(&mut self, field: &str, text: &str, what: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        match text.trim() {
            "" => None,
            text => text.parse().map_err(|why| self.fault(field, said(what, &why))).ok(),
        }
    }

    /// A number in its bounds.
    fn number(&mut self, field: &str, text: &str, usual: u64, most: u64) -> u64 {
        match text.trim() {
            "" => usual,
            text => match text.parse() {
                Ok(number) if (1..=most).contains(&number) => number,
                _ => {
                    self.fault(field, format!("this is a number from 1 to {most}, not {text:?}"));
                    usual
                }
            },
        }
    }
}

/// Our own types say what they want; numbers do not.
fn said(what: &str, why: &dyn std::fmt::Display) -> String {
    if what.is_empty() { why.to_string() } else { what.to_owned() }
}

impl FlowQuery {
    /// Takes a field; whether there is one of this name.
    pub fn set(&mut self, name: &str, text: &str) -> bool {
        let field = match name {
            "node" => &mut self.node,
            "verdict" => &mut self.verdict,
            "reason" => &mut self.reason,
            "rule" => &mut self.rule,
            "source" => &mut self.source,
            "port" => &mut self.port,
            "protocol" => &mut self.protocol,
            _ => return false,
        };
        text.clone_into(field);
        true
    }

    /// Whether something is wrong with it that is so whatever nodes and rules there are.
    pub fn is_unreadable(&self) -> bool {
        let mut reading = Reading::default();
        self.filter(&mut reading);
        !reading.0.is_empty()
    }

    /// All but the node and the rule, which are looked up.
    fn filter(&self, reading: &mut Reading) -> FlowFilter {
        let filter = FlowFilter {
            verdict: reading.read("verdict", &self.verdict, ""),
            reason: reading.read("reason", &self.reason, ""),
            rule: None,
            source: reading.read("source", &self.source, ""),
            port: reading.read("port", &self.port, "a port is a number from 0 to 65535"),
            protocol: reading.read("protocol", &self.protocol, ""),
        };
        let ports = [None, Some(Protocol::TCP), Some(Protocol::UDP)];
        if filter.port.is_some() && !ports.contains(&filter.protocol) {
            reading.fault("port", "only tcp and udp have ports");
        }
        filter
    }

    /// The fields that are not blank, by name.
    pub fn pairs(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("node", &self.node),
            ("verdict", &self.verdict),
            ("reason", &self.reason),
            ("rule", &self.rule),
            ("source", &self.source),
            ("port", &self.port),
            ("protocol", &self.protocol),
        ];
        all.into_iter().map(|(name, text)| (name, text.trim())).filter(|(_, text)| !text.is_empty()).collect()
    }
}

/// What a node counts by a number of its own: a rule, a list of protocols or a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// The number; nothing else ever gets it.
    pub id: u32,
    /// `FILTER/RULE`.
    pub label: String,
    /// There is no such rule any more.
    pub removed: bool,
}

impl Ops {
    /// The rules there are and were, by their numbers.
    pub fn rules(&self) -> Vec<Numbered> {
        let current = self.current();
        let filters = current.objects.values().filter_map(|object| match &object.spec {
            Spec::PacketFilter(spec) => Some(spec.counted(object.name())),
            Spec::Listener(_)
            | Spec::Route(_)
            | Spec::OriginGroup(_)
            | Spec::Certificate(_)
            | Spec::TrustBundle(_)
            | Spec::PrefixSet(_) => None,
        });
        let there: BTreeSet<String> = filters.flatten().collect();
        let numbered = |(label, id): (&String, &u32)| Numbered {
            id: *id,
            label: label.clone(),
            removed: !there.contains(label),
        };
        let mut all: Vec<Numbered> = current.rules.iter().map(numbered).collect();
        all.sort_unstable_by_key(|one| one.id);
        all
    }

    /// The labels of rules, by their ids; also of rules that are gone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn rule_labels(&self) -> Result<BTreeMap<u32, String>, OpsError> {
        Ok(self.store().rule_ids().await?.into_iter().map(|(label, id)| (id, label)).collect())
    }

    async fn key(&self, query: &FlowQuery, reading: &mut Reading) -> Result<Key, OpsError> {
        let rule = query.rule.trim();
        let rule = match rule.parse::<u32>() {
            _ if rule.is_empty() => None,
            Ok(id) => Some(id),
            Err(_label) => {
                let rules = self.rule_labels().await?;
                let found = rules.into_iter().find(|(_, label)| label == rule).map(|(id, _)| id);
                if found.is_none() {
                    reading
                        .fault("rule", format!("there is no rule {rule:?}; a rule is written FILTER/RULE"));
                }
                found
            }
        };
        let node = Some(query.node.trim()).filter(|node| !node.is_empty()).map(str::to_owned);
        if let Some(name) = &node
            && self.store().node(name).await?.is_none()
        {
            reading.fault("node", no_node_words(name));
        }
        Ok(Key { node, filter: FlowFilter { rule, ..query.filter(reading) } })
    }

    /// Watches, for a page. What whoever looks has left for it makes room for others.
    ///
    /// # Errors
    /// When something in the query is wrong, or too much is watched already.
    pub async fn look_at_flows(&self, query: &FlowQuery, left: Option<&FlowQuery>) -> Result<View, OpsError> {
        let key = self.flow_key(query).await?;
        if let Some(left) = left.filter(|left| *left != query) {
            match self.flow_key(left).await {
                Ok(left) if left != key => self.flows().leave(&left),
                // Nothing was watched by it.
                Ok(_) | Err(OpsError::Problems(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.flows().look(&key)?)
    }

    /// Watches, for a reader that stays.
    ///
    /// # Errors
    /// As [`Self::look_at_flows`].
    pub async fn read_flows(&self, query: &FlowQuery) -> Result<Reader, OpsError> {
        Ok(self.flows().read(&self.flow_key(query).await?)?)
    }

    async fn flow_key(&self, query: &FlowQuery) -> Result<Key, OpsError> {
        let mut reading = Reading::default();
        let key = self.key(query, &mut reading).await?;
        if reading.0.is_empty() { Ok(key) } else { Err(OpsError::Problems(reading.0)) }
    }

    /// Captures the next dropped packets of a rule or a reason at a node, for as long as what it gives lives or, where that is left,
    /// by itself. Packets may hold personal data: who asked is in the audit log.
    ///
    /// # Errors
    /// When something in the query is wrong, too much is watched already, or the actor may not.
    pub async fn capture(&self, query: &CaptureQuery, actor: &Actor) -> Result<Attended, OpsError> {
        allowed(actor, Role::Operator)?;
        let mut reading = Reading::default();
        let mut flows = query.flows.clone();
        if flows.node.trim().is_empty() {
            let nodes = self.nodes().await?;
            let mut connected = nodes.into_iter().filter(|node| node.connected.is_some());
            match (connected.next(), connected.next()) {
                (Some(only), None) => flows.node = only.name,
                _ => reading.fault("node", "say at which node: a capture is of one"),
            }
        }
        let mut key = self.key(&flows, &mut reading).await?;
        match key.filter.verdict {
            None | Some(Verdict::Drop) => key.filter.verdict = Some(Verdict::Drop),
            Some(_) => reading.fault("verdict", "only dropped packets are captured"),
        }
        if key.filter.rule.is_none() && key.filter.reason.is_none() && reading.0.is_empty() {
            reading.fault("rule", "say of which rule, or for which reason");
        }
        let packets = reading.number("packets", &query.packets, PACKETS.into(), CAPTURE_PACKETS_MAX.into());
        let snap = reading.number("snap", &query.snap, CAPTURE_SNAP.into(), CAPTURE_SNAP_MAX.into());
        let seconds = reading.number("seconds", &query.seconds, LASTS.1, LASTS.0);
        let (Some(node), true) = (key.node, reading.0.is_empty()) else {
            return Err(OpsError::Problems(reading.0));
        };
        let words: Vec<String> = flows
            .pairs()
            .into_iter()
            .filter(|(name, _)| *name != "node")
            .map(|(name, text)| format!("{name} {text}"))
            .collect();
        let (words, narrow) = (words.join(", "), |number| u32::try_from(number).unwrap_or(u32::MAX));
        let act =
            format!("captured up to {packets} dropped packets ({snap} bytes each) at node {node}: {words}");
        let order = CaptureOrder {
            node,
            filter: key.filter,
            words,
            capture: Capture { packets: narrow(packets), snap: narrow(snap) },
            lasts: Duration::from_secs(seconds),
            actor: actor.name.clone(),
        };
        // Whoever goes away before this has come to its end, or is not in the audit log, captures nothing.
        let capture = self.flows().capture(order)?;
        self.store().audit(actor, &act).await?;
        tracing::info!(actor = actor.name, capture = capture.id(), act, "capture");
        Ok(capture)
    }

    /// All captures, newest first.
    ///
    /// # Errors
    /// When the actor may not.
    pub fn captures(&self, actor: &Actor) -> Result<Vec<CaptureView>, OpsError> {
        allowed(actor, Role::Operator)?;
        Ok(self.flows().captures())
    }

    /// Ends a capture, whoever began it, and gives what became of it. What it has is kept; who stopped it is in the audit log. Where
    /// that cannot be written the capture goes on, to the end of its time at most, and may be stopped once more.
    ///
    /// # Errors
    /// When there is no such capture, the actor may not, or the store fails.
    pub async fn stop_capture(&self, id: u64, actor: &Actor) -> Result<CaptureView, OpsError> {
        allowed(actor, Role::Operator)?;
        let view = self.flows().capture_view(id).ok_or_else(|| no_capture(id))?;
        if !view.running {
            return Ok(view);
        }
        let act = format!("stopped capture {id} of node {}: {}", view.node, view.filter);
        // Before it ends: a repeat finds nothing to stop, and would write nothing. Of two who do it at once both are in the log.
        self.store().audit(actor, &act).await?;
        tracing::info!(actor = actor.name, capture = id, act, "capture");
        self.flows().stop(id, &actor.name).ok_or_else(|| no_capture(id))
    }

    /// What a capture has, as a pcap file. Who took it is in the audit log.
    ///
    /// # Errors
    /// When there is no such capture, or the actor may not.
    pub async fn pcap(&self, id: u64, actor: &Actor) -> Result<(CaptureView, Vec<u8>), OpsError> {
        allowed(actor, Role::Operator)?;
        let found = self.flows().pcap(id);
        let found = found.ok_or_else(|| no_capture(id))?;
        let act = format!("downloaded capture {id} of node {}: {}", found.0.node, found.0.filter);
        self.store().audit(actor, &act).await?;
        Ok(found)
    }
}

fn no_capture(id: u64) -> OpsError {
    OpsError::NotFound(format!("there is no capture {id} any more"))
}

impl From<Busy> for OpsError {
    fn from(busy: Busy) -> Self {
        Self::problem("", "", Code::Conflict, busy.to_string())
    }
}
