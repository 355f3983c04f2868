//! What a keeper leaves to the release that takes its place in the same process: written into a sealed memory file, with the
//! descriptors it names left open across `execve`.
//!
//! A set of fields that is closed, with a version of its own: a release reads its own and the one before, and what it does
//! not know it refuses, in a dry run ([`Trial`]) before anything is given away. Keys in it are as sealed as on disk; the
//! sealing key is what the next worker gets in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use model::digest::Digest;
use model::listen::Place;
use model::name::Name;
use model::report::{Drops, Feature};
use model::snapshot::{SignedSnapshot, SnapshotId};
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::message::{ConsoleState, Sealed, SocketInfo};

/// The version this release writes.
pub const VERSION: u32 = 3;

/// The oldest version this release reads: the one before [`VERSION`].
pub const OLDEST: u32 = 2;

/// Everything the next release cannot find again by itself. Never printed: it has secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Succession {
    /// [`VERSION`] of the release that wrote it.
    pub version: u32,
    /// That release.
    pub release: String,
    /// Where its program, and so the next one, is installed.
    pub installed: String,
    /// What workers are started from: its path and the open file.
    pub program: (String, Fd),
    /// The state directory's `node/` and its lock.
    pub state: (Fd, Fd),
    /// The run directory and its lock.
    pub run: (Fd, Fd),
    /// `keeper.sock`.
    pub rendezvous: Fd,
    /// `control.sock`.
    pub control: Fd,
    /// The access log, where it is a file.
    pub access_log: Option<Fd>,
    /// The listening socket for metrics and health.
    pub metrics: Option<Fd>,
    /// Every other listening socket.
    pub sockets: Listening,
    /// Every worker.
    pub workers: Vec<Working>,
    /// The number of the worker that accepts.
    pub current: Option<u64>,
    /// The next worker's number.
    pub next_worker: u64,
    /// The stored snapshot is in force.
    pub in_force: bool,
    /// The operator drained the node.
    pub drained: bool,
    /// Listeners that could not be opened, and why.
    pub problems: BTreeMap<Name, String>,
    /// What was refused last: which, and why.
    pub refused: Option<(Option<SnapshotId>, String)>,
    /// The console link, as the worker said last.
    pub console: ConsoleState,
    /// Drops that were counted and not reported yet.
    pub drops: Vec<Drops>,
    /// What the worker that accepts proposed and waits for.
    pub proposal: Option<Box<Proposed>>,
    /// Who asked for it, and waits for the answer.
    pub operator: Option<Fd>,
    /// The process that holds the sockets too, and the channel to it.
    pub holder: Option<(u32, Fd)>,
    /// The lock of the instance's directory among the kernel's pins. Since version 3.
    #[serde(default)]
    pub instance: Option<Fd>,
    /// What the next release can read nowhere without the privileges of the first start.
    pub secrets: Inheritance,
}

/// Listening sockets and where they accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listening {
    /// `sk_lookup` steers to them.
    pub steered: bool,
    /// Worker threads they are for.
    pub threads: usize,
    /// The next socket's id.
    pub next: u64,
    /// The sockets.
    pub held: Vec<(SocketInfo, Fd)>,
    /// Addresses (none is every one) and ports that are open.
    pub open: BTreeSet<(Option<IpAddr>, u16)>,
    /// Prefixes and any ports that are open. Releases that do not know them do not follow one that has some.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ranges: BTreeSet<Place>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Working {
    /// The keeper's own number for it.
    pub number: u64,
    /// Its process id.
    pub pid: u32,
    /// The process.
    pub process: Fd,
    /// The keeper's end of its channel.
    pub channel: Fd,
    /// It accepts, or finishes what is open.
    pub draining: bool,
    /// The protocol it speaks.
    pub protocol: u32,
    /// Its release.
    pub release: String,
    /// Its open connections, as it said last.
    pub connections: u32,
    /// When it is ended, milliseconds from now.
    pub left_ms: Option<u64>,
    /// How long it has lived, milliseconds.
    pub age_ms: u64,
    /// What its sandbox does.
    pub features: Vec<Feature>,
}

/// A snapshot that waits until it is known who decides.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proposed {
    /// The worker.
    pub worker: u64,
    /// The snapshot.
    pub snapshot: SignedSnapshot,
    /// Keys that came with it, sealed.
    pub keys: BTreeMap<Digest, Sealed>,
}

/// Secrets that the next release goes on with. Never printed.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inheritance {
    /// 32 bytes.
    pub sealing_key: Vec<u8>,
    /// The enrolment token's secret, until it has been used.
    pub enrolment: Option<String>,
    /// What `/metrics` asks for.
    pub metrics: Option<String>,
}

impl Drop for Inheritance {
    fn drop(&mut self) {
        self.sealing_key.zeroize();
        self.enrolment.zeroize();
        self.metrics.zeroize();
    }
}

/// What the keeper says to the next release in a dry run. Descriptor: the memory file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {}

/// What the next release says of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// The next release.
    pub release: String,
    /// Why it cannot go on, one sentence.
    pub problem: Option<String>,
}

/// Why a succession cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Of a release too old or too new.
    #[error("it is of version {0}, and this release reads {OLDEST} to {VERSION}")]
    Version(u32),
    /// Not what this version says.
    #[error("it is not what version {VERSION} says")]
    Json(#[from] serde_json::Error),
    /// The memory file, or a descriptor it names.
    #[error("a descriptor of it cannot be used")]
    Io(#[from] io::Error),
    /// No sealed memory file.
    #[error(transparent)]
    Channel(#[from] super::ChannelError),
}

impl Succession {
    /// Writes it into a memory file that nobody can change any more.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write(&self) -> Result<OwnedFd, Unreadable> {
        let json = zeroize::Zeroizing::new(serde_json::to_vec(self)?);
        Ok(super::channel::memory_file(&json)?)
    }

    /// Reads it; the version first, so that another is named as such.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(file: &OwnedFd) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let json = zeroize::Zeroizing::new(super::channel::read_file(file)?);
        let head: Head = serde_json::from_slice(&json)?;
        if !(OLDEST..=VERSION).contains(&head.version) {
            return Err(Unreadable::Version(head.version));
        }
        Ok(serde_json::from_slice(&json)?)
    }
}

/// The number of a descriptor that is left open across `execve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fd(RawFd);

impl Fd {
    /// The one of an open descriptor.
    pub fn of(descriptor: impl AsFd) -> Self {
        Self(descriptor.as_fd().as_raw_fd())
    }

    /// One that was named on the command line.
    pub fn named(number: RawFd) -> Self {
        Self(number)
    }
}

impl std::fmt::Display for Fd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The descriptors that came across `execve`, each to be taken once.
#[derive(Debug, Default)]
pub struct Inherited {
    taken: BTreeSet<RawFd>,
}

impl Inherited {
    /// Takes one into possession; what this process starts does not get it.
    ///
    /// # Errors
    /// It was taken before, is one of the standard three, or is not open.
    #[expect(unsafe_code, reason = "the number of a descriptor that came across execve becomes an owned one")]
    pub fn take(&mut self, fd: Fd) -> io::Result<OwnedFd> {
        let Fd(number) = fd;
        if number < 3 || !self.taken.insert(number) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("descriptor {number} is not ours"),
            ));
        }
        // SAFETY: the borrow lasts for the two calls alone; a number that is not open makes them fail with EBADF.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_getfd(borrowed)?;
        rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
        // SAFETY: it is open, the process before `execve` left it for whoever takes it, and it is taken once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(test)]
pub(crate) mod tests;
