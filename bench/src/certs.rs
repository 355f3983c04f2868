//! One CA, one certificate for the front and any number for more hosts, one for the origin, all ECDSA P-256: the same for
//! every peer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Result;

/// The host that clients ask for.
pub(crate) const FRONT: &str = "bench.test";
/// The name in the origin's certificate, which every peer verifies.
pub(crate) const ORIGIN: &str = "origin.bench.test";

/// A host with a certificate of its own.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) chain_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// Chain and key in one file, as HAProxy wants it.
    pub(crate) pair_file: PathBuf,
}

pub(crate) struct Certs {
    pub(crate) ca_file: PathBuf,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) origin: (CertificateDer<'static>, PrivateKeyDer<'static>),
    issuer: Issuer<'static, KeyPair>,
}

/// Makes the CA and the origin's certificate below `dir`.
pub(crate) fn make(dir: &Path) -> Result<Certs> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Sallyport benchmark");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let (origin, origin_key) = leaf(ORIGIN, &issuer)?;
    let ca_file = dir.join("ca.pem");
    std::fs::write(&ca_file, ca.pem())?;
    Ok(Certs {
        ca_file,
        ca: ca.der().clone(),
        origin: (origin.der().clone(), PrivatePkcs8KeyDer::from(origin_key.serialize_der()).into()),
        issuer,
    })
}

impl Certs {
    /// The front's host, then `more` others, each with a certificate and a key of its own, below `dir`.
    pub(crate) fn hosts(&self, dir: &Path, more: usize) -> Result<Vec<Host>> {
        let dir = dir.join(format!("hosts-{more}"));
        let pairs = dir.join("pairs");
        std::fs::create_dir_all(&pairs)?;
        let names = std::iter::once(FRONT.to_owned()).chain((0..more).map(|at| format!("h{at}.{FRONT}")));
        names
            .map(|name| {
                let (certificate, key) = leaf(&name, &self.issuer)?;
                let write = |dir: &Path, end: &str, text: String| -> Result<PathBuf> {
                    let path = dir.join(format!("{name}.{end}"));
                    std::fs::write(&path, text)?;
                    Ok(path)
                };
                Ok(Host {
                    chain_file: write(&dir, "pem", certificate.pem())?,
                    key_file: write(&dir, "key", key.serialize_pem())?,
                    pair_file: write(&pairs, "pem", certificate.pem() + &key.serialize_pem())?,
                    name,
                })
            })
            .collect()
    }
}

fn leaf(name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<(rcgen::Certificate, KeyPair)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?, key))
}

/// The one suite and the one group that client and origin offer, so that every peer uses them on both legs.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}
