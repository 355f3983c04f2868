//! Changes that would shut out the person who makes them, or a node, need a second confirmation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::compile::{Compiled, selects};
use model::filter::{CellVerdict, Index, Inputs, Payload};
use model::net::Prefix;
use model::problem::{Code, Problem};
use model::snapshot::{FilterAction, FilterMode, FilterRule, ProtocolList};

use super::loopback::Loopback;
use super::{Current, Publisher};
use crate::ops::{Actor, OpsError};
use crate::store::NodeRow;

/// The addresses that nodes and console use to reach each other: both ends of every open link. And the ports at which this console
/// is reached. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<Reached>>);

#[derive(Debug, Clone, Default)]
struct Reached {
    ends: BTreeMap<String, Vec<IpAddr>>,
    ports: BTreeSet<u16>,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, Reached> {
        // One whole value goes in at a time: nothing is half done after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's link is (or was last) open between these addresses: the node's and the console's as the console sees them, and what the
    /// node says of them. They stay protected when it is closed: the node comes back from there.
    pub fn opened(&self, node: &str, ends: impl IntoIterator<Item = IpAddr>) {
        self.lock().ends.insert(node.to_owned(), ends.into_iter().collect());
    }

    /// A node that is shut out comes back from nowhere.
    pub fn forget(&self, node: &str) {
        self.lock().ends.remove(node);
    }

    /// Administrators or nodes reach this console at these ports.
    pub fn serves(&self, ports: impl IntoIterator<Item = u16>) {
        self.lock().ports.extend(ports);
    }
}

/// A node's labels, or those that a filter asks for.
type Labels = BTreeMap<String, String>;

impl Publisher {
    /// What of other objects needs a confirmation: only what was not so before.
    pub(super) async fn asked(
        &self,
        base: &Current,
        new: &Compiled,
        actor: &Actor,
        people: &[IpAddr],
    ) -> Result<Vec<Problem>, OpsError> {
        let rows = self.0.store.nodes().await?;
        let before = base.compiled.as_ref();
        // Nodes that are there, and those that have the labels some filter asks for and no others. Each kind for itself: a rule of
        // other nodes may let through what theirs drop.
        let selectors = before.iter().flat_map(|before| before.filter_selectors());
        let mut nodes: BTreeMap<&Labels, Vec<&str>> =
            new.filter_selectors().into_iter().chain(selectors).map(|labels| (labels, Vec::new())).collect();
        for row in rows.iter().filter(|row| !row.revoked) {
            nodes.entry(&row.labels).or_default().push(&row.name);
        }
        let nodes = nodes.into_iter().map(|(labels, names)| (labels, labels, names));
        Ok(self.whom(actor, people, new, &rows).asked(before, new, nodes))
    }

    /// What of other labels of a node needs a confirmation: they decide which packet filters it has.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn asked_of_labels(
        &self,
        node: &NodeRow,
        labels: &Labels,
        actor: &Actor,
    ) -> Result<Vec<Problem>, OpsError> {
        let current = Arc::clone(&self.0.current.borrow());
        let Some(compiled) = &current.compiled else { return Ok(Vec::new()) };
        let rows = self.0.store.nodes().await?;
        let whom = self.whom(actor, &[], compiled, &rows);
        let itself = (&node.labels, labels, vec![node.name.as_str()]);
        let mut asked = whom.asked(Some(compiled), compiled, std::iter::once(itself));
        for problem in &mut asked {
            if let Some(words) = problem.message.strip_suffix(HOW) {
                problem.message = format!("{words}{HOW_LABELS}");
            }
        }
        Ok(asked)
    }

    fn whom<'a>(&self, actor: &'a Actor, people: &[IpAddr], new: &Compiled, rows: &[NodeRow]) -> Whom<'a> {
        // Whether rules may meet what comes over a loopback interface is seen by where filters stand now.
        let loopback = Loopback::of(new, rows, |node| self.0.live.report(node));
        let Reached { ends, ports } = self.0.links.lock().clone();
        let people = people.iter().copied().filter(|one| actor.address != Some(*one)).collect();
        let revoked: BTreeMap<&str, bool> = rows.iter().map(|row| (row.name.as_str(), row.revoked)).collect();
        let link = |(node, ends): (String, Vec<IpAddr>)| match revoked.get(node.as_str()) {
            Some(true) => None,
            known => Some((node.clone(), Link { ends, known: known.is_some() })),
        };
        Whom { actor, people, links: ends.into_iter().filter_map(link).collect(), ports, loopback }
    }
}

