//! The task of one connection: moves its frames, and asks with a ping whether a silent origin is still there.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant, Sleep, sleep_until};

/// How long the answer to a ping may take, or as long as the silence before it where that is shorter.
const PONG: Duration = Duration::from_secs(10);

/// What the task watches.
pub(super) struct Watch {
    /// When anything was read last.
    pub(super) heard: Rc<Cell<Instant>>,
    /// Streams in use.
    pub(super) open: Rc<Cell<u32>>,
    /// See [`super::Settings::ping`].
    pub(super) ping: Option<Duration>,
}

/// Runs until the connection ends: by itself, when nobody has a handle any more, or because a ping is not answered.
pub(super) async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: h2::client::Connection<Watched<S>, Bytes>,
    watch: Watch,
    address: SocketAddr,
) {
    let pings = connection.ping_pong();
    let mut keeper = watch.ping.zip(pings).map(|(every, pings)| Keeper {
        every,
        pings,
        asked: None,
        timer: Box::pin(sleep_until(Instant::now() + every)),
    });
    poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%address, %error, "an HTTP/2 connection to an origin ended");
            }
            return Poll::Ready(());
        }
        match &mut keeper {
            Some(keeper) => keeper.poll_silent(cx, &watch).map(|()| {
                tracing::debug!(%address, "an origin does not answer a ping");
            }),
            None => Poll::Pending,
        }
    })
    .await;
}

struct Keeper {
    every: Duration,
    pings: PingPong,
    asked: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Keeper {
    /// Ready when a ping was not answered.
    fn poll_silent(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<()> {
        if self.asked.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.asked = None;
        }
        loop {
            let due = match self.asked {
                Some(asked) => asked + PONG.min(self.every),
                None => watch.heard.get() + self.every,
            };
            let now = Instant::now();
            if now < due {
                // The timer stays where it is as long as it fires no later: traffic costs it nothing.
                if due < self.timer.deadline() || self.timer.is_elapsed() {
                    self.timer.as_mut().reset(due);
                }
                ready!(self.timer.as_mut().poll(cx));
            } else if self.asked.is_some() {
                return Poll::Ready(());
            } else if watch.open.get() == 0 || self.pings.send_ping(Ping::opaque()).is_err() {
                // Nobody waits for anything.
                watch.heard.set(now);
            } else {
                self.asked = Some(now);
                // Registers for the answer, and lets the connection send the frame.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// A stream that notes when something was read.
#[derive(Debug)]
pub(super) struct Watched<S> {
    io: S,
    heard: Rc<Cell<Instant>>,
}

impl<S> Watched<S> {
    pub(super) fn new(io: S, heard: Rc<Cell<Instant>>) -> Self {
        Self { io, heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.heard.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
