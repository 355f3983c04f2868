//! A plan as the table of a generation spells it.

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::table::{COLUMN_WORDS, Head, LINE, NODE, PAIRS, STEPS_MAX};
use dataplane_ebpf::wire::{self, RuleReason};
use ipnet::IpNet;
use model::filter::{Cell, CellVerdict, Compiled};

use crate::keeper::kernel::KernelError;
use crate::keeper::plan::trie::{Nodes, Prefix};

/// What a generation's table is to hold, but for the sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    cells: Vec<u32>,
    /// Empty where there is one class of destinations.
    columns: Vec<u32>,
    destinations: u32,
}

impl Rules {
    pub(super) fn of(filter: &Compiled, counter: impl Fn(RuleReason) -> u32) -> Self {
        let destinations = u32::from(filter.classes.1);
        let mut columns = Vec::new();
        if destinations > 1 {
            columns.resize(COLUMN_WORDS as usize, 0);
            for (slot, class) in &filter.columns {
                if let Some(word) = columns.get_mut(*slot as usize / 2) {
                    *word |= u32::from(*class) << (*slot % 2 * 16);
                }
            }
        }
        let words = |cell: &Cell| {
            let mut cell = spelt(cell);
            if cell.rule != 0 {
                cell.counter = counter(RuleReason { rule: cell.rule, reason: cell.reason });
            }
            cell.to_words()
        };
        Self { cells: filter.cells.iter().flat_map(words).collect(), columns, destinations }
    }
}

/// Where few cells lie, at a multiple of a cell's words: every packet reads that line anyway.
const BESIDE_HEAD: usize = Head::WORDS.next_multiple_of(2);

/// A whole table's words: head with cells, if they are few, pairs of classes, cells, tries, columns.
///
/// # Errors
/// [`KernelError::TooDeep`], [`KernelError::TooLarge`].
pub(super) fn image(rules: &Rules, sources: &Sources) -> Result<Vec<u32>, KernelError> {
    let line = |words: &mut Vec<u32>| words.resize(words.len().next_multiple_of(LINE), 0);
    let mut words = vec![0; 2 * LINE];
    let cells = match words.get_mut(BESIDE_HEAD..LINE).and_then(|room| room.get_mut(..rules.cells.len())) {
        Some(room) => {
            room.copy_from_slice(&rules.cells);
            BESIDE_HEAD
        }
        None => {
            words.extend(&rules.cells);
            line(&mut words);
            2 * LINE
        }
    };
    let mut nodes = Nodes::new(words.len() as u32);
    let (four, six) = (nodes.trie(&sources.four), nodes.trie(&sources.six));
    if !nodes.is_shallow() {
        return Err(KernelError::TooDeep { steps: STEPS_MAX });
    }
    words.iter_mut().skip(PAIRS as usize).zip(nodes.pairs()).for_each(|(word, pair)| *word = pair);
    words.append(&mut nodes.words);
    line(&mut words);
    let columns = if rules.columns.is_empty() { 0 } else { words.len() as u32 };
    words.extend(&rules.columns);
    line(&mut words);
    entries_reach(words.len())?;
    let head = Head { four, six, destinations: rules.destinations, cells: cells as u32, columns };
    words.iter_mut().zip(head.to_words()).for_each(|(word, head)| *word = head);
    Ok(words)
}

/// Whether entries can say where each of so many words is, and what comes later in the slack behind them: an eighth, and less than
/// an eighth for what begins a chunk.
fn entries_reach(words: usize) -> Result<(), KernelError> {
    const MOST: u32 = NODE / 5 * 4;
    if words > MOST as usize {
        return Err(KernelError::TooLarge { words, most: MOST });
    }
    Ok(())
}

/// The prefixes of both families with their classes, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) four: Vec<Prefix>,
    pub(super) six: Vec<Prefix>,
}

impl Sources {
    pub(super) fn of(filter: &Compiled) -> Self {
        let fours = filter.sources.partition_point(|(net, _)| matches!(net, IpNet::V4(_)));
        let (fours, sixes) = filter.sources.split_at(fours);
        let [four, six] =
            [fours, sixes].map(|nets| nets.iter().map(|(net, class)| Prefix::of(*net, *class)).collect());
        Self { four, six }
    }
}

/// How a list of prefixes changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// This one came, went or has another class.
    One(Prefix),
    Many,
}

/// What separates two sorted lists.
pub(super) fn change(old: &[Prefix], new: &[Prefix]) -> Change {
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
    match (old, new) {
        ([], []) => Change::None,
        ([went, rest @ ..], new) if rest == new => Change::One(*went),
        (old, [came, rest @ ..]) if rest == old => Change::One(*came),
        ([was, olds @ ..], [is, news @ ..])
            if (was.bits, was.length) == (is.bits, is.length) && olds == news =>
        {
            Change::One(*is)
        }
        _ => Change::Many,
    }
}

