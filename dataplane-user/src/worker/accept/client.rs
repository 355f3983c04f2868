//! The client's end of a connection. TLS that breaks its rules after the handshake is counted here, whatever is made of the
//! end of the connection above. When it closes after the packet filter came to deny the client it is reset, so that nothing
//! waits for a peer whose packets no longer arrive.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use model::filter::Verdict;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::worker::hops::connection::reset;
use crate::worker::proxy::Peer;
use crate::worker::refusal::Reason;
use crate::worker::tls::control;
use crate::worker::tls::stream::TlsStream;

use super::Gate;

/// What carries a client's bytes over TCP.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// The connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Carrier for TlsStream {
    fn tcp(&self) -> &TcpStream {
        self.tcp()
    }
}

impl Carrier for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// See the module.
pub(super) struct Client<S: Carrier> {
    stream: S,
    peer: Peer,
    gate: Rc<Gate>,
    broken: bool,
}

impl<S: Carrier> Client<S> {
    pub(super) fn new(stream: S, peer: Peer, gate: &Rc<Gate>) -> Self {
        Self { stream, peer, gate: Rc::clone(gate), broken: false }
    }

    fn broke(&mut self, error: &io::Error) {
        if control::is_peers_fault(error) && !std::mem::replace(&mut self.broken, true) {
            self.gate.shard.refused(Reason::BrokenTls);
            tracing::debug!(peer = %self.peer.client, %error, reason = Reason::BrokenTls.name(), "connection ends");
        }
    }
}

impl<S: Carrier> Drop for Client<S> {
    fn drop(&mut self) {
        let Ok(local) = self.stream.tcp().local_addr() else { return };
        if self.gate.ctx.live.load().judge(&self.peer, local) != Verdict::Pass {
            reset(self.stream.tcp());
        }
    }
}

impl<S: Carrier> AsyncRead for Client<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            this.broke(error);
        }
        read
    }
}

impl<S: Carrier> AsyncWrite for Client<S> {
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
