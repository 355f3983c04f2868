//! No kernel: the node runs on plain sockets and says why.

use std::os::fd::BorrowedFd;

use model::report::{Drops, Feature};

use super::{Kernel, KernelError, KernelPlan};

/// A kernel that does nothing, and says why.
#[derive(Debug, Clone)]
pub struct Off {
    why: String,
}

impl Off {
    /// Why there is nothing, one sentence.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl From<KernelError> for Off {
    fn from(error: KernelError) -> Self {
        Self::new(with_causes(&error))
    }
}

/// An error and its causes in one sentence.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A verifier's log is many lines; the first says enough for a status.
        let text = error.to_string();
        let text = text.lines().next().unwrap_or_default().to_owned();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

impl Kernel for Off {
    fn features(&self) -> Vec<Feature> {
        let off = |name: &str| Feature { name: name.to_owned(), on: false, detail: self.why.clone() };
        vec![off("xdp"), off("sk_lookup")]
    }

    fn steers(&self) -> bool {
        false
    }

    fn apply(&mut self, _: &KernelPlan) -> Result<(), KernelError> {
        Ok(())
    }

    fn set_sockets(&mut self, _: usize, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<(), KernelError> {
        Ok(())
    }

    fn set_threads(&mut self, _: usize) -> Result<(), KernelError> {
        Ok(())
    }

    fn own_addresses(&self) -> Result<Vec<std::net::IpAddr>, KernelError> {
        Ok(Vec::new())
    }

    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError> {
        Ok(Vec::new())
    }

    fn detach(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}
