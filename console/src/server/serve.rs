//! Accepting connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::Tls;
use super::linger::linger;
use crate::nodes::Caller;
use crate::ops::Connection;

/// TLS handshake and request head must be over in this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once on one port.
const CONNECTIONS: usize = 2048;
/// Concurrent streams of one connection.
const STREAMS: u32 = 128;
/// How long open requests may go on after the signal to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("{address} is in use by {owner}; stop that, or choose another address with {option}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Process and pid, as far as they may be seen.
        owner: String,
        /// The option that chooses.
        option: &'static str,
    },
    /// Something else.
    #[error("{address} cannot be listened on: {reason}; choose another address with {option}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: std::io::Error,
        /// The option that chooses.
        option: &'static str,
    },
}

/// Listens on one address; `option` is what the command line calls it.
///
/// # Errors
/// See [`BindError`].
pub(super) async fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|reason| {
        if reason.kind() == ErrorKind::AddrInUse {
            return BindError::InUse { address, owner: super::owner::of(address), option };
        }
        BindError::Other { address, reason, option }
    })
}

/// What a port serves.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its TLS.
    pub tls: Arc<Tls>,
    /// Its URLs.
    pub router: Router,
    /// For nodes: each request carries a [`Caller`].
    pub nodes: bool,
}

/// Serves until `stop` says so, then lets open requests finish.
pub(super) async fn serve(listener: TcpListener, port: Port, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors: they come back as connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (port, stop) = (port.clone(), stop.clone());
        tokio::spawn(async move {
            connection(stream, peer, port, stop).await;
            drop(permit);
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    // Whoever is not done by then is cut off with the process.
    let _late = tokio::time::timeout(DRAIN, room.acquire_many(all)).await;
}

/// Waits for the signal to stop (or for the end of whoever would give it).
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard is let go at once: it must not be held across an await.
    let _signal = stop.wait_for(|stop| *stop).await.map(|_guard| ());
}

async fn connection(stream: TcpStream, peer: SocketAddr, port: Port, mut stop: watch::Receiver<bool>) {
    let Ok(local) = stream.local_addr() else { return };
    let config = match port.tls.config() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "no certificate for a connection");
            return;
        }
    };
    // Small answers go out at once; a failure costs only speed.
    let _slower = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_elapsed) => return,
    };
    let leaf =
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(CertificateDer::as_ref);
    let certificate = leaf.and_then(|leaf| crate::nodes::Shown::of(&CertificateDer::from(leaf)));
    let this = Connection::accepted();
    let router = match port.nodes {
        true => port.router.layer(axum::Extension(Caller { peer, local, certificate })),
        false => for_people(port.router, peer, &this),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(32 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(PATIENCE);
    let service = TowerToHyperService::new(router);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = this.closing() => {
            // HTTP/2 says GOAWAY here; HTTP/1.1 says it in the answer's head.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

/// The URLs of people and tools, over their connection.
fn for_people(router: Router, peer: SocketAddr, this: &Connection) -> Router {
    router
        .layer(from_fn(linger))
        .layer(from_fn_with_state(this.clone(), say_close))
        .layer(axum::Extension(ConnectInfo(peer)))
        .layer(axum::Extension(this.clone()))
}

/// Tells a client of HTTP/1 that its connection ends with this answer (RFC 9112, 9.6).
async fn say_close(State(this): State<Connection>, request: Request, next: Next) -> Response {
    let before = request.version() < Version::HTTP_2;
    let mut answer = next.run(request).await;
    if before && this.is_closing() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
