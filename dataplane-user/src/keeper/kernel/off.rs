//! No kernel: the node runs on plain sockets and says why.

use std::os::fd::BorrowedFd;

use dataplane_ebpf::wire::flow::Watches;
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
    let mut sentence = in_a_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = in_a_line(&error.to_string());
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

/// What aya puts before the verifier's log.
const LOG: &str = "Verifier output: ";
/// How the lines begin that the verifier ends its log with, whatever it found.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];

/// The first line. A verifier's log is thousands of them: of it the last one is taken, which says what was wrong.
fn in_a_line(text: &str) -> String {
    let Some((head, log)) = text.split_once(LOG) else {
        return text.lines().next().unwrap_or_default().to_owned();
    };
    let about_something = |line: &&str| !STATISTICS.iter().any(|statistic| line.starts_with(statistic));
    match log.lines().rev().map(str::trim).filter(|line| !line.is_empty()).find(about_something) {
        Some(reason) => format!("{head}The verifier says: {reason}"),
        None => head.trim_end().to_owned(),
    }
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

    fn watch(&mut self, _: &Watches, _: &[usize]) -> Result<(), KernelError> {
        Err(KernelError::NothingToWatch)
    }

    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError> {
        Ok(Vec::new())
    }

    fn detach(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_verifiers_log_the_reason_is_said() {
        let refused = "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22). ";
        let log = "0: R1=ctx() R10=fp0\n;  @ main.rs:27\n295: (0f) r2 += r1\nmath between pkt pointer and register with unbounded min value is not allowed\nverification time 8902 usec\nstack depth 144+0\nprocessed 137 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(
            with_causes(&std::io::Error::other(format!("{refused}{LOG}{log}"))),
            "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22). The verifier says: math between pkt pointer and register with unbounded min value is not allowed"
        );
        let silent = std::io::Error::other(format!("{refused}{LOG}"));
        assert_eq!(with_causes(&silent), refused.trim_end());
        assert_eq!(with_causes(&std::io::Error::other("one\ntwo")), "one");
    }
}
