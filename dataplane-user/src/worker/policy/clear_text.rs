//! What a request may have that came in clear text: nothing that needs a secret, and so no route; but for peers that the
//! operator trusts with those, who come with HTTP/2.

use std::net::IpAddr;
use std::sync::Arc;

use model::clear_text::{OpenAnswer, challenge};

use super::Permit;
use crate::worker::http::request::{Method, Request, Version};
use crate::worker::live::ClearTextLive;
use crate::worker::refusal::Reason;

/// What a request gets.
#[derive(Debug)]
pub enum Given {
    /// To be told whether the node serves.
    Health,
    /// To ask again over HTTPS, at this port.
    Redirect {
        /// Its port.
        port: u16,
    },
    /// An origin's answer to an ACME challenge.
    Challenge(Permit),
    /// What the listener's routes say.
    Routes,
}

/// Judges a client's request.
///
/// # Errors
/// The reason it is refused.
pub fn judge(clear: &ClearTextLive, client: IpAddr, request: &Request) -> Result<Given, Reason> {
    let reads = matches!(request.method, Method::Get | Method::Head);
    if reads && clear.health.as_ref() == Some(&request.path) {
        return Ok(Given::Health);
    }
    if let Some(route) = &clear.challenges
        && let Some(token) = challenge(&request.path)
    {
        return match token {
            Ok(_) if reads => Ok(Given::Challenge(Permit { route: Arc::clone(route) })),
            Ok(_) | Err(_) => Err(Reason::ChallengeRefused),
        };
    }
    if request.version == Version::Http2 {
        // The connection was let in by the snapshot of its first byte; this may be another.
        return if clear.trusts(client) { Ok(Given::Routes) } else { Err(Reason::H2cRefused) };
    }
    match clear.answer {
        OpenAnswer::Redirect { port } => Ok(Given::Redirect { port }),
        OpenAnswer::Refuse => Err(Reason::ClearTextRefused),
    }
}
