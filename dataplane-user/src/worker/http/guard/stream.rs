//! A connection's stream with its guard.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Flood, Guard, Peer};

/// What `h2` is given to read from and write to.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    io: S,
    guard: Guard,
    /// Who wants to read, of a peer that has to read first.
    withheld: Option<Waker>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(io: S, peer: Peer) -> Self {
        Self { io, guard: Guard::new(peer, Instant::now), withheld: None }
    }

    /// See [`Guard::flood`].
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.guard.flood()
    }

    /// See [`Guard::said`].
    pub(crate) fn said(&self) -> Option<Flood> {
        self.guard.said()
    }

    /// What an attempt to write came to.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.guard.heard(written.is_ready());
        if written.is_ready()
            && let Some(reader) = self.withheld.take()
        {
            reader.wake();
        }
        written
    }

    /// The stream itself, for what is no longer HTTP/2.
    pub(crate) fn unguarded(&mut self) -> &mut S {
        &mut self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    /// After a flood, a client's stream is silent: whoever drives the connection sees the flood and has `h2` say GOAWAY.
    /// An origin's fails, and every exchange on it with it.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, guard, withheld } = self.get_mut();
        let before = buf.filled().len();
        loop {
            match (guard.flood(), guard.peer) {
                (None, _) => {}
                (Some(_), Peer::Client { .. }) => return Poll::Pending,
                (Some(flood), Peer::Origin { .. }) => return Poll::Ready(Err(io::Error::other(flood))),
            }
            if guard.is_deaf() {
                *withheld = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if guard.turn_is_over() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(Pin::new(&mut *io).poll_read(cx, buf))?;
            let fresh = buf.filled_mut().get_mut(before..).unwrap_or_default();
            let ended = fresh.is_empty();
            let kept = guard.received(fresh);
            buf.set_filled(before + kept);
            if ended || kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        let written = ready!(this.wrote(written))?;
        this.guard.sent(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        let written = ready!(this.wrote(written))?;
        let mut left = written;
        for slice in bufs {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            this.guard.sent(part);
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
