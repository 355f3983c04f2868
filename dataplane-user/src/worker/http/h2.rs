//! The client's side of HTTP/2: one stream of the `h2` crate, in the terms of the one message model.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use model::upgrade::Protocol;

use super::client::Client;
use super::fields::{Fields, Known, Span, is_token};
use super::grpc::{Messages, trailers};
use super::h1::ROOM;
use super::receive::Got;
use super::request::{self, Framing, HeadBounds, Method, Raw, Request, Version};
use super::response::Response;
use super::write::{Added, forwarded_field};
use crate::worker::refusal::Reason;

/// Response bytes that wait in all streams of a connection, beyond what `h2` holds of each: the more streams, the smaller the
/// pieces.
const WAITING: usize = 2 * 1024 * 1024;
/// A piece that is worth its frame.
const LEAST_PIECE: usize = 8 * 1024;

/// How many streams a connection has, for all of them to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams(Rc<Cell<usize>>);

impl Streams {
    pub(crate) fn are(&self, count: usize) {
        self.0.set(count);
    }

    /// The largest piece for one of them.
    fn piece(&self) -> usize {
        (WAITING / self.0.get().max(1)).clamp(LEAST_PIECE, ROOM)
    }
}

/// One exchange on a stream.
#[derive(Debug)]
pub(crate) struct H2 {
    streams: Streams,
    respond: SendResponse<Bytes>,
    body: RecvStream,
    send: Option<SendStream<Bytes>>,
    /// Taken from h2 and not yet handed on.
    held: Bytes,
    /// Handed on, and not yet given back to the client's window: that happens when the origin took it.
    owed: usize,
    ended: bool,
    /// Of a response with a known length, what is still to come.
    left: Option<u64>,
    received: u64,
    bound: u64,
    head_only: bool,
    /// Of a gRPC call's answer.
    messages: Option<Messages>,
}

impl H2 {
    /// For a stream; `bound` is the most its body may have, 0 for no bound.
    pub(crate) fn new(streams: Streams, respond: SendResponse<Bytes>, body: RecvStream, bound: u64) -> Self {
        let ended = body.is_end_stream();
        let bound = if bound == 0 { u64::MAX } else { bound };
        Self {
            streams,
            respond,
            body,
            send: None,
            held: Bytes::new(),
            owed: 0,
            ended,
            left: None,
            received: 0,
            bound,
            head_only: false,
            messages: None,
        }
    }

    /// What of the request decides how its response is framed.
    pub(crate) fn begin(&mut self, request: &Request) {
        self.head_only = request.method == Method::Head;
        self.messages = request.grpc().then(Messages::default);
    }

    /// Ends a gRPC call's answer with the reason's status where the client is sure to read it so: between two messages,
    /// and with nothing waiting for the client's window.
    fn say_status(&mut self, reason: Reason, request_id: &str) -> bool {
        let between = self.messages.as_ref().is_some_and(Messages::between);
        if !between || self.left.is_some() || self.send.as_ref().is_none_or(|send| send.capacity() == 0) {
            return false;
        }
        let send = self.send.take();
        let said = send.zip(trailers(reason, request_id));
        said.is_some_and(|(mut send, trailers)| send.send_trailers(trailers).is_ok())
    }

    fn release(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 {
            // Fails only where the stream is gone, which the next read tells.
            let _ = self.body.flow_control().release_capacity(owed);
        }
    }

