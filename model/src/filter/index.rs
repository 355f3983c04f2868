//! The same tables for userspace: a hash lookup per prefix length in use, and one for the destination.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::source::Origin;
use crate::listen::Atlas;

use super::{
    Cell, CellVerdict, Compiled, EXACT_FIRST, FilterAction, FilterMode, Inputs, Payload, TooLarge, compiled,
};

/// The verdict on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No rule drops it.
    Pass,
    /// This rule or protocol list does.
    Denied {
        /// Its id.
        rule: u32,
    },
    /// It needs an allow rule, and none names its source.
    NotAllowed,
}

/// Compiled rules, ready to be asked often.
#[derive(Debug, Clone, Default)]
pub struct Index {
    v4: Lengths,
    v6: Lengths,
    columns: HashMap<u32, u16>,
    exact: HashMap<(IpAddr, u16), u16>,
    /// Where listeners accept on ranges, and what destinations' classes become there.
    ranges: Atlas<()>,
    ranged: HashMap<u16, u16>,
    destinations: usize,
    cells: Vec<Cell>,
    /// Rules that are only observed, by id; empty for the tables of the kernel, which counts what they say itself.
    observing: HashMap<u32, FilterAction>,
}

/// The classes of one address family's sources: the prefixes of each length in use, longest first.
type Lengths = Vec<(u8, HashMap<IpAddr, u16>)>;

impl Index {
    /// For what sockets accept: this machine's own clients are judged by the rules like any others.
    ///
    /// # Errors
    /// See [`TooLarge`].
    pub fn new(inputs: Inputs<'_>) -> Result<Self, TooLarge> {
        let index = Self::of(&compiled(Inputs { own: &[], ..inputs }, Origin::Socket)?);
        let observing = inputs.rules.iter().filter(|rule| rule.mode == FilterMode::Observe);
        Ok(Self {
            ranges: inputs.ranges.iter().map(|place| (*place, ())).collect(),
            observing: observing.map(|rule| (rule.id, rule.action)).collect(),
            ..index
        })
    }

    /// For the tables of the kernel.
    pub fn of(compiled: &Compiled) -> Self {
        let mut index = Self {
            columns: compiled.columns.iter().copied().collect(),
            exact: compiled.exact.iter().map(|(address, port, class)| ((*address, *port), *class)).collect(),
            ranged: compiled.ranged.iter().copied().collect(),
            destinations: usize::from(compiled.classes.1),
            cells: compiled.cells.clone(),
            ..Self::default()
        };
        for (net, class) in &compiled.sources {
            let lengths = if net.addr().is_ipv4() { &mut index.v4 } else { &mut index.v6 };
            let slot =
                lengths.iter().position(|(length, _)| *length == net.prefix_len()).unwrap_or_else(|| {
                    lengths.push((net.prefix_len(), HashMap::new()));
                    lengths.len() - 1
                });
            lengths[slot].1.insert(net.network(), *class);
        }
        index.v4.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
        index.v6.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
        index
    }

    /// What happens to a packet; nothing where there are no rules. An IPv4-mapped address is its IPv4 address. No allocation.
    pub fn cell(&self, source: IpAddr, destination: IpAddr, payload: Payload) -> Cell {
        let column = self.columns.get(&payload.slot()).copied().unwrap_or(0);
        let exact = || self.exact.get(&(destination.to_canonical(), payload.exact_port()?)).copied();
        let column = match column & EXACT_FIRST {
            0 => column,
            _ => exact().unwrap_or(column & !EXACT_FIRST),
        };
        let column = match payload {
            Payload::Tcp(port) => self.where_ranges_are(SocketAddr::new(destination, port), column),
            Payload::Udp(_)
            | Payload::Icmp(_)
            | Payload::Icmpv6(_)
            | Payload::Other(_)
            | Payload::Later(_) => column,
        };
        let cell = usize::from(self.class(source)) * self.destinations + usize::from(column);
        self.cells.get(cell).copied().unwrap_or(Cell { rule: 0, verdict: CellVerdict::NoRule, observed: 0 })
    }

    /// What happens to a client that reached the listener at `local`.
    pub fn verdict(&self, client: IpAddr, local: SocketAddr) -> Verdict {
        let cell = self.cell(client, local.ip(), Payload::Tcp(local.port()));
        match cell.verdict {
            CellVerdict::NoRule | CellVerdict::Allowed => Verdict::Pass,
            CellVerdict::NotAllowed => Verdict::NotAllowed,
            CellVerdict::Denied
            | CellVerdict::Fragment
            | CellVerdict::Martian
            | CellVerdict::OwnAddress
            | CellVerdict::Protocol => Verdict::Denied { rule: cell.rule },
        }
    }

    /// The observed rule that would refuse a client which reached the listener at `local`, and how: by denying it, or by allowing
    /// others. Nothing where a rule in force refuses it already; but of who needs an allow rule and has none it is said which
    /// rule would deny him, for a balancer may have one for him.
    pub fn observed(&self, client: IpAddr, local: SocketAddr) -> Option<(u32, FilterAction)> {
        if self.observing.is_empty() {
            return None;
        }
        let rule = self.cell(client, local.ip(), Payload::Tcp(local.port())).observed;
        self.observing.get(&rule).map(|action| (rule, *action))
    }

    fn where_ranges_are(&self, local: SocketAddr, column: u16) -> u16 {
        let here = || self.ranges.get(local).and_then(|()| self.ranged.get(&column));
        if self.ranged.is_empty() { column } else { here().copied().unwrap_or(column) }
    }

    fn class(&self, source: IpAddr) -> u16 {
        let source = source.to_canonical();
        let lengths = if source.is_ipv4() { &self.v4 } else { &self.v6 };
        let found = lengths.iter().find_map(|(length, prefixes)| {
            let network = IpNet::new(source, *length).ok()?.network();
            prefixes.get(&network).copied()
        });
        found.unwrap_or(0)
    }
}
