//! The packet filter: which rule decides a packet, whatever the number of rules, by looking up three things.
//!
//! In: rules, protocol lists, listeners, the node's own addresses. Out: [`Compiled`] tables, for the kernel and for userspace
//! alike. Every source has a class (all sources that the same rules hold in the same order have the same), every destination
//! has one (all that the same rules are about), and a table says what happens to each pair. `docs/packet-filter.md` has the
//! order in which rules decide; `tests` has it again, in its slowest form.
//! Deliberately absent: what can be said of a packet without rules (malformed headers, ARP, neighbour discovery).

mod bogons;
mod budget;
mod cells;
mod destination;
mod effect;
mod fetched;
mod import;
mod index;
mod rule;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::listen::{Bound, Place};
use crate::snapshot::Listener;

pub use bogons::{BOGONS, bogons};
pub use budget::{FilterBudget, FilterBudgets, MOST_PORT_BUDGETS, MOST_RATE, PortBudget};
pub use effect::{Affected, How, affected};
pub use fetched::{Everybody, Source, everybody};
pub use import::{InvalidList, MOST_BYTES, MOST_PREFIXES, NotPrefix, prefixes_in};
pub use index::{Index, Verdict};
pub use rule::{
    FilterAction, FilterMode, FilterRule, ICMP, ICMPV6, InvalidPorts, PortRange, ProtocolList, TCP, UDP,
    protocol_number, protocol_word,
};

/// The first slot of TCP ports in [`Compiled::columns`].
pub const TCP_SLOTS: u32 = 0;
/// The first of UDP ports.
pub const UDP_SLOTS: u32 = 65_536;
/// The first of ICMP types.
pub const ICMP_SLOTS: u32 = 131_072;
/// The first of ICMPv6 types.
pub const ICMPV6_SLOTS: u32 = 131_328;
/// The first of the other IP protocols.
pub const PROTOCOL_SLOTS: u32 = 131_584;
/// The first of later fragments, by IP protocol.
pub const FRAGMENT_SLOTS: u32 = 131_840;
/// How many slots there are.
pub const SLOTS: u32 = 132_096;
/// Set in a slot's class: some listener's exact address has another class here.
pub const EXACT_FIRST: u16 = 1 << 15;

/// Source classes, at most.
pub const MOST_SOURCE_CLASSES: usize = 32_768;
/// Destination classes, at most.
pub const MOST_DESTINATION_CLASSES: usize = 1024;
/// Cells, at most.
pub const MOST_CELLS: usize = 1 << 20;

/// What decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// The rules, with distinct ids; order does not matter.
    pub rules: &'a [FilterRule],
    /// The lists of IP protocols.
    pub protocols: &'a [ProtocolList],
    /// Where listeners accept; `None` is every address. See [`places`].
    pub listeners: &'a [Bound],
    /// Where they accept on prefixes or any port. Only sockets ask: a packet to any port may be a reply, which nothing in it
    /// tells, and whoever accepts knows.
    pub ranges: &'a [Place],
    /// The node's own addresses, from which no packet comes to it.
    pub own: &'a [IpAddr],
}

/// Tables that decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The class of each source, by longest prefix, and 0 where there is none. Sorted, one entry a prefix, and none that
    /// says what the next shorter one says.
    pub sources: Vec<(IpNet, u16)>,
    /// The class of each destination, by slot; 0 where a slot is absent. Sorted.
    pub columns: Vec<(u32, u16)>,
    /// Every listener that has an address, with its class; its later fragments' stands at port 0. Sorted.
    pub exact: Vec<(IpAddr, u16, u16)>,
    /// The class that a destination of a class has where a listener accepts on a range, where it is another; empty for the
    /// kernel. Sorted.
    pub ranged: Vec<(u16, u16)>,
    /// How many classes of sources and of destinations there are.
    pub classes: (u16, u16),
    /// What happens, at source class × number of destination classes + destination class.
    pub cells: Vec<Cell>,
}

/// What happens to packets of a source class to a destination class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The rule or protocol list that decides; 0 where none does.
    pub rule: u32,
    /// What it decides.
    pub verdict: CellVerdict,
    /// The rule or list that would drop what passes, were it not only observed; 0 where none would. Of what is not allowed, the
    /// rule that would deny it: a client behind a balancer needs no allow rule of its own.
    pub observed: u32,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CellVerdict {
    /// Passes: no rule is about it, and none has to be.
    NoRule,
    /// Passes: an allow rule decides.
    Allowed,
    /// Dropped: a deny rule decides.
    Denied,
    /// Dropped: it needs an allow rule and has none.
    NotAllowed,
    /// Dropped: a later fragment of what may have to be dropped.
    Fragment,
    /// Dropped: from an address that sends nothing.
    Martian,
    /// Dropped: from one of the node's own addresses.
    OwnAddress,
    /// Dropped: its protocol is not in the lists.
    Protocol,
}

impl CellVerdict {
    /// Whether the packet is dropped.
    pub fn is_drop(self) -> bool {
        match self {
            Self::NoRule | Self::Allowed => false,
            Self::Denied
            | Self::NotAllowed
            | Self::Fragment
            | Self::Martian
            | Self::OwnAddress
            | Self::Protocol => true,
        }
    }
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// TCP to a port.
    Tcp(u16),
    /// UDP to a port.
    Udp(u16),
    /// ICMP of a type.
    Icmp(u8),
    /// ICMPv6 of a type.
    Icmpv6(u8),
    /// Another IP protocol.
    Other(u8),
    /// A later fragment of an IP protocol; of 0 when an IPv6 extension header hides the protocol too.
    Later(u8),
}

