//! Drops, from the programs' per-CPU counters.
//!
//! The counters only grow and live outside generations. What was already taken is pinned beside them, with the number of each
//! rule's counter, so a restart neither loses nor repeats a drop. Rule 0 in that table stands for a reason's total. A counter
//! that is given to another rule goes on from where it stands: that is then what was taken.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::here::Here;
use dataplane_ebpf::wire::{RULES_MAX, RuleReason, maps};
use model::report::{Drops, Place};

use super::pins::{Slot, TAKEN, pin_over};
use super::{KernelError, sys};

/// Passes are not drops, but those are told that an observed rule would drop, and SYNs that were answered with a cookie.
fn told(reason: Reason) -> bool {
    reason.is_drop() || matches!(reason, Reason::Observed | Reason::SynCookie)
}

/// What is pinned of a rule and reason, or of a reason alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// Packets that were told.
    total: u64,
    /// The rule's counter.
    counter: u32,
}

impl Taken {
    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.total) << 64 | u128::from(self.counter)).to_ne_bytes()
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_ne_bytes(bytes);
        Self { total: (both >> 64) as u64, counter: both as u32 }
    }
}

pub(super) struct Counters {
    here: OwnedFd,
    rules: OwnedFd,
    taken: OwnedFd,
    /// Possible CPUs.
    cpus: usize,
    /// Rules that have a counter, and which: from 1 on.
    known: BTreeMap<RuleReason, u32>,
    /// Those of the plan in force; the others go once they stand still.
    wanted: BTreeSet<RuleReason>,
}

