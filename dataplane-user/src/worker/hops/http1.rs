//! An HTTP/1.1 connection: read a request, exchange, and again.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant};

use super::connection::Hop;
use super::context::ThreadCtx;
use super::exchange::{After, exchange};
use super::timer::Timer;
use crate::worker::http::h1::H1;
use crate::worker::http::receive::poll_linger;
use crate::worker::http::request::{self, HeadBounds, Raw, Request};
use crate::worker::http::rewound::Rewound;
use crate::worker::refusal::Reason;

/// After our last answer, how long and how much we read on so that the client gets to see it. Of HTTP/2 that holds for a
/// stream: it is what the client may have on its way there when it is answered.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_BYTES: usize = 1024 * 1024;

/// How long a client that has just connected may take to its first request when the connection is to close: it could not
/// have known.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves the connection until it ends.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(ctx: &ThreadCtx, hop: &Hop, stream: S) {
    // Behind TLS it is ALPN that says HTTP/2.
    let _ended = serve_or_hand_over(ctx, hop, stream).await;
}

/// Serves the connection until it ends; or hands it over as it came, with the time of its first byte, where its first head
/// is HTTP/2's and the listener has a use for that.
pub(super) async fn serve_or_hand_over<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &ThreadCtx,
    hop: &Hop,
    stream: S,
) -> Option<(Rewound<S>, Instant)> {
    let mut client = H1::new(stream);
    let mut timer = ctx.timers.get();
    let mut served = 0_u32;
    loop {
        let mut reading = Reading { idle_since: Instant::now(), begun: None, first: served == 0 };
        let read = read(ctx, hop, &mut client, &mut timer, &mut reading).await;
        if matches!(read, Ok(None)) && client.speaks_http2() {
            return Some((client.wire.rewind(), reading.begun.unwrap_or_else(Instant::now)));
        }
        let Some(request) = read.transpose() else { break };
        if request.as_ref().is_err_and(|reason| reason.status() == 0) {
            ctx.tell.refused(request.err().unwrap_or(Reason::ClientGone), &hop.listener().name);
            return None;
        }
        served += 1;
        let bound = hop.listener().limits.requests_per_connection;
        let last = bound != 0 && served >= bound;
        match exchange(ctx, hop, request, &mut client, &mut timer, last).await {
            After::Next => client.wire.rest(),
            After::Close => break,
            After::Abort => return None,
        }
    }
    close(ctx, hop, &mut client, &mut timer).await;
    None
}

/// The next request, the reason it is refused, or nothing when there is to be none.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &ThreadCtx,
    hop: &Hop,
    client: &mut H1<S>,
    timer: &mut Timer<'_>,
    reading: &mut Reading,
) -> Result<Option<Request>, Reason> {
    let raw = poll_fn(|cx| reading.poll(cx, ctx, hop, client, timer)).await;
    hop.busy();
    let raw = raw?;
    let Some(raw) = raw else { return Ok(None) };
    let request = request::check(raw)?;
    client.begin(&request, hop.listener().limits.body_bytes);
    Ok(Some(request))
}

struct Reading {
    idle_since: Instant,
    begun: Option<Instant>,
    first: bool,
}

impl Reading {
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        ctx: &ThreadCtx,
        hop: &Hop,
        client: &mut H1<S>,
        timer: &mut Timer<'_>,
    ) -> Poll<Result<Option<Raw>, Reason>> {
        let listener = hop.listener();
        let limits = &listener.limits;
        let bounds = HeadBounds {
            bytes: limits.header_bytes as usize,
            fields: limits.header_count as usize,
            target: limits.target_bytes as usize,
        };
        client.watch(self.first && listener.door.tells_http2());
        if let Poll::Ready(read) = client.poll_head(cx, &mut ctx.scratch.borrow_mut(), &bounds) {
            return Poll::Ready(read);
        }
        if client.wire.input.is_empty() {
            let patience = match (hop.closing().filter(|_| !hop.patient()), self.first) {
                (None, _) => Duration::from_millis(u64::from(limits.idle_ms)),
                (Some(_), true) => FIRST_REQUEST,
                (Some(_), false) => return Poll::Ready(Ok(None)),
            };
            if hop.waits(self.idle_since, cx, ctx) || timer.poll_expired(cx, self.idle_since + patience) {
                return Poll::Ready(Ok(None));
            }
        } else {
            hop.busy();
            let begun = *self.begun.get_or_insert_with(Instant::now);
            if timer.poll_expired(cx, begun + Duration::from_millis(u64::from(limits.header_ms))) {
                return Poll::Ready(Err(Reason::HeaderTimeout));
            }
        }
        Poll::Pending
    }
}

/// Ends our direction, then reads on for a little while.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &ThreadCtx,
    hop: &Hop,
    client: &mut H1<S>,
    timer: &mut Timer<'_>,
) {
    let deadline = Instant::now() + if hop.evicted() { Duration::ZERO } else { LINGER };
    let (mut bound, mut shut) = (LINGER_BYTES, false);
    poll_fn(|cx| {
        if !shut {
            match client.wire.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let done =
            shut && poll_linger(&mut client.wire, cx, &mut ctx.scratch.borrow_mut(), &mut bound).is_ready();
        if done || timer.poll_expired(cx, deadline) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
