//! Trust bundles: the certificate authorities that origins are verified against.

use time::OffsetDateTime;
use x509_parser::prelude::X509Certificate;

use super::pem::{self, InvalidText};
use crate::digest::Digest;

/// What one certificate authority of a bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// RFC 4514 text, for people.
    pub subject: String,
    /// Start of its validity.
    pub not_before: OffsetDateTime,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// SHA-256 of the certificate (DER).
    pub fingerprint: Digest,
}

/// Why a text is no trust bundle. Each message says what and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// No `-----BEGIN CERTIFICATE-----`.
    #[error(
        "there is no PEM certificate here; paste each authority from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    NoCertificate,
    /// A private key where certificates belong.
    #[error(
        "there is a private key here; a trust bundle has only certificates: remove the key, and replace it if others could see it"
    )]
    PrivateKey,
    /// PEM or base64 is broken.
    #[error("certificate {0} is not valid PEM; was it cut off while copying?")]
    Pem(usize),
    /// Not X.509.
    #[error("certificate {0} is not a valid X.509 certificate; export it again from where it was issued")]
    Der(usize),
    /// A leaf or a version 1 certificate.
    #[error(
        "certificate {place} ({subject}) is not a certificate authority; put the one that issued it here"
    )]
    NotAuthority {
        /// Counted from 1.
        place: usize,
        /// RFC 4514 text.
        subject: String,
    },
}

impl From<InvalidText> for InvalidBundle {
    fn from(why: InvalidText) -> Self {
        match why {
            InvalidText::NoCertificate => Self::NoCertificate,
            InvalidText::PrivateKey => Self::PrivateKey,
            InvalidText::Broken(place) => Self::Pem(place),
        }
    }
}

/// Reads a bundle's authorities, in the text's order.
///
/// A self-signed certificate that says nothing of being an authority (as many appliances make them) counts as one: people
/// pin it, and verification accepts it as a root.
///
/// # Errors
/// See [`InvalidBundle`].
pub fn trust_bundle(pem: &str) -> Result<Vec<Authority>, InvalidBundle> {
    let ders = pem::certificates(pem)?;
    let certificates = super::parse_all(&ders).map_err(InvalidBundle::Der)?;
    let numbered = certificates.iter().zip(&ders).enumerate();
    numbered.map(|(index, (certificate, der))| authority(index + 1, certificate, der)).collect()
}

fn authority(
    place: usize,
    certificate: &X509Certificate<'_>,
    der: &[u8],
) -> Result<Authority, InvalidBundle> {
    let subject = certificate.subject().to_string();
    let is_authority = match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => super::issued(certificate, certificate),
        Err(_) => return Err(InvalidBundle::Der(place)),
    };
    if !is_authority {
        return Err(InvalidBundle::NotAuthority { place, subject });
    }
    Ok(Authority {
        subject,
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        fingerprint: Digest::of(der),
    })
}
