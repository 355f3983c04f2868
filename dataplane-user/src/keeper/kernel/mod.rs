//! Makes the kernel match the plan. The only room with aya and `unsafe`.

use std::os::fd::BorrowedFd;

use model::report::{Drops, Feature};

use super::plan::KernelPlan;

/// The kernel's side of the filter and of steering; the real one and an in-memory twin for tests.
pub trait Kernel: Send {
    /// What is in use and why the rest is not, one sentence each.
    fn features(&self) -> Vec<Feature>;

    /// Whether `sk_lookup` steers; when not, the sockets module binds `SO_REUSEPORT` sockets instead.
    fn steers(&self) -> bool;

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

    /// Tells how many worker threads there are (1 to 64), so that every CPU has one of them.
    ///
    /// # Errors
    /// What the kernel refused.
    fn set_threads(&mut self, threads: usize) -> Result<(), KernelError>;

    /// Drops counted since the call before, one entry per reason and rule that is not 0; passes are not drops.
    ///
    /// # Errors
    /// What the kernel refused.
    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError>;

    /// Removes every program, link and pin.
    ///
    /// # Errors
    /// What could not be removed.
    fn detach(&mut self) -> Result<(), KernelError>;
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A placeholder until the room is furnished.
    #[error("{0} is not available")]
    Unavailable(&'static str),
}
