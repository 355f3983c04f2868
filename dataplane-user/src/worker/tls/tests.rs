//! Both ends against each other and against rustls's own streams.

use std::sync::Arc;
use std::time::Duration;

use model::name::{HostName, HostPattern};
use model::snapshot::TlsVersion;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::certificates::Resolver;
use super::serve::{self, Served};
use crate::worker::live::BySni;
use crate::worker::refusal::Reason;

/// A CA that signs what a test asks for.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Chain and key, PEM and PKCS#8.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, PrivateKeyDer<'static>, model::digest::Digest) {
        self.issue_with(names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> (String, PrivateKeyDer<'static>, model::digest::Digest) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let digest = model::digest::Digest::of(&rcgen::PublicKeyData::subject_public_key_info(&key));
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        (chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()), digest)
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn certified(ca: &Ca, names: &[&str]) -> Arc<CertifiedKey> {
    let (chain, key, _) = ca.issue(names);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    Arc::new(CertifiedKey::new(chain, super::provider().key_provider.load_private_key(key).unwrap()))
}

fn server(ca: &Ca, lowest: TlsVersion, hosts: &[&str], default: Option<&str>) -> Arc<ServerConfig> {
    let mut table = BySni::default();
    for name in hosts {
        let pattern: HostPattern = name.parse().unwrap();
        table.add(&pattern, certified(ca, &[name]));
    }
    table.default = default.map(|name| certified(ca, &[name]));
    serve::config(lowest, Resolver(table), rustls::crypto::aws_lc_rs::Ticketer::new().unwrap()).unwrap()
}

fn client(ca: &Ca, change: impl FnOnce(&mut ClientConfig)) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    change(&mut config);
    Arc::new(config)
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

type Theirs = std::io::Result<tokio_rustls::client::TlsStream<TcpStream>>;

async fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Result<Served, (Reason, String)>, Theirs) {
    let (near, far) = pair().await;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::join!(serve::accept(far, server, Duration::from_secs(5)), async {
        tokio::time::timeout(Duration::from_secs(5), connector.connect(name, near)).await?
    })
}

#[tokio::test]
async fn traffic_in_every_version_suite_and_size_arrives_as_it_was_sent() {
    let ca = Ca::new("test");
    let config = server(&ca, TlsVersion::V12, &["a.test"], None);
    for suite in &super::provider().cipher_suites {
        let mut provider = (*super::provider()).clone();
        provider.cipher_suites.retain(|one| one == suite);
        if super::iana_suite(*suite).contains("_RSA_") {
            continue;
        }
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_no_client_auth();
        let (served, theirs) = shake(&config, &Arc::new(client), "a.test").await;
        let (mut served, mut theirs) = (served.unwrap(), theirs.unwrap());
        assert_eq!(served.leg.suite, super::iana_suite(*suite));
        assert_eq!(served.sni, Some(host("a.test")));
        for size in [1, 15, 16_383, 16_384, 16_385, 100_000, 1_000_000] {
            let text: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (mut there, mut back) = (vec![0; size], vec![0; size]);
            let (ours, theirs) = tokio::join!(
                async {
                    served.stream.read_exact(&mut there).await.unwrap();
                    served.stream.write_all(&there).await.unwrap();
                    served.stream.flush().await
                },
                async {
                    theirs.write_all(&text).await.unwrap();
                    theirs.flush().await.unwrap();
                    theirs.read_exact(&mut back).await
                }
            );
            ours.unwrap();
            theirs.unwrap();
            assert!(there == text && back == text, "{size}");
        }
        theirs.shutdown().await.unwrap();
        assert_eq!(served.stream.read(&mut [0; 9]).await.unwrap(), 0);
        served.stream.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0; 9]).await.unwrap(), 0);
    }
}
