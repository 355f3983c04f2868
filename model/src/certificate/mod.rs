//! Certificates as facts: what a PEM chain says, without trust decisions; and private keys on their way to being sealed.
//!
//! Whether each certificate of a chain was issued by the next is judged by names and key identifiers. Signatures are
//! verified by whoever connects; here the question is whether a person pasted the right texts in the right order.

mod key;
mod pem;
mod trust;

use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

pub use key::{InvalidKey, PrivateKey, spki_digest_of_key};
pub use trust::{Authority, InvalidBundle, trust_bundle};

use crate::digest::Digest;
use crate::name::HostPattern;
use pem::InvalidText;

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
    #[error(
        "there is no PEM certificate here; paste the text from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    NoCertificate,
    /// A private key where a chain belongs.
    #[error("this is a private key; paste it into the private key field, and the certificate chain here")]
    PrivateKey,
    /// PEM or base64 is broken.
    #[error("certificate {0} is not valid PEM; was it cut off while copying?")]
    Pem(usize),
    /// Not X.509.
    #[error("certificate {0} is not a valid X.509 certificate; export it again from where it was issued")]
    Der(usize),
    /// Each certificate must be issued by the next.
    #[error("certificate {0} was not issued by the one after it; order them leaf first, then each issuer")]
    Order(usize),
    /// No DNS name to serve it for.
    #[error(
        "the certificate has no DNS name (subjectAltName), so no host can be served with it; have one issued with its host names"
    )]
    NoNames,
}

impl From<InvalidText> for InvalidChain {
    fn from(why: InvalidText) -> Self {
        match why {
            InvalidText::NoCertificate => Self::NoCertificate,
            InvalidText::PrivateKey => Self::PrivateKey,
            InvalidText::Broken(place) => Self::Pem(place),
        }
    }
}

impl Facts {
    /// Reads a PEM chain, leaf first.
    ///
    /// # Errors
    /// See [`InvalidChain`].
    pub fn of_chain(pem: &str) -> Result<Self, InvalidChain> {
        let ders = pem::certificates(pem)?;
        let chain = parse_all(&ders).map_err(InvalidChain::Der)?;
        let (Some(leaf), Some(leaf_der)) = (chain.first(), ders.first()) else {
            return Err(InvalidChain::NoCertificate);
        };
        for (place, pair) in chain.windows(2).enumerate() {
            if let [subject, issuer] = pair
                && !issued(issuer, subject)
            {
                return Err(InvalidChain::Order(place + 1));
            }
        }
        let hostnames = hostnames(leaf);
        if hostnames.is_empty() {
            return Err(InvalidChain::NoNames);
        }
        let ends = chain.iter().map(|certificate| certificate.validity().not_after.to_datetime());
        Ok(Self {
            hostnames,
            issuer: leaf.issuer().to_string(),
            subject: leaf.subject().to_string(),
            not_before: leaf.validity().not_before.to_datetime(),
            not_after: ends.min().unwrap_or(OffsetDateTime::UNIX_EPOCH),
            key: Digest::of(leaf.public_key().raw),
            fingerprint: Digest::of(leaf_der),
            length: chain.len(),
            self_signed: issued(leaf, leaf),
        })
    }

    /// Whether the leaf covers a host (RFC 6125, 6.4: a wildcard stands for exactly one label). A wildcard pattern is
    /// covered only by the same wildcard.
    pub fn covers(&self, host: &HostPattern) -> bool {
        covers(&self.hostnames, host)
    }
}

/// Whether sorted names of a certificate cover a host; see [`Facts::covers`].
pub fn covers(hostnames: &[HostPattern], host: &HostPattern) -> bool {
    let has = |pattern: &HostPattern| hostnames.binary_search(pattern).is_ok();
    has(host) || covering_wildcard(host).is_some_and(|wildcard| has(&wildcard))
}

/// The one wildcard that a certificate for this exact host may have instead: its first label replaced.
pub(crate) fn covering_wildcard(host: &HostPattern) -> Option<HostPattern> {
    let HostPattern::Exact(name) = host else { return None };
    let (_, parent) = name.as_str().split_once('.')?;
    parent.parse().ok().map(HostPattern::Wildcard)
}

/// Every certificate, or the place (from 1) of the first that is none.
fn parse_all(ders: &[Vec<u8>]) -> Result<Vec<X509Certificate<'_>>, usize> {
    let mut all = Vec::with_capacity(ders.len());
    for (index, der) in ders.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => all.push(certificate),
            Ok(_) | Err(_) => return Err(index + 1),
        }
    }
    Ok(all)
}

/// Whether `issuer` issued `subject`, by name, and by key identifier where both say one.
fn issued(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    let wanted = subject.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
        id.key_identifier.as_ref().map(|id| id.0)
    });
    let present = issuer.extensions().iter().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
        Some(id.0)
    });
    let same_key = match (wanted, present) {
        (Some(wanted), Some(present)) => wanted == present,
        _ => true,
    };
    issuer.subject().as_raw() == subject.issuer().as_raw() && same_key
}

fn hostnames(leaf: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::DNSName(name) = name else { return None };
        name.parse().ok()
    });
    let mut hostnames: Vec<HostPattern> = dns.collect();
    hostnames.sort();
    hostnames.dedup();
    hostnames
}

#[cfg(test)]
mod tests;
