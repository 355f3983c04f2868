//! The access log's file. The worker writes to it and can open nothing; when somebody moved it away (logrotate), the
//! keeper opens it again under its name and hands the worker the new one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::run::Keeper;
use super::supervise::WorkerNumber;
use crate::handover::ToWorker;
use crate::sentence;

/// An open access log.
#[derive(Debug)]
pub struct AccessLog {
    path: PathBuf,
    file: File,
}

impl AccessLog {
    /// Opens it for appending, making it where it is missing.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        // Paths and queries of requests are not everybody's business.
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        Ok(Self { path, file })
    }

    /// The one that the release before opened.
    pub fn inherit(path: PathBuf, file: OwnedFd) -> Self {
        Self { path, file: file.into() }
    }

    /// Opens it again when another file, or none, is under its name; whether it did.
    ///
    /// # Errors
    /// What the file system said; lines go on to the file that is open.
    pub fn follow(&mut self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        let there = std::fs::metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(false);
        }
        *self = Self::open(self.path.clone())?;
        Ok(true)
    }
}

impl Keeper {
    /// Once a second.
    pub(super) async fn follow_access_log(&mut self) {
        let Some(log) = &mut self.access_log else { return };
        let problem = match log.follow() {
            Ok(false) => None,
            Ok(true) => {
                tracing::info!("the access log was moved away; lines go to a new file under its name");
                for number in self.workers.keys().copied().collect::<Vec<_>>() {
                    self.give_access_log(number).await;
                }
                None
            }
            Err(error) => Some(format!(
                "the access log {} was moved away and cannot be made again; lines go on to where it was moved: {}",
                log.path.display(),
                sentence(&error)
            )),
        };
        if self.shortcomings.get("access log") != problem.as_ref() {
            self.note("access log", problem);
        }
    }

    /// Hands a worker the file that is open now.
    pub(super) async fn give_access_log(&self, number: WorkerNumber) {
        if let Some(log) = &self.access_log {
            self.say(number, &ToWorker::AccessLog, &[log.as_fd()]).await;
        }
    }
}

impl AsFd for AccessLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let path = std::env::temp_dir().join(format!("sallyport-access-log-{}", std::process::id()));
        let moved = path.with_extension("1");
        let mut log = AccessLog::open(path.clone()).unwrap();
        log.file.write_all(b"one\n").unwrap();
        assert!(!log.follow().unwrap());
        std::fs::rename(&path, &moved).unwrap();
        assert!(log.follow().unwrap() && !log.follow().unwrap());
        log.file.write_all(b"two\n").unwrap();
        // copytruncate works too, because every write goes to the end.
        File::create(&path).unwrap();
        assert!(!log.follow().unwrap());
        log.file.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&moved).unwrap();
    }
}
