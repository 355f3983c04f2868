//! What the worker says of itself: access log, metrics, figures for the console. Threads write to their own shard.

use std::net::SocketAddr;
use std::time::Duration;

use model::report::Leg;

use super::live::{ListenerLive, OriginLive, RouteLive};
use super::refusal::Reason;

/// One request and its answer, told once when it is over.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The listener that took it.
    pub listener: &'a ListenerLive,
    /// The route that decided, when one did.
    pub route: Option<&'a RouteLive>,
    /// The client.
    pub client: SocketAddr,
    /// The client leg.
    pub client_leg: &'a Leg,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// Sixteen hexadecimal digits, also sent as `X-Request-Id`.
    pub request_id: &'a str,
    /// Empty when the request could not be read.
    pub method: &'a str,
    /// Empty when the request could not be read.
    pub host: &'a str,
    /// The path in normal form, without the query; empty when the request could not be read.
    pub path: &'a str,
    /// The status sent; 0 when none was.
    pub status: u16,
    /// Why it was refused or broken off, when it was.
    pub refusal: Option<Reason>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// Head read to answer complete.
    pub total: Duration,
    /// Of `total`, time spent waiting for the origin.
    pub waited: Duration,
    /// The origin that answered or failed last.
    pub origin: Option<OriginPart<'a>>,
}

/// The origin's part in an exchange.
#[derive(Debug)]
pub struct OriginPart<'a> {
    /// Which.
    pub origin: &'a OriginLive,
    /// The address that was connected.
    pub address: Option<SocketAddr>,
    /// The origin leg.
    pub leg: Option<&'a Leg>,
    /// Whether the connection came from the pool.
    pub reused: bool,
    /// How many attempts were made, the answering one included.
    pub attempts: u32,
}

pub struct Observe;
impl Observe {
    pub fn new(_threads: usize) -> Self {
        Self
    }
    pub fn report(&self) -> model::report::Report {
        Default::default()
    }
}
