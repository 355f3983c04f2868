//! HTTP/2 to an origin: one connection, driven by a task of its own, that many exchanges of the thread share.
//!
//! The `h2` crate keeps the peer's settings and both windows. What is ours: how many streams we open, when an answer
//! says that a request was not looked at, when the window is given back (when the client took the bytes), and pings.

mod drive;
mod stream;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use model::report::Leg;
use tokio::time::{Duration, Instant};

use crate::worker::http::guard::{Guarded, Peer};
use crate::worker::http::response::HEAD_BYTES;
use crate::worker::tls::dial::OriginStream;

pub use stream::Stream;

/// What an origin may send of one response before the client took it. The connection's window has room for all its
/// streams at once: a client that does not read must not hold up the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Request bytes that wait in one stream for the origin's window.
const SEND_BUFFER: usize = 128 * 1024;

/// How a group's origins are spoken to over HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Streams on one connection at once, at most; the origin's own setting may be lower.
    pub streams: u32,
    /// With streams open and nothing heard for this long, a ping asks whether the origin is still there.
    pub ping: Option<Duration>,
}

/// One connection.
pub struct Shared {
    send: RefCell<SendRequest<Bytes>>,
    open: Rc<Cell<u32>>,
    most: u32,
    quiet_since: Cell<Instant>,
    used: Cell<bool>,
    https: bool,
    /// What the handshake agreed on.
    pub leg: Rc<Leg>,
    /// Where it goes.
    pub address: SocketAddr,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("address", &self.address)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// The peer does not speak HTTP/2, or ended the connection before its settings.
#[derive(Debug, thiserror::Error)]
#[error("{address} does not speak HTTP/2: {source}")]
pub struct NotHttp2 {
    address: SocketAddr,
    source: h2::Error,
}

/// Opens HTTP/2 on a secured stream and waits for the origin's settings: until they are here, nobody knows how many
/// streams it takes. The connection's task is spawned on this thread.
///
/// # Errors
/// See [`NotHttp2`].
pub async fn open(
    stream: OriginStream,
    leg: Leg,
    address: SocketAddr,
    settings: &Settings,
) -> Result<Rc<Shared>, NotHttp2> {
    let https = matches!(stream, OriginStream::Tls(_));
    let heard = Rc::new(Cell::new(Instant::now()));
    let guarded = Guarded::new(stream, Peer::Origin { streams: settings.streams });
    let watched = drive::Watched::new(guarded, Rc::clone(&heard));
    let failed = |source| NotHttp2 { address, source };
    let (send, mut connection) = builder(settings).handshake(watched).await.map_err(failed)?;
    poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        match polled {
            Poll::Ready(ended) => Poll::Ready(ended.and_then(|()| Err(h2::Reason::NO_ERROR.into()))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
    .map_err(failed)?;
    let open = Rc::new(Cell::new(0));
    let watch = drive::Watch { heard, open: Rc::clone(&open), ping: settings.ping };
    tokio::task::spawn_local(drive::drive(connection, watch, address));
    Ok(Rc::new(Shared {
        send: RefCell::new(send),
        open,
        most: settings.streams,
        quiet_since: Cell::new(Instant::now()),
        used: Cell::new(false),
        https,
        leg: Rc::new(leg),
        address,
    }))
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(settings.streams).min(LARGEST_WINDOW))
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

impl Shared {
    /// Whether a request may still be sent on it, now or later: no GOAWAY, no error, numbers left.
    pub fn alive(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.send.borrow_mut().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Whether another stream may be opened now.
    pub fn has_room(&self) -> bool {
        let theirs = self.send.borrow().current_max_send_streams();
        let open = self.open.get();
        open < self.most && (open as usize) < theirs
    }

    /// Since when it has had no stream; nothing while it has.
    pub fn quiet_since(&self) -> Option<Instant> {
        (self.open.get() == 0).then(|| self.quiet_since.get())
    }

    /// A place for one exchange, given back when it is dropped.
    pub fn place(self: &Rc<Self>) -> Place {
        self.open.set(self.open.get() + 1);
        Place(Rc::clone(self))
    }
}

/// One exchange's place on a connection.
#[derive(Debug)]
pub struct Place(Rc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.quiet_since.set(Instant::now());
    }
}