/// Who must not be shut out unasked.
struct Whom<'a> {
    actor: &'a Actor,
    people: BTreeSet<IpAddr>,
    links: BTreeMap<String, Link>,
    ports: BTreeSet<u16>,
    loopback: Loopback,
}

/// A node's link.
struct Link {
    /// As [`Links::opened`] has them.
    ends: Vec<IpAddr>,
    /// Whether the node's labels are known; where they are not, it may have any filter.
    known: bool,
}

impl Link {
    /// Whether the node is on the console's machine, so that its filter meets what other nodes send to the console.
    fn beside_the_console(&self) -> bool {
        match self.ends[..] {
            [] => false,
            // As releases before this kept two that are the same.
            [_] => true,
            [node, console, ..] => node == console || node.to_canonical().is_loopback(),
        }
    }
}

/// Nodes that have the same filters and listeners, and had the same.
struct Kind<'a> {
    names: BTreeSet<&'a str>,
    before: Rules,
    after: Rules,
}

impl Whom<'_> {
    /// What is asked about nodes whose objects or labels change, each with its labels before and after, and the names of those there are.
    fn asked<'l>(
        &self,
        before: Option<&'l Compiled>,
        after: &'l Compiled,
        nodes: impl Iterator<Item = (&'l Labels, &'l Labels, Vec<&'l str>)>,
    ) -> Vec<Problem> {
        let (had, have) =
            (before.map(|before| self.filters(before)).unwrap_or_default(), self.filters(after));
        // A thousand nodes have a few kinds of rules.
        let mut kinds = BTreeMap::new();
        for (old, new, names) in nodes {
            let (had, have) = (selected(&had, old), selected(&have, new));
            let listeners: BTreeSet<u16> =
                after.listeners_for(new).filter_map(|listener| listener.port.number()).collect();
            let kind = kinds.entry((indices(&had), indices(&have), listeners)).or_insert_with(|| Kind {
                names: BTreeSet::new(),
                before: Rules::of(&had),
                after: Rules::of(&have),
            });
            kind.names.extend(names);
        }
        let mut problems = Vec::new();
        for ((.., listeners), kind) in &kinds {
            if kind.before == kind.after {
                continue;
            }
            // Rules that are too many for the tables are refused before this is asked.
            let Some(change) = Change::of(&kind.before, &kind.after, listeners, &self.ports) else {
                continue;
            };
            for problem in change.problems(self, &kind.names) {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        problems
    }

    /// The links that the filters of these nodes may cut, each with the addresses that count for them. What a node says of its link
    /// counts for its own filters alone, or it could keep those of others from changing.
    fn cut_by<'l>(&'l self, names: &'l BTreeSet<&str>) -> impl Iterator<Item = (&'l str, &'l [IpAddr])> {
        let own = |name: &str, link: &Link| !link.known || names.contains(name);
        let beside = self.links.iter().any(|(name, link)| own(name, link) && link.beside_the_console());
        self.links.iter().map(move |(name, link)| {
            let count = if own(name, link) { link.ends.len() } else { usize::from(beside) };
            (name.as_str(), link.ends.get(..count).unwrap_or_default())
        })
    }

    /// The filters, as far as they are about those whom this is about.
    fn filters<'l>(&self, compiled: &'l Compiled) -> Vec<Filter<'l>> {
        let addresses: BTreeSet<IpAddr> = self
            .links
            .values()
            .flat_map(|link| &link.ends)
            .copied()
            .chain(self.actor.address)
            .chain(self.people.clone())
            .collect();
        let filter = |(index, (selector, rules, protocols)): (usize, (_, &[FilterRule], _))| Filter {
            index,
            selector,
            rules: rules.iter().map(|rule| about(rule, (&addresses, &self.loopback))).collect(),
            protocols,
        };
        compiled.filters().enumerate().map(filter).collect()
    }
}

