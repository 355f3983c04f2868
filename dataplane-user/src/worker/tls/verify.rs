//! Judges the certificates of origins, and says in one sentence why one was not believed.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why an origin's certificate was not believed.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Unverified {
    /// What was expected, what came.
    sentence: String,
    #[source]
    source: rustls::Error,
}

/// rustls's own verification against some roots, with a sentence for every failure.
#[derive(Debug)]
pub struct Judge {
    inner: Arc<WebPkiServerVerifier>,
    /// What the roots are called, for the sentences.
    trust: String,
    /// Whom to expect, where it is not the name that is sent as SNI.
    expected: Option<ServerName<'static>>,
}

impl Judge {
    /// Believes what `roots` issued.
    ///
    /// # Errors
    /// There are no roots.
    pub fn new(roots: Arc<RootCertStore>, trust: String) -> Result<Self, rustls::Error> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, super::provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { inner, trust, expected: None })
    }

    /// Expects this name, whatever is sent as SNI.
    pub fn expecting(self, expected: Option<ServerName<'static>>) -> Self {
        Self { expected, ..self }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let server_name = self.expected.as_ref().unwrap_or(server_name);
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(
            |source| {
                let sentence = explain(&source, end_entity, server_name, &self.trust);
                CertificateError::Other(OtherError(Arc::new(Unverified { sentence, source }))).into()
            },
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Believes every certificate, as the operator of one origin group chose. The handshake's signature is still checked:
/// the peer holds the key of the certificate it shows.
#[derive(Debug)]
pub struct Unjudged(WebPkiSupportedAlgorithms);

impl Unjudged {
    /// The only instance there is a use for.
    pub fn new() -> Self {
        Self(super::provider().signature_verification_algorithms)
    }
}

impl Default for Unjudged {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerCertVerifier for Unjudged {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// What was expected, what came.
fn explain(
    error: &rustls::Error,
    leaf: &CertificateDer<'_>,
    expected: &ServerName<'_>,
    trust: &str,
) -> String {
    let expected = expected.to_str();
    let parsed = X509Certificate::from_der(leaf).map(|(_, parsed)| parsed);
    let Ok(leaf) = parsed else {
        return format!("expected a certificate for {expected}, got something that is not X.509");
    };
    let rustls::Error::InvalidCertificate(reason) = error else {
        return format!("the certificate for {expected} could not be checked: {error}");
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls's enum is open; its own words serve for the rest"
    )]
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("expected a certificate for {expected}, got one for {}", names(&leaf))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!(
                "expected a valid certificate for {expected}, got one that ended {}",
                leaf.validity().not_after
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!(
                "expected a valid certificate for {expected}, got one that begins {}",
                leaf.validity().not_before
            )
        }
        CertificateError::UnknownIssuer => format!(
            "expected a certificate for {expected} issued by {trust}, got one issued by \"{}\"; \
             if that is right, make a trust bundle with the issuer and choose it for this origin group, or add it to \
             the one chosen (the origin must send its intermediates)",
            leaf.issuer()
        ),
        CertificateError::BadSignature => {
            format!(
                "expected a certificate for {expected} issued by {trust}, got one whose signature is false"
            )
        }
        _ => format!(
            "expected a certificate for {expected} issued by {trust}, got one that is refused: {reason}"
        ),
    }
}

/// The leaf's names, for people; at most five.
fn names(leaf: &X509Certificate<'_>) -> String {
    let san = leaf.subject_alternative_name().ok().flatten();
    #[expect(clippy::wildcard_enum_match_arm, reason = "other kinds of names print themselves")]
    let mut names: Vec<String> = san
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => (*name).to_owned(),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
            other => other.to_string(),
        })
        .collect();
    if names.is_empty() {
        return format!("no name (subject \"{}\")", leaf.subject());
    }
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    let list = names.join(", ");
    if more == 0 { list } else { format!("{list} and {more} more") }
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(bytes)
        .map_or_else(|_| "a broken address".to_owned(), |v6| std::net::Ipv6Addr::from(v6).to_string())
}
