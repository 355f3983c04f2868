//! Listeners as they are written.

use serde::{Deserialize, Serialize};

use super::{NodeSelector, PortSpec, is_default};

/// `kind: Listener`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSpec {
    /// Addresses to accept on, each a single one or a prefix; empty means every local address, IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// TCP port, 1 to 65535, or `any`: every port of its addresses that nothing else listens on.
    pub port: PortSpec,
    /// `HTTPS` (the default), or `HTTP`: clear text, see [`ListenerHttp`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// What a listener of protocol `HTTP` does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: ListenerHttp,
    /// Certificate served when SNI names none of the listener's hosts, or is absent; without it such a handshake is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_certificate: Option<String>,
    /// Certificates served here beside those that the listener's routes name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// TLS settings.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: ListenerTls,
    /// Client prefixes whose `X-Forwarded-*` and `Forwarded` are kept and added to; everyone else's are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_prefixes: Vec<String>,
    /// Load balancers before this listener that tell of their clients; absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolSpec>,
    /// Take the port even where another process holds it (`sk_lookup` comes first in the kernel).
    #[serde(default, skip_serializing_if = "is_default")]
    pub take_over: bool,
    /// Which nodes have this listener.
    #[serde(default, skip_serializing_if = "is_default")]
    pub node_selector: NodeSelector,
    /// Bounds on what a client controls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsSpec,
    /// What refused clients see instead of our pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_pages: Vec<ErrorPageSpec>,
}

/// Who sends the PROXY protocol, version 1 or 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocolSpec {
    /// TCP peers whose connections must begin with a PROXY header, which says who the client is; everyone else's never do.
    /// At least one.
    #[serde(default)]
    pub prefixes: Vec<String>,
}

impl ListenerSpec {
    /// The protocol without TLS.
    pub const HTTP: &str = "HTTP";

    /// Whether it speaks clear text.
    pub fn is_clear_text(&self) -> bool {
        self.protocol.as_deref() == Some(Self::HTTP)
    }

    /// Whether a route can be on it.
    pub fn carries_routes(&self) -> bool {
        !self.is_clear_text() || self.opens_routes()
    }

    /// Whether routes are reached on it in clear text.
    pub fn opens_routes(&self) -> bool {
        self.is_clear_text() && !self.http.h2c_prefixes.is_empty()
    }
}

/// What a listener of protocol `HTTP` does with requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerHttp {
    /// What every request gets that nothing below serves: `Redirect` (308 to HTTPS; the default) or `Refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The port that `Redirect` leads to; default 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_port: Option<u64>,
    /// A path that answers 200 while the node serves and 503 while it is drained, such as `/healthz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// An OriginGroup that answers ACME's http-01 challenges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme_origin_group: Option<String>,
    /// Clients that reach the listener's routes in clear text, with HTTP/2 by prior knowledge (h2c); nobody else does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub h2c_prefixes: Vec<String>,
    /// `allow` consents to routes being reached in clear text; `h2cPrefixes` are refused without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_text: Option<String>,
}

/// A page for refused clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorPageSpec {
    /// A status from 400 to 599, `4xx`, `5xx` or `all` (the default); the most exact one that fits is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// For which clients, by what they accept: `html` (the default), `json` or `plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The page, at most 16,384 bytes, with `{{status}}`, `{{title}}`, `{{reason}}` and `{{requestId}}`.
    pub body: String,
}

/// A listener's TLS settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// `"1.2"` (the default) or `"1.3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
}

/// Bounds on what a client controls; what is absent takes the default of [`crate::snapshot::Limits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// See [`crate::snapshot::Limits::connections`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// See [`crate::snapshot::Limits::connections_per_address`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_address: Option<u64>,
    /// See [`crate::snapshot::Limits::header_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<u64>,
    /// See [`crate::snapshot::Limits::header_count`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_count: Option<u64>,
    /// See [`crate::snapshot::Limits::target_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_bytes: Option<u64>,
    /// See [`crate::snapshot::Limits::body_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// See [`crate::snapshot::Limits::handshake_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_ms: Option<u64>,
    /// See [`crate::snapshot::Limits::handshake_bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_bytes: Option<u64>,
    /// See [`crate::snapshot::Limits::header_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_ms: Option<u64>,
    /// See [`crate::snapshot::Limits::idle_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// See [`crate::snapshot::Limits::stall_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<u64>,
    /// See [`crate::snapshot::Limits::body_bytes_per_second`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes_per_second: Option<u64>,
    /// See [`crate::snapshot::Limits::requests_per_connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<u64>,
    /// See [`crate::snapshot::Limits::streams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u64>,
    /// See [`crate::snapshot::Limits::drain_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
    /// See [`crate::snapshot::Limits::tunnel_idle_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_idle_ms: Option<u64>,
}
