//! What nodes obey: immutable, numbered, signed.
//!
//! A snapshot is canonical JSON: fields in the order below, maps sorted, no white space, unknown fields refused (an
//! ignored deny is an open door). The signature covers [`SIGNATURE_CONTEXT`] and then the body's exact bytes, so node,
//! epoch, revision and format are covered with everything else.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clear_text::ClearText;
use crate::digest::Digest;
use crate::error_page::ErrorPage;
use crate::listen::{Addresses, Place, Port};
use crate::name::{HostName, HostPattern, Name};
use crate::net::{OriginAddress, Prefix};
use crate::route::Conditions;
use crate::transform::Transform;
use crate::upgrade::{self, Protocol};

pub use crate::filter::{
    FilterAction, FilterBudget, FilterBudgets, FilterMode, FilterRule, PortBudget, PortRange, ProtocolList,
};

/// The `format` this release writes; it reads this one and the one before (there is none before 1).
pub const FORMAT: u32 = 1;

/// Prepended to the body before signing (Ed25519), so that the key's signatures mean nothing elsewhere.
pub const SIGNATURE_CONTEXT: &[u8] = b"sallyport snapshot v1\0";

/// A snapshot's place in the order: a higher epoch wins, then a higher revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotId {
    /// Raised when the console's database was restored from a backup.
    pub epoch: u64,
    /// The revision that was compiled.
    pub revision: u64,
}

/// Everything one node needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// See [`FORMAT`].
    pub format: u32,
    /// The node it is for.
    pub node: Name,
    /// Epoch and revision.
    pub id: SnapshotId,
    /// Sorted by name.
    pub listeners: Vec<Listener>,
    /// Sorted by name. Only those that a listener or route here uses.
    pub certificates: Vec<Certificate>,
    /// Sorted by name. Only enabled ones whose listeners are here.
    pub routes: Vec<Route>,
    /// Sorted by name. Only those that a route here uses.
    pub origin_groups: Vec<OriginGroup>,
    /// Sorted by name. Only those that an origin group here uses.
    pub trust_bundles: Vec<TrustBundle>,
    /// Sorted by filter name, rule name.
    pub filter: Vec<FilterRule>,
    /// The filters' lists of IP protocols, sorted by filter name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_protocols: Vec<ProtocolList>,
    /// The filters' budgets, joined.
    #[serde(default, skip_serializing_if = "FilterBudgets::is_empty")]
    pub filter_budgets: FilterBudgets,
}

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

/// A certificate to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// Its name.
    pub name: Name,
    /// The chain, leaf first, PEM.
    pub chain: String,
    /// The private key: SHA-256 of the public half's SubjectPublicKeyInfo (DER).
    pub key: Digest,
    /// The leaf's DNS names, sorted.
    pub hostnames: Vec<HostPattern>,
}

/// Which requests go where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Its name.
    pub name: Name,
    /// Listeners that carry it, sorted; never empty.
    pub listeners: Vec<Name>,
    /// Hosts.
    pub hostnames: Vec<HostPattern>,
    /// Connections for the hosts, by SNI, go to an origin as they are. Such a route has no paths and nothing else of HTTP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub passthrough: bool,
    /// Paths, whatever else is asked; never empty unless `matches` is not, or it is a passthrough.
    pub paths: Vec<PathMatch>,
    /// Paths for requests that fulfil conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
    /// The certificate its hosts are served with, where the route names one.
    pub certificate: Option<Name>,
    /// Where requests go; absent exactly where the transform has an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_group: Option<Name>,
    /// Let `%2F` through.
    pub allow_encoded_slash: bool,
    /// Until the origin's response head, milliseconds.
    pub response_timeout_ms: u32,
    /// What happens to requests and responses on the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub transform: Transform,
    /// Protocols a connection may change to, sorted.
    #[serde(default = "upgrade::usual", skip_serializing_if = "upgrade::is_usual")]
    pub upgrades: Vec<Protocol>,
}

/// A path for requests that fulfil conditions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The conditions, never empty.
    pub conditions: Conditions,
}

/// A path match; the path is normalised as [`crate::route`] says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments from the left; without a trailing slash unless it is `/`.
    Prefix(String),
}

/// Origins that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginGroup {
    /// Its name.
    pub name: Name,
    /// Never empty.
    pub origins: Vec<Origin>,
    /// Connect and handshake, milliseconds.
    pub connect_timeout_ms: u32,
    /// Which versions of HTTP its origins are spoken to with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocols: Protocols,
    /// How, where it is HTTP/2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http2: Http2,
    /// How one of them is chosen, and left alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub choice: Choice,
    /// The certificate of this snapshot that is shown to origins that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Name>,
    /// Sent as SNI instead of the expected name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<HostName>,
    /// Connections to its origins begin with a PROXY header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyVersion>,
}

/// A version of the PROXY protocol (HAProxy's `proxy-protocol.txt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How an origin is chosen for a request, and when it is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Choice {
    /// How much slower than the fastest an origin may be to be chosen, milliseconds, by the latency of probes; nothing
    /// where latency does not matter.
    pub latency_sensitivity_ms: Option<u32>,
    /// How long an origin's part of the requests grows after it has become well, milliseconds; 0: it has all at once.
    pub slow_start_ms: u32,
    /// Requests of the node's own that find out which origins are healthy.
    pub probe: Option<Probe>,
    /// Leaving alone what fails.
    pub ejection: Ejection,
    /// Exchanges with one origin at once, per node; 0 means no bound.
    pub connections: u32,
    /// Requests that may wait for one of them, per origin and node.
    pub pending: u32,
    /// Of requests, how many may be tried at a second origin, per cent.
    pub retry_percent: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            latency_sensitivity_ms: None,
            slow_start_ms: 0,
            probe: None,
            ejection: Ejection::default(),
            connections: 0,
            pending: 100,
            retry_percent: 20,
        }
    }
}

