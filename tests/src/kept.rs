//! Conversations that are meant to last: each says something every twenty milliseconds and checks that it comes back. One
//! that breaks is written down with its time, and begun again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use crate::client::Dial;
use crate::grpc::Channel;
use crate::load::{Failure, limited};
use crate::space::Space;
use crate::stage::HOST;
use crate::{h2client, websocket};

/// Between one message and the next.
const PAUSE: Duration = Duration::from_millis(20);

/// A conversation, on a thread of its own. It ends with this, so that nobody holds the namespace any more.
pub struct Kept {
    /// What it is.
    pub kind: &'static str,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    begun: AtomicU64,
    echoes: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A message came back; before the first of a connection, this is its begin.
    fn echoed(&self, echoes: u64) {
        let counter = if echoes == 0 { &self.begun } else { &self.echoes };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Kept {
    /// A WebSocket over HTTP/1.1.
    pub fn websocket(space: &Arc<Space>, dial: &Dial) -> Self {
        Self::named("WebSocket, HTTP/1.1", space, dial)
    }

    /// The same under a name that says by which way.
    pub fn named(kind: &'static str, space: &Arc<Space>, dial: &Dial) -> Self {
        Self::start(kind, space, dial, |dial, shared| {
            let ended = websocket::talk(dial, &shared.stop, |echoes| shared.echoed(echoes))?;
            if shared.stopped() { Ok(()) } else { Err(io::Error::other(format!("closed: {}", ended.code))) }
        })
    }

    /// A WebSocket over HTTP/2 (RFC 8441).
    pub fn websocket_over_http2(space: &Arc<Space>, dial: &Dial) -> Self {
        Self::start("WebSocket, HTTP/2", space, dial, |dial, shared| run(over_http2(dial, shared)))
    }

    /// A gRPC call with messages both ways.
    pub fn call(space: &Arc<Space>, dial: &Dial) -> Self {
        Self::start("gRPC, both ways", space, dial, |dial, shared| {
            run(async {
                let channel = limited(dial, Channel::open(dial)).await?;
                let mut call = limited(dial, channel.call("begin")).await?;
                shared.echoed(0);
                for at in 1.. {
                    if shared.stopped() {
                        break;
                    }
                    limited(dial, call.say(&format!("message {at}"))).await?;
                    shared.echoed(at);
                    tokio::time::sleep(PAUSE).await;
                }
                limited(dial, call.end()).await
            })
        })
    }

    fn start(
        kind: &'static str,
        space: &Arc<Space>,
        dial: &Dial,
        talk: impl Fn(&Dial, &Shared) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let (space, dial, mine) = (space.clone(), dial.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            space.enter();
            loop {
                let opened = Instant::now();
                let Err(error) = talk(&dial, &mine) else { return };
                let established =
                    !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut);
                let failure =
                    Failure { opened, at: Instant::now(), established, what: format!("{kind}: {error}") };
                mine.failures.lock().expect("failures").push(failure);
                if mine.stopped() {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { kind, shared, thread: Some(thread) }
    }

    /// How often it has begun.
    pub fn begun(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Messages that came back.
    pub fn echoes(&self) -> u64 {
        self.shared.echoes.load(Ordering::Relaxed)
    }

    /// What broke it so far.
    pub fn failures(&self) -> Vec<Failure> {
        self.shared.failures.lock().expect("failures").clone()
    }

    /// Ends it in an orderly way, and gives all that ever broke it.
    pub fn finish(mut self) -> Vec<Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is finished once").join().expect("a conversation");
        self.failures()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Whoever panics already has more to say than this.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn run(talk: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(talk)
}

async fn over_http2(dial: &Dial, shared: &Shared) -> io::Result<()> {
    const MASK: [u8; 4] = [0x5a, 0x11, 0x7e, 0x03];
    let (requests, driver) = limited(dial, h2client::secure(dial.tcp()?, dial)).await?;
    let _driver = h2client::OnDrop(driver);
    let mut requests = requests.ready().await.map_err(io::Error::other)?;
    // The server's settings say that it takes an extended CONNECT, and they come behind the handshake.
    limited(dial, async {
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    })
    .await?;
    let request = Request::connect(format!("https://{HOST}/ws"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    let request = request.body(()).map_err(io::Error::other)?;
    let (answer, mut send) = requests.send_request(request, false).map_err(io::Error::other)?;
    let answer = limited(dial, async { answer.await.map_err(io::Error::other) }).await?;
    if answer.status() != 200 {
        return Err(io::Error::other(format!("status {}", answer.status())));
    }
    shared.echoed(0);
    let (mut body, mut unread) = (answer.into_body(), Vec::new());
    for at in 1.. {
        let (kind, text) = match shared.stopped() {
            true => (websocket::CLOSE, 1000_u16.to_be_bytes().to_vec()),
            false => (websocket::TEXT, format!("message {at}").into_bytes()),
        };
        let mut frame = Vec::new();
        websocket::write(&mut frame, kind, &text, Some(MASK))?;
        send.send_data(Bytes::from(frame), false).map_err(io::Error::other)?;
        let came = limited(dial, next(&mut body, &mut unread)).await?;
        match came {
            (websocket::CLOSE, _) if kind == websocket::CLOSE => break,
            (websocket::TEXT, payload) if payload == text => shared.echoed(at),
            (kind, payload) => {
                return Err(io::Error::other(format!("opcode {kind} with {} bytes", payload.len())));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    send.send_data(Bytes::new(), true).map_err(io::Error::other)
}

/// The next frame of a stream.
async fn next(body: &mut h2::RecvStream, unread: &mut Vec<u8>) -> io::Result<(u8, Vec<u8>)> {
    loop {
        let mut rest = unread.as_slice();
        match websocket::read(&mut rest) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            frame => {
                let taken = unread.len() - rest.len();
                unread.drain(..taken);
                return frame;
            }
        }
        let data = body.data().await.ok_or(io::ErrorKind::ConnectionAborted)?;
        let data = data.map_err(io::Error::other)?;
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
        unread.extend_from_slice(&data);
    }
}
