//! What other rules would have done to packets that were counted.
//!
//! In: who sent, the rules in force and the rules there would be. Out: those whose packets pass today and would be dropped, and
//! the other way round. Both are judged by the tables that the kernel is given, so this and the kernel cannot differ.

use super::{Cell, Index};
use crate::senders::{Sender, Senders};

/// What a change does to one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affected<'a> {
    /// Whom.
    pub sender: &'a Sender,
    /// How.
    pub how: How,
    /// The rule or protocol list that would do it; 0 where it is that there is none.
    pub rule: u32,
    /// How many of his packets: of those that passed, or, for [`How::Passed`], of those that were dropped.
    pub packets: u64,
}

/// What happens to packets that is otherwise today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// They pass today and would be dropped.
    Dropped,
    /// They pass, and would be counted as what would be dropped, were it not only observed.
    Observed,
    /// They are dropped today and would pass.
    Passed,
}

/// Whom a change of the rules affects, in the order of the record; those with no packet concerned are left out.
pub fn affected<'a>(
    senders: &'a Senders,
    before: &'a Index,
    after: &'a Index,
) -> impl Iterator<Item = Affected<'a>> {
    senders.senders.iter().filter_map(move |sender| {
        let cell = |index: &Index| index.cell(sender.source, sender.destination, sender.payload);
        let (how, rule) = change(cell(before), cell(after))?;
        let packets = match how {
            How::Dropped | How::Observed => sender.sums.passed(),
            How::Passed => sender.sums.drops,
        };
        (packets != 0).then_some(Affected { sender, how, rule, packets })
    })
}

fn change(before: Cell, after: Cell) -> Option<(How, u32)> {
    match (before.verdict.is_drop(), after.verdict.is_drop()) {
        (false, true) => Some((How::Dropped, after.rule)),
        (true, false) => Some((How::Passed, after.rule)),
        (false, false) if before.observed == 0 && after.observed != 0 => {
            Some((How::Observed, after.observed))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FilterAction, FilterMode, FilterRule, Inputs, Payload};
    use super::*;
    use crate::senders::Sums;

    fn sender(source: &str, port: u16, packets: u64, drops: u64) -> Sender {
        Sender {
            source: source.parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            payload: Payload::Tcp(port),
            sums: Sums { packets, drops, ..Sums::default() },
            first_ms: 0,
            last_ms: 0,
        }
    }

    fn rule(id: u32, action: FilterAction, prefix: &str) -> FilterRule {
        FilterRule::new(id, "f/r", action, vec![prefix.parse().unwrap()])
    }

    fn index(rules: &[FilterRule]) -> Index {
        Index::new(Inputs { rules, listeners: &[(None, 443)], ..Inputs::default() }).unwrap()
    }

    fn told(senders: &Senders, before: &[FilterRule], after: &[FilterRule]) -> Vec<(String, How, u32, u64)> {
        affected(senders, &index(before), &index(after))
            .map(|one| (one.sender.source.to_string(), one.how, one.rule, one.packets))
            .collect()
    }

    #[test]
    fn only_what_differs_from_today_is_told() {
        let senders = Senders {
            senders: vec![
                sender("10.1.0.1", 443, 10, 0),
                sender("10.2.0.1", 443, 20, 0),
                sender("2001:db8::1", 22, 30, 5),
                sender("10.3.0.1", 443, 7, 7),
            ],
            ..Senders::default()
        };
        let one = |how, rule, packets, source: &str| (source.to_owned(), how, rule, packets);
        let deny = [rule(1, FilterAction::Deny, "10.1.0.0/16"), rule(2, FilterAction::Deny, "2001:db8::/32")];
        assert_eq!(
            told(&senders, &[], &deny),
            [one(How::Dropped, 1, 10, "10.1.0.1"), one(How::Dropped, 2, 25, "2001:db8::1")]
        );
        assert_eq!(told(&senders, &deny, &deny), []);
        // Of what would be let in again only what was really dropped is told.
        assert_eq!(told(&senders, &deny, &[]), [one(How::Passed, 0, 5, "2001:db8::1")]);
        // An allow list shuts out who is not in it, at the listener's port and nowhere else.
        let allow = [rule(3, FilterAction::Allow, "10.1.0.0/16")];
        assert_eq!(told(&senders, &[], &allow), [one(How::Dropped, 0, 20, "10.2.0.1")]);
        let observed = [FilterRule { mode: FilterMode::Observe, ..deny[0].clone() }];
        assert_eq!(told(&senders, &[], &observed), [one(How::Observed, 1, 10, "10.1.0.1")]);
        assert_eq!(told(&senders, &deny[..1], &observed), []);
    }
}
