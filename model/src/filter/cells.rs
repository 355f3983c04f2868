//! Classes of sources × classes of destinations -> what happens.

use super::destination::{self, Facts, Listed};
use super::source;
use super::{
    Cell, CellVerdict, FilterAction, FilterMode, MOST_CELLS, MOST_DESTINATION_CLASSES, MOST_SOURCE_CLASSES,
    Ranked, TooLarge,
};

pub(super) fn fill(
    rules: &Ranked<'_>,
    sources: &[source::Class],
    destinations: &[destination::Class],
) -> Result<Vec<Cell>, TooLarge> {
    if sources.len() > MOST_SOURCE_CLASSES {
        return Err(TooLarge::Sources(sources.len()));
    }
    if destinations.len() > MOST_DESTINATION_CLASSES {
        return Err(TooLarge::Destinations(destinations.len()));
    }
    let cells = sources.len() * destinations.len();
    if cells > MOST_CELLS {
        return Err(TooLarge::Cells(cells));
    }
    let mut filled = Vec::with_capacity(cells);
    for source in sources {
        filled.extend(destinations.iter().map(|destination| cell(rules, source, destination)));
    }
    Ok(filled)
}

fn cell(rules: &Ranked<'_>, source: &source::Class, destination: &destination::Class) -> Cell {
    let verdict = match source {
        source::Class::Rules(held) => {
            return match destination {
                destination::Class::One(facts) => one(rules, held, facts),
                destination::Class::Hidden(facts) => {
                    hidden(facts.iter().map(|facts| one(rules, held, facts)))
                }
            };
        }
        source::Class::Martian => CellVerdict::Martian,
        source::Class::Own => CellVerdict::OwnAddress,
    };
    Cell { rule: 0, verdict, observed: 0 }
}

/// What happens where everything is seen. `held` are the rules that hold the source, in the order in which they are asked.
fn one(rules: &Ranked<'_>, held: &[u32], facts: &Facts) -> Cell {
    let dropped = |rule, verdict| Cell { rule, verdict, observed: 0 };
    if let Listed::No(list) = facts.protocol {
        return dropped(list, CellVerdict::Protocol);
    }
    let about = |rank: &&u32| rules.get(**rank).is_general() || facts.rules.binary_search(rank).is_ok();
    let mut about = held.iter().filter(about).map(|rank| rules.get(*rank));
    let first = about.next();
    let decides = first
        .filter(|rule| rule.mode == FilterMode::Enforce)
        .or_else(|| about.find(|rule| rule.mode == FilterMode::Enforce));
    let (rule, verdict) = match decides {
        Some(rule) if rule.action == FilterAction::Deny => return dropped(rule.id, CellVerdict::Denied),
        Some(rule) => (rule.id, CellVerdict::Allowed),
        None if facts.required => (0, CellVerdict::NotAllowed),
        None => (0, CellVerdict::NoRule),
    };
    let observed = match (facts.protocol, first) {
        (Listed::Observed(_), _) if verdict.is_drop() => 0,
        (Listed::Observed(list), _) => list,
        (Listed::Yes | Listed::No(_), Some(rule)) if rule.action == FilterAction::Deny => rule.id,
        (Listed::Yes | Listed::No(_), Some(_)) => 0,
        (Listed::Yes | Listed::No(_), None) => facts.observed,
    };
    Cell { rule, verdict, observed }
}

/// What happens to a later fragment that may be for any of these: what they have in common, else a drop if one is dropped. Of
/// cells that are all the same this is the cell, whether their destinations were told apart or not.
fn hidden(cells: impl Iterator<Item = Cell>) -> Cell {
    let cells: Vec<Cell> = cells.collect();
    let lowest = |id: fn(&Cell) -> u32| cells.iter().map(id).filter(|id| *id != 0).min().unwrap_or(0);
    let verdict = match cells.first() {
        Some(first) if cells.iter().all(|cell| cell.verdict == first.verdict) => first.verdict,
        _ if cells.iter().any(|cell| cell.verdict.is_drop()) => {
            return Cell { rule: 0, verdict: CellVerdict::Fragment, observed: 0 };
        }
        _ => return Cell { rule: 0, verdict: CellVerdict::NoRule, observed: lowest(|cell| cell.observed) },
    };
    Cell { rule: lowest(|cell| cell.rule), verdict, observed: lowest(|cell| cell.observed) }
}
