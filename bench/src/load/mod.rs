//! The load generator: closed loop, a fixed number of connections, every answer checked to the last byte.

mod http1;
mod http2;
pub(crate) mod idle;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::workload::{Kind, Workload};
use crate::{Result, certs, origin};

type Stream = TlsStream<tokio::net::TcpStream>;

/// A load that runs.
pub(crate) struct Load {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Right answers so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the load; an answer that was wrong, or a connection that broke, is an error.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err("the load generator panicked".into()),
        }
    }
}

struct Client {
    connector: TlsConnector,
    /// Hosts to ask for: each connection takes the next.
    hosts: Vec<String>,
    next: AtomicUsize,
    target: SocketAddr,
    expected: Vec<u8>,
    workload: Workload,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// Starts a load on a thread of its own; connections go through `hosts` in turn.
pub(crate) fn start(
    certs: &certs::Certs,
    hosts: Vec<String>,
    target: SocketAddr,
    workload: Workload,
) -> Result<Load> {
    let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let client = Arc::new(Client {
        connector: connector(certs, matches!(workload.kind, Kind::Http2(_) | Kind::Grpc(_)))?,
        hosts,
        next: AtomicUsize::new(0),
        target,
        expected: origin::body(workload.length),
        workload,
        done: done.clone(),
        stop: stop.clone(),
    });
    let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async move {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..client.workload.connections {
                tasks.spawn(client.clone().run());
            }
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok(())
        })
    })?;
    Ok(Load { done, stop, thread })
}

fn connector(certs: &certs::Certs, http2: bool) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certs.ca.clone())?;
    let mut config = rustls::ClientConfig::builder_with_provider(certs::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Client {
    async fn run(self: Arc<Self>) -> Result<()> {
        match self.workload.kind {
            Kind::Get | Kind::Handshake | Kind::Upload => self.http1().await,
            Kind::Http2(streams) | Kind::Grpc(streams) => self.http2(streams).await,
            Kind::WebSocket => self.websocket().await,
        }
    }

    fn host(&self) -> Result<&str> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.hosts.len().max(1);
        Ok(self.hosts.get(at).ok_or("no host to ask for")?)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self, host: &str) -> Result<Stream> {
        let stream = tokio::net::TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(ServerName::try_from(host.to_owned())?, stream).await?)
    }
}
