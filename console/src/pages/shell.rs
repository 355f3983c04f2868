//! The frame around every page: where one is, what needs attention, whether the nodes have arrived.

use std::collections::BTreeMap;

use model::draft::Kind;

use crate::ops::{Node, Ops, OpsError, Role, Severity, Status};
use crate::session::SignedIn;

/// A page of the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Routes,
    Origins,
    Certificates,
    TrustBundles,
    Listeners,
    PrefixSets,
    PacketFilter,
    Flows,
    Nodes,
    Changes,
}

const SECTIONS: [(Section, &str, &str, Option<Kind>); 11] = [
    (Section::Overview, "Overview", "/", None),
    (Section::Routes, "Routes", "/routes", Some(Kind::Route)),
    (Section::Origins, "Origins", "/origins", Some(Kind::OriginGroup)),
    (Section::Certificates, "Certificates", "/certificates", Some(Kind::Certificate)),
    (Section::TrustBundles, "Trust bundles", "/trust-bundles", Some(Kind::TrustBundle)),
    (Section::Listeners, "Listeners", "/listeners", Some(Kind::Listener)),
    (Section::PacketFilter, "Packet filter", "/packet-filter", Some(Kind::PacketFilter)),
    (Section::PrefixSets, "Prefix sets", "/prefix-sets", Some(Kind::PrefixSet)),
    (Section::Flows, "Flows", "/flows", None),
    (Section::Nodes, "Nodes", "/nodes", None),
    (Section::Changes, "Changes", "/changes", None),
];

/// One entry of the menu.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) href: &'static str,
    pub(crate) label: &'static str,
    pub(crate) current: bool,
    /// How many there are, or how many need attention.
    pub(crate) count: Option<u64>,
    pub(crate) warn: bool,
}

/// How far the nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fleet {
    pub(crate) revision: u64,
    pub(crate) on: usize,
    pub(crate) refused: usize,
    pub(crate) total: usize,
}

/// The frame.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) title: String,
    pub(crate) user: String,
    pub(crate) csrf: String,
    pub(crate) fleet: Fleet,
    /// Whether the person may change anything.
    pub(crate) operator: bool,
    /// Whether the person may give keys away: enrol and label nodes.
    pub(crate) administrator: bool,
    section: Section,
    counts: BTreeMap<Kind, u64>,
    nodes: u64,
    needs: Vec<(Severity, String)>,
}

impl Shell {
    /// Asks for what the frame shows.
    pub(crate) async fn load(
        ops: &Ops,
        user: &SignedIn,
        section: Section,
        title: &str,
    ) -> Result<Self, OpsError> {
        Self::with(ops, user, section, title, &ops.status().await?).await
    }

    /// The same where the status is at hand.
    pub(crate) async fn with(
        ops: &Ops,
        user: &SignedIn,
        section: Section,
        title: &str,
        status: &Status,
    ) -> Result<Self, OpsError> {
        Ok(Self {
            title: title.to_owned(),
            user: user.actor.name.clone(),
            csrf: user.csrf.clone(),
            fleet: Fleet::of(status.revision, &status.nodes),
            operator: user.actor.role >= Role::Operator,
            administrator: user.actor.role >= Role::Administrator,
            section,
            counts: ops.counts().await?,
            nodes: status.nodes.len() as u64,
            needs: status.needs.iter().map(|need| (need.severity, need.link.clone())).collect(),
        })
    }

    /// The section's own page.
    pub(crate) fn back(&self) -> &'static str {
        SECTIONS.iter().find(|(section, ..)| *section == self.section).map_or("/", |(_, _, href, _)| href)
    }

    /// The menu: each entry with its count, or with how many of its things need attention.
    pub(crate) fn items(&self) -> Vec<Item> {
        let item = |(section, label, href, kind): &(Section, &'static str, &'static str, Option<Kind>)| {
            let below = |link: &str| {
                link == *href
                    || link.strip_prefix(*href).is_some_and(|rest| rest.starts_with(['/', '?', '#']))
            };
            let urgent = |(severity, link): &&(Severity, String)| *severity < Severity::Note && below(link);
            let urgent = match *section == Section::Overview {
                true => 0,
                false => self.needs.iter().filter(urgent).count() as u64,
            };
            let total = match (section, kind) {
                (Section::Nodes, _) => Some(self.nodes),
                (_, Some(kind)) => self.counts.get(kind).copied(),
                _ => None,
            };
            let count = if urgent > 0 { Some(urgent) } else { total.filter(|total| *total > 0) };
            Item { href, label, current: *section == self.section, count, warn: urgent > 0 }
        };
        SECTIONS.iter().map(item).collect()
    }
}

impl Fleet {
    /// Where the nodes that are not revoked stand.
    pub(crate) fn of(revision: u64, nodes: &[Node]) -> Self {
        let alive = || nodes.iter().filter(|node| !node.revoked);
        Self {
            revision,
            on: alive().filter(|node| node.applied.is_some_and(|id| id.revision == revision)).count(),
            refused: alive()
                .filter(|node| node.refused.as_ref().is_some_and(|(id, _)| id.revision == revision))
                .count(),
            total: alive().count(),
        }
    }

    /// `3 of 3 nodes on revision 41`.
    pub(crate) fn words(&self) -> String {
        match (self.total, self.refused) {
            (0, _) => format!("no node yet, revision {}", self.revision),
            (total, 0) => {
                format!("{} of {total} node{} on revision {}", self.on, plural(total), self.revision)
            }
            (total, refused) => {
                format!("{refused} of {total} node{} refused revision {}", plural(total), self.revision)
            }
        }
    }

    /// The dot's class.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self { refused: 1.., .. } => "bad",
            Self { on, total, .. } if on < total || *total == 0 => "warn",
            Self { .. } => "good",
        }
    }
}

/// `s` unless it is one.
pub(crate) fn plural(count: impl std::borrow::Borrow<usize>) -> &'static str {
    if *count.borrow() == 1 { "" } else { "s" }
}
