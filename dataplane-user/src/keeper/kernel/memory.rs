//! The kernel's twin in memory, for tests of what is above it. It judges frames with the same lines as the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use dataplane_ebpf::decide::{Decision, Tables, decide};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::flow::Watches;
use dataplane_ebpf::wire::{Address, Cell};
use model::report::{Drops, Feature, Place};

use super::senders::Taken;
use super::tables::spelt;
use super::{Kernel, KernelError, KernelPlan};

/// A kernel that only remembers.
#[derive(Debug, Default)]
pub struct Memory {
    plan: KernelPlan,
    applied: usize,
    sockets: BTreeSet<usize>,
    threads: usize,
    drops: BTreeMap<(Reason, u32), u64>,
    refuse: bool,
    /// One packet in 2^n is looked at, and for how many packets samples stand that were not taken.
    pub(in crate::keeper) sampled: Option<(u32, u64)>,
    detached: bool,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plan in force.
    pub fn plan(&self) -> &KernelPlan {
        &self.plan
    }

    /// How many plans were applied.
    pub fn applied(&self) -> usize {
        self.applied
    }

    /// Threads whose sockets are known.
    pub fn sockets(&self) -> &BTreeSet<usize> {
        &self.sockets
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether it was detached.
    pub fn detached(&self) -> bool {
        self.detached
    }

    /// Lets the next plans fail.
    pub fn refuse_plans(&mut self, refuse: bool) {
        self.refuse = refuse;
    }

    /// Judges a frame as the filter would, and counts it.
    pub fn receive(&mut self, frame: &[u8]) -> Decision {
        let decision = decide(frame, &PlanTables(&self.plan));
        if decision.reason.is_drop() {
            *self.drops.entry((decision.reason, decision.rule)).or_default() += 1;
        }
        decision
    }
}

/// A plan read as tables, slowly and plainly: what the maps are compared with.
pub struct PlanTables<'a>(pub &'a KernelPlan);

impl Tables for PlanTables<'_> {
    fn any(&self) -> bool {
        !self.0.filter.cells.is_empty()
    }

    fn source(&self, source: &Address) -> Result<u32, Reason> {
        let source = IpAddr::from(*source);
        let holding = self.0.filter.sources.iter().filter(|(prefix, _)| prefix.contains(&source));
        Ok(holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(0, |(_, class)| u32::from(*class)))
    }

    fn column(&self, slot: u32) -> Result<u32, Reason> {
        let columns = &self.0.filter.columns;
        let found =
            columns.binary_search_by_key(&slot, |(slot, _)| *slot).ok().and_then(|at| columns.get(at));
        Ok(found.map_or(0, |(_, class)| u32::from(*class)))
    }

    fn exact(&self, address: &Address, port: u16) -> Result<Option<u32>, Reason> {
        let address = IpAddr::from(*address);
        let found = self.0.filter.exact.iter().find(|(at, on, _)| *at == address && *on == port);
        Ok(found.map(|(_, _, class)| u32::from(*class)))
    }

    fn cell(&self, source: u32, destination: u32) -> Result<Cell, Reason> {
        let index = source as usize * usize::from(self.0.filter.classes.1) + destination as usize;
        let cell = self.0.filter.cells.get(index).ok_or(Reason::NoTable)?;
        Ok(spelt(cell))
    }
}

impl Kernel for Memory {
    fn features(&self) -> Vec<Feature> {
        let on = |name: &str| Feature {
            name: name.to_owned(),
            on: !self.detached,
            detail: "in memory".to_owned(),
        };
        vec![on("xdp:memory"), on("sk_lookup")]
    }

    fn steers(&self) -> bool {
        !self.detached
    }

    fn sampling(&self) -> Result<Option<(u32, u64)>, KernelError> {
        Ok(self.sampled)
    }

    fn set_sampling(&mut self, shift: u32) -> Result<(), KernelError> {
        self.sampled = self.sampled.map(|(_, waiting)| (shift, waiting));
        Ok(())
    }

    fn take_senders(&mut self) -> Result<Taken, KernelError> {
        let waiting = self.sampled.as_mut().map(|(_, waiting)| std::mem::take(waiting));
        Ok(Taken { sampled: waiting.unwrap_or(0), ..Taken::default() })
    }

    fn apply(&mut self, plan: &KernelPlan) -> Result<(), KernelError> {
        if self.refuse {
            return Err(KernelError::NotPermitted);
        }
        self.plan = plan.clone();
        self.applied += 1;
        Ok(())
    }

    fn set_sockets(
        &mut self,
        thread: usize,
        _: BorrowedFd<'_>,
        _: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        self.sockets.insert(thread);
        Ok(())
    }

    fn set_threads(&mut self, threads: usize) -> Result<(), KernelError> {
        self.threads = threads;
        self.sockets.retain(|thread| *thread < threads);
        Ok(())
    }

    fn own_addresses(&self) -> Result<Vec<IpAddr>, KernelError> {
        Ok(Vec::new())
    }

    fn watch(&mut self, _: &Watches, _: &[usize]) -> Result<(), KernelError> {
        Err(KernelError::NothingToWatch)
    }

    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError> {
        let drops = std::mem::take(&mut self.drops);
        let drop = |((reason, rule), count): ((Reason, u32), u64)| Drops {
            place: Place::Kernel,
            reason: reason.name().to_owned(),
            rule,
            count,
        };
        Ok(drops.into_iter().map(drop).collect())
    }

    fn detach(&mut self) -> Result<(), KernelError> {
        self.detached = true;
        Ok(())
    }
}
