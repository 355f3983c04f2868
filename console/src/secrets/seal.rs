//! Sealing at rest: AES-256-GCM under a master key that lies in its own file.
//!
//! This protects a copy of the database, not a machine whose files can all be read.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::random;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// The file cannot be read or made.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The database has sealed values but the key is gone.
    #[error(
        "{0} is missing, and the console's database has private keys that only it can open; \
         put the file back from a backup (or move the database away to begin anew)"
    )]
    Missing(PathBuf),
    /// Others may read it.
    #[error("{0} may be read by others than its owner; run: chmod 600 {0}")]
    Open(PathBuf),
    /// Not 32 bytes.
    #[error("{0} is not a master key (32 bytes); put the right file back from a backup")]
    Length(PathBuf),
    /// The tag does not fit.
    #[error(
        "master.key does not belong to this database, or the database is damaged; put the right pair back from a backup"
    )]
    Wrong,
}

/// The key that seals everything else; cheap to clone, never shown.
#[derive(Clone)]
pub struct MasterKey(Arc<RandomizedNonceKey>);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// Reads the key, or makes it when there is none and nothing is sealed yet.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn load(path: &Path, may_make: bool) -> Result<Self, SealError> {
        match fs::File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == ErrorKind::NotFound && may_make => Self::make(path),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(SealError::Missing(path.to_owned())),
            Err(reason) => Err(SealError::File { path: path.to_owned(), reason }),
        }
    }

    fn read(path: &Path, file: fs::File) -> Result<Self, SealError> {
        let failed = |reason| SealError::File { path: path.to_owned(), reason };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(SealError::Open(path.to_owned()));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(33));
        file.take(33).read_to_end(&mut bytes).map_err(failed)?;
        Self::of(&bytes).ok_or_else(|| SealError::Length(path.to_owned()))
    }

    fn make(path: &Path) -> Result<Self, SealError> {
        let failed = |reason| SealError::File { path: path.to_owned(), reason };
        let bytes = Zeroizing::new(random::<32>()?);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(bytes.as_slice()).and_then(|()| file.sync_all()).map_err(failed)?;
        Self::of(bytes.as_slice()).ok_or(SealError::Random)
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        // 32 bytes or nothing: the algorithm checks the length.
        Some(Self(Arc::new(RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()?)))
    }

    /// Seals `plain`; `purpose` must be the same when it is opened.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut body)
            .map_err(|_unspecified| SealError::Random)?;
        Ok([nonce.as_ref().as_slice(), &body].concat())
    }

    /// Opens what [`MasterKey::seal`] sealed.
    ///
    /// # Errors
    /// [`SealError::Wrong`].
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, body) = sealed.split_at_checked(12).ok_or(SealError::Wrong)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce)
            .map_err(|_unspecified| SealError::Wrong)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut body)
            .map_err(|_unspecified| SealError::Wrong)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sallyport-seal-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_is_sealed_opens_only_for_its_purpose_and_key() {
        let at = directory("purpose");
        let key = MasterKey::load(&at.join("a"), true).unwrap();
        let other = MasterKey::load(&at.join("b"), true).unwrap();
        let sealed = key.seal("one", b"secret").unwrap();
        assert_eq!(key.open("one", &sealed).unwrap().as_slice(), b"secret");
        assert!(matches!(key.open("two", &sealed), Err(SealError::Wrong)));
        assert!(matches!(other.open("one", &sealed), Err(SealError::Wrong)));
        assert!(matches!(key.open("one", &sealed[..5]), Err(SealError::Wrong)));
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_missing_short_or_readable_key_is_named() {
        let at = directory("missing");
        assert!(matches!(MasterKey::load(&at.join("none"), false), Err(SealError::Missing(_))));
        fs::write(at.join("short"), b"x").unwrap();
        fs::set_permissions(at.join("short"), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(MasterKey::load(&at.join("short"), true), Err(SealError::Length(_))));
        fs::set_permissions(at.join("short"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(MasterKey::load(&at.join("short"), true), Err(SealError::Open(_))));
        fs::remove_dir_all(at).unwrap();
    }
}
