//! Private keys: open here and nowhere else, sealed wherever they rest.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::handover::message::Sealed;

const NONCE: usize = 12;

/// Names what is sealed, so that one file cannot stand in for another.
const NODE_PURPOSE: &[u8] = b"sallyport node certificate v1";
const KEY_PURPOSE: &[u8] = b"sallyport private key v1";

/// The worker's open keys.
pub struct Vault {
    sealing: RandomizedNonceKey,
    keys: BTreeMap<Digest, PrivateKeyDer<'static>>,
}

/// The node's own key and certificate.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeCertificate {
    /// PKCS#8, base64.
    pub key: String,
    /// Leaf first, PEM.
    pub certificate: String,
    /// The console CA, PEM.
    pub ca: String,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Another sealing key, another file, or damage.
    #[error(
        "a sealed key cannot be opened: the sealing key was changed or the file is damaged; it is fetched again"
    )]
    Sealed,
    /// The console sent something else.
    #[error("what the console sent for key {0} is not that key")]
    Wrong(Digest),
    /// The cryptographic library's word.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Drop for NodeCertificate {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Vault {
    /// An empty vault that seals with `sealing_key` (32 bytes).
    ///
    /// # Errors
    /// [`VaultError::Crypto`].
    pub fn new(sealing_key: &[u8]) -> Result<Self, VaultError> {
        let sealing =
            RandomizedNonceKey::new(&AES_256_GCM, sealing_key).map_err(|_unspecified| VaultError::Crypto)?;
        Ok(Self { sealing, keys: BTreeMap::new() })
    }

    /// All open keys.
    pub fn keys(&self) -> &BTreeMap<Digest, PrivateKeyDer<'static>> {
        &self.keys
    }

    /// Opens a stored key.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn unseal_key(&mut self, digest: Digest, sealed: &Sealed) -> Result<(), VaultError> {
        let der = self.open(sealed, &key_purpose(&digest))?;
        self.keys.insert(digest, PrivatePkcs8KeyDer::from(der.to_vec()).into());
        Ok(())
    }

    /// Takes a key from the console (PKCS#8), when it is the one asked for; the answer is what the keeper stores.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn take_key(&mut self, digest: Digest, der: &[u8]) -> Result<Sealed, VaultError> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der.to_vec()));
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key);
        let public =
            signing.ok().and_then(|signing| signing.public_key().map(|spki| Digest::of(spki.as_ref())));
        if public != Some(digest) {
            return Err(VaultError::Wrong(digest));
        }
        let sealed = self.seal(der, &key_purpose(&digest))?;
        self.keys.insert(digest, key);
        Ok(sealed)
    }

    /// Forgets every key that is not named.
    pub fn retain(&mut self, named: &BTreeSet<Digest>) {
        self.keys.retain(|digest, key| {
            let keep = named.contains(digest);
            if !keep {
                key.zeroize();
            }
            keep
        });
    }

    /// Opens the node's own key and certificate.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn unseal_node(&self, sealed: &Sealed) -> Result<NodeCertificate, VaultError> {
        let json = self.open(sealed, NODE_PURPOSE)?;
        serde_json::from_slice(&json).map_err(|_not_ours| VaultError::Sealed)
    }

    /// Seals the node's own key and certificate.
    ///
    /// # Errors
    /// [`VaultError::Crypto`].
    pub fn seal_node(&self, node: &NodeCertificate) -> Result<Sealed, VaultError> {
        let json = Zeroizing::new(serde_json::to_vec(node).map_err(|_never| VaultError::Crypto)?);
        self.seal(&json, NODE_PURPOSE)
    }

    fn seal(&self, plain: &[u8], purpose: &[u8]) -> Result<Sealed, VaultError> {
        let mut bytes = Zeroizing::new(plain.to_vec());
        let nonce = self.sealing.seal_in_place_append_tag(Aad::from(purpose), &mut *bytes);
        let nonce = nonce.map_err(|_unspecified| VaultError::Crypto)?;
        Ok(Sealed(STANDARD.encode([nonce.as_ref().as_slice(), &bytes].concat())))
    }

    fn open(&self, sealed: &Sealed, purpose: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_not_base64| VaultError::Sealed)?;
        let (nonce, rest) = bytes.split_at_checked(NONCE).ok_or(VaultError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| VaultError::Sealed)?;
        let mut rest = Zeroizing::new(rest.to_vec());
        let opened = self.sealing.open_in_place(nonce, Aad::from(purpose), &mut rest);
        let length = opened.map_err(|_unspecified| VaultError::Sealed)?.len();
        rest.truncate(length);
        Ok(rest)
    }
}

fn key_purpose(digest: &Digest) -> Vec<u8> {
    [KEY_PURPOSE, digest.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> (Digest, Vec<u8>) {
        let pair = rcgen::KeyPair::generate().unwrap();
        (Digest::of(&rcgen::PublicKeyData::subject_public_key_info(&pair)), pair.serialize_der())
    }

    #[test]
    fn a_key_comes_back_from_its_seal_and_from_no_other() {
        let mut vault = Vault::new(&[7; 32]).unwrap();
        let (digest, der) = key();
        let sealed = vault.take_key(digest, &der).unwrap();
        let mut later = Vault::new(&[7; 32]).unwrap();
        later.unseal_key(digest, &sealed).unwrap();
        assert_eq!(later.keys().get(&digest).unwrap().secret_der(), der);
        assert!(later.unseal_key(key().0, &sealed).is_err(), "sealed for another digest");
        assert!(Vault::new(&[8; 32]).unwrap().unseal_key(digest, &sealed).is_err(), "another sealing key");
        assert!(later.unseal_key(digest, &Sealed(String::new())).is_err());
        later.retain(&BTreeSet::new());
        assert!(later.keys().is_empty());
    }

    #[test]
    fn only_the_key_that_was_asked_for_is_taken() {
        let mut vault = Vault::new(&[7; 32]).unwrap();
        assert!(matches!(vault.take_key(key().0, &key().1), Err(VaultError::Wrong(_))));
        assert!(matches!(vault.take_key(key().0, b"not a key"), Err(VaultError::Wrong(_))));
    }
}
