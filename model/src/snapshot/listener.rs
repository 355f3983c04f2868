//! Where a node accepts connections, and within which bounds.

use serde::{Deserialize, Serialize};

use crate::clear_text::ClearText;
use crate::error_page::ErrorPage;
use crate::listen::{Addresses, Place, Port};
use crate::name::Name;
use crate::net::Prefix;

/// A place to accept connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Its name.
    pub name: Name,
    /// Sorted; empty: every local address, IPv4 and IPv6. A single address travels as one; prefixes are refused by nodes of
    /// releases that do not know them.
    pub addresses: Vec<Addresses>,
    /// Any only with addresses, and refused by nodes of releases that do not know it.
    pub port: Port,
    /// Take the port from another process; never where it is any.
    pub take_over: bool,
    /// What is answered in clear text; absent where the listener speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_text: Option<ClearText>,
    /// Lowest TLS version.
    pub min_version: TlsVersion,
    /// Served when SNI is absent or matches nothing.
    pub default_certificate: Option<Name>,
    /// Every certificate served here, sorted: the listener's own and its routes'.
    pub certificates: Vec<Name>,
    /// Clients whose forwarding headers are believed.
    pub trusted_prefixes: Vec<Prefix>,
    /// TCP peers whose connections begin with a PROXY header, sorted; empty: nobody's do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol: Vec<Prefix>,
    /// Bounds on what a client controls.
    pub limits: Limits,
    /// What refused clients see instead of our pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_pages: Vec<ErrorPage>,
}

impl Listener {
    /// Where it accepts.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        Place::all(&self.addresses, self.port)
    }

    /// Whether it goes on accepting while its node is drained: whoever asks it for the node's health gets an answer.
    pub fn outlives_drain(&self) -> bool {
        self.clear_text.as_ref().is_some_and(|clear| clear.health_path.is_some())
    }
}

/// A TLS version that can be a listener's lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// Bounds on what a client controls. Each has a counter (`sallyport_refusals_total{reason=...}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Open client connections on this listener, per node.
    pub connections: u32,
    /// Open client connections from one IPv4 address or IPv6 /64, per node.
    pub connections_per_address: u32,
    /// A request head: request line and fields, bytes.
    pub header_bytes: u32,
    /// Fields in a request head.
    pub header_count: u32,
    /// The request target, bytes.
    pub target_bytes: u32,
    /// A request body, bytes; 0 means no bound.
    pub body_bytes: u64,
    /// From accept to the end of the TLS handshake, milliseconds.
    pub handshake_ms: u32,
    /// What a client may send until the end of the TLS handshake, bytes.
    #[serde(default = "handshake_bytes", skip_serializing_if = "is_handshake_bytes")]
    pub handshake_bytes: u32,
    /// From a request head's first byte to its last, milliseconds.
    pub header_ms: u32,
    /// A connection without a request, milliseconds.
    pub idle_ms: u32,
    /// How long either side may keep a body waiting, milliseconds. A client wins it back with what it sends or takes, at
    /// `body_bytes_per_second`.
    pub stall_ms: u32,
    /// What a client must send of a request's body, and take of a response's, on average while only it is waited for,
    /// bytes a second; 0: any byte will do.
    #[serde(default = "body_bytes_per_second", skip_serializing_if = "is_body_bytes_per_second")]
    pub body_bytes_per_second: u32,
    /// Requests on one connection before it is closed in an orderly way; 0 means no bound.
    pub requests_per_connection: u32,
    /// Concurrent HTTP/2 streams on one connection.
    pub streams: u32,
    /// How long connections of a removed listener or a stopping node may finish, milliseconds.
    pub drain_ms: u32,
    /// A connection that changed to another protocol and moves nothing either way, milliseconds.
    #[serde(default = "tunnel_idle_ms", skip_serializing_if = "is_tunnel_idle_ms")]
    pub tunnel_idle_ms: u32,
}

/// Ten times what browsers send with post-quantum keys and a ticket.
fn handshake_bytes() -> u32 {
    32 * 1024
}

fn is_handshake_bytes(value: &u32) -> bool {
    *value == handshake_bytes()
}

/// Less than any modem, more than a client that only wants to keep the connection.
fn body_bytes_per_second() -> u32 {
    240
}

fn is_body_bytes_per_second(value: &u32) -> bool {
    *value == body_bytes_per_second()
}

/// Five minutes, so that a client that vanished does not stay; whoever is silent for longer sends pings.
fn tunnel_idle_ms() -> u32 {
    300_000
}

fn is_tunnel_idle_ms(value: &u32) -> bool {
    *value == tunnel_idle_ms()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 10_000,
            header_bytes: 32 * 1024,
            header_count: 100,
            target_bytes: 8 * 1024,
            body_bytes: 0,
            handshake_ms: 10_000,
            handshake_bytes: handshake_bytes(),
            header_ms: 15_000,
            idle_ms: 75_000,
            stall_ms: 60_000,
            body_bytes_per_second: body_bytes_per_second(),
            requests_per_connection: 0,
            streams: 128,
            drain_ms: 30_000,
            tunnel_idle_ms: tunnel_idle_ms(),
        }
    }
}
