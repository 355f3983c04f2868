//! Both ends against each other and against rustls's own streams.

use std::sync::Arc;
use std::time::Duration;

use model::name::{HostName, HostPattern};
use model::report::Leg;
use model::snapshot::TlsVersion;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::certificates::Resolver;
use super::dial::{self, Alpn, Clients, DialError, Extras};
use super::serve::{self, Served};
use crate::worker::live::{BySni, OriginLive, SecurityLive};
use crate::worker::overload::Line;
use crate::worker::proxy::write::Behalf;
use crate::worker::refusal::Reason;

const MOST: usize = 32 * 1024;

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
    let line = Line::default();
    tokio::join!(serve::accept((far, Vec::new()), server, soon(), MOST, &line), async {
        tokio::time::timeout(Duration::from_secs(5), connector.connect(name, near)).await?
    })
}

/// A client that has everything to say in one piece with its Finished, its end too, still gets its answer.
#[tokio::test]
async fn an_end_in_the_last_flight_is_an_end_and_no_failure() {
    let ca = Ca::new("test");
    let config = server(&ca, TlsVersion::V12, &["a.test"], None);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = ClientConfig::builder_with_provider(super::provider().clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_no_client_auth();
        let name = ServerName::try_from("a.test").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let (near, far) = pair().await;
        let mut near = near.into_std().unwrap();
        near.set_nonblocking(false).unwrap();
        let asked = tokio::task::spawn_blocking(move || {
            use std::io::{Read as _, Write as _};
            while client.is_handshaking() {
                while client.wants_write() {
                    client.write_tls(&mut near).unwrap();
                }
                // TLS 1.3's Finished waits for what follows.
                if client.is_handshaking() {
                    client.read_tls(&mut near).unwrap();
                    client.process_new_packets().unwrap();
                }
            }
            client.writer().write_all(b"hello").unwrap();
            client.send_close_notify();
            let mut last = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut last).unwrap();
            }
            near.write_all(&last).unwrap();
            near.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            rustls::Stream::new(&mut client, &mut near).read_to_string(&mut answer).unwrap();
            answer
        });
        let mut served =
            serve::accept((far, Vec::new()), &config, soon(), MOST, &Line::default()).await.unwrap();
        let mut heard = String::new();
        served.stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        served.stream.write_all(b"and you").await.unwrap();
        served.stream.shutdown().await.unwrap();
        assert_eq!(asked.await.unwrap(), "and you", "{version:?}");
    }
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

/// An origin's server configuration and the origin as a group would have it.
fn origin(address: std::net::SocketAddr, clients: Arc<Clients>, name: &str, verified: bool) -> OriginLive {
    OriginLive {
        group: "group".parse().unwrap(),
        address: address.to_string().parse().unwrap(),
        label: address.to_string().into(),
        key: 1,
        security: SecurityLive::Tls {
            clients,
            name: ServerName::try_from(name.to_owned()).unwrap(),
            verified: verified.then(|| ServerName::try_from(name.to_owned()).unwrap()),
        },
        proxy: None,
        health: Default::default(),
    }
}

/// Dials a server that shows `chain`, trusting `ca`; says what came of it and whether a second dial resumes.
async fn dialled(
    ca: &Ca,
    trust: &Ca,
    names: &[&str],
    expected: &str,
    change: fn(&mut rcgen::CertificateParams),
) -> Result<Leg, DialError> {
    let (chain, key, _) = ca.issue_with(names, change);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let address = echo(Arc::new(config)).await;
    let client =
        Clients::verified(trust.roots(), "trust bundle internal".to_owned(), Extras::default()).unwrap();
    let origin = origin(address, Arc::new(client), expected, true);
    dial::dial(&origin, address, Alpn::Http1, &Behalf::Own).await.map(|dialled| dialled.leg)
}

/// A server that sends back what it gets.
async fn echo(config: Arc<ServerConfig>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_origin_is_believed_for_its_name_or_address_and_the_leg_says_so() {
    let ca = Ca::new("ca");
    let leg = dialled(&ca, &ca, &["origin.test"], "origin.test", |_| {}).await.unwrap();
    assert_eq!((leg.verified.as_str(), leg.sni.as_str()), ("origin.test", "origin.test"));
    assert_eq!(leg.group, "X25519MLKEM768");
    let leg = dialled(&ca, &ca, &["127.0.0.1"], "127.0.0.1", |_| {}).await.unwrap();
    assert_eq!((leg.verified.as_str(), leg.sni.as_str()), ("127.0.0.1", ""));
}

#[tokio::test]
async fn an_origin_that_is_not_believed_gets_a_sentence_with_expected_and_got() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let old = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let early = |params: &mut rcgen::CertificateParams| params.not_before = rcgen::date_time_ymd(2999, 1, 1);
    for (error, parts) in [
        (
            dialled(&ca, &ca, &["x.test", "127.0.0.2"], "a.test", |_| {}).await,
            ["for a.test", "one for x.test, 127.0.0.2"],
        ),
        (dialled(&ca, &ca, &["x.test"], "127.0.0.1", |_| {}).await, ["for 127.0.0.1", "one for x.test"]),
        (
            dialled(&other, &ca, &["a.test"], "a.test", |_| {}).await,
            ["issued by trust bundle internal", "\"CN=other\""],
        ),
        (
            dialled(&ca, &ca, &["a.test"], "a.test", old).await,
            ["valid certificate for a.test", "ended Jan  1"],
        ),
        (
            dialled(&ca, &ca, &["a.test"], "a.test", early).await,
            ["valid certificate for a.test", "begins Jan  1"],
        ),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.reason(), Reason::OriginUnverified);
        let sentence = error.to_string();
        assert!(parts.into_iter().all(|part| sentence.contains(part)), "{sentence}");
    }
}

