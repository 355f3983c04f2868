//! The client's end of a connection. When it closes after the packet filter came to deny the client it is reset, so that
//! nothing waits for a peer whose packets no longer arrive.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::filter::Verdict;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::worker::live::Live;
use crate::worker::proxy::Peer;
use crate::worker::tls::stream::TlsStream;

/// See the module.
pub(super) struct Client {
    stream: TlsStream,
    peer: Peer,
    live: Arc<ArcSwap<Live>>,
}

impl Client {
    pub(super) fn new(stream: TlsStream, peer: Peer, live: Arc<ArcSwap<Live>>) -> Self {
        Self { stream, peer, live }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.live.load().judge(&self.peer) != Verdict::Pass {
            reset(self.stream.tcp());
        }
    }
}

/// Makes closing send RST and keep nothing.
pub(super) fn reset(tcp: &TcpStream) {
    // Failing leaves an ordinary close, which is all there is to fall back to.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
