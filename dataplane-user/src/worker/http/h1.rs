//! The client's side of HTTP/1.1.

use std::task::{Context, Poll, ready};

use model::upgrade::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::BodyReader;
use super::client::Client;
use super::fields::Fields;
use super::receive::{self, Broken, Got, Transmit};
use super::request::{self, Framing, HeadBounds, Method, Raw, Request, Version};
use super::response::Response;
use super::scan::Scan;
use super::wire::Wire;
use super::write::{self, Added, Delimit};
use crate::worker::refusal::Reason;

/// One connection from a client.
#[derive(Debug)]
pub struct H1<S> {
    /// Its bytes.
    pub wire: Wire<S>,
    scan: Scan,
    reader: BodyReader,
    transmit: Transmit,
    received: u64,
    bound: u64,
    version: Version,
    head_only: bool,
    aborted: bool,
    /// Whether what comes next may be HTTP/2.
    watches: bool,
}

/// What HTTP/2's connection preface begins with: a head that no HTTP/1.1 client sends (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How much body is handed on in one piece.
pub const ROOM: usize = 64 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> H1<S> {
    /// Around a stream.
    pub fn new(io: S) -> Self {
        Self {
            wire: Wire::new(io),
            scan: Scan::default(),
            reader: BodyReader::new(Framing::None),
            transmit: Transmit::new(Delimit::None),
            received: 0,
            bound: u64::MAX,
            version: Version::Http11,
            head_only: false,
            aborted: false,
            watches: false,
        }
    }

    /// Says whether the next head may be the beginning of HTTP/2 in clear text, which is no request then.
    pub(crate) fn watch(&mut self, watches: bool) {
        self.watches = watches;
    }

    /// Whether it is, where [`H1::poll_head`] has no head: the connection's bytes are all still here.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.watches && self.wire.input.starts_with(PREFACE)
    }

    /// Reads the next head. `Ok(None)`: the client closed between requests, or [`H1::speaks_http2`].
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        bounds: &HeadBounds,
    ) -> Poll<Result<Option<Raw>, Reason>> {
        loop {
            if self.speaks_http2() {
                return Poll::Ready(Ok(None));
            }
            if !self.wire.input.is_empty()
                && let Some(raw) = request::take(&mut self.wire.input, &mut self.scan, bounds)?
            {
                // Until this request has passed its checks, what is known of it is this much.
                (self.version, self.head_only, self.received) = (Version::Http11, false, 0);
                return Poll::Ready(Ok(Some(raw)));
            }
            match ready!(self.wire.poll_more(cx, scratch)) {
                Ok(0) | Err(_) if self.wire.input.is_empty() => return Poll::Ready(Ok(None)),
                Ok(0) | Err(_) => return Poll::Ready(Err(Reason::ClientGone)),
                Ok(_) => {}
            }
        }
    }

    /// Prepares for a request's body and response; `bound` is the most its body may have, 0 for no bound.
    pub fn begin(&mut self, request: &Request, bound: u64) {
        self.reader = BodyReader::new(request.framing);
        self.transmit = Transmit::new(Delimit::None);
        self.received = 0;
        self.bound = if bound == 0 { u64::MAX } else { bound };
        self.version = request.version;
        self.head_only = request.method == Method::Head;
    }

    /// Whether the exchange was broken off.
    pub fn aborted(&self) -> bool {
        self.aborted
    }

    fn delimit(&self, response: &Response) -> Delimit {
        match (response.framing, response.declared) {
            (Framing::None, _) if response.status == 204 || response.informational() => Delimit::None,
            (Framing::None, Some(length)) => Delimit::Declared(length),
            (Framing::None, None) => Delimit::None,
            (Framing::Length(length), _) if self.head_only => Delimit::Declared(length),
            (Framing::Chunked | Framing::Close, _) if self.head_only => Delimit::None,
            (Framing::Length(length), _) => Delimit::Length(length),
            (Framing::Chunked | Framing::Close, _) if self.version == Version::Http10 => Delimit::Close,
            (Framing::Chunked | Framing::Close, _) => Delimit::Chunked,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client for H1<S> {
    const PROTOCOL: &'static str = "HTTP/1.1";

    fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Got, Reason>> {
        let got = ready!(receive::poll_body(&mut self.wire, &mut self.reader, cx, scratch));
        Poll::Ready(match got {
            Ok(Got::Data(length)) => {
                self.received += length as u64;
                if self.received > self.bound { Err(Reason::BodyTooLarge) } else { Ok(Got::Data(length)) }
            }
            Ok(end @ Got::End(_)) => Ok(end),
            Err(Broken::Gone) => Err(Reason::ClientGone),
            Err(Broken::Bad) => Err(Reason::AmbiguousFraming),
        })
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        self.wire.poll_room(cx).map_ok(|()| ROOM).map_err(|_gone| Reason::ClientGone)
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        // A client may half-close after its request; only a failing write tells that it is gone.
        Poll::Pending
    }

    fn informational(&mut self, response: &Response) -> Result<(), Reason> {
        if self.version != Version::Http10 {
            let (status, fields) = (response.status, &response.fields);
            write::response_head(
                &mut self.wire.output,
                status,
                fields,
                Delimit::None,
                write::Connection::Unsaid,
                None,
            );
        }
        Ok(())
    }

    fn head(&mut self, response: &Response, close: bool, added: &Added<'_>) -> Result<bool, Reason> {
        let delimit = self.delimit(response);
        let keep_alive_10 = self.version == Version::Http10 && !close && delimit != Delimit::Close;
        let close = close || delimit == Delimit::Close;
        self.transmit = Transmit::new(delimit);
        let connection = match (close, keep_alive_10) {
            (true, _) => write::Connection::Close,
            (false, true) => write::Connection::KeepAlive,
            (false, false) => write::Connection::Unsaid,
        };
        write::response_head(
            &mut self.wire.output,
            response.status,
            &response.fields,
            delimit,
            connection,
            Some(added),
        );
        Ok(close)
    }

    fn premature(&self) -> bool {
        !self.wire.input.is_empty()
    }

    fn switch(&mut self, response: &Response, protocol: &Protocol, added: &Added<'_>) -> Result<u16, Reason> {
        write::response_head(
            &mut self.wire.output,
            response.status,
            &response.fields,
            Delimit::None,
            write::Connection::Upgrade(protocol.as_str()),
            Some(added),
        );
        self.reader = BodyReader::new(Framing::Close);
        self.transmit = Transmit::new(Delimit::Close);
        self.bound = u64::MAX;
        Ok(response.status)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        ready!(self.wire.poll_flush(cx)).map_err(|_gone| Reason::ClientGone)?;
        self.wire.poll_shutdown(cx).map_err(|_gone| Reason::ClientGone)
    }

    fn data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<(), Reason> {
        self.transmit.data(&mut self.wire, cx, data).map_err(|_gone| Reason::ClientGone)
    }

    fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Reason> {
        if self.transmit.finish(&mut self.wire, trailers) { Ok(()) } else { Err(Reason::OriginGone) }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        self.wire.poll_flush(cx).map_err(|_gone| Reason::ClientGone)
    }

    fn abort(&mut self, _reason: Reason, _request_id: &str) {
        self.aborted = true;
    }

    fn body_done(&self) -> bool {
        self.reader.done()
    }

    fn received(&self) -> u64 {
        self.received
    }
}
