//! The filter as it is loaded, to run over frames without a network.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::KernelError;
use super::sys::{self, TestRun};

/// The filter in the kernel.
#[derive(Debug)]
pub struct Filter(pub(super) OwnedFd);

impl AsFd for Filter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Filter {
    /// Runs the filter over a frame `repeat` times, with the tables in force, as if the loopback interface had received it; it
    /// is counted like any other.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn judge(&self, frame: &[u8], repeat: u32) -> Result<TestRun, KernelError> {
        self.run(None, frame, repeat)
    }

    /// As [`Self::judge`], but received by the interface of that index in this thread's network namespace, which must be up
    /// and have an XDP program.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn judge_from(&self, interface: u32, frame: &[u8], repeat: u32) -> Result<TestRun, KernelError> {
        self.run(Some(interface), frame, repeat)
    }

    fn run(&self, interface: Option<u32>, frame: &[u8], repeat: u32) -> Result<TestRun, KernelError> {
        let failed = |source| KernelError::Link {
            doing: "running the filter over",
            target: "a frame".to_owned(),
            source,
        };
        sys::test_run(self.0.as_fd(), interface, frame, repeat).map_err(failed)
    }
}