    /// Reads the rest of the request's body and throws it away: until its end, or when more than `bound` bytes have come.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>, bound: &mut usize) -> Poll<()> {
        while !self.ended {
            match ready!(self.hold(cx)) {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(_gone) => break,
            }
            let read = std::mem::take(&mut self.held).len();
            self.owed += read;
            self.release();
            match bound.checked_sub(read) {
                Some(left) => *bound = left,
                None => break,
            }
        }
        Poll::Ready(())
    }

    fn hold(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Reason>> {
        while self.held.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => self.held = data,
                Some(Err(_)) => return Poll::Ready(Err(Reason::ClientGone)),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl Client for H2 {
    const PROTOCOL: &'static str = "HTTP/2";

    fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Got, Reason>> {
        self.release();
        let mut filled = 0;
        while let Some(free) = scratch.get_mut(filled..).filter(|free| !free.is_empty() && !self.ended) {
            match self.hold(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending if filled > 0 => break,
                Poll::Ready(Ok(false)) => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(|_gone| Reason::ClientGone)?;
                    self.ended = true;
                    return Poll::Ready(
                        trailers.map(trailer_fields).transpose().map(|trailers| Got::End(trailers.flatten())),
                    );
                }
                Poll::Ready(Err(reason)) => return Poll::Ready(Err(reason)),
                Poll::Pending => return Poll::Pending,
            }
            let taken = self.held.split_to(self.held.len().min(free.len()));
            free.get_mut(..taken.len()).unwrap_or_default().copy_from_slice(&taken);
            filled += taken.len();
        }
        self.owed = filled;
        self.received += filled as u64;
        Poll::Ready(match filled {
            _ if self.received > self.bound => Err(Reason::BodyTooLarge),
            0 => Ok(Got::End(None)),
            filled => Ok(Got::Data(filled)),
        })
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(ROOM)) };
        // Reserved is taken from what all streams of the connection may send: as long as the origin is silent one byte is
        // enough to know that the window is open. What is handed over beyond it waits in the stream, one piece at most.
        send.reserve_capacity(1);
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Reason::ClientGone)),
            }
        }
        Poll::Ready(Ok(self.streams.piece()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.send {
            Some(send) => send.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    fn informational(&mut self, response: &Response) -> Result<(), Reason> {
        let head = head(response, None).ok_or(Reason::MalformedResponse)?;
        self.respond.send_informational(head).map_err(|_gone| Reason::ClientGone)
    }

    fn head(&mut self, response: &Response, _close: bool, added: &Added<'_>) -> Result<bool, Reason> {
        let mut head = head(response, Some(added)).ok_or(Reason::MalformedResponse)?;
        if let Some(length) = response.declared.filter(|_| response.status != 204) {
            head.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let empty = self.head_only || matches!(response.framing, Framing::None | Framing::Length(0));
        self.left = match response.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::Close => None,
        };
        let send = self.respond.send_response(head, empty).map_err(|_gone| Reason::ClientGone)?;
        self.send = Some(send).filter(|_| !empty);
        Ok(false)
    }

    fn premature(&self) -> bool {
        false
    }

    fn switch(
        &mut self,
        response: &Response,
        _protocol: &Protocol,
        added: &Added<'_>,
    ) -> Result<u16, Reason> {
        let mut head = head(response, Some(added)).ok_or(Reason::MalformedResponse)?;
        *head.status_mut() = StatusCode::OK;
        // RFC 8441, 5: the key and its answer are HTTP/1.1's.
        head.headers_mut().remove(http::header::SEC_WEBSOCKET_ACCEPT);
        self.send = Some(self.respond.send_response(head, false).map_err(|_gone| Reason::ClientGone)?);
        self.left = None;
        self.bound = u64::MAX;
        Ok(StatusCode::OK.as_u16())
    }

    fn poll_end(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        // `finish` has sent END_STREAM.
        Poll::Ready(Ok(()))
    }

    fn data(&mut self, _cx: &mut Context<'_>, data: &[u8]) -> Result<(), Reason> {
        let Some(send) = &mut self.send else { return Ok(()) };
        let last = match &mut self.left {
            Some(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Reason::MalformedResponse)?;
                *left == 0
            }
            None => false,
        };
        send.send_data(Bytes::copy_from_slice(data), last).map_err(|_gone| Reason::ClientGone)?;
        if let Some(messages) = &mut self.messages {
            messages.pass(data);
        }
        if last {
            self.send = None;
        }
        Ok(())
    }

    fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Reason> {
        let Some(mut send) = self.send.take() else { return Ok(()) };
        if self.left.is_some_and(|left| left > 0) {
            self.send = Some(send);
            return Err(Reason::OriginGone);
        }
        let sent = match trailers.and_then(|trailers| headers(trailers, 0)) {
            Some(trailers) => send.send_trailers(trailers),
            None => send.send_data(Bytes::new(), true),
        };
        sent.map_err(|_gone| Reason::ClientGone)
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        // Frames leave with the connection, which is polled after its streams.
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self, reason: Reason, request_id: &str) {
        if self.say_status(reason, request_id) {
            return;
        }
        // To a gRPC client whose time is up CANCEL says that (gRPC, "Errors").
        let late = reason == Reason::GrpcDeadline;
        let code = if late { h2::Reason::CANCEL } else { h2::Reason::INTERNAL_ERROR };
        match &mut self.send {
            Some(send) => send.send_reset(code),
            None => self.respond.send_reset(code),
        }
    }

    fn body_done(&self) -> bool {
        self.ended
    }

    fn received(&self) -> u64 {
        self.received
    }
}

/// Takes a request's head into the model's buffer. Cookie crumbs are joined (RFC 9113, 8.2.3).
///
/// # Errors
/// It is beyond the bounds.
pub fn raw(parts: &http::request::Parts, ended: bool, bounds: &HeadBounds) -> Result<Raw, Reason> {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map_or("", h2::ext::Protocol::as_str);
    // In every other respect an extended CONNECT is what HTTP/1.1 asks with GET.
    let method = if protocol.is_empty() { parts.method.as_str() } else { "GET" };
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let fixed = method.len() + path.len() + authority.len() + protocol.len();
    let total = fixed + parts.headers.iter().map(size).sum::<usize>();
    if path.len() > bounds.target {
        return Err(Reason::TargetTooLong);
    }
    if total > bounds.bytes || parts.headers.len() > bounds.fields {
        return Err(Reason::HeaderTooLarge);
    }
    let mut text = BytesMut::with_capacity(total);
    let mut put = |part: &[u8]| {
        text.put_slice(part);
        Span::new(text.len() - part.len(), part.len())
    };
    let (method, target) = (put(method.as_bytes()), put(path.as_bytes()));
    let authority = (!authority.is_empty()).then(|| put(authority.as_bytes()));
    let protocol = (!protocol.is_empty()).then(|| put(protocol.as_bytes()));
    let mut list = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        if !is_token(name) {
            return Err(Reason::MalformedRequest);
        }
        if name != http::header::COOKIE {
            let known = Known::of(name.as_str().as_bytes());
            let hop =
                known.hop_by_hop() || known == Known::Other && Known::disguised(name.as_str().as_bytes());
            let (name, value) = (put(name.as_str().as_bytes()), put(value.as_bytes()));
            list.push(super::fields::Field { known, hop, name, value });
        }
    }
    if parts.headers.contains_key(http::header::COOKIE) {
        let crumbs: Vec<_> =
            parts.headers.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let (name, value) = (put(b"cookie"), put(&crumbs.join(&b"; "[..])));
        list.push(super::fields::Field { known: Known::Cookie, hop: false, name, value });
    }
    let (text, version) = (text.freeze(), Version::Http2);
    Ok(Raw { text, list, method, target, authority, protocol, version, ended })
}

