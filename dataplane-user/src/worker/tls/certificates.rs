//! Certificates to serve: parsed once, chosen by SNI.

use std::cell::RefCell;
use std::sync::Arc;

use model::digest::Digest;
use model::name::HostName;
use model::snapshot::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::worker::live::BySni;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key never came.
    #[error("the private key {0} is not on this node; the console sends it when the node is connected")]
    NoKey(Digest),
    /// No certificate, or broken PEM.
    #[error("the chain is not PEM with at least one certificate")]
    Chain,
    /// Of a kind that aws-lc does not sign with, or broken.
    #[error("the private key cannot be used")]
    Key(#[source] rustls::Error),
    /// Chain and key are of different pairs.
    #[error("the private key does not belong to the certificate")]
    Mismatch(#[source] rustls::Error),
}

/// Reads a chain and its key.
///
/// # Errors
/// See [`CertificateError`].
pub fn certified(
    certificate: &Certificate,
    key: Option<&PrivateKeyDer<'static>>,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let key = key.ok_or(CertificateError::NoKey(certificate.key))?;
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(CertificateError::Chain)?;
    let key =
        super::provider().key_provider.load_private_key(key.clone_key()).map_err(CertificateError::Key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(CertificateError::Mismatch)?;
    Ok(Arc::new(certified))
}

/// What SNI said and whether it chose a certificate; left behind by [`Resolver`] on the thread that shakes hands.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// The name sent, when it is one.
    pub(crate) sni: Option<HostName>,
    /// Nothing matches and the listener has no default.
    pub(crate) refused: bool,
}

thread_local! {
    // rustls asks for a certificate in the middle of reading a ClientHello and hands the caller neither the name nor the
    // answer of an unbuffered connection. The call is synchronous, so the caller finds both here right after it.
    static CHOSEN: RefCell<Option<Chosen>> = const { RefCell::new(None) };
}

/// Takes what the last [`Resolver::resolve`] on this thread left.
pub(crate) fn take_chosen() -> Option<Chosen> {
    CHOSEN.take()
}

/// A listener's certificates, asked by rustls in the handshake.
#[derive(Debug)]
pub struct Resolver(pub BySni<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sni = hello.server_name().and_then(|name| name.parse().ok());
        let certificate = self.0.choose(sni.as_ref()).map(Arc::clone);
        CHOSEN.set(Some(Chosen { sni, refused: certificate.is_none() }));
        certificate
    }
}
