//! Drops, from the programs' per-CPU counters.
//!
//! The counters only grow and live outside generations; what was already taken is pinned beside them, so a restart
//! neither loses nor repeats a drop. Rule 0 in that table stands for a reason's total.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::{RuleReason, maps};
use model::report::{Drops, Place};

use super::pins::{Slot, TAKEN, pin_over};
use super::{KernelError, sys};

/// Passes are not drops, but those are told that an observed rule would drop, and SYNs that were answered with a cookie.
fn told(reason: Reason) -> bool {
    reason.is_drop() || matches!(reason, Reason::Observed | Reason::SynCookie)
}

pub(super) struct Counters {
    reasons: OwnedFd,
    rules: OwnedFd,
    taken: OwnedFd,
    /// One counter's values, one a possible CPU.
    buffer: Vec<u8>,
    /// Rules that have a counter.
    known: BTreeSet<RuleReason>,
    /// Those of the plan in force; the others go once they stand still.
    wanted: BTreeSet<RuleReason>,
}

impl Counters {
    /// Opens the slot's counters; makes the table of what was taken where there is none.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| KernelError::table("counting the CPUs for", maps::REASONS)(error))?;
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
        let rules = slot.open(maps::RULES)?;
        let keys = sys::map_keys::<8>(rules.as_fd()).map_err(KernelError::table("reading", maps::RULES))?;
        let known: BTreeSet<RuleReason> = keys.into_iter().map(RuleReason::from_bytes).collect();
        Ok(Self {
            reasons: slot.open(maps::REASONS)?,
            rules,
            taken,
            buffer: vec![0; cpus * 8],
            wanted: known.clone(),
            known,
        })
    }

    /// Makes the counters of a plan's rules before it comes into force. Where the map is full the rest are counted by
    /// reason alone.
    pub(super) fn prepare(&mut self, wanted: Vec<RuleReason>) {
        self.wanted = wanted.into_iter().collect();
        let zero = vec![0; self.buffer.len()];
        for rule in self.wanted.difference(&self.known.clone()) {
            if sys::map_update(self.rules.as_fd(), &rule.to_bytes(), &zero).is_err() {
                break;
            }
            self.known.insert(*rule);
        }
    }

    /// Drops since the call before, and what only observed rules would have dropped.
    pub(super) fn take(&mut self) -> Result<Vec<Drops>, KernelError> {
        // Rules before reasons: a program counts in this order, so a reason's total is never behind its rules' for long.
        let mut by_rule = BTreeMap::new();
        for key in self.known.clone() {
            let total = self.total(self.rules.as_fd(), maps::RULES, &key.to_bytes())?;
            let new = total.saturating_sub(self.taken(key)?);
            by_rule.insert(key, (total, new));
        }
        let mut drops = Vec::new();
        for reason in Reason::ALL.iter().filter(|reason| told(**reason)) {
            let of_reason = |(key, _): &(&RuleReason, &(u64, u64))| key.reason == reason.number();
            let rules: Vec<(u32, u64)> =
                by_rule.iter().filter(of_reason).map(|(key, (_, new))| (key.rule, *new)).collect();
            drops.extend(self.take_reason(*reason, &rules)?);
        }
        self.settle(&by_rule)?;
        Ok(drops)
    }

    /// One reason's drops: by rule, and what no rule's counter holds.
    fn take_reason(&self, reason: Reason, rules: &[(u32, u64)]) -> Result<Vec<Drops>, KernelError> {
        let key = RuleReason { rule: 0, reason: reason.number() };
        let total = self.total(self.reasons.as_fd(), maps::REASONS, &reason.number().to_ne_bytes())?;
        let taken = self.taken(key)?;
        let by_rules: u64 = rules.iter().map(|(_, new)| new).sum();
        let rest = total.saturating_sub(taken).saturating_sub(by_rules);
        let now_taken = taken + by_rules + rest;
        if now_taken != taken {
            self.set_taken(key, now_taken)?;
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

    /// Remembers what was taken of each rule; counters of rules that are gone go when nothing moved.
    fn settle(&mut self, by_rule: &BTreeMap<RuleReason, (u64, u64)>) -> Result<(), KernelError> {
        for (key, (total, new)) in by_rule {
            if *new != 0 {
                self.set_taken(*key, *total)?;
            } else if !self.wanted.contains(key) {
                sys::map_delete(self.rules.as_fd(), &key.to_bytes())
                    .map_err(KernelError::table("clearing", maps::RULES))?;
                // A counter that never moved has nothing taken.
                let _absent_is_fine = sys::map_delete(self.taken.as_fd(), &key.to_bytes());
                self.known.remove(key);
            }
        }
        Ok(())
    }

    fn total(
        &self,
        map: std::os::fd::BorrowedFd<'_>,
        name: &'static str,
        key: &[u8],
    ) -> Result<u64, KernelError> {
        let mut values = self.buffer.clone();
        sys::map_lookup(map, key, &mut values).map_err(KernelError::table("reading", name))?;
        let (values, _) = values.as_chunks::<8>();
        Ok(values.iter().map(|value| u64::from_ne_bytes(*value)).sum())
    }

    fn taken(&self, key: RuleReason) -> Result<u64, KernelError> {
        let mut value = [0; 8];
        sys::map_lookup(self.taken.as_fd(), &key.to_bytes(), &mut value)
            .map_err(KernelError::table("reading", TAKEN.name))?;
        Ok(u64::from_ne_bytes(value))
    }

    fn set_taken(&self, key: RuleReason, total: u64) -> Result<(), KernelError> {
        sys::map_update(self.taken.as_fd(), &key.to_bytes(), &total.to_ne_bytes())
            .map_err(KernelError::table("writing", TAKEN.name))
    }

    /// Packets counted under a reason, passes too, since the counters were made.
    pub(super) fn packets(&self, reason: Reason) -> Result<u64, KernelError> {
        self.total(self.reasons.as_fd(), maps::REASONS, &reason.number().to_ne_bytes())
    }
}
