//! An HTTP/2 connection: each stream is an exchange, all of them futures of the one task that also drives the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use model::snapshot::Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

use super::connection::Hop;
use super::context::ThreadCtx;
use super::exchange::{After, exchange};
use super::linger::{Nudge, Nudges, linger};
use super::timer::Timer;
use crate::worker::http::guard::{Flood, Guarded, Peer};
use crate::worker::http::h2::{H2, Streams, raw};
use crate::worker::http::request::{HeadBounds, check};
use crate::worker::refusal::Reason;

/// What a client may send before the origin took it: per stream, and per connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Response bytes that `h2` holds for a client that does not read: in all streams it may have, and in one.
const SEND_BUFFERS: usize = 4 * 1024 * 1024;
const SEND_BUFFER: RangeInclusive<usize> = 16 * 1024..=128 * 1024;

/// Streams a client may reset before we have looked at them, and others that are remembered after a reset: beyond, the
/// connection is closed for abuse (rapid reset).
const RESETS: usize = 32;

/// What `h2` takes of small pieces of bodies that wait for their origin: each counts as what it lacks of 256 bytes, and costs
/// half of that. Enough for a stream's whole window in messages of 16 bytes.
const SMALL_PIECES: usize = 16 * 1024 * 1024;

/// What a client that is told to go away may still send, as far as that is its own fault: its flood.
const LAST_OF_FLOOD: usize = 64 * 1024;

/// How long a connection that is told to go away, or has ended in an error, may take.
const PARTING: Duration = Duration::from_secs(2);

/// Serves the connection, which is to have its preface `headerMs` after it has begun, until it ends.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &ThreadCtx,
    hop: &Hop,
    stream: S,
    begun: Instant,
) {
    let limits = hop.listener().limits;
    let guarded = Guarded::new(stream, Peer::Client { streams: limits.streams });
    let stream = Shared(Rc::new(RefCell::new(guarded)));
    let mut timer = ctx.timers.get();
    let deadline = begun + Duration::from_millis(u64::from(limits.header_ms));
    let mut handshake = Box::pin(builder(&limits).handshake(stream.clone()));
    let connected = poll_fn(|cx| match Pin::new(&mut handshake).poll(cx) {
        Poll::Pending if hop.waits(begun, cx, ctx) || timer.poll_expired(cx, deadline) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
        Poll::Ready(connected) => Poll::Ready(Some(connected)),
    })
    .await;
    drop(handshake);
    match connected {
        None if hop.evicted() => return,
        None => return ctx.tell.refused(Reason::HeaderTimeout, &hop.listener().name),
        Some(Err(error)) => {
            told(ctx, hop, &error, None);
            say_goodbye(stream.clone(), &PROTOCOL_ERROR).await;
        }
        Some(Ok(connection)) => {
            let (share, nudge) = (Streams::default(), Nudge::default());
            let mut driver = Driver::new(connection, stream.clone(), share.clone(), nudge.clone());
            let mut streams = FuturesUnordered::new();
            let start = |request, respond| one(ctx, hop, (&share, &nudge), request, respond);
            let ended = poll_fn(|cx| driver.poll(cx, (ctx, hop), &mut streams, start, &mut timer)).await;
            match (stream.flood(), ended) {
                (Some(flood), _) => ctx.tell.flood(flood, &hop.listener().name),
                (None, Err(error)) => told(ctx, hop, &error, stream.said()),
                (None, Ok(())) => {}
            }
        }
    }
    part(ctx, hop, stream, &mut timer).await;
}

/// Tells a client that it is not served with HTTP/2.
pub(super) async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(ctx: &ThreadCtx, hop: &Hop, stream: S) {
    let streams = hop.listener().limits.streams;
    let stream = Shared(Rc::new(RefCell::new(Guarded::new(stream, Peer::Client { streams }))));
    say_goodbye(stream.clone(), &HTTP_1_1_REQUIRED).await;
    part(ctx, hop, stream, &mut ctx.timers.get()).await;
}

