//! Snapshot -> wanted kernel tables; pure.

mod ranges;
pub(crate) mod trie;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use model::filter::{Cell, CellVerdict, Compiled, FilterBudgets, Inputs, TooLarge, compile};
use model::listen::{Bound, Place};
use model::snapshot::{Listener, Snapshot};

pub use ranges::{Range, of as ranges_of};

/// What the kernel's tables are to say, as one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// What happens to packets; empty where nothing is to be looked up.
    pub filter: Compiled,
    /// Where listeners accept at a port, of an address or of every one: steered by `sk_lookup`. Sorted.
    pub listeners: Vec<Bound>,
    /// Everything that is or is not steered, where a listener accepts on a prefix or any port; otherwise empty. See [`Range`].
    pub ranges: Vec<Range>,
    /// How much may come.
    pub budgets: FilterBudgets,
}

/// The tables for a snapshot, with those of its listeners that are open. Where somebody else is `busy` listening is left out of
/// any port; the unspecified address is every one of its family.
///
/// # Errors
/// The rules make more cases than the tables have room for.
pub fn plan(
    snapshot: &Snapshot,
    own: &[IpAddr],
    busy: &[SocketAddr],
    is_open: impl Fn(&Place) -> bool,
) -> Result<KernelPlan, TooLarge> {
    let places: BTreeSet<Place> =
        snapshot.listeners.iter().flat_map(Listener::places).filter(is_open).collect();
    let mut listeners: Vec<Bound> = places.iter().filter_map(Place::bound).collect();
    listeners.sort_unstable();
    let plan = KernelPlan::of(Inputs {
        rules: &snapshot.filter,
        protocols: &snapshot.filter_protocols,
        listeners: &listeners,
        ranges: &[],
        own,
    })?;
    let ranges = ranges::of(&places, busy);
    Ok(KernelPlan { budgets: snapshot.filter_budgets.clone(), ranges, ..plan })
}

impl KernelPlan {
    /// The tables for rules and listeners.
    ///
    /// # Errors
    /// The rules make more cases than the tables have room for.
    pub fn of(inputs: Inputs<'_>) -> Result<Self, TooLarge> {
        let mut filter = compile(inputs)?;
        let martian = martian(&filter);
        // The program tells sources that no wire has by itself, and lets the loopback interface have them.
        filter.sources.retain(|(_, class)| Some(*class) != martian);
        if says_nothing(&filter) {
            filter = Compiled::default();
        }
        let (listeners, ranges) = (inputs.listeners.to_vec(), Vec::new());
        Ok(Self { filter, listeners, ranges, budgets: FilterBudgets::default() })
    }
}

/// The class of sources that no wire has.
fn martian(filter: &Compiled) -> Option<u16> {
    let row = filter.cells.iter().position(|cell| cell.verdict == CellVerdict::Martian)?;
    u16::try_from(row / usize::from(filter.classes.1).max(1)).ok()
}

/// Whether every packet passes by every rule.
fn says_nothing(filter: &Compiled) -> bool {
    let mut used = vec![false; usize::from(filter.classes.0)];
    for class in filter.sources.iter().map(|(_, class)| *class).chain([0]) {
        used.iter_mut().skip(class.into()).take(1).for_each(|used| *used = true);
    }
    let rows = filter.cells.chunks(usize::from(filter.classes.1).max(1));
    let says = |cell: &Cell| cell.verdict != CellVerdict::NoRule || cell.observed != 0;
    !rows.zip(used).any(|(row, used)| used && row.iter().any(says))
}

#[cfg(test)]
mod tests;
