//! Nodes, and the state of everything in short.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::digest::Digest;
use model::labels::Labels;
use model::link::{EnrolmentToken, TOKEN_PREFIX};
use model::name::Name;
use model::problem::Code;
use time::Duration;

use super::{Actor, Event, LabelReview, Node, Ops, OpsError, Role, Status, allowed};
use crate::clock;
use crate::nodes::LiveNode;
use crate::secrets::random_text;
use crate::store::NodeRow;

/// How long an enrolment token may wait to be used.
const TOKEN_LIVES: Duration = Duration::hours(24);

impl Ops {
    /// All nodes, by name; revoked ones too.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn nodes(&self) -> Result<Vec<Node>, OpsError> {
        let mut live = self.live().all();
        let rows = self.store().nodes().await?;
        Ok(rows.into_iter().map(|row| node(live.remove(&row.name), row)).collect())
    }

    /// Makes a one-time enrolment token (`sallyport1....`) for a new or known node, with these labels; without any a known
    /// node keeps those it has. Whoever holds the token gets the private keys that the labels select.
    ///
    /// # Errors
    /// When the name is none, or the actor may not; for a known node as [`Ops::label_node`].
    pub async fn enrol_node(
        &self,
        name: &str,
        labels: &Labels,
        confirm: bool,
        actor: &Actor,
    ) -> Result<String, OpsError> {
        allowed(actor, Role::Administrator)?;
        let node: Name = name.parse().map_err(|why: model::name::InvalidName| {
            OpsError::problem(format!("Node/{name}"), "name", Code::Invalid, why.to_string())
        })?;
        let secret = random_text()?;
        let ends = clock::now() + TOKEN_LIVES;
        let given = Some(labels).filter(|labels| !labels.is_empty());
        let known = self.store().node(name).await?;
        if let (Some(known), Some(labels)) = (&known, given) {
            self.sure_of_labels(known, labels, confirm, actor).await?;
        }
        self.store().put_node_secret(name, &Digest::of(secret.as_bytes()), ends, given).await?;
        if known.is_some() && given.is_some() {
            self.relabelled(name).await?;
        }
        self.store().audit(actor, &format!("made an enrolment token for node {name}")).await?;
        let snapshot_key = self.signer().public().ok_or(OpsError::Stopped)?;
        let token = EnrolmentToken {
            console: self.0.node_address.clone(),
            node,
            ca: self.authority().fingerprint(),
            snapshot_key,
            secret,
        };
        let json = serde_json::to_vec(&token).map_err(|_json| OpsError::Stopped)?;
        self.tell(Event::Node { node: name.to_owned() });
        Ok(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json)))
    }

    /// Where a node that is enrolled now will look for the console, `host:port`.
    pub fn node_address(&self) -> &str {
        &self.0.node_address
    }

    /// What to say with an enrolment token that is good on this machine only.
    pub fn near_only(&self) -> Option<String> {
        let host = self.0.node_address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let near = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        near.then(|| {
            format!(
                "The token names the console {}, which only this machine can reach: for a node elsewhere start the console with --node-listen (and --node-address), and make another token.",
                self.0.node_address
            )
        })
    }

    /// What giving a node these labels would do to its packet filter.
    ///
    /// # Errors
    /// When there is no such node, or the actor may not.
    pub async fn plan_labels(
        &self,
        name: &str,
        labels: &Labels,
        actor: &Actor,
    ) -> Result<LabelReview, OpsError> {
        allowed(actor, Role::Administrator)?;
        let row = self.store().node(name).await?.ok_or_else(|| no_node(name))?;
        let confirmations = self.publisher().asked_of_labels(&row, labels.as_map(), actor).await?;
        let effect = self.label_effect(name, (row.labels, labels.as_map().clone())).await?;
        Ok(LabelReview { confirmations, effect })
    }

    /// Refuses labels whose packet filters would shut somebody out, unless that is confirmed.
    async fn sure_of_labels(
        &self,
        node: &NodeRow,
        labels: &Labels,
        confirm: bool,
        actor: &Actor,
    ) -> Result<(), OpsError> {
        let asked = match confirm {
            true => Vec::new(),
            false => self.publisher().asked_of_labels(node, labels.as_map(), actor).await?,
        };
        if asked.is_empty() { Ok(()) } else { Err(OpsError::Problems(asked)) }
    }

    /// Gives a node these labels instead of those it has: they decide which listeners, and so which private keys, it gets, and which
    /// packet filters.
    ///
    /// # Errors
    /// When there is no such node, or the actor may not; or its packet filters would shut somebody out, which is not confirmed.
    pub async fn label_node(
        &self,
        name: &str,
        labels: &Labels,
        confirm: bool,
        actor: &Actor,
    ) -> Result<(), OpsError> {
        allowed(actor, Role::Administrator)?;
        let row = self.store().node(name).await?.ok_or_else(|| no_node(name))?;
        self.sure_of_labels(&row, labels, confirm, actor).await?;
        if !self.store().set_labels(name, labels).await? {
            return Err(no_node(name));
        }
        let words: Vec<String> =
            labels.as_map().iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.store().audit(actor, &format!("labelled node {name}: {}", words.join(" "))).await?;
        self.relabelled(name).await?;
        self.tell(Event::Node { node: name.to_owned() });
        Ok(())
    }

    /// The same number must never stand for two contents: what the node must obey gets a new one.
    async fn relabelled(&self, name: &str) -> Result<(), OpsError> {
        if self.current().id.revision == 0 {
            return Ok(());
        }
        self.renumber(format!("node {name} has other labels")).await
    }

    /// Shuts a node out.
    ///
    /// # Errors
    /// When there is no such node, or the actor may not.
    pub async fn revoke_node(&self, name: &str, actor: &Actor) -> Result<(), OpsError> {
        allowed(actor, Role::Operator)?;
        self.set(name, Some(true), None).await?;
        self.live().order(name, |orders| orders.close = true);
        self.links().forget(name);
        self.store().audit(actor, &format!("revoked node {name}")).await?;
        self.tell(Event::Node { node: name.to_owned() });
        Ok(())
    }

    /// Drains a node, or puts it back to work.
    ///
    /// # Errors
    /// When there is no such node, or the actor may not.
    pub async fn drain_node(&self, name: &str, on: bool, actor: &Actor) -> Result<(), OpsError> {
        allowed(actor, Role::Operator)?;
        self.set(name, None, Some(on)).await?;
        self.live().order(name, |orders| orders.drain = on);
        self.store().audit(actor, &format!("{} node {name}", if on { "drained" } else { "resumed" })).await?;
        self.tell(Event::Node { node: name.to_owned() });
        Ok(())
    }

    async fn set(&self, name: &str, revoked: Option<bool>, drained: Option<bool>) -> Result<(), OpsError> {
        match self.store().set_node(name, revoked, drained).await? {
            true => Ok(()),
            false => Err(no_node(name)),
        }
    }

    /// Revision, nodes and needs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn status(&self) -> Result<Status, OpsError> {
        let id = self.current().id;
        let mut nodes = self.nodes().await?;
        nodes.retain(|node| !node.revoked);
        let needs = self.needs_of(&nodes).await?;
        Ok(Status { revision: id.revision, epoch: id.epoch, nodes, needs })
    }

    /// Whether the console can do its work.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready(&self) -> Result<(), OpsError> {
        Ok(self.store().ping().await?)
    }
}