/// GOAWAY with PROTOCOL_ERROR, for a client whose preface is wrong: h2 lets go of the stream without one.
const PROTOCOL_ERROR: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// SETTINGS, which are our preface (RFC 9113, 3.4), and GOAWAY with HTTP_1_1_REQUIRED.
const HTTP_1_1_REQUIRED: [u8; 26] =
    [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13];

async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Shared<S>, frames: &[u8]) {
    // A client that does not take some twenty bytes at once does not get them.
    poll_fn(|cx| {
        let _ = Pin::new(&mut stream).poll_write(cx, frames);
        Poll::Ready(())
    })
    .await;
}

fn builder(limits: &Limits) -> Builder {
    let share = SEND_BUFFERS / limits.streams.max(1) as usize;
    let send_buffer = share.clamp(*SEND_BUFFER.start(), *SEND_BUFFER.end());
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        // h2 answers 431 by itself, unseen by us: at twice our own bound that is left to lists no one should send.
        .max_header_list_size(limits.header_bytes.saturating_mul(2))
        .max_send_buffer_size(send_buffer)
        .max_pending_accept_reset_streams(RESETS)
        .max_concurrent_reset_streams(RESETS)
        // The guard has a budget for these, which time fills again: h2 would count over the connection's whole life, and those
        // too that an honest client opens beyond `streams`.
        .max_local_error_reset_streams(None)
        .data_frame_budget(SMALL_PIECES)
        .enable_connect_protocol();
    builder
}

/// One stream: read -> exchange -> linger.
async fn one(
    ctx: &ThreadCtx,
    hop: &Hop,
    (share, nudge): (&Streams, &Nudge),
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let limits = hop.listener().limits;
    let bounds = HeadBounds {
        bytes: limits.header_bytes as usize,
        fields: limits.header_count as usize,
        target: limits.target_bytes as usize,
    };
    let (parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let mut client = H2::new(share.clone(), respond, body, limits.body_bytes);
    let request = raw(&parts, ended, &bounds).and_then(check);
    drop(parts);
    if let Ok(request) = &request {
        client.begin(request);
    }
    let mut timer = ctx.timers.get();
    if exchange(ctx, hop, request, &mut client, &mut timer, false).await != After::Abort {
        linger(ctx, &mut client, &mut timer, nudge).await;
    }
}

/// Says why a connection broke. A client that goes away between requests is not worth a word.
fn told(ctx: &ThreadCtx, hop: &Hop, error: &h2::Error, said: Option<Flood>) {
    let listener = hop.listener();
    let reason = match error.reason() {
        Some(h2::Reason::NO_ERROR) | None => return,
        Some(_) if error.is_remote() => Reason::ClientGone,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => {
            return ctx.tell.flood(said.unwrap_or(Flood::Other), &listener.name);
        }
        Some(_) => Reason::MalformedRequest,
    };
    ctx.tell.refused(reason, &listener.name);
}

struct Driver<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Shared<S>, Bytes>,
    stream: Shared<S>,
    share: Streams,
    nudges: Nudges,
    /// A flood has been answered with GOAWAY.
    calmed: bool,
    served: u32,
    idle_since: Instant,
    parting: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn new(
        mut connection: Connection<Shared<S>, Bytes>,
        stream: Shared<S>,
        share: Streams,
        nudge: Nudge,
    ) -> Self {
        let (idle_since, nudges) = (Instant::now(), Nudges::new(nudge, connection.ping_pong()));
        Self { connection, stream, share, nudges, calmed: false, served: 0, idle_since, parting: None }
    }

    fn poll<F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        (ctx, hop): (&ThreadCtx, &Hop),
        streams: &mut FuturesUnordered<F>,
        start: impl Fn(http::Request<RecvStream>, SendResponse<Bytes>) -> F,
        timer: &mut Timer<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        let listener = hop.listener();
        let limits = &listener.limits;
        if hop.closing().is_some() {
            self.go_away(None);
        }
        // Streams may have come to life, and what they queue must leave: so the connection is polled before and after.
        loop {
            let mut accepted = false;
            while let Poll::Ready(next) = self.connection.poll_accept(cx) {
                let Some(next) = next else { return Poll::Ready(Ok(())) };
                let (request, respond) = next?;
                streams.push(start(request, respond));
                hop.busy();
                accepted = true;
                self.served += 1;
                if limits.requests_per_connection != 0 && self.served >= limits.requests_per_connection {
                    self.go_away(None);
                }
            }
            accepted |= self.calm();
            let before = streams.len();
            self.share.are(before);
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            self.nudges.poll(cx);
            if !accepted && before == streams.len() {
                break;
            }
            self.idle_since = Instant::now();
        }
        if streams.is_empty() && !hop.evicted() && hop.waits(self.idle_since, cx, ctx) {
            self.connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            self.parting = Some(Instant::now());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let idle = self.idle_since + Duration::from_millis(u64::from(limits.idle_ms));
        match self.parting {
            Some(parting) if streams.is_empty() && timer.poll_expired(cx, parting) => {
                return Poll::Ready(Ok(()));
            }
            None if streams.is_empty() && timer.poll_expired(cx, idle) => {
                self.go_away(Some(Instant::now() + PARTING));
                cx.waker().wake_by_ref();
            }
            Some(_) | None => {}
        }
        Poll::Pending
    }

    /// Ends the connection for a flood, once: GOAWAY with ENHANCE_YOUR_CALM, and its streams are over.
    fn calm(&mut self) -> bool {
        let now = !self.calmed && self.stream.flood().is_some();
        if now {
            self.calmed = true;
            self.connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            self.parting = Some(Instant::now() + PARTING);
        }
        now
    }

    /// GOAWAY: streams that have begun finish, no others begin.
    fn go_away(&mut self, by: Option<Instant>) {
        if self.parting.is_none() {
            self.connection.graceful_shutdown();
            self.parting = Some(by.unwrap_or_else(|| Instant::now() + PARTING));
        }
    }
}

