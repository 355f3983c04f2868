//! Changes that would shut out the person who makes them, or a node, need a second confirmation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use model::compile::Compiled;
use model::filter::{CellVerdict, Index, Inputs, Payload};
use model::net::Prefix;
use model::problem::{Code, Problem};
use model::snapshot::{FilterAction, FilterMode, FilterRule, ProtocolList};

use super::Current;
use super::loopback::Loopback;
use crate::ops::Actor;

/// The addresses that nodes and console use to reach each other: both ends of every open link. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<BTreeMap<String, [IpAddr; 2]>>>);

impl Links {
    /// A node's link is open between these addresses.
    pub fn opened(&self, node: &str, ends: [IpAddr; 2]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), ends);
    }

    /// It is closed. The address stays protected: the node comes back from there.
    fn all(&self) -> BTreeMap<String, [IpAddr; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What of the change needs a confirmation: only what was not so before.
    pub(super) fn protect(
        &self,
        base: &Current,
        new: &Compiled,
        actor: &Actor,
        people: &[IpAddr],
        loopback: &Loopback,
    ) -> Vec<Problem> {
        let links = self.all();
        let people: BTreeSet<IpAddr> =
            people.iter().copied().filter(|one| actor.address != Some(*one)).collect();
        let addresses: BTreeSet<IpAddr> =
            links.values().flatten().copied().chain(actor.address).chain(people.iter().copied()).collect();
        let mut problems = Vec::new();
        for nodes in Nodes::of(new) {
            let rules = |compiled| Rules::of(compiled, nodes, (&addresses, loopback));
            let before = base.compiled.as_ref().map(rules).unwrap_or_default();
            let after = rules(new);
            if before == after {
                continue;
            }
            // Rules that are too many for the tables are refused before this is asked.
            let Some(change) = Change::of(&before, &after, new) else { continue };
            for problem in change.problems((actor, loopback), &people, &links) {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        problems
    }
}

/// Nodes that have rules in common: a rule of other nodes may let through what theirs drop.
#[derive(Clone, Copy)]
enum Nodes<'a> {
    /// One that every filter selects.
    All,
    /// One that has the labels some filter asks for, and no others.
    Labelled(&'a BTreeMap<String, String>),
}

impl<'a> Nodes<'a> {
    fn of(compiled: &'a Compiled) -> impl Iterator<Item = Self> {
        std::iter::once(Self::All).chain(compiled.filter_selectors().into_iter().map(Self::Labelled))
    }
}

/// The rules of some nodes, as far as they are about some addresses.
#[derive(Default, PartialEq, Eq)]
struct Rules {
    rules: Vec<FilterRule>,
    protocols: Vec<ProtocolList>,
}

impl Rules {
    fn of(compiled: &Compiled, nodes: Nodes<'_>, whose: (&BTreeSet<IpAddr>, &Loopback)) -> Self {
        let about = |rule: &FilterRule| about(rule, whose);
        match nodes {
            Nodes::All => Self {
                rules: compiled.filter_rules().map(about).collect(),
                protocols: compiled.filter_protocols().cloned().collect(),
            },
            Nodes::Labelled(labels) => Self {
                rules: compiled.filter_rules_for(labels).map(about).collect(),
                protocols: compiled.filter_protocols_for(labels).cloned().collect(),
            },
        }
    }

    fn index(&self) -> Option<Index> {
        let Self { rules, protocols } = self;
        Index::new(Inputs { rules, protocols, ..Inputs::default() }).ok()
    }
}

/// What differs for TCP to whatever is no listener: ssh, this console, and the replies that a node gets from it.
struct Change<'a> {
    before: Index,
    after: Index,
    rules: &'a [FilterRule],
    /// One port of each range that the rules judge alike.
    ports: BTreeSet<u16>,
}

/// A rule with those of its prefixes that hold one of the addresses: what it says of them stays the same.
fn about(rule: &FilterRule, (addresses, loopback): (&BTreeSet<IpAddr>, &Loopback)) -> FilterRule {
    let holds = |prefix: &&Prefix| addresses.iter().any(|address| prefix.contains(*address));
    let idle = |prefix: &&Prefix| rule.action == FilterAction::Deny && loopback.is_idle(prefix);
    let prefixes = rule.prefixes.iter().filter(holds).filter(|prefix| !idle(prefix)).copied().collect();
    FilterRule {
        mode: rule.mode,
        priority: rule.priority,
        protocols: rule.protocols.clone(),
        ports: rule.ports.clone(),
        icmp_types: rule.icmp_types.clone(),
        ..FilterRule::new(rule.id, &rule.name, rule.action, prefixes)
    }
}

impl<'a> Change<'a> {
    fn of(before: &Rules, after: &'a Rules, new: &Compiled) -> Option<Self> {
        let listeners: BTreeSet<u16> =
            new.listeners().filter_map(|listener| listener.port.number()).collect();
        let ranges = before.rules.iter().chain(&after.rules).flat_map(|rule| &rule.ports);
        let edges = ranges.flat_map(|range| [Some(range.first()), range.last().checked_add(1)]);
        let ports = edges.flatten().chain([0, SSH]);
        let free = |port: u16| (port..=u16::MAX).find(|port| !listeners.contains(port));
        Some(Self {
            before: before.index()?,
            after: after.index()?,
            rules: &after.rules,
            ports: ports.filter_map(free).collect(),
        })
    }

    /// Whom it shuts out: the person who makes it, or a node's link.
    fn problems(
        &self,
        (actor, loopback): (&Actor, &Loopback),
        people: &BTreeSet<IpAddr>,
        links: &BTreeMap<String, [IpAddr; 2]>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(address) = actor.address
            && let Some((rule, what)) = self.shuts_out(address)
        {
            let own = loopback.told(address);
            let whose =
                format!("your own address {own}: you may lose access to this console and its machine");
            problems.push(problem(rule, &what, &whose));
        }
        for address in people {
            if let Some((rule, what)) = self.shuts_out(*address) {
                let address = loopback.told(*address);
                let whose = format!("{address}, from which somebody has signed in to this console");
                problems.push(problem(rule, &what, &whose));
            }
        }
        for (node, ends) in links {
            if let Some((address, (rule, what))) =
                ends.iter().find_map(|address| Some((address, self.shuts_out(*address)?)))
            {
                let address = loopback.told(*address);
                let whose = format!("{address}, which node {node} and this console use to reach each other");
                problems.push(problem(rule, &what, &whose));
            }
        }
        problems
    }

    /// The rule that now keeps an address out, and how.
    fn shuts_out(&self, address: IpAddr) -> Option<(&'a FilterRule, String)> {
        let cell = |index: &Index, port| index.cell(address, address, Payload::Tcp(port));
        let newly = |port: &u16| {
            cell(&self.after, *port).verdict.is_drop() && !cell(&self.before, *port).verdict.is_drop()
        };
        let port = [SSH].into_iter().chain(self.ports.iter().copied()).find(newly)?;
        let cell = cell(&self.after, port);
        let about = |rule: &&FilterRule| {
            rule.ports.iter().any(|range| (range.first()..=range.last()).contains(&port))
        };
        if cell.verdict == CellVerdict::NotAllowed {
            let requires = |rule: &&FilterRule| {
                about(rule) && rule.action == FilterAction::Allow && rule.mode == FilterMode::Enforce
            };
            let rule = self.rules.iter().find(requires)?;
            return Some((rule, format!("would let only its own prefixes reach port {port}, and not")));
        }
        let rule = self.rules.iter().find(|known| known.id == cell.rule)?;
        let what = if about(&rule) {
            format!("would drop what comes to port {port} from")
        } else {
            "would drop".to_owned()
        };
        Some((rule, what))
    }
}

/// How such a change is confirmed; the review, which has the tick box, leaves it out.
pub(crate) const HOW: &str = " (the review's tick box, sallyport apply --yes, \"confirm\": true in the API)";

/// Where administrators come in, whatever the rules name.
const SSH: u16 = 22;

fn problem(rule: &FilterRule, what: &str, whose: &str) -> Problem {
    let (filter, name) = rule.name.split_once('/').unwrap_or((&rule.name, ""));
    let remedy = match rule.action {
        FilterAction::Allow => "add the address to it",
        FilterAction::Deny => "leave the address out",
    };
    let message = format!("rule {name} {what} {whose}; {remedy}, or confirm that you mean it{HOW}");
    Problem::new(format!("PacketFilter/{filter}"), "spec.rules", Code::NeedsConfirmation, message)
}