/// A response head; nothing where a field cannot be said in HTTP/2.
fn head(response: &Response, added: Option<&Added<'_>>) -> Option<http::Response<()>> {
    let mut fields = headers(&response.fields, 4)?;
    if let Some(added) = added {
        if !fields.contains_key(http::header::DATE) {
            fields.insert(http::header::DATE, HeaderValue::from_bytes(added.date).ok()?);
        }
        fields.append(http::header::VIA, HeaderValue::from_static("1.1 sallyport"));
        fields.insert(HeaderName::from_static("x-request-id"), HeaderValue::from_str(added.request_id).ok()?);
    }
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status).ok()?;
    *head.headers_mut() = fields;
    Some(head)
}

pub(crate) fn headers(fields: &Fields, more: usize) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len() + more);
    for (field, name, _) in fields.iter() {
        if forwarded_field(field.known, field.hop) {
            let value = HeaderValue::from_maybe_shared(field.value.share(fields.text())).ok()?;
            map.append(HeaderName::from_bytes(name).ok()?, value);
        }
    }
    Some(map)
}

pub(crate) fn trailer_fields(trailers: HeaderMap) -> Result<Option<Fields>, Reason> {
    let fields = Fields::copied(&trailers, request::trailer).ok_or(Reason::MalformedRequest)?;
    if fields.iter().any(|(field, ..)| field.known.forbidden_in_trailers()) {
        return Err(Reason::MalformedRequest);
    }
    Ok((!fields.is_empty()).then_some(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_shrink_with_the_streams_that_share_a_connection() {
        let streams = Streams::default();
        for (count, piece) in [(0, ROOM), (1, ROOM), (32, ROOM), (128, 16 * 1024), (1000, LEAST_PIECE)] {
            streams.are(count);
            assert_eq!(streams.piece(), piece, "{count}");
        }
    }
}
