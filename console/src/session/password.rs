//! Passwords: argon2id, off the thread that answers everybody else, two at once at most.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::ops::OpsError;

/// Characters at least.
pub(crate) const SHORTEST: usize = 12;
/// Bytes at most.
pub(crate) const LONGEST: usize = 1024;

/// Each hash takes 19 MiB and a core: more at once would let anyone stop the console.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// The PHC string of a password.
pub(crate) async fn hash(password: String) -> Result<String, OpsError> {
    let _permit = AT_ONCE.acquire().await.map_err(|_closed| OpsError::Stopped)?;
    let hashed = tokio::task::spawn_blocking(move || {
        Argon2::default().hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string())
    });
    hashed.await.map_err(|_panicked| OpsError::Stopped)?.map_err(|_argon2| OpsError::Stopped)
}

/// Whether a password is right; without a user the same work is done for nothing, so that time tells no names.
pub(crate) async fn verify(password: String, phc: Option<String>) -> Result<bool, OpsError> {
    let _permit = AT_ONCE.acquire().await.map_err(|_closed| OpsError::Stopped)?;
    let right = tokio::task::spawn_blocking(move || {
        let Some(phc) = phc else {
            let _spent = Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash: PasswordHash| hash.to_string());
            return false;
        };
        PasswordHash::new(&phc)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    });
    right.await.map_err(|_panicked| OpsError::Stopped)
}
