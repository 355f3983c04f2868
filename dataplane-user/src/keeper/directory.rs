//! A directory that was opened once and is used through its descriptor: whoever renames or closes a parent afterwards,
//! and whichever capabilities are dropped, the keeper goes on with the files it began with.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

/// The longest file that is read whole: a stored snapshot.
const MAX_FILE: u64 = 192 << 20;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// A file that is written and synced, and not yet there under its name.
#[derive(Debug)]
#[must_use = "a staged file is only there after `commit`"]
pub struct Staged {
    directory: OwnedFd,
    name: String,
    temporary: String,
    committed: bool,
}

/// The process that holds a lock, where it left its id; reads as ` (process 12)` or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub(super) Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (process {pid})"))
    }
}

impl Directory {
    /// Opens a directory, making it and its parents where they are missing.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open(path: &Path, mode: u32) -> io::Result<Self> {
        if !path.is_dir() {
            let mut builder = std::fs::DirBuilder::new();
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)?;
            }
            builder.mode(mode).create(path)?;
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    /// One that the release before opened.
    pub fn inherit(descriptor: OwnedFd, path: PathBuf) -> Self {
        Self { descriptor, path }
    }

    /// Opens a directory below this one, making it where it is missing.
    ///
    /// # Errors
    /// What the file system said.
    pub fn below(&self, name: &str, mode: u32) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())?;
        Ok(Self { descriptor, path: self.path.join(name) })
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to a file in it that needs no permission on the parents and is short enough for a Unix socket.
    pub fn short_path(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.descriptor.as_raw_fd()))
    }

    /// Opens a file for locking, made where it is missing; `None` when another process holds a lock in the way.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lock(&self, name: &str, how: FlockOperation) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.descriptor, name, flags, Mode::from_raw_mode(0o600))?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Locks a file for this process alone and leaves the process id in it.
    ///
    /// # Errors
    /// Another has it, or what the file system said.
    pub fn lock_alone(&self, name: &str) -> io::Result<Result<OwnedFd, Holder>> {
        let Some(lock) = self.lock(name, FlockOperation::NonBlockingLockExclusive)? else {
            let text = self.read(name)?.unwrap_or_default();
            return Ok(Err(Holder(String::from_utf8_lossy(&text).trim().parse().ok())));
        };
        // Only a message is made of it: a full disk is no reason to go without the lock.
        let written = rustix::fs::ftruncate(&lock, 0)
            .and_then(|()| rustix::io::pwrite(&lock, std::process::id().to_string().as_bytes(), 0));
        if let Err(error) = written {
            tracing::debug!(%error, name, "the process id cannot be left in the lock");
        }
        Ok(Ok(lock))
    }

    /// A file's bytes; `None` when it is not there.
    ///
    /// # Errors
    /// What the file system said.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes a file beside its place and syncs it; [`Staged::commit`] puts it there.
    ///
    /// # Errors
    /// What the file system said; nothing is left behind.
    pub fn stage(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<Staged> {
        let temporary = format!(".{name}.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.descriptor, &temporary, flags, Mode::from_raw_mode(mode))?;
        let directory = self.descriptor.try_clone()?;
        // From here on dropping `staged` removes the temporary file.
        let staged = Staged { directory, name: name.to_owned(), temporary, committed: false };
        let mut file = File::from(file);
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Writes a file so that a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// What the file system said; the old file is still there.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.stage(name, bytes, mode)?.commit()
    }

    /// Replaces a file at once, without waiting for the disk: for what the next start makes anew.
    ///
    /// # Errors
    /// What the file system said.
    pub fn write_volatile(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let temporary = format!(".{name}.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.descriptor, &temporary, flags, Mode::from_raw_mode(mode))?;
        File::from(file).write_all(bytes)?;
        Ok(rustix::fs::renameat(&self.descriptor, &temporary, &self.descriptor, name)?)
    }

    /// Puts a file in another's place and syncs the directory.
    ///
    /// # Errors
    /// What the file system said; both are as before.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.descriptor, from, &self.descriptor, to)?;
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of the files in it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = rustix::fs::Dir::read_from(&self.descriptor)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.filter(|name| !matches!(name.as_deref(), Ok("." | ".."))).collect()
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Staged {
    /// Puts the file under its name and syncs the directory.
    ///
    /// # Errors
    /// What the file system said; the old file is still there.
    pub fn commit(mut self) -> io::Result<()> {
        rustix::fs::renameat(&self.directory, &self.temporary, &self.directory, &self.name)?;
        self.committed = true;
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // A temporary file that cannot be removed is overwritten by the next one of its name.
            let _ = rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}
