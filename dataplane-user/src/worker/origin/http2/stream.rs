//! One exchange on a shared connection, in the terms of the one message model.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use model::report::Leg;

use super::{Place, Shared};
use crate::worker::http::body::Decoded;
use crate::worker::http::fields::Fields;
use crate::worker::http::h1::ROOM;
use crate::worker::http::h2::{headers, trailer_fields};
use crate::worker::http::h2_origin;
use crate::worker::http::receive::{Broken, Got};
use crate::worker::http::request::{Framing, Method, Request};
use crate::worker::http::response::Response;
use crate::worker::http::write::Forwarding;
use crate::worker::origin::either::NoHead;
use crate::worker::origin::gate::Permission;
use crate::worker::refusal::Reason;

/// An exchange. Dropped before its end, its stream is reset.
#[derive(Debug)]
pub struct Stream {
    method: Method,
    unsent: Option<NoHead>,
    response: Option<ResponseFuture>,
    send: Option<SendStream<Bytes>>,
    body: Option<RecvStream>,
    /// Taken from `h2` and not yet handed on.
    held: Bytes,
    /// Handed on, and not yet given back to the origin's window: that happens when the client took it.
    owed: usize,
    ended: bool,
    /// Of a request body with a known length, what is still to come.
    left: Option<u64>,
    /// Whether the connection has carried a request before.
    pub(super) reused: bool,
    place: Place,
    /// The right to this exchange, where the origin's exchanges are bounded.
    pub(in crate::worker::origin) permission: Option<Permission>,
}

impl Stream {
    /// On a connection that has room.
    pub fn new(shared: &Rc<Shared>) -> Self {
        Self {
            method: Method::Other,
            unsent: None,
            response: None,
            send: None,
            body: None,
            held: Bytes::new(),
            owed: 0,
            ended: false,
            left: None,
            reused: shared.used.replace(true),
            place: shared.place(),
            permission: None,
        }
    }

    /// What the handshake agreed on.
    pub fn leg(&self) -> &Rc<Leg> {
        &self.place.0.leg
    }

    /// Where it goes.
    pub fn address(&self) -> SocketAddr {
        self.place.0.address
    }

