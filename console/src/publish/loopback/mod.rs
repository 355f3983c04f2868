//! What a packet filter may do to somebody whose address is a loopback one.
//!
//! What has such a source comes over the loopback interface alone: on every other one the filter drops it as `martian` before it asks
//! a rule. So a prefix within 127.0.0.0/8 or `::1` shuts nobody out while nothing judges what comes over `lo`. Two may do that:
//!
//! - A node's XDP filter that stands there. Nodes report where theirs stand; of those that have not, the worst is assumed.
//! - The worker, of what listeners accept: it asks the rules about this machine's own clients like about any others. A listener that
//!   accepts at a loopback address has them wherever filters stand: a balancer in front, the end of a tunnel, a browser whose console
//!   is published by a route. At other addresses a client of this machine has the address that it connects to, unless it was made to
//!   bind a loopback one.
//!
//! Nothing follows for wider prefixes and lists of who alone may come: whoever reaches the console through a tunnel (ssh) or a proxy
//! on its machine has a loopback address here, and another one, which is not known, for the filter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::compile::Compiled;
use model::listen::Place;
use model::net::Prefix;
use model::report::Report;
use model::snapshot::Listener;

use crate::store::NodeRow;

/// How a node's report names the filter on an interface.
const FILTER: &str = "xdp:";
/// The loopback interface, as the kernel names it.
const LOOPBACK: &str = "lo";
const V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));

/// What is known of whether rules meet what has a loopback source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loopback {
    v4: Judged,
    v6: Judged,
}

/// What is known of one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judged {
    /// No node has a filter there, and each has said so; no listener accepts there.
    Never,
    /// They may: why, a clause.
    Perhaps(String),
}

impl Loopback {
    /// Once these listeners are there, by the nodes there are and what those that are connected reported last. Nodes that were never
    /// enrolled, or are shut out, get no change.
    pub(super) fn of(
        new: &Compiled,
        nodes: &[NodeRow],
        report: impl Fn(&str) -> Option<Arc<Report>>,
    ) -> Self {
        let filtered = filtered(nodes, report);
        let judged = |loopback: IpNet| {
            let accepting = || new.listeners().filter(|listener| accepts_at(listener, loopback));
            filtered.clone().or_else(|| judging(accepting())).map_or(Judged::Never, Judged::Perhaps)
        };
        Self { v4: judged(V4), v6: judged(V6) }
    }

    fn family(&self, v4: bool) -> &Judged {
        if v4 { &self.v4 } else { &self.v6 }
    }

    /// Whether a prefix that is denied meets no packet and no connection of anybody, and so shuts nobody out.
    pub(super) fn is_idle(&self, prefix: &Prefix) -> bool {
        let net = prefix.net();
        let within = V4.contains(&net) || V6.contains(&net);
        within && *self.family(net.addr().is_ipv4()) == Judged::Never
    }

    /// The address, and where it is a loopback one why a rule may concern it all the same.
    pub(super) fn told(&self, address: IpAddr) -> String {
        let canonical = address.to_canonical();
        match self.family(canonical.is_ipv4()) {
            _ if !canonical.is_loopback() => address.to_string(),
            Judged::Never => format!(
                "{address} (the end of a tunnel or proxy has it for another one, which is not known here)"
            ),
            Judged::Perhaps(why) => format!("{address} ({why})"),
        }
    }
}

/// Why a filter may stand on a loopback interface; nothing where each node has said that none does.
fn filtered(nodes: &[NodeRow], report: impl Fn(&str) -> Option<Arc<Report>>) -> Option<String> {
    let mut enrolled = nodes.iter().filter(|node| node.serial.is_some() && !node.revoked).peekable();
    if enrolled.peek().is_none() {
        return Some("no node is enrolled that could say where its filter stands".to_owned());
    }
    enrolled.find_map(|node| suspicion(&node.name, report(&node.name).as_deref()))
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

/// Whether a listener has some place among these addresses.
fn accepts_at(listener: &Listener, loopback: IpNet) -> bool {
    listener.places().any(|place| match place {
        Place::Everywhere(_) => true,
        Place::At(addresses, _) => addresses.net().contains(&loopback) || loopback.contains(&addresses.net()),
    })
}

/// What such listeners do; nothing where there is none. So many are named.
fn judging<'a>(listeners: impl Iterator<Item = &'a Listener>) -> Option<String> {
    const NAMED: usize = 4;
    let names: Vec<&str> = listeners.map(|listener| listener.name.as_str()).collect();
    let what = "at loopback addresses too, and";
    Some(match &names[..] {
        [] => return None,
        [one] => format!("listener {one} accepts {what} asks the rules about its clients"),
        some => {
            let further = some.len().saturating_sub(NAMED);
            let more = if further > 0 { format!(" and {further} more") } else { String::new() };
            let named = some.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            format!("listeners {named}{more} accept {what} ask the rules about their clients")
        }
    })
}

#[cfg(test)]
mod tests;
