//! The load generator: closed loop, a fixed number of connections, every answer checked to the last byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Result, certs, origin};

/// What is asked for, by how many at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    path: &'static str,
    length: usize,
    connections: usize,
    /// Keeps its connections; otherwise every request has a connection and a full handshake of its own.
    keep: bool,
}

impl Workload {
    pub(crate) fn named(name: &str) -> Result<Self> {
        match name {
            "1k" => Ok(Self {
                name: "1k",
                title: "1 KiB, 64 kept connections",
                path: "/1k",
                length: 1 << 10,
                connections: 64,
                keep: true,
            }),
            "1m" => Ok(Self {
                name: "1m",
                title: "1 MiB, 16 kept connections",
                path: "/1m",
                length: 1 << 20,
                connections: 16,
                keep: true,
            }),
            "handshake" => Ok(Self {
                name: "handshake",
                title: "full handshake and 1 KiB, 32 at once",
                path: "/1k",
                length: 1 << 10,
                connections: 32,
                keep: false,
            }),
            other => Err(format!("no such workload: {other}").into()),
        }
    }
}

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
    name: ServerName<'static>,
    target: SocketAddr,
    request: Vec<u8>,
    expected: Vec<u8>,
    workload: Workload,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// Starts a load on a thread of its own.
pub(crate) fn start(certs: &certs::Certs, target: SocketAddr, workload: Workload) -> Result<Load> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certs.ca.clone())?;
    let mut config = rustls::ClientConfig::builder_with_provider(certs::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let connection = if workload.keep { "keep-alive" } else { "close" };
    let client = Arc::new(Client {
        connector: TlsConnector::from(Arc::new(config)),
        name: ServerName::try_from(certs::FRONT)?,
        target,
        request: format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n",
            workload.path,
            certs::FRONT
        )
        .into_bytes(),
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

impl Client {
    async fn run(self: Arc<Self>) -> Result<()> {
        let mut buffer = Vec::with_capacity(self.workload.length + 64 * 1024);
        while !self.stop.load(Ordering::Relaxed) {
            let mut stream = self.connect().await?;
            loop {
                stream.write_all(&self.request).await?;
                self.answer(&mut stream, &mut buffer).await?;
                self.done.fetch_add(1, Ordering::Relaxed);
                if !self.workload.keep || self.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            // The server may close first, as asked: that is no failure of an answer that was complete.
            let _ = stream.shutdown().await;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<TlsStream<tokio::net::TcpStream>> {
        let stream = tokio::net::TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }

    async fn answer(
        &self,
        stream: &mut TlsStream<tokio::net::TcpStream>,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        buffer.clear();
        let head = loop {
            if stream.read_buf(buffer).await? == 0 {
                return Err("closed before the answer's head".into());
            }
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?;
        if !text.starts_with("HTTP/1.1 200 ") {
            return Err(format!("answered: {text}").into());
        }
        let length = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .ok_or("an answer without Content-Length")?
            .1
            .parse::<usize>()?;
        while buffer.len() < head + length {
            if stream.read_buf(buffer).await? == 0 {
                return Err(format!("closed after {} of {length} bytes", buffer.len() - head).into());
            }
        }
        match buffer.get(head..) == Some(self.expected.as_slice()) {
            true => Ok(()),
            false => Err("the body is not what the origin sent".into()),
        }
    }
}
