//! The files beside the database.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::StartError;
use crate::ops::{Actor, Ops, Role};

/// What this machine's command line needs: `cli.json`, mode 0600.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CliFile {
    url: String,
    token: String,
    ca: String,
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> StartError + '_ {
    |reason| StartError::File { path: path.to_owned(), reason }
}

pub(super) fn make(directory: &Path) -> Result<(), StartError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))
}

/// One console per state directory; the lock goes with the process.
pub(super) fn lock(directory: &Path) -> Result<File, StartError> {
    let path = directory.join("lock");
    match hold(&path).map_err(failed(&path))? {
        Held::Ours(file) => Ok(file),
        Held::Theirs(who) => Err(StartError::Running { directory: directory.to_owned(), who }),
    }
}

/// What became of a lock.
pub(crate) enum Held {
    /// It is this process's for as long as this lives.
    Ours(File),
    /// Another process has it: ` (process 7)`, or nothing where it did not leave its number.
    Theirs(String),
}

/// Takes the lock of a file that holds the number of the process whose it is.
pub(crate) fn hold(path: &Path) -> std::io::Result<Held> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Only a message is made of it: a full disk is no reason not to start.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(Held::Ours(file))
        }
        Err(Errno::WOULDBLOCK) => Ok(Held::Theirs(holder(file))),
        Err(error) => Err(error.into()),
    }
}

/// Who has the lock of this directory's console; looks, and changes nothing.
pub(crate) fn console_of(directory: &Path) -> Option<String> {
    // The directory may be another user's, who could have put anything there.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let options = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).clone();
    let file = options.open(directory.join("lock")).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Some(holder(file)),
        Ok(()) | Err(_) => None,
    }
}

fn holder(file: File) -> String {
    let mut text = String::new();
    let read = file.take(16).read_to_string(&mut text);
    let pid = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Writes a file whole or not at all, readable by its owner only.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let new = path.with_extension("new");
    // What a crash left over is ours.
    remove(&new)?;
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(failed(path))
}

pub(super) fn remove(path: &Path) -> Result<(), StartError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

/// Leaves (or renews) what the command line on this machine needs; a token that still works stays.
pub(super) async fn write_cli(directory: &Path, ops: &Ops, url: &str) -> Result<(), StartError> {
    let path = directory.join("cli.json");
    let old: Option<CliFile> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let token = match old {
        Some(old) if ops.token(&old.token).await?.is_some() => old.token,
        _ => ops.make_token("cli", Role::Administrator, &Actor::console()).await?,
    };
    let file = CliFile { url: url.to_owned(), token, ca: ops.authority().pem().to_owned() };
    let json = serde_json::to_vec_pretty(&file).map_err(|error| failed(&path)(error.into()))?;
    replace(&path, &json)?;
    replace(&directory.join("ca.pem"), file.ca.as_bytes())
}
