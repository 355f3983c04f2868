//! What the recipes need of a client, whichever version of HTTP it speaks. Everything is polled, so that one task can
//! move a request's body one way and the response's the other way, over one connection, without a lock.

use std::task::{Context, Poll};

use model::upgrade::Protocol;

use super::fields::Fields;
use super::receive::Got;
use super::response::Response;
use super::write::Added;
use crate::worker::refusal::Reason;

/// One exchange's client.
pub(crate) trait Client {
    /// For the access log.
    const PROTOCOL: &'static str;

    /// Reads request body into `scratch`.
    fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Got, Reason>>;

    /// How much [`Client::data`] may be handed now; waits while an earlier piece is still here.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>>;

    /// Ready when the client has given up the exchange. Only asked where nothing else would notice.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Sends a 1xx response.
    fn informational(&mut self, response: &Response) -> Result<(), Reason>;

    /// Sends the final response's head. `close`: this is the connection's last exchange. Answers whether it is, also
    /// because the body can only be ended so.
    fn head(&mut self, response: &Response, close: bool, added: &Added<'_>) -> Result<bool, Reason>;

    /// Whether bytes behind the request have been read already.
    fn premature(&self) -> bool;

    /// Tells of the origin's 101: from here on the two body directions are a tunnel. Answers the status that was sent.
    fn switch(&mut self, response: &Response, protocol: &Protocol, added: &Added<'_>) -> Result<u16, Reason>;

    /// Ends our direction of a tunnel, after everything before has left.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>>;

    /// Sends body bytes, no more than there is room for.
    fn data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<(), Reason>;

    /// Ends the body.
    fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Reason>;

    /// Pushes everything out.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>>;

    /// Breaks the exchange off after its head was sent. Where a client can be told why, it is.
    fn abort(&mut self, reason: Reason, request_id: &str);

    /// Whether the request's body has been read to its end.
    fn body_done(&self) -> bool;

    /// Body bytes read so far.
    fn received(&self) -> u64;
}
