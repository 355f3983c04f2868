//! How a node gets its certificate, and the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::link::{EnrolRequest, EnrolResponse, RenewRequest, RenewResponse};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::link::{Connection, Credentials, LinkError};
use crate::handover::message::NodeIdentity;
use crate::worker::vault::NodeCertificate;

/// Enrols with the one-time secret.
///
/// # Errors
/// See [`LinkError`].
pub async fn enrol(
    identity: &NodeIdentity,
    secret: &str,
    labels: &BTreeMap<String, String>,
) -> Result<NodeCertificate, LinkError> {
    let connection = Connection::open(&identity.console, Credentials::Token { ca: &identity.ca }).await?;
    let (key, csr) = request()?;
    let body = EnrolRequest { secret: secret.to_owned(), csr, labels: labels.clone() };
    let answer: EnrolResponse = connection.post("enrol", &body).await?;
    let ca = CertificateDer::from_pem_slice(answer.ca.as_bytes()).map_err(|_pem| LinkError::Ca)?;
    if Digest::of(&ca) != identity.ca {
        return Err(LinkError::Ca);
    }
    Ok(NodeCertificate { key, certificate: answer.certificate, ca: answer.ca })
}

/// Asks for the next certificate, with a new key.
///
/// # Errors
/// See [`LinkError`].
pub async fn renew(connection: &Connection, present: &NodeCertificate) -> Result<NodeCertificate, LinkError> {
    let (key, csr) = request()?;
    let answer: RenewResponse = connection.post("renew", &RenewRequest { csr }).await?;
    Ok(NodeCertificate { key, certificate: answer.certificate, ca: present.ca.clone() })
}

/// Until a certificate should be renewed: when a third of its life is left.
pub fn renew_in(node: &NodeCertificate, now: SystemTime) -> Duration {
    let life = || {
        let der = CertificateDer::from_pem_slice(node.certificate.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    };
    let Some((start, end)) = life() else { return Duration::ZERO };
    let at = end.saturating_sub(end.saturating_sub(start) / 3);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or(0));
    at.duration_since(now).unwrap_or(Duration::ZERO)
}

/// A new key (PKCS#8, base64) and a request for a certificate of it (PEM).
fn request() -> Result<(String, String), LinkError> {
    let failed = |error: rcgen::Error| LinkError::Certificate(Error::General(error.to_string()));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let csr = rcgen::CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((STANDARD.encode(key.serialize_der()), csr.pem().map_err(failed)?))
}

/// Believes a console whose chain ends in the one CA that the enrolment token names.
#[derive(Debug)]
pub struct PinnedCa {
    ca: Digest,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    /// `ca` is the SHA-256 of the CA's certificate.
    pub fn new(ca: Digest, provider: Arc<CryptoProvider>) -> Self {
        Self { ca, provider }
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|certificate| Digest::of(certificate) == self.ca);
        let pinned = pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
