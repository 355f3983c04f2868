//! One HTTP/2 connection with many streams, over and over, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;

use crate::client::Dial;
use crate::space::Space;
use crate::stage::HOST;

/// Requests that ran at once, again and again, on one connection.
pub struct Streams {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Streams {
    /// `at_once` streams of `GET /`, each followed by another when it is answered.
    pub fn start(
        space: &Arc<Space>,
        target: SocketAddr,
        tls: &Arc<rustls::ClientConfig>,
        at_once: usize,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (space, tls, ended) = (space.clone(), tls.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            space.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("runtime").block_on(run(target, tls, at_once, ended))
        });
        Self { stop, thread }
    }

    /// Whether it has ended before it was told to.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it: answers.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub fn finish(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("streams")
    }
}

/// Clients that open another connection when theirs is told to go away, over and over.
pub struct Renewed {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(u64, u64), String>>>,
}

impl Renewed {
    /// `clients` connections with `at_once` streams each.
    pub fn start(
        space: &Arc<Space>,
        target: SocketAddr,
        tls: &Arc<rustls::ClientConfig>,
        clients: usize,
        at_once: usize,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = (0..clients).map(|_| {
            let (space, tls, stop) = (space.clone(), tls.clone(), stop.clone());
            std::thread::spawn(move || {
                space.enter();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("runtime").block_on(async {
                    let (mut answers, mut connections) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        answers += run(target, tls.clone(), at_once, stop.clone()).await?;
                        connections += 1;
                    }
                    Ok((answers, connections))
                })
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// Whether one has ended before it was told to.
    pub fn ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends them: answers and connections.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub fn finish(self) -> Result<(u64, u64), String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = (0, 0);
        for thread in self.threads {
            let (answers, connections) = thread.join().expect("a client")?;
            all = (all.0 + answers, all.1 + connections);
        }
        Ok(all)
    }
}

/// A frame (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The whole frames in `bytes`: type, flags, stream and payload of each.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(([a, b, c, kind, flags, stream @ ..], rest)) = bytes.split_first_chunk::<9>() {
        let Some((payload, rest)) = rest.split_at_checked(u32::from_be_bytes([0, *a, *b, *c]) as usize)
        else {
            break;
        };
        frames.push((*kind, *flags, u32::from_be_bytes(*stream), payload.to_vec()));
        bytes = rest;
    }
    frames
}

/// A connection for requests and pings, driven by a task of the runtime it is called on.
///
/// # Errors
/// What went wrong.
pub async fn connect(
    target: SocketAddr,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<(SendRequest<Bytes>, h2::PingPong), String> {
    let stream = tokio::net::TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(HOST).map_err(|error| error.to_string())?;
    let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let (requests, mut connection) =
        h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    let pings = connection.ping_pong().ok_or("no pings")?;
    tokio::spawn(connection);
    Ok((requests, pings))
}

/// Whether the server has told the connection to go away: what was not sent is sent on another, and what it has seen is
/// answered (RFC 9113, 6.8).
fn told(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// What drives a connection; it is dropped with this value.
#[derive(Debug)]
pub struct OnDrop(pub JoinTask);

/// The task of a connection.
pub type JoinTask = tokio::task::JoinHandle<Result<(), h2::Error>>;

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to [`HOST`], and the task that drives it.
///
/// # Errors
/// What went wrong.
pub async fn open(
    target: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> Result<(SendRequest<Bytes>, JoinTask), String> {
    let dial = Dial::new(target, HOST, &tls);
    let tcp = dial.tcp().map_err(|error| format!("connect: {error}"))?;
    secure(tcp, &dial).await.map_err(|error| error.to_string())
}

/// HTTP/2 in clear text, by prior knowledge, on a TCP connection.
///
/// # Errors
/// What the handshake says.
pub async fn clear_text(tcp: std::net::TcpStream) -> io::Result<(SendRequest<Bytes>, JoinTask)> {
    tcp.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(tcp)?;
    let (requests, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    Ok((requests, tokio::spawn(connection)))
}

/// TLS and HTTP/2 on a TCP connection.
///
/// # Errors
/// What the handshake or HTTP/2 says.
pub async fn secure(tcp: std::net::TcpStream, dial: &Dial) -> io::Result<(SendRequest<Bytes>, JoinTask)> {
    tcp.set_nonblocking(true)?;
    let tcp = tokio::net::TcpStream::from_std(tcp)?;
    let name = ServerName::try_from(dial.name.clone()).map_err(io::Error::other)?;
    let stream = tokio_rustls::TlsConnector::from(dial.tls.clone()).connect(name, tcp).await?;
    let (requests, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    Ok((requests, tokio::spawn(connection)))
}

async fn run(
    target: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    at_once: usize,
    stop: Arc<AtomicBool>,
) -> Result<u64, String> {
    let (requests, driver) = open(target, tls).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        tasks.spawn(ask(requests.clone(), stop.clone()));
    }
    drop(requests);
    let mut answers = 0;
    while let Some(ended) = tasks.join_next().await {
        answers += ended.map_err(|error| format!("task: {error}"))??;
    }
    let text = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let driven = driver.await.map_err(|error| text("task", &error))?;
    driven.or_else(|error| if told(&error) { Ok(()) } else { Err(text("connection", &error)) })?;
    Ok(answers)
}

async fn ask(requests: SendRequest<Bytes>, stop: Arc<AtomicBool>) -> Result<u64, String> {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let request =
            http::Request::get(format!("https://{HOST}/")).body(()).map_err(|error| error.to_string())?;
        let mut ready = match requests.clone().ready().await {
            Err(error) if told(&error) => return Ok(answers),
            ready => ready.map_err(|error| format!("ready: {error}"))?,
        };
        let answer = match ready.send_request(request, true) {
            Err(error) if told(&error) => return Ok(answers),
            sent => sent.map_err(|error| format!("send: {error}"))?.0,
        };
        let mut answer = match answer.await {
            Err(error) if told(&error) => return Ok(answers),
            answer => answer.map_err(|error| format!("answer: {error}"))?,
        };
        let mut length = 0;
        while let Some(piece) = answer.body_mut().data().await {
            let piece = piece.map_err(|error| format!("body: {error}"))?;
            length += piece.len();
            answer
                .body_mut()
                .flow_control()
                .release_capacity(piece.len())
                .map_err(|error| error.to_string())?;
        }
        if answer.status() != 200 || length == 0 {
            return Err(format!("{} with {length} bytes", answer.status()));
        }
        answers += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(answers)
}
