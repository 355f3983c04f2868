//! Which tables the kernel is to have, and when they are filled again.

use model::filter::TooLarge;
use model::listen::Place;
use model::snapshot::Snapshot;

use super::plan::{KernelPlan, plan};
use super::run::Keeper;
use crate::sentence;

/// What is off where the tables could not be filled; it is tried again every few seconds.
pub(super) const KERNEL_TABLES: &str = "kernel tables";

impl Keeper {
    /// The tables for a snapshot, with the listeners that are open.
    pub(super) fn plan(&mut self, snapshot: &Snapshot) -> Result<KernelPlan, TooLarge> {
        let open = self.sockets.open().clone();
        self.plan_for(snapshot, |place| open.contains(place))
    }

    fn plan_for(
        &mut self,
        snapshot: &Snapshot,
        is_open: impl Fn(&Place) -> bool,
    ) -> Result<KernelPlan, TooLarge> {
        match self.kernel.own_addresses() {
            Ok(own) => {
                self.own = own;
                self.note("own addresses", None);
            }
            Err(error) => self.note("own addresses", Some(sentence(&error))),
        }
        self.look_who_listens();
        plan(snapshot, &self.own, self.busy.at(), is_open)
    }

    /// The tables for what is in force. Where the worker could not make the stored snapshot live (its keys cannot be read, say), its
    /// rules are in force all the same, with no listener: who is denied stays denied.
    pub(super) fn wanted_plan(&mut self) -> Result<KernelPlan, TooLarge> {
        if let Some(snapshot) = self.in_force.clone() {
            return self.plan(&snapshot);
        }
        match self.state.stored().map(|stored| stored.snapshot.clone()) {
            Some(stored) => self.plan_for(&stored, |_| false),
            None => Ok(KernelPlan::default()),
        }
    }

    /// Fills the tables again where others have begun to listen on what a listener on any port would take, or have ended.
    pub(super) fn follow_busy_ports(&mut self) {
        if self.may_follow() && self.look_who_listens() {
            self.enter_filter();
        }
    }

    fn look_who_listens(&mut self) -> bool {
        let Self { busy, sockets, .. } = self;
        sockets.steered() && busy.look(sockets.open().iter(), sockets.inodes())
    }

    /// Fills the tables again where this host's addresses are others now: one that moved to another host sends from there.
    pub(super) fn follow_addresses(&mut self) {
        if self.may_follow() && self.kernel.own_addresses().is_ok_and(|own| own != self.own) {
            self.enter_filter();
        }
    }

    /// Whether the tables may be filled again by the open places that are known. While a worker serves, and where it has died:
    /// then its sockets are held here, and clients wait at them for the next one. Not until a living worker of the keeper before has
    /// handed back its own, for tables that are filled from what is known before would refuse every new connection.
    fn may_follow(&self) -> bool {
        let known = self.current.is_some() || !self.sockets.open().is_empty() && !self.is_awaiting();
        known && self.in_force.is_some() && self.transition.is_none()
    }

    /// Puts the filter and the open listeners in force; a failure is a shortcoming, the old tables stay.
    pub(super) fn enter_filter(&mut self) {
        let problem = match self.wanted_plan() {
            Ok(wanted) => self.kernel.apply(&wanted).err().map(|error| sentence(&error)),
            Err(error) => Some(sentence(&error)),
        };
        self.note(KERNEL_TABLES, problem);
    }
}
