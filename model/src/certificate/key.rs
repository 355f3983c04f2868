//! A private key between a form's field and the store that seals it.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use rustls_pki_types::pem::SectionKind;
use zeroize::Zeroizing;

use super::pem::{Block, blocks};
use crate::digest::Digest;

/// A private key that can be served with: RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519.
///
/// Its bytes are overwritten when it is dropped; debugging shows only the digest of its public half.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    digest: Digest,
}

/// Why a text is no private key. The messages never quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No private key block.
    #[error(
        "there is no PEM private key here; paste the text from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----"
    )]
    NoKey,
    /// Protected by a passphrase.
    #[error(
        "the private key is encrypted with a passphrase; decrypt it first: openssl pkey -in encrypted.pem -out key.pem"
    )]
    Encrypted,
    /// A certificate where a key belongs.
    #[error("this is a certificate; paste it into the certificate chain field, and its private key here")]
    Certificate,
    /// The public half only.
    #[error("this is a public key; the private key belongs here")]
    PublicKey,
    /// More than one key.
    #[error("there are several private keys here; paste only the one that belongs to the certificate")]
    Several,
    /// PEM or base64 is broken.
    #[error("the private key is not valid PEM; was it cut off while copying?")]
    Pem,
    /// Not RSA, ECDSA or Ed25519, or damaged.
    #[error(
        "the private key cannot be used; it must be RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519"
    )]
    Unusable,
}

impl PrivateKey {
    /// Reads a PEM text with one private key: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    /// See [`InvalidKey`].
    pub fn parse(pem: &str) -> Result<Self, InvalidKey> {
        // RFC 1421's `Proc-Type: 4,ENCRYPTED` and PKCS#8's `ENCRYPTED PRIVATE KEY`.
        if pem.contains("ENCRYPTED") {
            return Err(InvalidKey::Encrypted);
        }
        let mut found = None;
        let mut instead = InvalidKey::NoKey;
        for block in blocks(pem) {
            let Ok(Block { kind, der }) = block else { return Err(InvalidKey::Pem) };
            // Anything else beside a key, such as EC PARAMETERS or a CSR, is common and harmless.
            if [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey]
                .contains(&kind)
            {
                if found.replace((kind, Zeroizing::new(der))).is_some() {
                    return Err(InvalidKey::Several);
                }
            } else if kind == SectionKind::Certificate {
                instead = InvalidKey::Certificate;
            } else if kind == SectionKind::PublicKey {
                instead = InvalidKey::PublicKey;
            }
        }
        let (kind, der) = found.ok_or(instead)?;
        if kind == SectionKind::RsaPrivateKey {
            Self::from_pkcs1(&der)
        } else if kind == SectionKind::EcPrivateKey {
            Self::from_sec1(&der)
        } else {
            Self::from_pkcs8_der(der.to_vec())
        }
    }

    /// Takes over a key that is already PKCS#8 DER.
    ///
    /// # Errors
    /// [`InvalidKey::Unusable`].
    pub fn from_pkcs8_der(der: Vec<u8>) -> Result<Self, InvalidKey> {
        let pkcs8 = Zeroizing::new(der);
        let spki = spki_of_pkcs8(&pkcs8).ok_or(InvalidKey::Unusable)?;
        Ok(Self { digest: Digest::of(spki.as_ref()), pkcs8 })
    }

    /// SHA-256 of the public half's SubjectPublicKeyInfo (DER): what `privateKeyRef` holds.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The key, PKCS#8 DER.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, InvalidKey> {
        let Ok(key) = RsaKeyPair::from_der(der) else { return Err(InvalidKey::Unusable) };
        let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(unusable)?;
        Self::from_pkcs8_der(pkcs8.as_ref().to_vec())
    }

    fn from_sec1(der: &[u8]) -> Result<Self, InvalidKey> {
        let key = ecdsa(der).ok_or(InvalidKey::Unusable)?;
        Self::from_pkcs8_der(key.to_pkcs8v1().map_err(unusable)?.as_ref().to_vec())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The digest of the public half of a PEM private key; see [`PrivateKey::digest`].
///
/// # Errors
/// See [`InvalidKey`].
pub fn spki_digest_of_key(pem: &str) -> Result<Digest, InvalidKey> {
    PrivateKey::parse(pem).map(|key| key.digest())
}

fn unusable(_: Unspecified) -> InvalidKey {
    InvalidKey::Unusable
}

fn spki_of_pkcs8(der: &[u8]) -> Option<PublicKeyX509Der<'static>> {
    if let Some(key) = ecdsa(der) {
        return key.public_key().as_der().ok();
    }
    if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return key.public_key().as_der().ok();
    }
    RsaKeyPair::from_pkcs8(der).ok()?.public_key().as_der().ok()
}

/// PKCS#8 or SEC1; the curve is the key's own.
fn ecdsa(der: &[u8]) -> Option<EcdsaKeyPair> {
    [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING]
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
}
