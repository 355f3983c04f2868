//! One exchange's record: told exactly once, when it is dropped, however the exchange ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use model::report::Leg;
use tokio::time::{Duration, Instant};

use super::connection::Hop;
use super::context::{RequestId, ThreadCtx};
use crate::worker::http::request::Request;
use crate::worker::live::{ListenerLive, OriginLive, RouteLive};
use crate::worker::observe::{Exchange, OriginPart};
use crate::worker::refusal::Reason;

/// What will be told of an exchange.
pub(crate) struct Record<'a> {
    ctx: &'a ThreadCtx,
    hop: &'a Hop,
    listener: Arc<ListenerLive>,
    request: Option<&'a Request>,
    protocol: &'static str,
    pub(crate) started: Instant,
    /// Set when the route is known.
    pub(crate) route: Option<Arc<RouteLive>>,
    pub(crate) id: RequestId,
    pub(crate) status: u16,
    pub(crate) refusal: Option<Reason>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) waited: Duration,
    pub(crate) origin: Option<Arc<OriginLive>>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) leg: Option<Rc<Leg>>,
    pub(crate) reused: bool,
    pub(crate) attempts: u32,
}

impl<'a> Record<'a> {
    /// A record of an exchange that begins now.
    pub(crate) fn new(
        ctx: &'a ThreadCtx,
        hop: &'a Hop,
        listener: Arc<ListenerLive>,
        request: Option<&'a Request>,
        protocol: &'static str,
    ) -> Self {
        Self {
            ctx,
            hop,
            listener,
            request,
            protocol,
            started: Instant::now(),
            route: None,
            id: ctx.request_id(),
            status: 0,
            // What stands if the exchange is dropped half way: its connection ended under it.
            refusal: Some(Reason::ClientGone),
            received: 0,
            sent: 0,
            waited: Duration::ZERO,
            origin: None,
            address: None,
            leg: None,
            reused: false,
            attempts: 0,
        }
    }
}

impl<'a> Drop for Record<'a> {
    fn drop(&mut self) {
        let text = |bytes: Option<&'a [u8]>| -> &'a str {
            std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
        };
        let host = self.request.map(|request| &request.authority.host);
        let address;
        let host = match host {
            Some(model::net::Host::Name(name)) => name.as_str(),
            Some(model::net::Host::Address(ip)) => {
                address = ip.to_string();
                address.as_str()
            }
            None => "",
        };
        let refusal = match self.refusal {
            Some(Reason::ClientGone) => Some(self.hop.cut.get().unwrap_or(Reason::ClientGone)),
            other => other,
        };
        self.ctx.tell.exchange(&Exchange {
            listener: &self.listener,
            route: self.route.as_deref(),
            peer: self.hop.peer,
            client_leg: &self.hop.leg,
            protocol: self.protocol,
            request_id: self.id.as_str(),
            method: text(self.request.map(Request::method_bytes)),
            host,
            path: self.request.map_or("", |request| request.path.as_str()),
            status: self.status,
            refusal,
            received: self.received,
            sent: self.sent,
            total: self.started.elapsed(),
            waited: self.waited,
            origin: self.origin.as_ref().map(|origin| OriginPart {
                origin,
                address: self.address,
                leg: self.leg.as_deref(),
                reused: self.reused,
                attempts: self.attempts,
            }),
        });
    }
}
