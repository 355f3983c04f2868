//! An origin of lists, in the test's process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the origin does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Sends this and closes.
    Bytes(Vec<u8>),
    /// Sends a head, and a byte of the body again and again.
    Trickle,
}

impl Reply {
    pub(crate) fn of(status: u16, fields: &[&str], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut head =
            format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
        for field in fields {
            head.push_str(&format!("{field}\r\n"));
        }
        Self::Bytes([head.as_bytes(), b"\r\n", body].concat())
    }

    pub(crate) fn list(etag: &str, body: &str) -> Self {
        Self::of(200, &[&format!("ETag: \"{etag}\"")], body)
    }
}

/// An HTTPS server on a free port of 127.0.0.1; ends with the test's runtime.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// Its CA, PEM.
    pub(crate) ca: String,
    reply: Arc<Mutex<Reply>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// A server whose certificate is for 127.0.0.1 and localhost.
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            ca: ca.pem(),
            reply: Arc::new(Mutex::new(Reply::of(404, &[], ""))),
            requests: Arc::default(),
        };
        let (reply, requests) = (Arc::clone(&origin.reply), Arc::clone(&origin.requests));
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, reply, requests) = (acceptor.clone(), reply.clone(), requests.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    requests.lock().unwrap().push(String::from_utf8(head).unwrap());
                    let reply = reply.lock().unwrap().clone();
                    match reply {
                        Reply::Bytes(bytes) => {
                            let _gone = stream.write_all(&bytes).await;
                            let _gone = stream.shutdown().await;
                        }
                        Reply::Trickle => {
                            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
                            let _gone = stream.write_all(head).await;
                            while stream.write_all(b"#").await.is_ok() && stream.flush().await.is_ok() {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        }
                    }
                });
            }
        });
        origin
    }

    pub(crate) fn answers(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// Heads of the requests since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }
}
