//! What the keeper remembers: who the node is, the last good snapshot, keys it cannot read.
//!
//! | file | content |
//! |---|---|
//! | `lock` | held by the one keeper of this directory |
//! | `node.json` | [`NodeIdentity`] |
//! | `snapshot.json` | the last good [`SignedSnapshot`] |
//! | `confirmed.json` | the [`SignedSnapshot`] before it, while it is on trial |
//! | `trial.json` | which revision is on trial until when, or was |
//! | `sealing.key` | 32 random bytes, mode 0600; a systemd credential of this name comes first |
//! | `node.sealed` | the node's own key and certificate |
//! | `keys/DIGEST.sealed` | a private key that the snapshot names |
//!
//! The sealing key protects a copy of the directory without it, not a machine whose root is hostile.

mod inherit;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::digest::Digest;
use model::link::EnrolmentToken;
use model::snapshot::{SignedSnapshot, Snapshot, SnapshotId};
use zeroize::Zeroizing;

use self::trial::StagedTrial;
pub use self::trial::Trial;
use super::directory::{Directory, Holder, Staged};
use crate::handover::message::{MAX_SEALED, NodeIdentity, Sealed, Secrets};
use crate::signed::{self, Unbelievable};

const SNAPSHOT: &str = "snapshot.json";
const IDENTITY: &str = "node.json";
const NODE: &str = "node.sealed";
const SEALING_KEY: &str = "sealing.key";

/// The state directory, held by this process alone.
#[derive(Debug)]
pub struct State {
    directory: Directory,
    keys: Directory,
    lock: OwnedFd,
    sealing_key: Zeroizing<Vec<u8>>,
    identity: Option<NodeIdentity>,
    enrolment: Option<Zeroizing<String>>,
    snapshot: Option<Stored>,
    trial: Option<Trial>,
    gone_back: Option<SnapshotId>,
    left_aside: Option<LeftAside>,
}

/// A snapshot that is written beside the stored one, with what its trial needs.
#[derive(Debug)]
#[must_use = "a staged snapshot is only stored after `commit`"]
pub struct Staging {
    snapshot: Staged,
    trial: Option<StagedTrial>,
}

/// A stored snapshot that cannot be used. Its file stays until the next snapshot replaces it.
#[derive(Debug, thiserror::Error)]
#[error("the stored snapshot {} is left aside, nothing of it is in force and the node waits for its console to send one", .path.display())]
pub struct LeftAside {
    path: PathBuf,
    source: Unusable,
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the file is damaged")]
    Damaged,
    #[error(transparent)]
    Unbelievable(#[from] Unbelievable),
}

/// The last good snapshot.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As it came.
    pub signed: SignedSnapshot,
    /// What it says.
    pub snapshot: Snapshot,
}

/// Why the state cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A second keeper.
    #[error("another sallyport-node{holder} already runs on {}; stop it first or give this one its own --state-dir", directory.display())]
    Held {
        /// What it holds.
        directory: PathBuf,
        /// Who it is.
        holder: Holder,
    },
    /// The file system's word.
    #[error("{what} in {} failed", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No room for what is to be kept.
    #[error("the disk with {} is full: nothing was changed; make room, then publish again", .0.display())]
    Full(PathBuf),
    /// A file that someone changed or that is another program's.
    #[error("{} cannot be read as {what}; move it away and enrol the node again", .path.display())]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Not what a worker of ours sends.
    #[error("the sealed key is longer than {MAX_SEALED} characters")]
    TooLong,
    /// A key that the snapshot does not name.
    #[error("the key {0} belongs to no certificate of the snapshot")]
    Stray(Digest),
    /// There is no identity to change.
    #[error("this node was never enrolled: start it with --token-file")]
    NotEnrolled,
}

impl State {
    /// Opens the state below `path`, takes its lock and reads what is there. `token` makes or replaces the identity,
    /// unless it is the one already used.
    ///
    /// # Errors
    /// See [`StateError`]. A stored snapshot that does not verify is no error: see [`State::left_aside`].
    pub fn open(
        path: &Path,
        token: Option<(EnrolmentToken, Digest)>,
        credential: Option<&Path>,
    ) -> Result<Self, StateError> {
        let failed = |what, source| StateError::Io { what, path: path.to_owned(), source };
        let directory =
            Directory::open(path, 0o700).map_err(|error| failed("opening the state directory", error))?;
        let lock = directory.lock_alone("lock").map_err(|error| failed("locking", error))?;
        let lock = lock.map_err(|holder| StateError::Held { directory: path.to_owned(), holder })?;
        let sealing_key =
            sealing_key(&directory, credential).map_err(|error| failed("reading the sealing key", error))?;
        Self::load(directory, lock, sealing_key, |state| match token {
            Some((token, digest)) => state.adopt_token(token, digest),
            None => Ok(()),
        })
    }

