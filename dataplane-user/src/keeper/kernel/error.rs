//! What the kernel can refuse, one sentence each, with what to do.

use std::io;
use std::path::PathBuf;

use crate::keeper::directory::Holder;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No privilege for bpf(2).
    #[error(
        "the kernel refuses BPF to this process: run it as root or give it CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON"
    )]
    NotPermitted,
    /// A kernel without bpf(2).
    #[error("this kernel has no BPF: use Linux 6.1 or newer with CONFIG_BPF_SYSCALL")]
    NoBpf,
    /// Nowhere to pin.
    #[error(
        "{root} is on no BPF file system, and the node cannot mount one ({why}): as root, run `mount -t bpf bpf {root}` and restart the node"
    )]
    NoBpffs {
        /// Where pins were to go.
        root: PathBuf,
        /// Why it is not mounted.
        why: String,
    },
    /// A name that cannot be a directory on bpffs.
    #[error("an instance's name is 1 to 32 letters, digits, hyphens or underscores, not {name:?}")]
    InstanceName {
        /// The name given.
        name: String,
    },
    /// aya could not make sense of the object or make its maps.
    #[error(
        "the kernel programs cannot be loaded: rebuild the object with dataplane-ebpf/build-object, or run without the kernel"
    )]
    Object(#[source] Box<aya::EbpfError>),
    /// Another keeper lives that has the same instance, whatever it has in the kernel.
    #[error(
        "the instance {instance} is that of a node that runs{holder}, whose programs and tables are in {}: stop that node, or \
         give this one a name of its own with --instance", dir.display()
    )]
    InUse {
        /// The instance.
        instance: String,
        /// Its directory.
        dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The programs pinned belong to a node in another network namespace.
    #[error(
        "the instance {instance} is in use in another network namespace: choose another --instance, or detach it there"
    )]
    OtherNamespace {
        /// The instance.
        instance: String,
    },
    /// A pin or a directory of pins.
    #[error(
        "{doing} {path} failed: look at it with `bpftool`, or run `sallyport-node detach` and start again"
    )]
    Pin {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// No program sees a packet.
    #[error("no packets can be watched here: the filter is on no interface (sallyport-node status says why)")]
    NothingToWatch,
    /// A map.
    #[error("{doing} the kernel table {table} failed")]
    Table {
        /// What was done.
        doing: &'static str,
        /// To which.
        table: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A map of ours that is not as the programs need it.
    #[error(
        "the kernel table {table} is not as this release needs it: run `sallyport-node detach` and start again"
    )]
    Layout {
        /// Which.
        table: &'static str,
    },
    /// Prefixes among which a search takes more steps than the programs make; none are known.
    #[error(
        "the packet filter's prefixes lie so that a search among them takes {steps} steps or more: leave some of the longest out"
    )]
    TooDeep {
        /// One more than a search can take.
        steps: u32,
    },
    /// Prefixes whose tries are larger than entries can say.
    #[error(
        "the packet filter's prefixes take {words} words, and a table has {most} at most: leave some out"
    )]
    TooLarge {
        /// What they take.
        words: usize,
        /// What there can be.
        most: u32,
    },
    /// A link.
    #[error("{doing} {target} failed")]
    Link {
        /// What was done.
        doing: &'static str,
        /// To what.
        target: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Too many threads, or a thread beyond the last.
    #[error("a node has 1 to {max} worker threads, not {asked}", max = dataplane_ebpf::wire::THREADS_MAX)]
    Threads {
        /// What was asked for.
        asked: usize,
    },
}

impl KernelError {
    /// Errors of bpf(2) whose cause is the process or the kernel rather than the table.
    pub(super) fn table(doing: &'static str, table: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::ENOSYS) => Self::NoBpf,
            _ => Self::Table { doing, table, source },
        }
    }

    pub(super) fn pin(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            // Nothing to look at or to detach there for whoever may not go there.
            let refused = source.kind() == io::ErrorKind::PermissionDenied;
            if refused { Self::NotPermitted } else { Self::Pin { doing, path, source } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_may_not_be_made_asks_for_privileges() {
        for code in [libc::EACCES, libc::EPERM] {
            let error =
                KernelError::pin("making the directory", "/sys/fs/bpf")(io::Error::from_raw_os_error(code));
            assert!(matches!(error, KernelError::NotPermitted), "{error}");
        }
        let full = KernelError::pin("pinning", "/sys/fs/bpf")(io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(full, KernelError::Pin { .. }), "{full}");
    }
}
