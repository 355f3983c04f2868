//! Makes the kernel match the plan. The only room with aya and `unsafe`.
//!
//! In: a [`KernelPlan`], the worker threads' listening sockets. Out: programs on the interfaces and on the network
//! namespace, tables, counters, and a sentence about everything that is off. Absent on purpose: policy. What the tables
//! are to say is [`super::plan`]'s, what a packet's reason is is `dataplane_ebpf::decide`'s.
//!
//! - `sys`: bpf(2); `mapped`: arrays as memory; `object`: aya, which loads the ELF object.
//! - `pins`: where everything is pinned, and whether what is pinned may be taken over; `lock`: whose an instance is.
//! - `changes`: what the kernel says of interfaces, addresses and routes; `netlink`: what it answers about them.
//! - `links`: programs on interfaces and on the namespace; `watch`: puts them back where they are gone; `gaps`: and how long they
//!   were.
//! - `beside`: a change of layout, with the new tables beside those in force.
//! - `tables`: generations; `ranges`: listeners on prefixes and any port; `budgets`: how much may come; `counters`: drops;
//!   `senders`: who is sending; `flows`: watched packets; `threads`: which worker thread has a connection; `filter`: runs it over
//!   a frame; `version`: which kernel it is.
//! - [`Linux`] joins them; [`Off`] says why there is nothing; [`Memory`] is the twin for tests.

mod beside;
mod budgets;
mod changes;
mod counters;
mod error;
mod filter;
mod flows;
mod gaps;
mod inspect;
mod links;
mod linux;
mod lock;
mod mapped;
mod memory;
mod netlink;
mod object;
mod off;
mod pins;
mod ranges;
mod senders;
mod sys;
mod tables;
mod threads;
mod version;
mod watch;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use model::report::{Drops, Feature, SynPressure};

use dataplane_ebpf::wire::flow::{Seen, WATCHES_MAX, Watches};

use super::plan::KernelPlan;
use crate::handover::message::FilterState;

pub use changes::{listen_to_changes, read_changes};
pub use error::KernelError;
pub use filter::Filter;
pub use flows::Record;
pub use inspect::{Pin, PinKind, detach_instance, lock_instance, pins};
pub use linux::{Config, Interfaces, Linux};
pub use lock::Lock;
pub use memory::{Memory, PlanTables};
pub(super) use netlink::local_routes;
pub use off::Off;
pub use senders::Taken;
pub use sys::TestRun;
pub(super) use sys::interface_name;
pub use version::version;

/// Milliseconds of the clock that the kernel's programs read: nobody sets it, and it begins with each start of the machine.
pub fn monotonic_ms() -> i64 {
    sys::monotonic_ms()
}

/// The kernel's side of the filter and of steering; the real one and an in-memory twin for tests.
pub trait Kernel: Send {
    /// What is in use and why the rest is not, one sentence each.
    fn features(&self) -> Vec<Feature>;

    /// The filter on every interface that is to have it; none where nothing filters in the kernel.
    fn filters(&self) -> Vec<FilterState> {
        Vec::new()
    }

    /// Whether `sk_lookup` steers; when not, the sockets module binds `SO_REUSEPORT` sockets instead.
    fn steers(&self) -> bool;

    /// Why connections to the sockets that steering leads to are refused: it was there, and is gone.
    fn steering_gone(&self) -> Option<&str> {
        None
    }

    /// Puts a plan in force as one new generation: every packet is judged by the old tables or by the new ones.
    /// A failure leaves the old generation in force.
    ///
    /// # Errors
    /// What the kernel refused.
    fn apply(&mut self, plan: &KernelPlan) -> Result<(), KernelError>;

    /// Enters the listening sockets of a worker thread, one per family, replacing what was there; takes effect for the
    /// next SYN.
    ///
    /// # Errors
    /// What the kernel refused.
    fn set_sockets(
        &mut self,
        thread: usize,
        v4: BorrowedFd<'_>,
        v6: BorrowedFd<'_>,
    ) -> Result<(), KernelError>;

    /// Tells how many worker threads there are (1 to 64), so that every CPU has one of them. Enter the sockets of new
    /// threads before, or clients meet empty places.
    ///
    /// # Errors
    /// What the kernel refused.
    fn set_threads(&mut self, threads: usize) -> Result<(), KernelError>;

    /// The host's own addresses, from which no packet may arrive; none where the filter is on the loopback interface, which
    /// they do arrive over.
    ///
    /// # Errors
    /// What the kernel refused.
    fn own_addresses(&self) -> Result<Vec<IpAddr>, KernelError>;

    /// Drops counted since the call before, one entry per reason and rule that is not 0. Of passes only
    /// those are told that an observed rule would drop.
    ///
    /// # Errors
    /// What the kernel refused.
    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError>;

    /// Whether SYNs of unknown sources are over their budget; nothing where they have none.
    fn syn_pressure(&self) -> Option<SynPressure> {
        None
    }

    /// How many packets the filter looks at more closely, one in 2^n, and for how many packets its samples stood since they were
    /// taken last; nothing where no filter samples.
    ///
    /// # Errors
    /// What the kernel refused.
    fn sampling(&self) -> Result<Option<(u32, u64)>, KernelError> {
        Ok(None)
    }

    /// Lets one packet in 2^`shift` be looked at from now on.
    ///
    /// # Errors
    /// What the kernel refused.
    fn set_sampling(&mut self, _shift: u32) -> Result<(), KernelError> {
        Ok(())
    }

    /// Takes the sums by sender since they were taken last.
    ///
    /// # Errors
    /// What the kernel refused.
    fn take_senders(&mut self) -> Result<Taken, KernelError> {
        Ok(Taken::default())
    }

    /// Looks, about once a second, whether every program stands where it should, and puts back what does not: interfaces are
    /// made anew, renamed and come later.
    fn look(&mut self) {}

    /// The same, and the default routes whatever the time: something changed of interfaces, addresses or default routes.
    fn look_after_change(&mut self) {
        self.look();
    }

    /// Says which packets are watched; the places in `anew` have another watch than before, whose packets count from here.
    ///
    /// # Errors
    /// What the kernel refused, or why nothing can be watched here.
    fn watch(&mut self, watches: &Watches, anew: &[usize]) -> Result<(), KernelError>;

    /// What watches have been about since the tables were made.
    ///
    /// # Errors
    /// What the kernel refused.
    fn seen(&self) -> Result<Seen, KernelError> {
        Ok(Seen::default())
    }

    /// Records that each watch has left in the ring, those that are still there too, since it was last named as new.
    ///
    /// # Errors
    /// What the kernel refused.
    fn captured(&self) -> Result<[u64; WATCHES_MAX], KernelError> {
        Ok([0; WATCHES_MAX])
    }

    /// Watched packets that nobody has taken yet, oldest first, `most` at once.
    fn take_records(&mut self, most: usize) -> Vec<Record> {
        let _none = most;
        Vec::new()
    }

    /// Readable while there are watched packets to take.
    fn ring(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What says that the instance is this process's, to be left to its next release.
    fn lock(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Removes every program, link and pin.
    ///
    /// # Errors
    /// What could not be removed.
    fn detach(&mut self) -> Result<(), KernelError>;
}
