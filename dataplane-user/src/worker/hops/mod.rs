//! The recipes: short functions that name a hop's stages in order.
//!
//! `accept -> secure -> read -> permit -> choose -> forward`; each stage consumes what the one before made, and every
//! way out that is not an answer of the origin is `respond(refusal)`. Accept and secure have happened when a
//! connection arrives here.

mod clear_text;
pub(crate) mod connection;
pub mod context;
pub(crate) mod exchange;
pub(crate) mod flow;
mod h2c;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod idle;
mod linger;
mod pace;
pub mod passthrough;
pub(crate) mod record;
pub(crate) mod timer;
pub(crate) mod tunnel;

#[cfg(test)]
mod tests;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub use connection::{Secured, Unsecured};
pub use context::{Stop, Tell, ThreadCtx};

use connection::Hop;

use crate::worker::refusal::Reason;

/// Serves a secured connection until it ends. Everything that happens is told to `ctx.tell`.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(secured: Secured<S>, ctx: &Rc<ThreadCtx>) {
    let (hop, stream, alpn_h2) = Hop::new(secured, ctx);
    let served = async {
        match alpn_h2 {
            true => Box::pin(http2::serve(ctx, &hop, stream, Instant::now())).await,
            false => http1::serve(ctx, &hop, stream).await,
        }
    };
    attend(ctx, &hop, pin!(served)).await;
    ctx.pool.borrow_mut().left(hop.peer.client);
}

/// Serves a connection in clear text until it ends.
pub async fn serve_clear_text<S>(unsecured: Unsecured<S>, ctx: &Rc<ThreadCtx>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (hop, stream) = Hop::unsecured(unsecured, ctx);
    attend(ctx, &hop, pin!(h2c::serve(ctx, &hop, stream))).await;
    ctx.pool.borrow_mut().left(hop.peer.client);
}

/// Lets a connection's work go on until it ends, or until the connection must: then there is nothing, and
/// [`Hop::cut`] says why.
async fn attend<T>(
    ctx: &ThreadCtx,
    hop: &Hop,
    // By reference: a future that is handed on would be held twice.
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let (mut seat, mut timer) = (ctx.seat(), ctx.timers.get());
    std::future::poll_fn(|cx| {
        if seat.poll_rung(cx) && !hop.refresh(ctx) {
            return Poll::Ready(None);
        }
        if hop.closing().is_some_and(|deadline| timer.poll_expired(cx, deadline)) {
            hop.cut.set(Some(Reason::DrainExpired));
            return Poll::Ready(None);
        }
        work.as_mut().poll(cx).map(Some)
    })
    .await
}
