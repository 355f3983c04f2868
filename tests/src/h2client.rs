//! One HTTP/2 connection with many streams, over and over, until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;

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

async fn run(
    target: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    at_once: usize,
    stop: Arc<AtomicBool>,
) -> Result<u64, String> {
    let text = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let stream = tokio::net::TcpStream::connect(target).await.map_err(|error| text("connect", &error))?;
    let name = ServerName::try_from(HOST).map_err(|error| text("name", &error))?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await;
    let stream = stream.map_err(|error| text("handshake", &error))?;
    let (requests, connection) =
        h2::client::handshake(stream).await.map_err(|error| text("HTTP/2", &error))?;
    let driver = tokio::spawn(connection);
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        tasks.spawn(ask(requests.clone(), stop.clone()));
    }
    drop(requests);
    let mut answers = 0;
    while let Some(ended) = tasks.join_next().await {
        answers += ended.map_err(|error| text("task", &error))??;
    }
    driver.await.map_err(|error| text("task", &error))?.map_err(|error| text("connection", &error))?;
    Ok(answers)
}

async fn ask(requests: SendRequest<Bytes>, stop: Arc<AtomicBool>) -> Result<u64, String> {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let request =
            http::Request::get(format!("https://{HOST}/")).body(()).map_err(|error| error.to_string())?;
        let mut ready = requests.clone().ready().await.map_err(|error| format!("ready: {error}"))?;
        let (answer, _) = ready.send_request(request, true).map_err(|error| format!("send: {error}"))?;
        let mut answer = answer.await.map_err(|error| format!("answer: {error}"))?;
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