/// A packet filter, as far as it is about some addresses.
struct Filter<'a> {
    index: usize,
    selector: &'a Labels,
    rules: Vec<FilterRule>,
    protocols: Option<&'a ProtocolList>,
}

/// The filters that a node with these labels has.
fn selected<'f, 'a>(filters: &'f [Filter<'a>], labels: &Labels) -> Vec<&'f Filter<'a>> {
    filters.iter().filter(|filter| selects(filter.selector, labels)).collect()
}

fn indices(filters: &[&Filter<'_>]) -> Vec<usize> {
    filters.iter().map(|filter| filter.index).collect()
}

/// The rules of some nodes, as far as they are about some addresses.
#[derive(Default, PartialEq, Eq)]
struct Rules {
    rules: Vec<FilterRule>,
    protocols: Vec<ProtocolList>,
}

impl Rules {
    fn of(filters: &[&Filter<'_>]) -> Self {
        Self {
            rules: filters.iter().flat_map(|filter| &filter.rules).cloned().collect(),
            protocols: filters.iter().filter_map(|filter| filter.protocols).cloned().collect(),
        }
    }

    fn index(&self) -> Option<Index> {
        let Self { rules, protocols } = self;
        Index::new(Inputs { rules, protocols, ..Inputs::default() }).ok()
    }
}

/// What differs for TCP to whatever is no listener of these nodes: ssh, this console, and the replies that a node gets from it.
struct Change<'a> {
    before: Index,
    after: Index,
    rules: &'a [FilterRule],
    /// Those of administrators' and nodes' ways in, and one of each range that the rules judge alike.
    ports: Vec<u16>,
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
    /// `listeners` are ports of listeners: whom they turn away is what rules are for. `ways` are ports at which somebody comes in to
    /// mend what went wrong, so they count even where a listener has the same port at another address.
    fn of(before: &Rules, after: &'a Rules, listeners: &BTreeSet<u16>, ways: &BTreeSet<u16>) -> Option<Self> {
        let ranges = before.rules.iter().chain(&after.rules).flat_map(|rule| &rule.ports);
        let edges = ranges.flat_map(|range| [Some(range.first()), range.last().checked_add(1)]);
        let free = |port: u16| (port..=u16::MAX).find(|port| !listeners.contains(port));
        let others: BTreeSet<u16> = edges.flatten().chain([0]).filter_map(free).collect();
        Some(Self {
            before: before.index()?,
            after: after.index()?,
            rules: &after.rules,
            ports: [SSH].into_iter().chain(ways.iter().copied()).chain(others).collect(),
        })
    }

    /// Whom it shuts out of the nodes of these names: the person who makes it, others who work here, or a node's link.
    fn problems(&self, whom: &Whom<'_>, names: &BTreeSet<&str>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let told = |address: &IpAddr| whom.loopback.told(*address);
        if let Some(address) = whom.actor.address
            && let Some((rule, what)) = self.shuts_out(address)
        {
            let own = told(&address);
            let whose =
                format!("your own address {own}: you may lose access to this console and its machine");
            problems.push(problem(rule, &what, &whose));
        }
        for address in &whom.people {
            if let Some((rule, what)) = self.shuts_out(*address) {
                let whose = format!("{}, from which somebody has signed in to this console", told(address));
                problems.push(problem(rule, &what, &whose));
            }
        }
        for (node, ends) in whom.cut_by(names) {
            if let Some((address, (rule, what))) =
                ends.iter().find_map(|address| Some((address, self.shuts_out(*address)?)))
            {
                let whose =
                    format!("{}, which node {node} and this console use to reach each other", told(address));
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
        let port = self.ports.iter().copied().find(newly)?;
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

/// The same of a node's labels.
pub(crate) const HOW_LABELS: &str =
    " (the tick box beside the labels, --yes on the command line, \"confirm\": true in the API)";

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

#[cfg(test)]
mod tests;