/// Lets the client read our last frames: a close with unread bytes would reset the connection and take them along.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &ThreadCtx,
    hop: &Hop,
    mut stream: Shared<S>,
    timer: &mut Timer<'_>,
) {
    let deadline = Instant::now() + if hop.evicted() { Duration::ZERO } else { PARTING };
    let mut shut = false;
    // No more than what it could have on its way when it was told.
    let mut left = if stream.flooded() { LAST_OF_FLOOD } else { CONNECTION_WINDOW as usize };
    poll_fn(|cx| {
        if !shut {
            match Pin::new(&mut stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let mut scratch = ctx.scratch.borrow_mut();
        if shut && stream.poll_drain(cx, &mut scratch, &mut left).is_ready() {
            return Poll::Ready(());
        }
        if timer.poll_expired(cx, deadline) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The stream, still at hand after `h2` has let go of it.
#[derive(Debug)]
struct Shared<S>(Rc<RefCell<Guarded<S>>>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> Shared<S> {
    fn flood(&self) -> Option<Flood> {
        self.0.borrow().flood()
    }

    fn said(&self) -> Option<Flood> {
        self.0.borrow().said()
    }

    /// Whether either of us saw one.
    fn flooded(&self) -> bool {
        self.flood().or(self.said()).is_some()
    }
}

impl<S: AsyncRead + Unpin> Shared<S> {
    /// Ready when the peer has closed too, or has sent more than `left`.
    fn poll_drain(&self, cx: &mut Context<'_>, scratch: &mut [u8], left: &mut usize) -> Poll<()> {
        let mut guarded = self.0.borrow_mut();
        loop {
            let mut buf = ReadBuf::new(scratch);
            let read = ready!(Pin::new(guarded.unguarded()).poll_read(cx, &mut buf));
            let length = buf.filled().len();
            if read.is_err() || length == 0 || length > *left {
                return Poll::Ready(());
            }
            *left -= length;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Shared<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shared<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
