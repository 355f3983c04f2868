//! A stream some bytes of which were read to find out what it speaks, given back to whoever reads it next.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    before: BytesMut,
    io: S,
}

impl<S> Rewound<S> {
    /// `before` is what was read of `io`.
    pub(crate) fn new(before: BytesMut, io: S) -> Self {
        Self { before, io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.before.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let length = this.before.len().min(buf.remaining());
        buf.put_slice(this.before.get(..length).unwrap_or_default());
        this.before.advance(length);
        if this.before.is_empty() {
            this.before = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_come_once_and_in_order_whatever_the_reader_has_room_for() {
        for room in [1, 2, 3, 7] {
            let (mut peer, io) = tokio::io::duplex(64);
            peer.write_all(b" and the rest").await.unwrap();
            peer.shutdown().await.unwrap();
            let mut stream = Rewound::new(BytesMut::from(&b"before"[..]), io);
            let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    read => all.extend_from_slice(&buffer[..read]),
                }
            }
            assert_eq!(all, b"before and the rest");
            stream.write_all(b"answer").await.unwrap();
            let mut answer = [0; 6];
            peer.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
        }
    }
}
