//! Certificates as facts: what a PEM chain says, without keys and without trust decisions.

use time::OffsetDateTime;

use crate::digest::Digest;
use crate::name::HostPattern;

/// What a chain's leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// DNS names of the leaf, sorted; wildcard ones included.
    pub hostnames: Vec<HostPattern>,
    /// Issuer and subject, RFC 4514 text, for people.
    pub issuer: String,
    /// See `issuer`.
    pub subject: String,
    /// The leaf's validity.
    pub not_before: OffsetDateTime,
    /// The earliest end in the chain.
    pub not_after: OffsetDateTime,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo (DER).
    pub key: Digest,
    /// SHA-256 of the leaf (DER).
    pub fingerprint: Digest,
    /// Certificates in the chain.
    pub length: usize,
    /// Whether the leaf signed itself.
    pub self_signed: bool,
}

/// Why a text is no usable chain. Each message says what and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChain {
    /// No `-----BEGIN CERTIFICATE-----`.
    #[error("there is no PEM certificate here; paste the text from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----")]
    NoCertificate,
    /// A private key where a chain belongs.
    #[error("this is a private key; paste it into the private key field, and the certificate chain here")]
    PrivateKey,
    /// PEM or base64 is broken.
    #[error("certificate {0} is not valid PEM; was it cut off while copying?")]
    Pem(usize),
    /// Not X.509.
    #[error("certificate {0} is not a valid X.509 certificate")]
    Der(usize),
    /// Each certificate must be issued by the next.
    #[error("certificate {0} was not issued by the one after it; order them leaf first, then each issuer")]
    Order(usize),
    /// No DNS name to serve it for.
    #[error("the certificate has no DNS name (subjectAltName), so no host can be served with it")]
    NoNames,
}

impl Facts {
    /// Reads a PEM chain, leaf first.
    ///
    /// # Errors
    /// See [`InvalidChain`].
    pub fn of_chain(pem: &str) -> Result<Self, InvalidChain> {
        let _ = pem;
        Err(InvalidChain::NoCertificate)
    }

    /// Whether the leaf covers a host (RFC 6125, 6.4: a wildcard stands for exactly one label). A wildcard pattern is
    /// covered only by the same wildcard.
    pub fn covers(&self, host: &HostPattern) -> bool {
        let _ = host;
        false
    }
}
