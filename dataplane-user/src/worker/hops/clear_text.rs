//! Requests in clear text: judged, and answered by the node itself or, where they are ACME's or come by h2c, by an origin.

use bytes::Bytes;

use super::context::Stop;
use super::exchange::Scene;
use crate::worker::http::authority::Authority;
use crate::worker::http::request::Request;
use crate::worker::http::respond;
use crate::worker::http::response::Response;
use crate::worker::live::ClearTextLive;
use crate::worker::policy::Permit;
use crate::worker::policy::clear_text::{Given, judge};
use crate::worker::refusal::Reason;

/// The way to an origin, or the node's own answer.
pub(super) enum Judged {
    Permit(Permit),
    /// By the listener's routes, as behind TLS.
    Routes,
    Answer(Response, Bytes),
}

/// Judges a request, and answers it where no origin is to.
pub(super) fn judged(
    scene: &Scene<'_, '_>,
    clear: &ClearTextLive,
    request: &Request,
) -> Result<Judged, Reason> {
    let client = scene.hop.peer.client.ip();
    let (response, body) = match judge(clear, client, request)? {
        Given::Routes => return Ok(Judged::Routes),
        Given::Challenge(permit) => return Ok(Judged::Permit(permit)),
        Given::Health => respond::health(match scene.ctx.stop() {
            // Another worker of this node accepts.
            Stop::Run | Stop::Retire { .. } => true,
            Stop::Drained | Stop::Drain { .. } | Stop::Now => false,
        }),
        Given::Redirect { port } => respond::redirect(PERMANENT, &location(request, port)),
    };
    Ok(Judged::Answer(response, body))
}

/// 308: for good, and with the method that was used (RFC 9110, 15.4.9).
const PERMANENT: u16 = 308;

/// The same host and target over HTTPS. The target stays as it was sent, so that it means to whoever serves it there what
/// it would have meant had it come there at once.
fn location(request: &Request, port: u16) -> String {
    let port = Some(port).filter(|port| *port != 443);
    let authority = Authority { host: request.authority.host.clone(), port };
    let sent = std::str::from_utf8(request.sent_bytes()).unwrap_or_default();
    let root = match sent.as_bytes().first() {
        // Without a path it asks for the whole server (RFC 9112, 3.2.4).
        None if request.asterisk => "",
        None | Some(b'?') => "/",
        Some(_) => "",
    };
    format!("https://{authority}{root}{sent}")
}
