//! The key that signs snapshots (Ed25519).

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::snapshot::{SignedSnapshot, Snapshot};

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// No key could be made or read.
    #[error("the key that signs snapshots cannot be used")]
    Key,
    /// The snapshot has no JSON.
    #[error("the snapshot cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Signs snapshots; cheap to clone.
#[derive(Debug, Clone)]
pub struct Signer(Arc<Ed25519KeyPair>);

impl Signer {
    /// A new key and its PKCS#8 form, to be sealed.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn make() -> Result<(Self, Vec<u8>), SignerError> {
        let pair = Ed25519KeyPair::generate().map_err(|_unspecified| SignerError::Key)?;
        let pkcs8 = pair.to_pkcs8().map_err(|_unspecified| SignerError::Key)?;
        Ok((Self(Arc::new(pair)), pkcs8.as_ref().to_vec()))
    }

    /// A stored key.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_pkcs8(pkcs8: &[u8]) -> Result<Self, SignerError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_rejected| SignerError::Key)?;
        Ok(Self(Arc::new(pair)))
    }

    /// The public half: the nodes' trust anchor. (The same text form as a digest: 32 bytes in hexadecimal.)
    pub fn public(&self) -> Option<Digest> {
        let hex: String = self.0.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        hex.parse().ok()
    }

    /// Signs a snapshot.
    ///
    /// # Errors
    /// When the snapshot has no JSON.
    pub fn sign(&self, snapshot: &Snapshot) -> Result<SignedSnapshot, SignerError> {
        let body = snapshot.to_canonical_json()?;
        let signature = STANDARD.encode(self.0.sign(&SignedSnapshot::signed_bytes(&body)));
        Ok(SignedSnapshot { body, signature })
    }
}
