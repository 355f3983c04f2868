//! A connection in clear text that may turn out to speak HTTP/2 from its first byte on: h2c with prior knowledge (RFC 9113,
//! 3.3). Peers that the listener names get routes that way; all others are told to come with HTTP/1.1.

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Hop;
use super::context::ThreadCtx;
use super::{http1, http2};
use crate::worker::refusal::Reason;

/// Serves the connection until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(ctx: &ThreadCtx, hop: &Hop, stream: S) {
    let Some((stream, begun)) = http1::serve_or_hand_over(ctx, hop, stream).await else { return };
    if hop.speaks_h2c() {
        return Box::pin(http2::serve(ctx, hop, stream, begun)).await;
    }
    ctx.tell.refused(Reason::H2cRefused, &hop.listener().name);
    Box::pin(http2::turn_away(ctx, hop, stream)).await;
}
