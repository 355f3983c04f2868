//! One keeper an instance: who has the instance's directory locked (flock(2)), whatever of it stands in the kernel.
//!
//! The lock is of the directory that was opened. So it ends with the process, however that ends; goes along where a keeper
//! becomes its next release; and is not one of another directory that was made under the same name.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::KernelError;
use super::pins::Pins;
use crate::keeper::directory::Holder;

/// Says that an instance is this process's, as long as it lives.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// Takes it, with the instance's directory made where it is missing.
    pub(super) fn take(pins: &Pins, instance: &str) -> Result<Self, KernelError> {
        loop {
            pins.make()?;
            if let Some(lock) = Self::find(pins, instance)? {
                return Ok(lock);
            }
        }
    }

    /// Takes it where there is a directory.
    pub(super) fn find(pins: &Pins, instance: &str) -> Result<Option<Self>, KernelError> {
        let dir = pins.dir();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = match rustix::fs::open(dir, flags, Mode::empty()) {
            Ok(directory) => Self(directory),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(KernelError::pin("opening", dir)(error.into())),
        };
        match rustix::fs::flock(&lock.0, FlockOperation::NonBlockingLockExclusive) {
            // Whoever had it may have removed the directory before he let go.
            Ok(()) => Ok(lock.is_of(dir).then_some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(KernelError::InUse {
                instance: instance.to_owned(),
                dir: dir.to_path_buf(),
                holder: lock.holder(),
            }),
            Err(error) => Err(KernelError::pin("locking", dir)(error.into())),
        }
    }

    /// The lock that this process's former release took, where it is still the instance's.
    pub(super) fn inherited(descriptor: OwnedFd, pins: &Pins) -> Option<Self> {
        let lock = Self(descriptor);
        lock.is_of(pins.dir()).then_some(lock)
    }

    /// Whether the directory of this name is the one that is locked.
    pub(super) fn is_of(&self, dir: &Path) -> bool {
        let (named, locked) = (rustix::fs::stat(dir), rustix::fs::fstat(&self.0));
        let which = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        matches!((named, locked), (Ok(named), Ok(locked)) if which(named) == which(locked))
    }

    /// The process that has it, where this one may know: proc_locks(5) shows those of its own PID namespace.
    fn holder(&self) -> Holder {
        let pid = || {
            let stat = rustix::fs::fstat(&self.0).ok()?;
            let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
            let place = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
            let locks = fs::read_to_string("/proc/locks").ok()?;
            locks.lines().find_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let [_, "FLOCK", _, "WRITE", pid, at, ..] = fields.as_slice() else { return None };
                (*at == place).then(|| pid.parse().ok()).flatten()
            })
        };
        Holder(pid())
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