impl Counters {
    /// Opens the slot's counters; makes the table of what was taken where there is none.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| KernelError::table("counting the CPUs for", maps::HERE)(error))?;
        let path = slot.map(TAKEN.name);
        let taken = match sys::pinned(&path) {
            Ok(taken) => taken,
            Err(_) => {
                let made = sys::map_create(TAKEN.name, TAKEN.shape)
                    .map_err(KernelError::table("making", TAKEN.name))?;
                pin_over(&made, &path)?;
                made
            }
        };
        let mut counters = Self {
            here: slot.open(maps::HERE)?,
            rules: slot.open(maps::RULES)?,
            taken,
            cpus,
            wanted: BTreeSet::new(),
            known: BTreeMap::new(),
        };
        let keys =
            sys::map_keys::<8>(counters.taken.as_fd()).map_err(KernelError::table("reading", TAKEN.name))?;
        for rule in keys.into_iter().map(RuleReason::from_bytes).filter(|key| key.rule != 0) {
            let Taken { counter, .. } = counters.taken(rule)?;
            counters.known.insert(rule, counter);
        }
        counters.wanted = counters.known.keys().copied().collect();
        Ok(counters)
    }

    /// Gives the rules of a plan counters before it comes into force. Where there are no more the rest are counted by reason
    /// alone.
    pub(super) fn prepare(&mut self, wanted: Vec<RuleReason>) {
        self.wanted = wanted.into_iter().collect();
        let used: BTreeSet<u32> = self.known.values().copied().collect();
        let mut free = (1..=RULES_MAX).filter(|counter| !used.contains(counter));
        let new: Vec<RuleReason> =
            self.wanted.iter().filter(|rule| !self.known.contains_key(rule)).copied().collect();
        for rule in new {
            let Some(counter) = free.next() else { break };
            let given =
                self.of_rule(counter).and_then(|total| self.set_taken(rule, Taken { total, counter }));
            if given.is_err() {
                break;
            }
            self.known.insert(rule, counter);
        }
    }

    /// The counter of a rule, 0 where it has none.
    pub(super) fn of(&self, rule: RuleReason) -> u32 {
        self.known.get(&rule).copied().unwrap_or(0)
    }

    /// Drops since the call before, and what only observed rules would have dropped.
    pub(super) fn take(&mut self) -> Result<Vec<Drops>, KernelError> {
        // Reasons before rules, the other way round than a program counts: so what a reason's total has of rules is in their
        // counters, and no packet that comes meanwhile is told twice, of its rule and of no rule.
        let by_reason = self.by_reason()?.into_iter().filter(|(reason, _)| told(*reason));
        let mut by_rule = BTreeMap::new();
        for (key, counter) in &self.known {
            let total = self.of_rule(*counter)?;
            let new = total.saturating_sub(self.taken(*key)?.total);
            by_rule.insert(*key, (total, new));
        }
        let mut drops = Vec::new();
        for (reason, total) in by_reason {
            let of_reason = |(key, _): &(&RuleReason, &(u64, u64))| key.reason == reason.number();
            let rules: Vec<(u32, u64)> =
                by_rule.iter().filter(of_reason).map(|(key, (_, new))| (key.rule, *new)).collect();
            drops.extend(self.take_reason(reason, total, &rules)?);
        }
        self.settle(&by_rule)?;
        Ok(drops)
    }

    /// One reason's drops: by rule, and what no rule's counter holds. Where rules are ahead of the total, the next call makes up
    /// for it.
    fn take_reason(
        &self,
        reason: Reason,
        total: u64,
        rules: &[(u32, u64)],
    ) -> Result<Vec<Drops>, KernelError> {
        let key = RuleReason { rule: 0, reason: reason.number() };
        let taken = self.taken(key)?.total;
        let by_rules: u64 = rules.iter().map(|(_, new)| new).sum();
        let rest = total.saturating_sub(taken).saturating_sub(by_rules);
        let now_taken = taken + by_rules + rest;
        if now_taken != taken {
            self.set_taken(key, Taken { total: now_taken, counter: 0 })?;
        }
        let drops =
            |(rule, count)| Drops { place: Place::Kernel, reason: reason.name().to_owned(), rule, count };
        Ok([(0, rest)]
            .into_iter()
            .chain(rules.iter().copied())
            .filter(|(_, count)| *count != 0)
            .map(drops)
            .collect())
    }

    /// Remembers what was taken of each rule; rules that are gone lose their counters when nothing moved.
    fn settle(&mut self, by_rule: &BTreeMap<RuleReason, (u64, u64)>) -> Result<(), KernelError> {
        for (key, (total, new)) in by_rule {
            if *new != 0 {
                self.set_taken(*key, Taken { total: *total, counter: self.of(*key) })?;
            } else if !self.wanted.contains(key) {
                sys::map_delete(self.taken.as_fd(), &key.to_bytes())
                    .map_err(KernelError::table("clearing", TAKEN.name))?;
                self.known.remove(key);
            }
        }
        Ok(())
    }

    fn of_rule(&self, counter: u32) -> Result<u64, KernelError> {
        self.total(self.rules.as_fd(), maps::RULES, &counter.saturating_sub(1).to_ne_bytes())
    }

    fn total(
        &self,
        map: std::os::fd::BorrowedFd<'_>,
        name: &'static str,
        key: &[u8],
    ) -> Result<u64, KernelError> {
        let mut values = vec![0; self.cpus * 8];
        sys::map_lookup(map, key, &mut values).map_err(KernelError::table("reading", name))?;
        let (values, _) = values.as_chunks::<8>();
        Ok(values.iter().map(|value| u64::from_ne_bytes(*value)).sum())
    }

    fn taken(&self, key: RuleReason) -> Result<Taken, KernelError> {
        let mut value = [0; 16];
        sys::map_lookup(self.taken.as_fd(), &key.to_bytes(), &mut value)
            .map_err(KernelError::table("reading", TAKEN.name))?;
        Ok(Taken::from_bytes(value))
    }

    fn set_taken(&self, key: RuleReason, taken: Taken) -> Result<(), KernelError> {
        sys::map_update(self.taken.as_fd(), &key.to_bytes(), &taken.to_bytes())
            .map_err(KernelError::table("writing", TAKEN.name))
    }

    /// Packets counted under a reason, passes too, since the counters were made.
    pub(super) fn packets(&self, reason: Reason) -> Result<u64, KernelError> {
        let packets = self.by_reason()?;
        Ok(packets.into_iter().find(|(one, _)| *one == reason).map_or(0, |(_, packets)| packets))
    }

    /// The same of all reasons.
    fn by_reason(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        let mut values = vec![0; self.cpus * size_of::<Here>()];
        sys::map_lookup(self.here.as_fd(), &0_u32.to_ne_bytes(), &mut values)
            .map_err(KernelError::table("reading", maps::HERE))?;
        let (words, _) = values.as_chunks::<8>();
        let of = |reason: Reason| {
            let first = offset_of!(Here, reasons) / 8 + reason.number() as usize;
            words
                .iter()
                .skip(first)
                .step_by(size_of::<Here>() / 8)
                .map(|word| u64::from_ne_bytes(*word))
                .sum()
        };
        Ok(Reason::ALL.iter().map(|reason| (*reason, of(*reason))).collect())
    }
}