    /// Why the stored snapshot is not used, until another is stored.
    pub fn left_aside(&self) -> Option<&LeftAside> {
        self.left_aside.as_ref()
    }

    /// Who the node is.
    pub fn identity(&self) -> Option<&NodeIdentity> {
        self.identity.as_ref()
    }

    /// Whether the node has its own certificate.
    ///
    /// # Errors
    /// What the file system said.
    pub fn is_enrolled(&self) -> Result<bool, StateError> {
        let own = self.directory.read(NODE).map_err(|error| self.failed("reading node.sealed", error))?;
        Ok(own.is_some())
    }

    /// The last good snapshot.
    pub fn stored(&self) -> Option<&Stored> {
        self.snapshot.as_ref()
    }

    /// What a new worker gets.
    ///
    /// # Errors
    /// What the file system said.
    pub fn secrets(&self) -> Result<Secrets, StateError> {
        let mut keys = BTreeMap::new();
        for certificate in self.snapshot.iter().flat_map(|stored| &stored.snapshot.certificates) {
            if let Some(sealed) = self.read_sealed(&self.keys, &key_file(&certificate.key))? {
                keys.insert(certificate.key, sealed);
            }
        }
        Ok(Secrets {
            sealing_key: self.sealing_key.to_vec(),
            enrolment: self.enrolment.as_ref().map(|secret| secret.to_string()),
            node: self.read_sealed(&self.directory, NODE)?,
            keys,
            metrics: None,
        })
    }

    /// Stores keys that `snapshot` names, before it is committed.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn store_keys(&self, keys: &BTreeMap<Digest, Sealed>, snapshot: &Snapshot) -> Result<(), StateError> {
        let named: BTreeSet<_> = snapshot.certificates.iter().map(|certificate| certificate.key).collect();
        for (digest, sealed) in keys {
            if !named.contains(digest) {
                return Err(StateError::Stray(*digest));
            }
            write_sealed(&self.keys, &key_file(digest), sealed)?;
        }
        Ok(())
    }

    /// Writes a snapshot beside the stored one, so that committing it later cannot fail for want of space.
    ///
    /// # Errors
    /// What the file system said; the stored one is untouched.
    pub fn stage(&self, stored: &Stored) -> Result<Staging, StateError> {
        let json = serde_json::to_vec(&stored.signed)
            .map_err(|error| self.failed("writing the snapshot", error.into()))?;
        let failed = |error| self.failed("storing the snapshot", error);
        let snapshot = self.directory.stage(SNAPSHOT, &json, 0o600).map_err(failed)?;
        let trial = stored.snapshot.trial_ms.map(|trial_ms| self.stage_trial(stored.snapshot.id, trial_ms));
        Ok(Staging { snapshot, trial: trial.transpose().map_err(failed)? })
    }

    /// Makes a snapshot the stored one, and forgets keys that neither it nor the one before names, where it is on trial.
    ///
    /// # Errors
    /// What the file system said; the old one is still stored.
    pub fn commit(&mut self, staging: Staging, stored: Stored) -> Result<(), StateError> {
        let failed = |error| self.failed("storing the snapshot", error);
        let trial = staging.trial.map(|staged| self.commit_trial(staged)).transpose().map_err(failed)?;
        staging.snapshot.commit().map_err(failed)?;
        self.snapshot = Some(stored);
        self.left_aside = None;
        self.trial = trial;
        if self.trial.is_none() {
            self.end_trial();
        }
        self.forget_keys();
        Ok(())
    }

    /// Stores the node's own key and certificate. The enrolment token is used up.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn store_node(&mut self, sealed: &Sealed) -> Result<(), StateError> {
        write_sealed(&self.directory, NODE, sealed)?;
        self.enrolment = None;
        Ok(())
    }

    /// Trusts another snapshot key from now on. The stored snapshot stays in force: it was verified when it came.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn rotate(&mut self, key: Digest) -> Result<(), StateError> {
        let identity = self.identity.clone().ok_or(StateError::NotEnrolled)?;
        // The key that the stored snapshot is signed with has to stay known, however often the console rotates.
        let signs_stored = |key: &Digest| {
            self.snapshot
                .as_ref()
                .is_some_and(|stored| signed::verify(&stored.signed, key, &identity.node).is_ok())
        };
        let previous = identity.previous_key.filter(signs_stored).unwrap_or(identity.snapshot_key);
        self.store_identity(NodeIdentity { snapshot_key: key, previous_key: Some(previous), ..identity })
    }

    fn store_identity(&mut self, identity: NodeIdentity) -> Result<(), StateError> {
        let json = serde_json::to_vec_pretty(&identity)
            .map_err(|error| self.failed("writing node.json", error.into()))?;
        self.directory
            .write(IDENTITY, &json, 0o600)
            .map_err(|error| self.failed("storing node.json", error))?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Makes or replaces the identity, unless the token is the one already used.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn adopt_token(&mut self, token: EnrolmentToken, digest: Digest) -> Result<(), StateError> {
        let enrolled = self.is_enrolled()?;
        if self.identity.as_ref().is_some_and(|identity| identity.token == digest) {
            self.enrolment = (!enrolled).then(|| Zeroizing::new(token.secret));
            return Ok(());
        }
        // An older console's certificate is of no use to the one the operator names now.
        self.directory.remove(NODE).map_err(|error| self.failed("removing node.sealed", error))?;
        self.forget_gone_back().map_err(|error| self.failed("removing trial.json", error))?;
        self.enrolment = Some(Zeroizing::new(token.secret));
        self.store_identity(NodeIdentity {
            node: token.node,
            console: token.console,
            ca: token.ca,
            snapshot_key: token.snapshot_key,
            previous_key: None,
            token: digest,
        })
    }

    fn load_snapshot(&self, name: &str) -> Result<Option<Result<Stored, LeftAside>>, StateError> {
        let Some(bytes) =
            self.directory.read(name).map_err(|error| self.failed("reading the snapshot", error))?
        else {
            return Ok(None);
        };
        let Some(identity) = &self.identity else { return Ok(None) };
        let aside = |source| LeftAside { path: self.directory.path().join(name), source };
        Ok(Some(believe(&bytes, identity).map_err(aside)))
    }

    /// A key that no stored snapshot names must not stay readable to whoever gets the disk.
    fn forget_keys(&self) {
        let stored = self.snapshot.iter().chain(self.trial.as_ref().and_then(Trial::stored));
        let named: BTreeSet<_> =
            stored.flat_map(|stored| &stored.snapshot.certificates).map(|c| key_file(&c.key)).collect();
        let names = self.keys.names().unwrap_or_default();
        for name in names.iter().filter(|name| !named.contains(*name)) {
            if let Err(error) = self.keys.remove(name) {
                tracing::warn!(%error, file = name, "an unused key cannot be removed");
            }
        }
    }

    fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        what: &'static str,
    ) -> Result<Option<T>, StateError> {
        let bytes = self.directory.read(name).map_err(|error| self.failed("reading the state", error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let corrupt = |_error| StateError::Corrupt { what, path: self.directory.path().join(name) };
        serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
    }

    fn read_sealed(&self, directory: &Directory, name: &str) -> Result<Option<Sealed>, StateError> {
        let bytes = directory.read(name).map_err(|error| self.failed("reading a sealed key", error))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Sealed))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StateError {
        StateError::io(what, &self.directory, source)
    }
}

