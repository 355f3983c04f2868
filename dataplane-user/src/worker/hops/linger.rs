//! Behind an answer over HTTP/2 that came before its request's end. The reset that ends such a stream (RFC 9113, 8.1) makes
//! some clients that are still sending forget the answer: so they get a little time to end it themselves.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::Instant;

use super::context::ThreadCtx;
use super::http1::{LINGER, LINGER_BYTES};
use super::timer::Timer;
use crate::worker::http::client::Client;
use crate::worker::http::h2::H2;
use crate::worker::overload::Refusing;

/// Reads on and throws away. A client in no hurry, or without end, is reset after all; and so is everybody while requests are
/// refused, because then places are short.
pub(super) async fn linger(ctx: &ThreadCtx, client: &mut H2, timer: &mut Timer<'_>, nudge: &Nudge) {
    if client.body_done() || ctx.overload.refusing() >= Refusing::Requests {
        return;
    }
    let (deadline, mut bound, mut waited) = (Instant::now() + LINGER, LINGER_BYTES, false);
    poll_fn(|cx| match client.poll_linger(cx, &mut bound) {
        Poll::Pending if timer.poll_expired(cx, deadline) => Poll::Ready(()),
        Poll::Pending => {
            waited = true;
            Poll::Pending
        }
        Poll::Ready(()) => Poll::Ready(()),
    })
    .await;
    if waited && client.body_done() {
        nudge.0.set(true);
    }
}

/// Says that a client ended a stream after we had. curl 7.88 does not see by itself that this was the last of it: with an answer
/// of no known length, or none, it waits for whatever comes next on the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Nudge(Rc<Cell<bool>>);

/// What comes next: a PING, one at a time for all streams of a connection.
pub(super) struct Nudges {
    wanted: Nudge,
    pings: Option<PingPong>,
}

impl Nudges {
    pub(super) fn new(wanted: Nudge, pings: Option<PingPong>) -> Self {
        Self { wanted, pings }
    }

    /// Sends one where it is wanted, as soon as the one before has been answered.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let Some(pings) = &mut self.pings else { return };
        let _answered = pings.poll_pong(cx);
        if self.wanted.0.get() && pings.send_ping(Ping::opaque()).is_ok() {
            self.wanted.0.set(false);
        }
    }
}
