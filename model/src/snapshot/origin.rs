//! Where a node sends requests.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{HostName, Name};
use crate::net::OriginAddress;

use super::is_default;

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
