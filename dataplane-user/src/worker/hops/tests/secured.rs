//! Certificates: which one a host leads to, and what an origin must show.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::digest::Digest;
use model::snapshot::{Certificate, ExpectedName, OriginSecurity, Protocols, Snapshot, Trust, TrustBundle};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::bench::{Bench, answering, local, read_all, read_head};
use crate::worker::refusal::Reason;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    hosts: &[&str],
    keys: &mut BTreeMap<Digest, PrivateKeyDer<'static>>,
) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let chain = CertificateParams::new(hosts.clone()).unwrap().signed_by(&key, ca).unwrap().pem();
    let digest = Digest::of(&key.subject_public_key_info());
    keys.insert(digest, PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    let hostnames = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Certificate { name: name.parse().unwrap(), chain, key: digest, hostnames }
}

fn two_certificates(snapshot: &mut Snapshot, keys: &mut BTreeMap<Digest, PrivateKeyDer<'static>>) {
    let ca = authority();
    let one = certificate(&ca, "one", &["a.test", "b.test"], keys);
    let two = certificate(&ca, "two", &["*.c.test"], keys);
    let listener = &mut snapshot.listeners[0];
    listener.certificates = vec![one.name.clone(), two.name.clone()];
    listener.default_certificate = Some(one.name.clone());
    snapshot.certificates = vec![one, two];
    snapshot.routes[0].hostnames =
        ["a.test", "b.test", "*.c.test"].map(|host| host.parse().unwrap()).to_vec();
}

#[test]
fn host_must_lead_to_the_certificate_that_sni_chose() {
    local(|| async {
        let (address, _) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
        let mut keys = BTreeMap::new();
        let mut bench = Bench::new(&[address]);
        two_certificates(&mut bench.snapshot, &mut keys);
        bench.apply_with(&keys);
        for (sni, host, status) in [
            (Some("a.test"), "a.test", 200),
            (Some("a.test"), "b.test", 200),
            (Some("a.test"), "x.c.test", Reason::Misdirected.status()),
            (Some("x.c.test"), "y.c.test", 200),
            (Some("x.c.test"), "a.test", Reason::Misdirected.status()),
            (Some("x.c.test"), "y.x.c.test", Reason::Misdirected.status()),
            (Some("x.c.test"), "192.0.2.1", Reason::Misdirected.status()),
            (Some("a.test"), "none.test", Reason::NoRoute.status()),
            (None, "a.test", 200),
            (None, "x.c.test", Reason::Misdirected.status()),
        ] {
            let mut client = bench.connect_as(65536, false, sni);
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sni:?} {host} {answer}");
        }
    });
}

async fn tls_origin(
    ca: &CertifiedIssuer<'static, KeyPair>,
    host: &str,
    alpn: &'static [&'static str],
) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(crate::worker::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    return serve_h2(stream).await;
                }
                while read_head(&mut stream).await.is_some() {
                    let body = "x".repeat(300_000);
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    address
}

/// The origin must show what `ca` signed for `origin.test`.
fn believe(ca: &CertifiedIssuer<'static, KeyPair>, snapshot: &mut Snapshot) {
    snapshot.trust_bundles.push(TrustBundle { name: "ca".parse().unwrap(), certificates: ca.pem() });
    snapshot.origin_groups[0].origins[0].security = OriginSecurity::Verified {
        trust: Trust::Bundle("ca".parse().unwrap()),
        expected: ExpectedName::Dns("origin.test".parse().unwrap()),
    };
}

async fn serve_h2(stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().scheme_str(), Some("https"));
        let mut send = respond.send_response(http::Response::new(()), false).unwrap();
        send.send_data(bytes::Bytes::from_static(b"two"), true).unwrap();
    }
}

#[test]
fn the_origin_chooses_the_version_that_it_is_offered() {
    const H1: &str = "x";
    const H2: &str = "two";
    local(|| async {
        let ca = authority();
        for (protocols, alpn, outcome) in [
            (Protocols::Auto, &["h2", "http/1.1"][..], Ok(H1)),
            (Protocols::Http1, &["h2", "http/1.1"], Ok(H1)),
            (Protocols::Either, &["h2", "http/1.1"], Ok(H2)),
            (Protocols::Either, &["http/1.1"], Ok(H1)),
            (Protocols::Either, &[], Ok(H1)),
            (Protocols::Http2, &["h2"], Ok(H2)),
            (Protocols::Http2, &[], Err("does not offer HTTP/2")),
            (Protocols::Http1, &["h2"], Err("could not agree on TLS")),
        ] {
            let address = tls_origin(&ca, "origin.test", alpn).await;
            let bench = Bench::with(&[address], |snapshot| {
                believe(&ca, snapshot);
                snapshot.origin_groups[0].protocols = protocols;
            });
            let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            let answer = bench.ask(request).await;
            match outcome {
                Ok(body) => {
                    assert!(
                        answer.trim_end_matches("\r\n0\r\n\r\n").ends_with(body),
                        "{protocols:?} {alpn:?}"
                    );
                    assert!(bench.told(2).await[1].reused);
                }
                Err(sentence) => {
                    let failures = bench.log.failures.borrow();
                    assert!(failures[0].contains(sentence), "{failures:?}");
                }
            }
        }
    });
}

