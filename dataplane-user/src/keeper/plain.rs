//! A node without the kernel's help: plain sockets, and features that say so.

use std::os::fd::BorrowedFd;

use model::report::{Drops, Feature};

use super::kernel::{Kernel, KernelError};
use super::plan::KernelPlan;

/// Does nothing, and says why.
#[derive(Debug)]
pub struct Plain {
    why: String,
}

impl Plain {
    /// `why` is one sentence.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl Kernel for Plain {
    fn features(&self) -> Vec<Feature> {
        let off = |name: &str, without: &str| Feature {
            name: name.to_owned(),
            on: false,
            detail: format!("{}; {without}", self.why),
        };
        vec![
            off("xdp", "denied sources are refused by the worker instead of in the kernel"),
            off("sk_lookup", "listeners use SO_REUSEPORT sockets"),
        ]
    }

    fn steers(&self) -> bool {
        false
    }

    fn apply(&mut self, _plan: &KernelPlan) -> Result<(), KernelError> {
        Ok(())
    }

    fn set_sockets(&mut self, _: usize, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<(), KernelError> {
        Ok(())
    }

    fn set_threads(&mut self, _threads: usize) -> Result<(), KernelError> {
        Ok(())
    }

    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError> {
        Ok(Vec::new())
    }

    fn detach(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}
