//! The demo's HTTPS origins: they answer every request with their own name.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use super::DemoError;
use super::names::ORIGIN_NAME;

/// The origins' own certificate authority: what the demo's trust bundle holds.
pub(super) struct OriginCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl OriginCa {
    pub(super) fn new() -> Result<Self, DemoError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Demo origins");
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for a name.
    fn server(&self, name: &str) -> Result<rustls::ServerConfig, DemoError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?)
    }
}

/// A running origin; gone when dropped.
pub(super) struct Origin {
    /// Where it listens, IPv4 then IPv6.
    pub(super) addresses: Vec<SocketAddr>,
    stopped: Arc<AtomicBool>,
}

impl Origin {
    /// Starts an origin called `name` on `addresses` (port 0 chooses one), inside a namespace where one is given.
    /// It shows a certificate for `certified`.
    pub(super) fn start(
        namespace: Option<&str>,
        name: &'static str,
        certified: Certified,
        addresses: Vec<SocketAddr>,
        ca: &OriginCa,
    ) -> Result<Self, DemoError> {
        let tls = Arc::new(ca.server(certified.name())?);
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let (ready, wait) = std::sync::mpsc::channel();
        super::spaces::in_namespace(namespace, move || {
            let listen = async {
                let mut listeners = Vec::new();
                for address in addresses {
                    listeners.push(TcpListener::bind(address).await?);
                }
                Ok::<_, std::io::Error>(listeners)
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async move {
                match listen.await {
                    Ok(listeners) => {
                        let addresses =
                            listeners.iter().filter_map(|l| l.local_addr().ok()).collect::<Vec<_>>();
                        if ready.send(Ok(addresses)).is_ok() {
                            serve(name, listeners, tls, &stop).await;
                        }
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        })?;
        let addresses = wait
            .recv()
            .map_err(std::io::Error::other)
            .and_then(|bound| bound)
            .map_err(DemoError::io(format!("start origin {name}")))?;
        Ok(Self { addresses, stopped })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Which name an origin's certificate is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Certified {
    /// The one that the origin groups expect.
    AsExpected,
    /// Another.
    ForAnother,
}

impl Certified {
    fn name(self) -> &'static str {
        match self {
            Self::AsExpected => ORIGIN_NAME,
            Self::ForAnother => "somebody-else.example",
        }
    }
}

/// Accepts until stopped; then every connection and the listening sockets go with the runtime.
async fn serve(
    name: &'static str,
    listeners: Vec<TcpListener>,
    tls: Arc<rustls::ServerConfig>,
    stop: &AtomicBool,
) {
    let local = tokio::task::LocalSet::new();
    for listener in listeners {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls));
        local.spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let answer = service_fn(move |_| async move {
                        let response = Response::builder().header("x-demo-origin", name);
                        Ok::<_, Infallible>(
                            response
                                .body(Full::new(Bytes::from(format!("origin {name}\n"))))
                                .unwrap_or_else(|_| Response::new(Full::new(Bytes::new()))),
                        )
                    });
                    // A connection that ends badly ends; the demo judges what its clients see.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer)
                            .await,
                    );
                });
            }
        });
    }
    local
        .run_until(async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
}
