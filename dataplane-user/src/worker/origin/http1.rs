//! One HTTP/1.1 connection to an origin.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use model::report::Leg;
use tokio::time::Instant;

use super::either::NoHead;
use super::gate::Permission;
use crate::worker::http::body::{BodyReader, Decoded};
use crate::worker::http::fields::Fields;
use crate::worker::http::receive::{self, Broken, Got, Transmit};
use crate::worker::http::request::{Framing, Method, Request};
use crate::worker::http::response::{self, Response};
use crate::worker::http::scan::Scan;
use crate::worker::http::wire::Wire;
use crate::worker::http::write::{self, Delimit, Forwarding};
use crate::worker::tls::dial::OriginStream;

/// A connection and the state of the exchange on it.
#[derive(Debug)]
pub struct Http1 {
    wire: Wire<OriginStream>,
    scan: Scan,
    reader: BodyReader,
    transmit: Transmit,
    method: Method,
    keep_alive: bool,
    sent: bool,
    upgrading: bool,
    /// What the handshake agreed on.
    pub leg: Rc<Leg>,
    /// Where it goes.
    pub address: SocketAddr,
    /// Since when it is idle, in the pool.
    pub since: Instant,
    /// Whether it came from the pool.
    pub reused: bool,
    /// The right to this exchange, where the origin's exchanges are bounded.
    pub permission: Option<Permission>,
}

impl Http1 {
    /// Over a secured stream.
    pub fn new(stream: OriginStream, leg: Leg, address: SocketAddr) -> Self {
        Self {
            wire: Wire::new(stream),
            scan: Scan::default(),
            reader: BodyReader::new(Framing::None),
            transmit: Transmit::new(Delimit::None),
            method: Method::Other,
            keep_alive: true,
            sent: false,
            upgrading: false,
            leg: Rc::new(leg),
            address,
            since: Instant::now(),
            reused: false,
            permission: None,
        }
    }

    /// Begins an exchange: the head waits in the buffer for the body's first bytes or the flush.
    pub fn begin(&mut self, request: &Request, forwarding: &Forwarding<'_>) {
        self.prepare(request.method);
        self.upgrading = forwarding.upgrade.is_some();
        self.transmit = Transmit::new(match request.framing {
            Framing::None | Framing::Close => Delimit::None,
            Framing::Length(length) => Delimit::Length(length),
            Framing::Chunked => Delimit::Chunked,
        });
        write::request_head(&mut self.wire.output, request, forwarding);
    }

    /// Begins an exchange of the node's own, without a body.
    pub fn begin_with(&mut self, head: BytesMut, method: Method) {
        self.prepare(method);
        self.transmit = Transmit::new(Delimit::None);
        self.wire.output = head;
    }

    fn prepare(&mut self, method: Method) {
        self.method = method;
        self.keep_alive = false;
        self.scan = Scan::default();
        self.reader = BodyReader::new(Framing::None);
        self.sent = false;
        self.upgrading = false;
    }

    /// Waits while an earlier piece of the request is still here.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.wire.poll_room(cx)
    }

    /// Sends request body.
    pub fn data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> std::io::Result<()> {
        self.transmit.data(&mut self.wire, cx, data)
    }

    /// Ends the request. False where its body was shorter than declared.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> bool {
        self.sent = self.transmit.finish(&mut self.wire, trailers);
        self.sent
    }

    /// Pushes the request out.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    /// Reads the next response head, informational or final.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Response, NoHead>> {
        loop {
            if !self.wire.input.is_empty() {
                let taken = response::take(&mut self.wire.input, &mut self.scan, self.method);
                if let Some(response) = taken.map_err(|_malformed| NoHead::Malformed)? {
                    if response.status == 101 && !self.upgrading {
                        return Poll::Ready(Err(NoHead::Malformed));
                    }
                    if !response.informational() {
                        self.reader = BodyReader::new(response.framing);
                        self.keep_alive = response.keep_alive;
                    }
                    return Poll::Ready(Ok(response));
                }
            }
            match ready!(self.wire.poll_more(cx, scratch)) {
                Ok(0) | Err(_) if self.wire.input.is_empty() => return Poll::Ready(Err(NoHead::Silent)),
                Ok(0) | Err(_) => return Poll::Ready(Err(NoHead::Gone)),
                Ok(_) => {}
            }
        }
    }

    /// After a 101: what is sent and read from here on is the other protocol's.
    pub fn switch(&mut self) {
        self.transmit = Transmit::new(Delimit::Close);
    }

    /// Ends our direction of a tunnel, after everything before has left.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.wire.poll_flush(cx))?;
        self.wire.poll_shutdown(cx)
    }

    /// Decodes, where they lie, body bytes that were read along with the head; at most `room` of them.
    pub fn decode_held(&mut self, room: usize) -> Result<Decoded, Broken> {
        let held = self.wire.input.len().min(room);
        self.reader.decode(self.wire.input.get_mut(..held).unwrap_or_default()).map_err(|_bad| Broken::Bad)
    }

    /// The first bytes of what [`Http1::decode_held`] produced.
    pub fn held(&self, decoded: Decoded) -> &[u8] {
        self.wire.input.get(..decoded.produced).unwrap_or_default()
    }

    /// Lets go of what was decoded.
    pub fn drop_held(&mut self, decoded: Decoded) {
        self.wire.input.advance(decoded.consumed);
    }

    /// Reads response body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Got, Broken>> {
        receive::poll_body(&mut self.wire, &mut self.reader, cx, scratch)
    }

    /// Whether another request may be sent: request and response are complete, both sides want it, and nothing
    /// unasked for has arrived. Never after an upgrade was asked for: whether the origin declined it in every part is not
    /// worth a doubt.
    pub fn reusable(&self) -> bool {
        self.keep_alive
            && !self.upgrading
            && self.sent
            && self.reader.done()
            && self.wire.input.is_empty()
            && self.wire.output.is_empty()
    }

    /// Gives back memory before the pool takes it.
    pub fn rest(&mut self) {
        self.wire.rest();
    }

    /// Whether an idle connection still stands. Bytes nobody asked for count as an end: they would be read as the
    /// answer to the next request.
    pub fn alive(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.wire.poll_read(&mut cx, &mut byte).is_pending()
    }
}
