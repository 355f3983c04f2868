//! One connection's bytes: what was read too far, what could not be written yet. Both stay small: bodies pass through
//! the thread's scratch buffer and are only kept here when the other side is slower.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::rewound::Rewound;

/// Written at once when this much is waiting; below it, bytes wait for the flush at the end of a turn, so that a head
/// and a small body leave in one piece.
const WRITE_AT: usize = 8 * 1024;

/// A stream with its two buffers.
#[derive(Debug)]
pub struct Wire<S> {
    io: S,
    /// Read and not yet understood.
    pub input: BytesMut,
    /// Serialised and not yet written.
    pub output: BytesMut,
    flushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Around a stream.
    pub fn new(io: S) -> Self {
        Self { io, input: BytesMut::new(), output: BytesMut::new(), flushed: true }
    }

    /// The stream as if nothing had been read of it. Nothing may wait to be written.
    pub(crate) fn rewind(self) -> Rewound<S> {
        Rewound::new(self.input, self.io)
    }

    /// Reads once into `scratch`, past `input`. 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Reads once and appends to `input`. 0 is the end.
    pub fn poll_more(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.poll_read(cx, scratch))?;
        self.input.extend_from_slice(scratch.get(..read).unwrap_or_default());
        Poll::Ready(Ok(read))
    }

    /// Whether more may be handed to [`Wire::write`]: not while an earlier write waits for the peer.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.len() < WRITE_AT { Poll::Ready(Ok(())) } else { self.poll_drain(cx) }
    }

    /// Takes all of `data`. A large piece is offered to the stream at once, together with what waits before it; what
    /// the stream does not take is kept. `tail` follows it.
    pub fn write(&mut self, cx: &mut Context<'_>, mut data: &[u8], tail: &[u8]) -> io::Result<()> {
        self.flushed = false;
        if self.output.len() + data.len() >= WRITE_AT {
            while !data.is_empty() {
                let Poll::Ready(written) = self.poll_write_pair(cx, data)? else { break };
                let before = written.min(self.output.len());
                self.output.advance(before);
                data = data.get(written - before..).unwrap_or_default();
            }
        }
        self.output.extend_from_slice(data);
        self.output.extend_from_slice(tail);
        Ok(())
    }

    fn poll_write_pair(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let written = if self.output.is_empty() {
            ready!(io.poll_write(cx, data))?
        } else {
            ready!(io.poll_write_vectored(cx, &[IoSlice::new(&self.output), IoSlice::new(data)]))?
        };
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) })
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            self.flushed = false;
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything out.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Gives back memory while nothing is under way.
    pub fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() && self.output.capacity() > 4096 {
            self.output = BytesMut::new();
        }
    }
}
