//! The console's own certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::clock;
use crate::nodes::NodeCertificates;
use crate::secrets::{Authority, IssueError};

/// A certificate is replaced at this age, long before it ends.
const REPLACE_AFTER: Duration = Duration::days(30);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// No configuration.
    #[error("TLS cannot be configured: {0}")]
    Rustls(#[from] rustls::Error),
    /// The console's CA certificate is damaged.
    #[error("the console's CA certificate is damaged")]
    Ca,
}

/// A port's TLS, with a certificate from the console's CA that is replaced in time.
#[derive(Debug)]
pub struct Tls {
    authority: Authority,
    hosts: Vec<String>,
    addresses: Vec<IpAddr>,
    nodes: bool,
    present: Mutex<Option<(OffsetDateTime, Arc<ServerConfig>)>>,
}

impl Tls {
    /// For browsers and the command line (`nodes: false`), or for nodes: then client certificates are asked for and only
    /// HTTP/2 is spoken.
    pub fn new(authority: Authority, (hosts, addresses): (Vec<String>, Vec<IpAddr>), nodes: bool) -> Self {
        Self { authority, hosts, addresses, nodes, present: Mutex::new(None) }
    }

    /// The configuration for a new connection.
    ///
    /// # Errors
    /// When no certificate can be issued.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let now = clock::now();
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, config)) = &*present
            && now - *made < REPLACE_AFTER
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(now)?);
        *present = Some((now, Arc::clone(&config)));
        Ok(config)
    }

    fn make(&self, now: OffsetDateTime) -> Result<ServerConfig, TlsError> {
        let (issued, key) = self.authority.server(&self.hosts, &self.addresses, now)?;
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_pem| TlsError::Ca);
        let ca = der(self.authority.pem())?;
        // The CA goes along: a node that enrols knows only its fingerprint.
        let chain = vec![der(&issued.pem)?, ca.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match self.nodes {
            true => builder.with_client_cert_verifier(Arc::new(NodeCertificates::new(ca)?)),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = match self.nodes {
            true => vec![model::link::ALPN.to_vec()],
            false => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(config)
    }
}

/// The names and addresses a certificate for these listening addresses needs.
pub(super) fn server_names(listen: &[SocketAddr], also: &[String]) -> (Vec<String>, Vec<IpAddr>) {
    let mut hosts = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let hostname = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    for name in also.iter().cloned().chain([hostname]) {
        match name.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) if name.parse::<model::name::HostName>().is_ok() => hosts.push(name),
            Err(_) => {}
        }
    }
    addresses.extend(listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()));
    hosts.sort();
    hosts.dedup();
    addresses.sort();
    addresses.dedup();
    (hosts, addresses)
}