impl Payload {
    /// Its slot in [`Compiled::columns`].
    pub fn slot(self) -> u32 {
        match self {
            Self::Tcp(port) => TCP_SLOTS + u32::from(port),
            Self::Udp(port) => UDP_SLOTS + u32::from(port),
            Self::Icmp(kind) => ICMP_SLOTS + u32::from(kind),
            Self::Icmpv6(kind) => ICMPV6_SLOTS + u32::from(kind),
            Self::Other(protocol) => PROTOCOL_SLOTS + u32::from(protocol),
            Self::Later(protocol) => FRAGMENT_SLOTS + u32::from(protocol),
        }
    }

    /// The one whose slot this is.
    pub fn of_slot(slot: u32) -> Option<Self> {
        let from = |first: u32| slot.checked_sub(first);
        let byte = |first: u32| from(first).and_then(|number| u8::try_from(number).ok());
        let port = |first: u32| from(first).and_then(|number| u16::try_from(number).ok());
        port(TCP_SLOTS)
            .map(Self::Tcp)
            .or_else(|| port(UDP_SLOTS).map(Self::Udp))
            .or_else(|| byte(ICMP_SLOTS).map(Self::Icmp))
            .or_else(|| byte(ICMPV6_SLOTS).map(Self::Icmpv6))
            .or_else(|| byte(PROTOCOL_SLOTS).map(Self::Other))
            .or_else(|| byte(FRAGMENT_SLOTS).map(Self::Later))
    }

    /// The port it has in [`Compiled::exact`], where it can be for a listener.
    fn exact_port(self) -> Option<u16> {
        match self {
            Self::Tcp(port) => Some(port),
            Self::Later(TCP) => Some(0),
            Self::Udp(_) | Self::Icmp(_) | Self::Icmpv6(_) | Self::Other(_) | Self::Later(_) => None,
        }
    }
}

/// Why rules cannot be compiled: there are too many different cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Of prefixes within prefixes.
    #[error(
        "the rules' prefixes overlap in {0} different ways, and {MOST_SOURCE_CLASSES} are the most; use fewer rules or prefixes that do not overlap"
    )]
    Sources(usize),
    /// Of ports, protocols, ICMP types and listeners.
    #[error(
        "the rules' protocols and ports make {0} different cases, and {MOST_DESTINATION_CLASSES} are the most; use fewer different ports"
    )]
    Destinations(usize),
    /// Of both together.
    #[error(
        "the rules make {0} combinations of sources and destinations, and {MOST_CELLS} are the most; use fewer rules with ports, or fewer overlapping prefixes"
    )]
    Cells(usize),
}

/// Compiles the tables. Equal inputs give equal tables, and a prefix more is, where nothing overlaps, one entry more.
///
/// # Errors
/// See [`TooLarge`].
pub fn compile(inputs: Inputs<'_>) -> Result<Compiled, TooLarge> {
    compiled(Inputs { ranges: &[], ..inputs }, source::Origin::Wire)
}

fn compiled(inputs: Inputs<'_>, origin: source::Origin) -> Result<Compiled, TooLarge> {
    let rules = Ranked::of(inputs.rules);
    let sources = source::classify(&rules, inputs.own, origin);
    let destinations = destination::classify(&rules, inputs.protocols, inputs.listeners, inputs.ranges);
    let cells = cells::fill(&rules, &sources.classes, &destinations.classes)?;
    Ok(Compiled {
        sources: sources.prefixes,
        columns: destinations.columns,
        exact: destinations.exact,
        ranged: destinations.ranged,
        // Both are far below: `fill` has looked.
        classes: (sources.classes.len() as u16, destinations.classes.len() as u16),
        cells,
    })
}

/// Whether no way of counting can find too much in these: what [`compile`] finds out at more cost.
pub fn is_surely_small(inputs: Inputs<'_>) -> bool {
    let prefixes: usize = inputs.rules.iter().map(|rule| rule.prefixes.len()).sum();
    let edges = |rule: &FilterRule| rule.ports.len() + rule.icmp_types.len() + rule.protocols.len() + 1;
    let lists = inputs.protocols.iter().map(|list| list.allow.len() + 1);
    let edges: usize = inputs.rules.iter().map(edges).chain(lists).sum();
    // Each edge of a range starts a class in TCP and in UDP, each listener has at most two of its own.
    // On ranges each class can have one more.
    let ranges = if inputs.ranges.is_empty() { 1 } else { 2 };
    let destinations = (16 + 8 * (edges + inputs.listeners.len() + inputs.ranges.len())) * ranges;
    destinations <= MOST_DESTINATION_CLASSES && (prefixes + inputs.own.len() + 3) * destinations <= MOST_CELLS
}

/// Where listeners accept, sorted: what [`Inputs::listeners`] and [`Inputs::ranges`] want.
pub fn places(listeners: &[Listener]) -> (Vec<Bound>, Vec<Place>) {
    let places: BTreeSet<Place> = listeners.iter().flat_map(Listener::places).collect();
    let mut bound: Vec<Bound> = places.iter().filter_map(Place::bound).collect();
    bound.sort_unstable();
    (bound, places.into_iter().filter(|place| place.bound().is_none()).collect())
}

/// The rules by id: a rule's rank is its index here.
struct Ranked<'a>(Vec<&'a FilterRule>);

impl<'a> Ranked<'a> {
    fn of(rules: &'a [FilterRule]) -> Self {
        let mut ranked: Vec<&FilterRule> = rules.iter().collect();
        ranked.sort_by_key(|rule| rule.id);
        Self(ranked)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &'a FilterRule)> + '_ {
        (0..).zip(self.0.iter().copied())
    }

    fn get(&self, rank: u32) -> &'a FilterRule {
        self.0[rank as usize]
    }
}