#[tokio::test]
async fn verification_turned_off_believes_anyone_who_holds_the_key() {
    let ca = Ca::new("ca");
    let address = echo(server(&ca, TlsVersion::V12, &[], Some("x.test"))).await;
    let client = Arc::new(Clients::unverified(Extras::default()).unwrap());
    let leg = dial::dial(&origin(address, client, "a.test", false), address, Alpn::Http1, &Behalf::Own)
        .await
        .unwrap()
        .leg;
    assert_eq!((leg.verified.as_str(), leg.sni.as_str()), ("", "a.test"));
}

#[tokio::test]
async fn dialling_tells_refused_from_not_tls() {
    let ca = Ca::new("ca");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Arc::new(Clients::verified(ca.roots(), String::new(), Extras::default()).unwrap());
    let refusing = origin(gone, Arc::clone(&client), "a.test", true);
    let error = dial::dial(&refusing, gone, Alpn::Http1, &Behalf::Own).await.unwrap_err();
    assert!(
        matches!(error, DialError::Connect { .. }) && error.reason() == Reason::OriginUnreachable,
        "{error}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp.read(&mut [0; 999]).await
    });
    let error = dial::dial(&origin(address, client, "a.test", true), address, Alpn::Http1, &Behalf::Own)
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn sessions_with_origins_resume() {
    for version in rustls::ALL_VERSIONS {
        let ca = Ca::new("ca");
        let mut config = (*server(&ca, TlsVersion::V12, &["a.test"], None)).clone();
        // Two listeners that tell what they saw would be more code than one whose tickets are counted.
        config.send_tls13_tickets = 1;
        let config = Arc::new(config);
        let mut provider = (*super::provider()).clone();
        provider.cipher_suites.retain(|suite| suite.version() == *version);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async move {
            let mut resumed = Vec::new();
            for _ in 0..3 {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut served =
                    serve::accept((tcp, Vec::new()), &config, soon(), MOST, &Line::default()).await.unwrap();
                resumed.push(served.resumed);
                let mut byte = [0];
                served.stream.read_exact(&mut byte).await.unwrap();
                served.stream.write_all(&byte).await.unwrap();
                served.stream.shutdown().await.unwrap();
            }
            resumed
        };
        // Offers of other versions of HTTP share the memory of sessions.
        let client = Clients::verified(ca.roots(), String::new(), Extras::default()).unwrap();
        let one = origin(address, Arc::new(client), "a.test", true);
        let client = async {
            for alpn in [Alpn::Http1, Alpn::Either, Alpn::Http1] {
                let mut stream = dial::dial(&one, address, alpn, &Behalf::Own).await.unwrap().stream;
                stream.write_all(b"x").await.unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).await.unwrap();
                assert_eq!(back, b"x");
            }
        };
        let (resumed, ()) = tokio::join!(server, client);
        assert_eq!(resumed, [false, true, true]);
    }
}

#[tokio::test]
async fn keys_change_when_the_peer_asks() {
    let ca = Ca::new("ca");
    let config = server(&ca, TlsVersion::V12, &["a.test"], None);
    let mut client = ClientConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    let (served, theirs) = shake(&config, &Arc::new(client), "a.test").await;
    let (mut served, mut theirs) = (served.unwrap(), theirs.unwrap());
    for round in 0..100_u8 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(&[round]).await.unwrap();
        theirs.flush().await.unwrap();
        assert_eq!(served.stream.read_u8().await.unwrap(), round);
        served.stream.write_all(&[round]).await.unwrap();
        served.stream.flush().await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), round);
    }
    // Also while traffic of ours waits for a peer that does not read: owed, and paid once before the next.
    let piece = [7; 64 * 1024];
    let mut written = 0;
    let patience = Duration::from_millis(300);
    while let Ok(some) = tokio::time::timeout(patience, served.stream.write(&piece)).await {
        written += some.unwrap();
    }
    for _ in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"x").await.unwrap();
        theirs.flush().await.unwrap();
        assert_eq!(served.stream.read_u8().await.unwrap(), b'x');
    }
    assert!(served.stream.owed);
    let (mut all, sent) = (vec![0; written + 1], async {
        served.stream.write_all(b"y").await.unwrap();
        served.stream.flush().await.unwrap();
        assert!(!served.stream.owed);
    });
    let (read, ()) = tokio::join!(theirs.read_exact(&mut all), sent);
    assert_eq!((read.unwrap(), all.last()), (written + 1, Some(&b'y')));
}

#[tokio::test]
async fn changed_and_cut_traffic_is_an_error_and_never_an_end() {
    let ca = Ca::new("ca");
    let config = server(&ca, TlsVersion::V13, &["a.test"], None);
    for cut in [false, true] {
        let client = ClientConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_no_client_auth();
        let (served, theirs) = shake(&config, &Arc::new(client), "a.test").await;
        let (mut served, mut theirs) = (served.unwrap(), theirs.unwrap());
        if !cut {
            let forged = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
            theirs.get_mut().0.write_all(&forged).await.unwrap();
        }
        theirs.get_mut().0.shutdown().await.unwrap();
        let error = served.stream.read(&mut [0; 9]).await.unwrap_err();
        let kind = if cut { std::io::ErrorKind::UnexpectedEof } else { std::io::ErrorKind::InvalidData };
        assert_eq!(error.kind(), kind);
        assert!(served.stream.read(&mut [0; 9]).await.is_err(), "it stays an error");
        drop(served);
        let told = theirs.read(&mut [0; 9]).await;
        assert!(cut || told.unwrap_err().to_string().contains("BadRecordMac"));
    }
}

/// A deadline that nothing here reaches.
fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(5)
}
