//! What operations take and give.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::draft::{Kind, Object};
use model::problem::Problem;
use model::report::{Feature, ListenerReport, Overload, SynPressure};
use model::snapshot::SnapshotId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Connection, FilterEffect};

/// What a user may do; each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes objects; drains, resumes and revokes nodes.
    Operator,
    /// Manages users and tokens too, and says who gets private keys: enrols nodes and labels them.
    Administrator,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user's or token's name, as the audit log shows it.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Where the request came from: a packet filter that would drop it needs a second confirmation.
    pub address: Option<IpAddr>,
    /// The connection the request came over: a revision that waits is confirmed over a newer one.
    pub connection: Option<Connection>,
}

impl Actor {
    /// The console itself (first start, automatic rollback).
    pub fn console() -> Self {
        Self { name: "sallyport".to_owned(), role: Role::Administrator, address: None, connection: None }
    }
}

/// One page of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Rows on all pages.
    pub total: u64,
    /// This page, from 1.
    pub page: u32,
    /// Rows on a full page.
    pub per_page: u32,
}

impl<T> Page<T> {
    /// How many pages there are, at least one.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.total.div_ceil(u64::from(self.per_page.max(1)))).unwrap_or(u32::MAX).max(1)
    }
}

/// Which objects to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only this kind; all when absent.
    pub kind: Option<Kind>,
    /// Only this name; all when absent.
    pub name: Option<String>,
    /// Words that must each occur in name or spec (host, path, origin...), ASCII case ignored.
    pub search: String,
    /// Sort order.
    pub sort: Sort,
    /// From 1.
    pub page: u32,
    /// 0 means [`DEFAULT_PER_PAGE`]; at most [`MAX_PER_PAGE`].
    pub per_page: u32,
}

/// Rows on a page unless asked otherwise.
pub const DEFAULT_PER_PAGE: u32 = 50;
/// Rows on a page at most.
pub const MAX_PER_PAGE: u32 = 1000;

/// Sort order of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// By name.
    #[default]
    Name,
    /// By name, backwards.
    NameDown,
    /// Last changed first.
    Changed,
}

/// An object as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object; a certificate's private key is only ever its `privateKeyRef`.
    pub object: Object,
    /// The revision that wrote this version.
    pub revision: u64,
    /// When.
    pub changed: OffsetDateTime,
}

/// What somebody wants to change, all at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Objects to add or replace.
    pub put: Vec<Object>,
    /// Objects to remove.
    pub remove: Vec<(Kind, String)>,
    /// Remove every stored object that `put` does not name.
    pub prune: bool,
}

impl Changes {
    /// Adds or replaces one object.
    pub fn put(object: Object) -> Self {
        Self { put: vec![object], ..Self::default() }
    }

    /// Removes one object.
    pub fn remove(kind: Kind, name: impl Into<String>) -> Self {
        Self { remove: vec![(kind, name.into())], ..Self::default() }
    }
}

/// What happens to one object.
pub use model::diff::Action;

/// One line of a review or of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeLine {
    /// What happens.
    pub action: Action,
    /// `Kind/name`.
    pub object: String,
    /// The difference in words, such as `port 443 → 8443`; one clause per field, joined by `; `.
    pub words: String,
}

/// What publishing would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// The revision it was compared with: give it to [`PublishOptions::base_revision`].
    pub base_revision: u64,
    /// Object by object; empty when nothing changes.
    pub changes: Vec<ChangeLine>,
    /// What else it touches, one sentence each: "3 routes use this origin group: a, b, c".
    pub touches: Vec<String>,
    /// Why it cannot be published; empty when it can.
    pub problems: Vec<Problem>,
    /// What needs `confirm: true` first (all with `Code::NeedsConfirmation`).
    pub confirmations: Vec<Problem>,
    /// What the packet filter would have done to what was sent in the last hour; absent where no node's changes.
    pub effect: Option<FilterEffect>,
}

/// What other labels would do to a node's packet filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelReview {
    /// What needs `confirm: true` first (all with `Code::NeedsConfirmation`).
    pub confirmations: Vec<Problem>,
    /// What the packet filter would have done to what was sent to the node in the last hour; absent where it stays the same.
    pub effect: Option<FilterEffect>,
}

