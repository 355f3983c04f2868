//! A connection to an origin as the recipes see it, whichever version of HTTP it speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use model::report::Leg;

use super::gate::Permission;
use super::http1::Http1;
use super::http2::Stream;
use crate::worker::http::body::Decoded;
use crate::worker::http::fields::Fields;
use crate::worker::http::h1::ROOM;
use crate::worker::http::receive::{Broken, Got};
use crate::worker::http::request::Request;
use crate::worker::http::response::Response;
use crate::worker::http::write::Forwarding;
use crate::worker::refusal::Reason;

/// Why no response head came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHead {
    /// The origin says, or it is certain, that it did nothing about the request.
    Unseen,
    /// Closed or reset before any byte of a response.
    Silent,
    /// Closed or reset amid the head, or the origin gave this request up.
    Gone,
    /// The head is malformed.
    Malformed,
}

/// A connection that is ready for a request, or the exchange on it.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "HTTP/1.1 is the common case and moves a few times per request"
)]
pub enum Connection {
    /// The whole connection is this exchange's.
    Http1(Http1),
    /// A stream of a shared connection.
    Http2(Box<Stream>),
}

impl Connection {
    /// Holds the right to an exchange for as long as this is one.
    pub(super) fn permit(&mut self, permission: Option<Permission>) {
        match self {
            Self::Http1(connection) => connection.permission = permission,
            Self::Http2(stream) => stream.permission = permission,
        }
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// The request cannot be said in this version.
    pub fn begin(&mut self, request: &Request, forwarding: &Forwarding<'_>) -> Result<(), Reason> {
        match self {
            Self::Http1(connection) => {
                connection.begin(request, forwarding);
                Ok(())
            }
            Self::Http2(stream) => stream.begin(request, forwarding),
        }
    }

    /// How much request body may be handed over now; waits while an earlier piece is still here.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        match self {
            Self::Http1(connection) => connection.poll_room(cx).map_ok(|()| ROOM),
            Self::Http2(stream) => stream.poll_room(cx),
        }
    }

    /// Sends request body.
    pub fn data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Http1(connection) => connection.data(cx, data),
            Self::Http2(stream) => stream.data(data),
        }
    }

    /// Ends the request. False where its body was shorter than declared.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> bool {
        match self {
            Self::Http1(connection) => connection.finish(trailers),
            Self::Http2(stream) => stream.finish(trailers),
        }
    }

    /// Pushes the request out. HTTP/2's frames leave with their connection's own task.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self {
            Self::Http1(connection) => connection.poll_flush(cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads the next response head, informational or final.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Response, NoHead>> {
        match self {
            Self::Http1(connection) => connection.poll_head(cx, scratch),
            Self::Http2(stream) => stream.poll_head(cx),
        }
    }

    /// After a 101: what is sent and read from here on is the other protocol's. HTTP/2 has no 101, and no upgrade is sent
    /// over it.
    pub fn switch(&mut self) {
        match self {
            Self::Http1(connection) => connection.switch(),
            Self::Http2(_) => {}
        }
    }

    /// Ends our direction of a tunnel, after everything before has left. On HTTP/2, where no tunnel is, there is nothing
    /// to end.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self {
            Self::Http1(connection) => connection.poll_end(cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Decodes, where they lie, body bytes that are here already; at most `room` of them.
    ///
    /// # Errors
    /// The framing is broken.
    pub fn decode_held(&mut self, room: usize) -> Result<Decoded, Broken> {
        match self {
            Self::Http1(connection) => connection.decode_held(room),
            Self::Http2(stream) => Ok(stream.decode_held(room)),
        }
    }

    /// The first bytes of what [`Connection::decode_held`] produced.
    pub fn held(&self, decoded: Decoded) -> &[u8] {
        match self {
            Self::Http1(connection) => connection.held(decoded),
            Self::Http2(stream) => stream.held(decoded),
        }
    }

    /// Lets go of what was decoded.
    pub fn drop_held(&mut self, decoded: Decoded) {
        match self {
            Self::Http1(connection) => connection.drop_held(decoded),
            Self::Http2(stream) => stream.drop_held(decoded),
        }
    }

    /// Reads response body. Earlier pieces have been taken by the client when this is called again.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Got, Broken>> {
        match self {
            Self::Http1(connection) => connection.poll_body(cx, scratch),
            Self::Http2(stream) => stream.poll_body(cx, scratch),
        }
    }

    /// What the handshake agreed on.
    pub fn leg(&self) -> &Rc<Leg> {
        match self {
            Self::Http1(connection) => &connection.leg,
            Self::Http2(stream) => stream.leg(),
        }
    }

    /// Where it goes.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(connection) => connection.address,
            Self::Http2(stream) => stream.address(),
        }
    }

    /// Whether it has carried a request before.
    pub fn reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(stream) => stream.reused(),
        }
    }
}