/// The cell of the table that a plan's cell becomes, without its counter.
pub(in crate::keeper::kernel) fn spelt(cell: &Cell) -> wire::Cell {
    match reason(cell.verdict) {
        reason if reason.is_drop() || cell.observed == 0 => wire::Cell::new(cell.rule, reason.number()),
        _ => wire::Cell::new(cell.observed, Reason::Observed.number()),
    }
}

/// The reason a packet has by a verdict.
const fn reason(verdict: CellVerdict) -> Reason {
    match verdict {
        CellVerdict::NoRule => Reason::NoRule,
        CellVerdict::Allowed => Reason::Allowed,
        CellVerdict::Denied => Reason::Denied,
        CellVerdict::NotAllowed => Reason::NotAllowed,
        CellVerdict::Fragment => Reason::Fragment,
        CellVerdict::OwnAddress => Reason::OwnAddress,
        CellVerdict::Protocol => Reason::Protocol,
        // The plan has no source of this class: the program knows them by itself.
        CellVerdict::Martian => Reason::Martian,
    }
}

/// What a plan's rules need counters for. Sorted.
pub(in crate::keeper::kernel) fn counters(filter: &Compiled) -> Vec<RuleReason> {
    let cells = filter.cells.iter().map(spelt).filter(|cell| cell.rule != 0);
    let mut counters: Vec<RuleReason> =
        cells.map(|cell| RuleReason { rule: cell.rule, reason: cell.reason }).collect();
    counters.sort_unstable();
    counters.dedup();
    counters
}

#[cfg(test)]
mod tests {
    use dataplane_ebpf::wire::slot;
    use model::filter;
    use proptest::prelude::*;

    use super::*;

    /// An entry has 27 bits for a place: behind that it would be another kind of node.
    #[test]
    fn a_table_that_entries_do_not_reach_is_refused() {
        assert!(entries_reach(100_000_000).is_ok());
        let refused = entries_reach(NODE as usize).unwrap_err().to_string();
        let said = "the packet filter's prefixes take 134217728 words, and a table has 107374180 at most: leave some out";
        assert_eq!(refused, said);
    }

    #[test]
    fn few_cells_lie_in_the_head_s_line_and_more_behind_the_pairs() {
        for (count, begin) in [(0, BESIDE_HEAD), (2, BESIDE_HEAD), (10, BESIDE_HEAD), (12, 2 * LINE)] {
            let cells: Vec<u32> = (1..=count).collect();
            let rules = Rules { cells: cells.clone(), destinations: 1, ..Rules::default() };
            let words = image(&rules, &Sources::default()).unwrap();
            let head = Head::from_words(words[..Head::WORDS].try_into().unwrap());
            assert_eq!((head.cells, head.destinations), (begin as u32, 1));
            assert_eq!(words[begin..begin + cells.len()], cells);
        }
    }

    /// The model numbers slots without knowing the kernel's side.
    #[test]
    fn slots_agree() {
        assert_eq!(
            [slot::TCP, slot::UDP, slot::ICMP, slot::ICMPV6, slot::OTHER, slot::LATER_FRAGMENT, slot::SLOTS],
            [
                filter::TCP_SLOTS,
                filter::UDP_SLOTS,
                filter::ICMP_SLOTS,
                filter::ICMPV6_SLOTS,
                filter::PROTOCOL_SLOTS,
                filter::FRAGMENT_SLOTS,
                filter::SLOTS,
            ]
        );
        assert_eq!(slot::EXACT_FIRST, u32::from(filter::EXACT_FIRST));
    }

    #[test]
    fn what_is_only_observed_is_the_reason_of_a_packet_that_passes() {
        let cell = |verdict, observed| spelt(&Cell { rule: 7, verdict, observed });
        assert_eq!(cell(CellVerdict::Allowed, 9), wire::Cell::new(9, Reason::Observed.number()));
        assert_eq!(cell(CellVerdict::Allowed, 0), wire::Cell::new(7, Reason::Allowed.number()));
        assert_eq!(cell(CellVerdict::Denied, 9), wire::Cell::new(7, Reason::Denied.number()));
    }

    fn listed(map: &std::collections::BTreeMap<u8, u16>) -> Vec<Prefix> {
        map.iter().map(|(bits, class)| Prefix { bits: (*bits).into(), length: 128, class: *class }).collect()
    }

    proptest! {
        #[test]
        fn a_change_is_what_it_takes(old: std::collections::BTreeMap<u8, u16>, mut new: std::collections::BTreeMap<u8, u16>, few: bool) {
            if few {
                new = old.clone().into_iter().chain(new.into_iter().take(1)).collect();
            }
            let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let differ: Vec<u8> = keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).copied().collect();
            for (from, to) in [(&old, &new), (&new, &old)] {
                match (change(&listed(from), &listed(to)), &differ[..]) {
                    (Change::None, []) => {}
                    (Change::One(prefix), [key]) => prop_assert_eq!(prefix.bits, u128::from(*key)),
                    (Change::Many, [_, _, ..]) => {}
                    (change, differ) => prop_assert!(false, "{:?} {:?}", change, differ),
                }
            }
        }
    }
}
