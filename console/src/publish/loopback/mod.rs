//! What a packet filter may do to somebody whose address is a loopback one.
//!
//! What has such a source comes over the loopback interface alone: on every other one the filter drops it as `martian` before it asks
//! a rule. So a prefix within 127.0.0.0/8 or `::1` shuts nobody out while no filter stands on `lo`. Nodes report where theirs stand; of
//! those that have not, the worst is assumed.
//!
//! Nothing follows for wider prefixes and lists of who alone may come: whoever reaches the console through a tunnel (ssh) or a proxy
//! on its machine has a loopback address here, and another one, which is not known, for the filter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use model::net::Prefix;
use model::report::Report;

use crate::store::NodeRow;

/// How a node's report names the filter on an interface.
const FILTER: &str = "xdp:";
/// The loopback interface, as the kernel names it.
const LOOPBACK: &str = "lo";
const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);

/// What is known of filters on loopback interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loopback {
    /// No node has one there, and each has said so.
    Free,
    /// One may be there: why, a clause.
    Filtered(String),
}

impl Loopback {
    /// By the nodes there are and what those that are connected reported last. Nodes that were never enrolled, or are shut out, get
    /// no change.
    pub(super) fn of(nodes: &[NodeRow], report: impl Fn(&str) -> Option<Arc<Report>>) -> Self {
        let mut enrolled = nodes.iter().filter(|node| node.serial.is_some() && !node.revoked).peekable();
        if enrolled.peek().is_none() {
            return Self::Filtered("no node is enrolled that could say where its filter stands".to_owned());
        }
        let suspect = |node: &NodeRow| suspicion(&node.name, report(&node.name).as_deref());
        enrolled.find_map(suspect).map_or(Self::Free, Self::Filtered)
    }

    /// Whether a prefix that is denied meets no packet of anybody, and so shuts nobody out.
    pub(super) fn is_idle(&self, prefix: &Prefix) -> bool {
        let within = match prefix.net() {
            ipnet::IpNet::V4(net) => V4.contains(&net),
            ipnet::IpNet::V6(net) => V6.contains(&net),
        };
        within && *self == Self::Free
    }

    /// The address, and where it is a loopback one why a filter may concern it all the same.
    pub(super) fn told(&self, address: IpAddr) -> String {
        match self {
            _ if !address.to_canonical().is_loopback() => address.to_string(),
            Self::Free => format!(
                "{address} (the end of a tunnel or proxy has it for another one, which is not known here)"
            ),
            Self::Filtered(why) => format!("{address} ({why})"),
        }
    }
}

/// Why the node's filter may be on `lo`: one that is off there at present is to stand there too.
fn suspicion(name: &str, report: Option<&Report>) -> Option<String> {
    let Some(report) = report else {
        return Some(format!("node {name} is not connected to say whether its filter stands on lo"));
    };
    let mut interfaces =
        report.features.iter().filter_map(|feature| feature.name.strip_prefix(FILTER)).peekable();
    if interfaces.peek().is_none() {
        return Some(format!("node {name} does not say on which interfaces its filter stands"));
    }
    interfaces.any(|interface| interface == LOOPBACK).then(|| format!("node {name} has its filter on lo"))
}

#[cfg(test)]
mod tests;