/// A connection of HTTP/1.1 that waits for the next plain request is none for gRPC: the origin was not offered HTTP/2 on it.
#[test]
fn grpc_takes_no_connection_that_plain_requests_left() {
    local(|| async {
        let ca = authority();
        let address = tls_origin(&ca, "origin.test", &["h2", "http/1.1"]).await;
        let bench = Bench::with(&[address], |snapshot| believe(&ca, snapshot));
        let (mut send, connection) =
            h2::client::handshake(bench.connect_as(1 << 20, true, None)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        for (kind, length) in [("text/plain", 300_000), ("application/grpc", 3), ("text/plain", 300_000)] {
            let request =
                http::Request::post("https://a.test/").header("content-type", kind).body(()).unwrap();
            let mut body = send.send_request(request, true).unwrap().0.await.unwrap().into_body();
            let mut read = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                read += data.len();
            }
            assert_eq!(read, length, "{kind}");
        }
        assert_eq!(
            bench.told(3).await.iter().map(|told| told.reused).collect::<Vec<_>>(),
            [false, false, true]
        );
    });
}

/// An origin that asks for a certificate of `ca` and answers with the name it got as SNI and the client's own.
async fn asking_origin(ca: &CertifiedIssuer<'static, KeyPair>) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["origin.test".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = crate::worker::tls::provider();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            read_head(&mut stream).await.unwrap();
            let state = stream.get_ref().1;
            let (_, client) =
                x509_parser::parse_x509_certificate(&state.peer_certificates().unwrap()[0]).unwrap();
            let names = client.subject_alternative_name().unwrap().unwrap().value.general_names.len();
            let body = format!("{} {names}", state.server_name().unwrap());
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    address
}

#[test]
fn an_origin_may_ask_for_a_certificate_and_be_sent_another_name() {
    local(|| async {
        let ca = authority();
        let address = asking_origin(&ca).await;
        let mut keys = BTreeMap::new();
        let client = certificate(&ca, "client", &["a.client.test", "b.client.test"], &mut keys);
        let mut bench = Bench::with(&[address], |snapshot| believe(&ca, snapshot));
        let last = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        assert!(bench.ask(last).await.contains(" 502 "), "none is shown");
        bench.snapshot.origin_groups[0].client_certificate = Some(client.name.clone());
        bench.snapshot.certificates.push(client);
        bench.apply_with(&keys);
        let answer = bench.ask(last).await;
        assert!(answer.ends_with("\r\n\r\norigin.test 2"), "{answer}");
        bench.apply(|snapshot| snapshot.origin_groups[0].sni = Some("front.test".parse().unwrap()));
        let answer = bench.ask(last).await;
        assert!(answer.ends_with("\r\n\r\nfront.test 2"), "verified for the expected name: {answer}");
        // Another name is expected than the origin shows: SNI does not help.
        bench.apply(|snapshot| {
            snapshot.origin_groups[0].sni = Some("origin.test".parse().unwrap());
            snapshot.origin_groups[0].origins[0].security = OriginSecurity::Verified {
                trust: Trust::Bundle("ca".parse().unwrap()),
                expected: ExpectedName::Dns("else.test".parse().unwrap()),
            };
        });
        assert!(bench.ask(last).await.contains(Reason::OriginUnverified.name()));
    });
}

#[test]
fn origins_are_verified() {
    local(|| async {
        let (ca, other) = (authority(), authority());
        let address = tls_origin(&ca, "origin.test", &[]).await;
        for (believed, expected, reason) in [
            (&ca, "origin.test", None),
            (&ca, "else.test", Some(Reason::OriginUnverified)),
            (&other, "origin.test", Some(Reason::OriginUnverified)),
        ] {
            let bench = Bench::with(&[address], |snapshot| {
                let bundle = TrustBundle { name: "ca".parse().unwrap(), certificates: believed.pem() };
                snapshot.trust_bundles.push(bundle);
                snapshot.origin_groups[0].origins[0].security = OriginSecurity::Verified {
                    trust: Trust::Bundle("ca".parse().unwrap()),
                    expected: ExpectedName::Dns(expected.parse().unwrap()),
                };
            });
            let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            let answer = bench.ask(request).await;
            let told = bench.told(2).await;
            assert_eq!(told[1].refusal, reason, "{}", answer.get(..300).unwrap_or(&answer));
            match reason {
                None => assert!(told[1].reused && answer.len() > 600_000),
                Some(reason) => assert!(answer.contains(reason.name())),
            }
        }
    });
}