/// Active probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// How the origin is asked.
    pub method: ProbeMethod,
    /// The path that is asked for, in normal form.
    pub path: String,
    /// From the start of one probe to the start of the next, milliseconds.
    pub interval_ms: u32,
    /// Connect to last byte, milliseconds.
    pub timeout_ms: u32,
    /// How many of the last results count.
    pub samples: u32,
    /// How many of these must be good.
    pub healthy: u32,
    /// The good statuses, sorted.
    pub statuses: Vec<u16>,
}

/// A probe's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeMethod {
    /// No body travels.
    #[serde(rename = "HEAD")]
    Head,
    /// The body is read to its end.
    #[serde(rename = "GET")]
    Get,
}

/// Leaving an origin alone for a time after failures in a row: connections, time-outs, broken responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row; 0 means never.
    pub failures: u32,
    /// The first time, milliseconds; each further one is longer by as much.
    pub base_ms: u32,
    /// The longest, milliseconds.
    pub max_ms: u32,
    /// Of a group's enabled origins, how many may be left alone at once, per cent.
    pub percent: u32,
    /// Whether the statuses 502, 503 and 504 are failures too.
    pub gateway_errors: bool,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, base_ms: 10_000, max_ms: 300_000, percent: 50, gateway_errors: false }
    }
}

/// Which versions of HTTP an origin group's origins are spoken to with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocols {
    /// HTTP/1.1; for gRPC, which does not exist over it, HTTP/2: by ALPN, or with prior knowledge in clear text.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in clear text with prior knowledge.
    Http2,
    /// What the origin chooses by ALPN, HTTP/2 preferred; in clear text HTTP/1.1.
    Either,
}

/// HTTP/2 to origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http2 {
    /// Streams on one connection at once, at most; the origin's own setting may be lower.
    pub streams: u32,
    /// With streams open and nothing heard for this long, a ping is sent, milliseconds; 0 means none.
    pub ping_ms: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        // gRPC servers end connections that are pinged more than once in five minutes.
        Self { streams: 100, ping_ms: 310_000 }
    }
}

/// One origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    /// Where.
    pub address: OriginAddress,
    /// How it is secured.
    pub security: OriginSecurity,
    /// Its part of the requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub share: Share,
}

/// An origin's part of its group's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Takes no request.
    pub disabled: bool,
    /// 1 to 5; those with the lowest that are well get the requests.
    pub priority: u8,
    /// 1 to 1000: its part among its like.
    pub weight: u16,
}

impl Default for Share {
    fn default() -> Self {
        Self { disabled: false, priority: 1, weight: 50 }
    }
}

/// How an origin is secured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum OriginSecurity {
    /// TLS, verified.
    Verified {
        /// Whom to believe.
        trust: Trust,
        /// Whom to expect; also sent as SNI when it is a name.
        expected: ExpectedName,
    },
    /// TLS without verification: an operator's visible choice.
    Unverified {
        /// Sent as SNI when it is a name.
        sni: ExpectedName,
    },
    /// No TLS: an operator's visible choice.
    ClearText,
}

/// The name or address an origin's certificate must be for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ExpectedName {
    /// A DNS name.
    Dns(HostName),
    /// An IP address in the certificate's subject alternative names.
    Ip(IpAddr),
}

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Trust {
    /// The node's own roots.
    System,
    /// A trust bundle of this snapshot (the console's own CA travels as the bundle `internal`).
    Bundle(Name),
}

/// Certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustBundle {
    /// Its name.
    pub name: Name,
    /// CA certificates, PEM.
    pub certificates: String,
}

/// A snapshot as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedSnapshot {
    /// The [`Snapshot`]'s canonical JSON, exactly as signed.
    pub body: String,
    /// Ed25519 over [`SIGNATURE_CONTEXT`] and `body`, base64 (standard, padded).
    pub signature: String,
}

impl SignedSnapshot {
    /// The bytes that are signed for `body`.
    pub fn signed_bytes(body: &str) -> Vec<u8> {
        [SIGNATURE_CONTEXT, body.as_bytes()].concat()
    }
}

/// Why verified bytes are no snapshot of ours.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    /// A format that this release does not read.
    #[error(
        "the snapshot has format {0}, this node reads {FORMAT}: upgrade the node, or publish from an older console"
    )]
    Format(u64),
    /// Not the JSON of a snapshot, or with a field this release does not know.
    #[error("the snapshot cannot be read")]
    Json(#[from] serde_json::Error),
}

impl Snapshot {
    /// Canonical JSON.
    ///
    /// # Errors
    /// None in practice: every field serialises.
    pub fn to_canonical_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a body whose signature was verified. The format is looked at first, so that a newer one is named as such.
    ///
    /// # Errors
    /// See [`InvalidSnapshot`].
    pub fn from_verified_json(body: &str) -> Result<Self, InvalidSnapshot> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        let head: Head = serde_json::from_str(body)?;
        if head.format != u64::from(FORMAT) {
            return Err(InvalidSnapshot::Format(head.format));
        }
        Ok(serde_json::from_str(body)?)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
