//! The console's certificate authority: certificates for nodes, for the console itself, and for hosts that ask for one.

use std::net::IpAddr;
use std::sync::Arc;

use model::digest::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::{SealError, random};

/// How long a node's certificate lives (decision 21).
const NODE_DAYS: i64 = 7;
/// How long a certificate for hosts lives.
const HOST_DAYS: i64 = 90;
/// Clocks differ.
const BACKDATED: Duration = Duration::hours(1);

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is not a PKCS#10 request whose signature is right.
    #[error("this is no certificate request (PKCS#10, PEM) with a right signature")]
    Request,
    /// A name cannot stand in a certificate.
    #[error("{0} cannot stand in a certificate")]
    Name(String),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] SealError),
    /// The library says no.
    #[error("the certificate could not be made")]
    Make(#[from] rcgen::Error),
}

/// A certificate with what the console must remember of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM, leaf and nothing else (the CA signs directly).
    pub pem: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// When it ends.
    pub ends: OffsetDateTime,
}

/// The authority; cheap to clone.
#[derive(Clone)]
pub struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    pem: Arc<str>,
    fingerprint: Digest,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority: certificate (PEM) and key (PKCS#8), to be stored.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn make(name: &str, now: OffsetDateTime) -> Result<(String, Vec<u8>), IssueError> {
        let key = KeyPair::generate()?;
        let mut params = dated(now, Duration::days(3650))?;
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok((params.self_signed(&key)?.pem(), key.serialize_der()))
    }

    /// A stored authority.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(pem: &str, pkcs8: &[u8]) -> Result<Self, IssueError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_pem| IssueError::Request)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let issuer = Issuer::from_ca_cert_der(&der, KeyPair::try_from(&key)?)?;
        Ok(Self { issuer: Arc::new(issuer), fingerprint: Digest::of(&der), pem: pem.into() })
    }

    /// The certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate (DER).
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// A node's certificate; of its request only the key counts.
    ///
    /// # Errors
    /// When the request is none.
    pub fn node(&self, csr: &str, node: &str, now: OffsetDateTime) -> Result<Issued, IssueError> {
        let request =
            CertificateSigningRequestParams::from_pem(csr).map_err(|_rejected| IssueError::Request)?;
        let mut params = dated(now, Duration::days(NODE_DAYS))?;
        params.distinguished_name = named(node);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (serial, ends) = (serial_text(&params), params.not_after);
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(Issued { pem: certificate.pem(), serial, ends })
    }

    /// A certificate for hosts (exact or `*.suffix`) and addresses, with its key (PKCS#8).
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server(
        &self,
        hosts: &[String],
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<(Issued, Vec<u8>), IssueError> {
        let key = KeyPair::generate()?;
        let mut params = dated(now, Duration::days(HOST_DAYS))?;
        params.distinguished_name = named(hosts.first().map_or("sallyport", String::as_str));
        for host in hosts {
            let name = host.as_str().try_into().map_err(|_ascii| IssueError::Name(host.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (serial, ends) = (serial_text(&params), params.not_after);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((Issued { pem: certificate.pem(), serial, ends }, key.serialize_der()))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // RFC 5280 allows 64 characters.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn dated(now: OffsetDateTime, life: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    // X.509 times have whole seconds.
    let now = now.replace_nanosecond(0).unwrap_or(now);
    params.not_before = now - BACKDATED;
    params.not_after = now + life;
    let mut serial = random::<16>()?;
    // A DER integer: positive, and without a leading zero byte that would vanish from the text.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn serial_text(params: &CertificateParams) -> String {
    let bytes = params.serial_number.as_ref().map(|serial| serial.to_bytes()).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
