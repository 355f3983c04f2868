//! Clients under load: closed loops on kept connections, every answer checked, every failure kept with its time.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Connection, Dial};
use crate::grpc::Channel;
use crate::origin::pattern;
use crate::space::Space;
use crate::stage::HOST;

/// Something that went wrong for a client.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When the connection was begun.
    pub opened: Instant,
    /// When it was seen.
    pub at: Instant,
    /// Whether the connection was established: a refused one never was.
    pub established: bool,
    /// What was seen.
    pub what: String,
}

/// Clients that ask until they are told to stop.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    answers: AtomicU64,
    connections: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Load {
    /// `clients` threads, each with one kept connection that is renewed every `renew` requests.
    pub fn start(space: &Arc<Space>, dial: &Dial, clients: usize, renew: u64) -> Self {
        Self::run(space, dial, clients, move |shared, dial| shared.connection(dial, renew))
    }

    /// The same with gRPC calls of one message; the dial is one for HTTP/2.
    pub fn calls(space: &Arc<Space>, dial: &Dial, clients: usize, renew: u64) -> Self {
        Self::run(space, dial, clients, move |shared, dial| shared.channel(dial, renew))
    }

    fn run(
        space: &Arc<Space>,
        dial: &Dial,
        clients: usize,
        connection: impl Fn(&Shared, &Dial) + Copy + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            failures: Mutex::new(Vec::new()),
        });
        let threads = (0..clients).map(|_| {
            let (space, dial, shared) = (space.clone(), dial.clone(), shared.clone());
            std::thread::spawn(move || {
                space.enter();
                while !shared.stop.load(Ordering::Relaxed) {
                    connection(&shared, &dial);
                }
            })
        });
        Self { threads: threads.collect(), shared }
    }

    /// Right answers so far.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Failures so far.
    pub fn failures(&self) -> Vec<Failure> {
        self.shared.failures.lock().expect("failures").clone()
    }

    /// Ends it and gives all failures.
    pub fn stop(mut self) -> Vec<Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a client"));
        self.failures()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn connection(&self, dial: &Dial, renew: u64) {
        let opened = Instant::now();
        let mut connection = match dial.open() {
            Ok(connection) => connection,
            Err(error) => {
                // A reset during the handshake met an accepted connection; a refusal or a time-out did not.
                let refused =
                    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut);
                self.failed(opened, !refused, format!("connecting: {error}"));
                std::thread::sleep(Duration::from_millis(50));
                return;
            }
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        for _ in 0..renew {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match connection.get(HOST, "/") {
                Ok(answer) if answer.status == 200 && answer.body.starts_with(b"hello from ") => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    if answer.closes() {
                        return;
                    }
                }
                Ok(answer) => {
                    return self.failed(opened, true, format!("{} {}", answer.status, answer.text()));
                }
                Err(error) => return self.failed(opened, true, format!("asking: {error}")),
            }
        }
    }

    fn channel(&self, dial: &Dial, renew: u64) {
        let opened = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let called = runtime.expect("runtime").block_on(async {
            let channel = limited(dial, Channel::open(dial)).await?;
            self.connections.fetch_add(1, Ordering::Relaxed);
            for number in 0..renew {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                limited(dial, channel.unary(&format!("call {number}"))).await?;
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), io::Error>(())
        });
        if let Err(error) = called {
            let refused = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut);
            self.failed(opened, !refused, format!("calling: {error}"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn failed(&self, opened: Instant, established: bool, what: String) {
        let failure = Failure { opened, at: Instant::now(), established, what };
        self.failures.lock().expect("failures").push(failure);
    }
}

/// What does not come in the dial's time came not.
pub(crate) async fn limited<T>(dial: &Dial, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let waited = tokio::time::timeout(dial.patience, work).await;
    waited.unwrap_or_else(|_elapsed| Err(io::ErrorKind::WouldBlock.into()))
}

/// One long transfer on a thread of its own.
pub struct Transfer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Transfer {
    /// A download of `/endless`, every byte compared; it ends when the origin says so.
    pub fn download(space: &Arc<Space>, dial: &Dial) -> Self {
        Self::start(space, dial, |mut connection, _stop| {
            connection.send(format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())?;
            let (status, _) = connection.head()?;
            let mut at = 0;
            while let Some(chunk) = connection.chunk()? {
                if !chunk.iter().zip(at..).all(|(byte, at)| *byte == pattern(at)) {
                    return Err(io::Error::other(format!("wrong bytes after {at}")));
                }
                at += chunk.len() as u64;
            }
            if status == 200 { Ok(at) } else { Err(io::Error::other(format!("status {status}"))) }
        })
    }

    /// An upload, chunked, until told to stop; the origin says how much arrived and whether it was right.
    pub fn upload(space: &Arc<Space>, dial: &Dial) -> Self {
        Self::start(space, dial, |mut connection, stop| {
            let head = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
            connection.send(head.as_bytes())?;
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                let piece: Vec<u8> = (at..at + 4096).map(pattern).collect();
                connection.send(&[&b"1000\r\n"[..], &piece, b"\r\n"].concat())?;
                at += 4096;
                std::thread::sleep(Duration::from_millis(20));
            }
            connection.send(b"0\r\n\r\n")?;
            let answer = connection.answer()?;
            match answer.text() == format!("{at} true\n") {
                true => Ok(at),
                false => Err(io::Error::other(format!(
                    "sent {at}, origin says {} {}",
                    answer.status,
                    answer.text()
                ))),
            }
        })
    }

    fn start(
        space: &Arc<Space>,
        dial: &Dial,
        work: impl FnOnce(Connection, &AtomicBool) -> io::Result<u64> + Send + 'static,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (space, dial, ended) = (space.clone(), dial.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            space.enter();
            work(dial.open()?, &ended)
        });
        Self { stop, thread }
    }

    /// Whether it has ended, wanted or not.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends an upload, waits for a download: bytes transferred.
    ///
    /// # Errors
    /// What broke it.
    pub fn finish(self) -> io::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a transfer")
    }
}