fn no_node(name: &str) -> OpsError {
    OpsError::NotFound(no_node_words(name))
}

/// What is said of a node that nobody knows, wherever it was named.
pub(super) fn no_node_words(name: &str) -> String {
    format!("there is no node named {name}; `sallyport node list` shows them")
}

fn node(live: Option<LiveNode>, row: NodeRow) -> Node {
    let report = live.as_ref().and_then(|live| live.report.as_ref()).map(|(_, report)| report);
    let connected = live.as_ref().and_then(|live| live.connected);
    Node {
        enrolled: row.serial.is_some(),
        connected,
        features: report.map(|report| report.features.clone()).unwrap_or_default(),
        listeners: report.map(|report| report.listeners.clone()).unwrap_or_default(),
        connections: report.map_or(0, |report| report.connections),
        threads: report.map_or(0, |report| report.threads),
        overload: connected.and(report).and_then(|report| report.overload.clone()),
        syn_pressure: connected.and(report).and_then(|report| report.syn_pressure),
        last_seen: live.as_ref().and_then(|live| live.report.as_ref()).map(|(at, _)| *at).max(row.seen),
        name: row.name,
        labels: row.labels,
        said_labels: row.said_labels,
        revoked: row.revoked,
        drained: row.drained,
        version: row.version,
        applied: row.applied,
        refused: row.refused,
        certificate_ends: row.certificate_ends,
    }
}