    /// Whether the connection has carried a request before.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Begins the exchange: the head leaves with the connection's next turn.
    ///
    /// # Errors
    /// The target cannot be said in HTTP/2.
    pub fn begin(&mut self, request: &Request, forwarding: &Forwarding<'_>) -> Result<(), Reason> {
        let shared = &self.place.0;
        let head = h2_origin::request(request, forwarding, shared.https).ok_or(Reason::BadPath)?;
        let empty = matches!(request.framing, Framing::None | Framing::Close | Framing::Length(0));
        self.left = match request.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::Close => None,
        };
        self.send(head, request.method, empty);
        Ok(())
    }

    /// Begins an exchange of the node's own, without a body.
    pub fn begin_with(&mut self, head: http::Request<()>, method: Method) {
        self.send(head, method, true);
    }

    fn send(&mut self, head: http::Request<()>, method: Method, empty: bool) {
        self.method = method;
        // A handle of its own: `h2` lets each have one request that waits for its place.
        let mut send = self.place.0.send.borrow().clone();
        match send.send_request(head, empty) {
            Ok((response, body)) => {
                self.response = Some(response);
                self.send = Some(body).filter(|_| !empty);
            }
            // The connection ended since it was chosen.
            Err(_unsent) => self.unsent = Some(NoHead::Unseen),
        }
    }

    /// How much request body may be handed over now. Only one byte of the window is reserved before there is anything to
    /// send: a stream that waits must not hold what others need.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(ROOM)) };
        send.reserve_capacity(1);
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(ROOM))
    }

    /// Sends request body.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(send) = &mut self.send else { return Ok(()) };
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        }
        send.send_data(Bytes::copy_from_slice(data), false).map_err(io::Error::other)
    }

    /// Ends the request. False where its body was shorter than declared, or nobody takes its end.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> bool {
        let Some(mut send) = self.send.take() else { return true };
        if self.left.is_some_and(|left| left > 0) {
            send.send_reset(h2::Reason::CANCEL);
            return false;
        }
        match trailers.and_then(|trailers| headers(trailers, 0)) {
            Some(trailers) => send.send_trailers(trailers).is_ok(),
            None => send.send_data(Bytes::new(), true).is_ok(),
        }
    }

    /// The next response head, informational or final.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, NoHead>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(self.unsent.unwrap_or(NoHead::Gone)));
        };
        if let Poll::Ready(Some(early)) = response.poll_informational(cx) {
            let head = match early {
                Ok(early) => {
                    h2_origin::response(early.status().as_u16(), early.headers(), self.method, false)
                        .map_err(|_malformed| NoHead::Malformed)
                }
                Err(error) => Err(no_head(&error)),
            };
            return Poll::Ready(head);
        }
        let head = ready!(Pin::new(response).poll(cx));
        self.response = None;
        Poll::Ready(match head {
            Ok(head) => {
                let (parts, body) = head.into_parts();
                let ended = body.is_end_stream();
                let status = parts.status.as_u16();
                (self.body, self.ended) = (Some(body), ended);
                h2_origin::response(status, &parts.headers, self.method, ended)
                    .map_err(|_malformed| NoHead::Malformed)
            }
            Err(error) => Err(no_head(&error)),
        })
    }

    /// Body that is here already; at most `room` bytes of it. What was handed on before has been taken by the client.
    pub fn decode_held(&mut self, room: usize) -> Decoded {
        self.release();
        let held = self.held.len().min(room);
        Decoded { consumed: held, produced: held }
    }

    /// The first bytes of what [`Stream::decode_held`] produced.
    pub fn held(&self, decoded: Decoded) -> &[u8] {
        self.held.get(..decoded.produced).unwrap_or_default()
    }

    /// Lets go of what was handed on.
    pub fn drop_held(&mut self, decoded: Decoded) {
        self.held.advance(decoded.consumed.min(self.held.len()));
        self.owed += decoded.consumed;
    }

    /// Reads response body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Got, Broken>> {
        self.release();
        let Some(body) = &mut self.body else { return Poll::Ready(Err(Broken::Gone)) };
        let mut filled = 0;
        while let Some(free) = scratch.get_mut(filled..).filter(|free| !free.is_empty() && !self.ended) {
            if self.held.is_empty() {
                match body.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => self.held = data,
                    Poll::Ready(Some(Err(_))) | Poll::Ready(None) | Poll::Pending if filled > 0 => break,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(&error))),
                    Poll::Ready(None) => {
                        let trailers = ready!(body.poll_trailers(cx)).map_err(|error| broken(&error))?;
                        self.ended = true;
                        let trailers =
                            trailers.map(trailer_fields).transpose().map_err(|_bad| Broken::Bad)?;
                        return Poll::Ready(Ok(Got::End(trailers.flatten())));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            let taken = self.held.split_to(self.held.len().min(free.len()));
            free.get_mut(..taken.len()).unwrap_or_default().copy_from_slice(&taken);
            filled += taken.len();
        }
        self.owed += filled;
        Poll::Ready(Ok(if filled > 0 { Got::Data(filled) } else { Got::End(None) }))
    }

    fn release(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0
            && let Some(body) = &mut self.body
        {
            // Fails only where the stream is gone, which the next read tells.
            let _ = body.flow_control().release_capacity(owed);
        }
    }
}

/// What the end of a stream without a response says of its request.
fn no_head(error: &h2::Error) -> NoHead {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    match error {
        // RFC 9113, 8.7: a stream that was refused, or is above the last one that GOAWAY names, was not looked at.
        error if error.is_remote() && (refused || error.is_go_away()) => NoHead::Unseen,
        error if error.is_remote() => NoHead::Gone,
        error if error.is_io() => NoHead::Silent,
        _ => NoHead::Malformed,
    }
}

/// What the end of a stream amid a body is called.
fn broken(error: &h2::Error) -> Broken {
    if error.is_remote() || error.is_io() { Broken::Gone } else { Broken::Bad }
}