/// How to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// The answer to [`Review::confirmations`].
    pub confirm: bool,
    /// Roll back by itself unless confirmed within this time (decision 22).
    pub rollback_after: Option<Duration>,
    /// Why, in the operator's words.
    pub message: String,
    /// Refuse with `Code::Conflict` when another revision was published since.
    pub base_revision: Option<u64>,
    /// Addresses of people that a packet filter may not drop either, unless confirmed; the actor's is one in any case.
    pub protect: Vec<IpAddr>,
}

/// What publishing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The new revision, or the present one when nothing changed.
    pub revision: u64,
    /// Object by object; empty when nothing changed.
    pub changes: Vec<ChangeLine>,
    /// When it rolls back unless confirmed.
    #[serde(with = "crate::clock::rfc3339::option")]
    pub rollback_at: Option<OffsetDateTime>,
}

/// A revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number.
    pub number: u64,
    /// Its epoch.
    pub epoch: u64,
    /// When.
    #[serde(with = "crate::clock::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// Why, in the actor's words.
    pub message: String,
    /// What changed.
    pub changes: Vec<ChangeLine>,
    /// When it rolls back unless confirmed; absent when it needs no confirmation or has been confirmed.
    #[serde(with = "crate::clock::rfc3339::option")]
    pub rollback_at: Option<OffsetDateTime>,
    /// To which revision it rolls back then.
    pub rollback_to: Option<u64>,
    /// Who answered it, node by node: every node that ever did.
    pub nodes: Vec<NodeAnswer>,
}

/// What one node said to one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// The node.
    pub node: String,
    /// Why it refused; absent when it applied.
    pub refused: Option<String>,
    /// From receipt to in force, milliseconds.
    pub took_ms: Option<u32>,
    /// When it said so.
    #[serde(with = "crate::clock::rfc3339")]
    pub at: OffsetDateTime,
}

/// A node as the console sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels, as administrators gave them: listeners' selectors choose by them.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself: only shown.
    pub said_labels: BTreeMap<String, String>,
    /// Whether it has a certificate.
    pub enrolled: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether an operator drained it.
    pub drained: bool,
    /// Its connection's address, while it is connected.
    pub connected: Option<SocketAddr>,
    /// When it was last heard of.
    #[serde(with = "crate::clock::rfc3339::option")]
    pub last_seen: Option<OffsetDateTime>,
    /// Its release.
    pub version: String,
    /// What it has in force.
    pub applied: Option<SnapshotId>,
    /// What it refused last, unless it applied something newer since.
    pub refused: Option<(SnapshotId, String)>,
    /// When its certificate ends.
    #[serde(with = "crate::clock::rfc3339::option")]
    pub certificate_ends: Option<OffsetDateTime>,
    /// Kernel and sandbox features, from its last report.
    pub features: Vec<Feature>,
    /// Listeners, from its last report.
    pub listeners: Vec<ListenerReport>,
    /// Open client connections, from its last report.
    pub connections: u32,
    /// Worker threads, from its last report.
    pub threads: u32,
    /// What it refuses for too much to do, from its last report, while it is connected.
    pub overload: Option<Overload>,
    /// SYNs of unknown sources, where they have a budget, from its last report, while it is connected.
    pub syn_pressure: Option<SynPressure>,
}

/// Something an operator should do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what, and what to do.
    pub message: String,
    /// The page that shows the cause, such as `/certificates/shop`.
    pub link: String,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Traffic fails or will shortly.
    Bad,
    /// It works, but not as it should.
    Warning,
    /// Worth knowing.
    Note,
}

/// The whole state in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The newest revision.
    pub revision: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Every node that is not revoked.
    pub nodes: Vec<Node>,
    /// Worst first.
    pub needs: Vec<Need>,
}

/// Something happened that an open page may want to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A revision was published.
    Published {
        /// Its number.
        revision: u64,
    },
    /// A node applied a revision.
    Applied {
        /// The node.
        node: String,
        /// What.
        revision: u64,
    },
    /// A node refused a revision.
    Refused {
        /// The node.
        node: String,
        /// What.
        revision: u64,
        /// Why.
        reason: String,
    },
    /// A node came, went, was enrolled, drained or revoked.
    Node {
        /// The node.
        node: String,
    },
    /// New figures; at most one a second.
    Traffic,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Login name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// When the account was made.
    #[serde(with = "crate::clock::rfc3339")]
    pub created: OffsetDateTime,
}
