//! One CA, one front certificate and one origin certificate, all ECDSA P-256: the same for every peer.

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

pub(crate) struct Certs {
    pub(crate) ca_file: PathBuf,
    pub(crate) front_chain_file: PathBuf,
    pub(crate) front_key_file: PathBuf,
    /// Chain and key in one file, as HAProxy wants it.
    pub(crate) front_pair_file: PathBuf,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) origin: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

/// Makes everything below `dir`.
pub(crate) fn make(dir: &Path) -> Result<Certs> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Sallyport benchmark");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);

    let (front, front_key) = leaf(FRONT, &issuer)?;
    let (origin, origin_key) = leaf(ORIGIN, &issuer)?;
    let write = |name: &str, text: String| -> Result<PathBuf> {
        let path = dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    Ok(Certs {
        ca_file: write("ca.pem", ca.pem())?,
        front_chain_file: write("front.pem", front.pem())?,
        front_key_file: write("front.key", front_key.serialize_pem())?,
        front_pair_file: write("front.pair.pem", front.pem() + &front_key.serialize_pem())?,
        ca: ca.der().clone(),
        origin: (origin.der().clone(), PrivatePkcs8KeyDer::from(origin_key.serialize_der()).into()),
    })
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