impl StateError {
    fn io(what: &'static str, directory: &Directory, source: io::Error) -> Self {
        let path = directory.path().to_owned();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full(path)
        } else {
            Self::Io { what, path, source }
        }
    }
}

/// The snapshot in a stored file, signed with the present key or the one before.
fn believe(bytes: &[u8], identity: &NodeIdentity) -> Result<Stored, Unusable> {
    let signed: SignedSnapshot = serde_json::from_slice(bytes).map_err(|_damaged| Unusable::Damaged)?;
    let verify = |key| signed::verify(&signed, key, &identity.node);
    let snapshot = match (verify(&identity.snapshot_key), &identity.previous_key) {
        // Only another signature makes the former key's word count.
        (Err(Unbelievable::Signature), Some(previous)) => verify(previous)?,
        (verified, _) => verified?,
    };
    Ok(Stored { signed, snapshot })
}

fn write_sealed(directory: &Directory, name: &str, sealed: &Sealed) -> Result<(), StateError> {
    if sealed.0.len() > MAX_SEALED {
        return Err(StateError::TooLong);
    }
    let failed = |source| StateError::io("storing a sealed key", directory, source);
    directory.write(name, sealed.0.as_bytes(), 0o600).map_err(failed)
}

fn key_file(digest: &Digest) -> String {
    format!("{digest}.sealed")
}

fn sealing_key(directory: &Directory, credential: Option<&Path>) -> io::Result<Zeroizing<Vec<u8>>> {
    let known = match credential.filter(|path| path.exists()) {
        Some(path) => Some(std::fs::read(path)?),
        None => directory.read(SEALING_KEY)?,
    };
    if let Some(key) = known {
        let key = Zeroizing::new(key);
        return match key.len() {
            32 => Ok(key),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "sealing.key is not 32 bytes")),
        };
    }
    let mut key = Zeroizing::new(vec![0; 32]);
    aws_lc_rs::rand::fill(&mut key).map_err(|_unspecified| io::Error::other("no random numbers"))?;
    directory.write(SEALING_KEY, &key, 0o600)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
