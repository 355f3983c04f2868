//! What a request must pass before an origin may be chosen for it. The proof is a [`Permit`]: there is no other way to
//! make one, and no way to an origin without one.
//!
//! In: a request and the listener in force. Out: a permit, or the reason there is none. Policies on routes will be
//! files beside this one.

pub mod clear_text;

use std::sync::Arc;

use model::name::HostName;

use super::http::request::Request;
use super::live::{GroupLive, ListenerLive, RouteLive, Target};
use super::refusal::Reason;

/// Proof that a request may go to its route's origins.
#[derive(Debug, Clone)]
pub struct Permit {
    route: Arc<RouteLive>,
}

impl Permit {
    /// The route that decided.
    pub fn route(&self) -> &Arc<RouteLive> {
        &self.route
    }

    /// The origins it may go to.
    ///
    /// # Errors
    /// The route has none: it answers by itself, and nobody should have asked for an origin.
    pub fn group(&self) -> Result<&Arc<GroupLive>, Reason> {
        match &self.route.target {
            Target::Origins(group) => Ok(group),
            Target::Redirect(_) | Target::Fixed { .. } => Err(Reason::OriginUnreachable),
        }
    }
}

/// Judges a request.
///
/// # Errors
/// The reason it is refused.
pub fn permit(listener: &ListenerLive, sni: Option<&HostName>, request: &Request) -> Result<Permit, Reason> {
    let host = request.authority.name();
    // Where SNI and Host are the same name they cannot lead to different certificates.
    if host != sni || host.is_none() {
        let certificates = &listener.certificates;
        if certificates.choose(host) != certificates.choose(sni) {
            return Err(Reason::Misdirected);
        }
    }
    // What is passed through has an end of TLS elsewhere, which is not for this connection to get around.
    if host.is_some_and(|host| listener.passed(host).is_some()) {
        return Err(Reason::Misdirected);
    }
    let route =
        host.and_then(|host| listener.routes.find(host, &request.path, request)).ok_or(Reason::NoRoute)?;
    if request.path.has_encoded_slash() && !route.allow_encoded_slash {
        return Err(Reason::BadPath);
    }
    Ok(Permit { route: Arc::clone(route) })
}
