//! Connections that were used once and then do nothing.

use std::net::SocketAddr;

use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;

use super::{Stream, connector, http1};
use crate::{Result, certs, origin};

/// Connections at once while they are being opened.
const OPENING: usize = 64;

/// Open connections; they close with this value.
pub(crate) struct Idle {
    runtime: tokio::runtime::Runtime,
    connector: tokio_rustls::TlsConnector,
    target: SocketAddr,
    open: Vec<Stream>,
}

impl Idle {
    pub(crate) fn new(certs: &certs::Certs, target: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, connector: connector(certs, false)?, target, open: Vec::new() })
    }

    /// Opens connections until there are `count`; each has had one answer.
    pub(crate) fn grow(&mut self, count: usize) -> Result<()> {
        while self.open.len() < count {
            let batch = OPENING.min(count - self.open.len());
            let (connector, target) = (&self.connector, self.target);
            let opened = self.runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..batch {
                    tasks.spawn(open(connector.clone(), target));
                }
                let mut opened = Vec::with_capacity(batch);
                while let Some(one) = tasks.join_next().await {
                    opened.push(one??);
                }
                Result::Ok(opened)
            })?;
            self.open.extend(opened);
        }
        Ok(())
    }

    /// Whether each still answers: memory of connections that were closed would be no figure.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Self { runtime, open, .. } = self;
        let (expected, mut buffer) = (origin::body(1 << 10), Vec::new());
        // Every hundredth, or a warm cache of them all would be what the next figure shows.
        for stream in open.iter_mut().step_by(100) {
            runtime.block_on(ask(stream, &mut buffer, &expected))?;
        }
        Ok(())
    }
}

async fn open(connector: tokio_rustls::TlsConnector, target: SocketAddr) -> Result<Stream> {
    let stream = tokio::net::TcpStream::connect(target).await?;
    let mut stream = connector.connect(ServerName::try_from(certs::FRONT)?, stream).await?;
    ask(&mut stream, &mut Vec::with_capacity(2048), &origin::body(1 << 10)).await?;
    Ok(stream)
}

async fn ask(stream: &mut Stream, buffer: &mut Vec<u8>, expected: &[u8]) -> Result<()> {
    stream.write_all(&http1::request(certs::FRONT, "/1k", true, None)).await?;
    http1::answer(stream, buffer, expected).await
}
