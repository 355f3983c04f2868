//! Origin groups as they are written.

use serde::{Deserialize, Serialize};

use super::{is_default, is_yes, yes};

/// `kind: OriginGroup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginGroupSpec {
    /// The origins, tried in turn; at least one.
    pub origins: Vec<OriginSpec>,
    /// How their certificates are verified.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: OriginTls,
    /// `allow` lets `http://` origins stand here: traffic to them travels in clear text, and the console keeps saying so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_text: Option<String>,
    /// How long connecting to one origin may take, TLS included, in milliseconds; default 5,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,
    /// `v1` or `v2`: each connection to an origin begins with a PROXY header that names the client; absent: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    /// `http/1.1`, `h2`, or both; default: `http/1.1`, and `h2` for gRPC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
    /// HTTP/2 to the origins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http2: OriginHttp2,
    /// How much slower than the fastest an origin may be to be chosen, in milliseconds; needs `probe`. 0: only the fastest
    /// are; absent: latency does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_sensitivity_ms: Option<u64>,
    /// See [`crate::snapshot::Choice::slow_start_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u64>,
    /// Active probes; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// Leaving alone what fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ejection: EjectionSpec,
    /// Bounds per origin.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: OriginLimits,
    /// See [`crate::snapshot::Choice::retry_percent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_percent: Option<u64>,
}

/// Active probes of an origin group; what is absent takes a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeSpec {
    /// `HEAD` (the default) or `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Default 30,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Default 5,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Default 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u64>,
    /// Default: only 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u64>,
}

/// See [`crate::snapshot::Ejection`]; what is absent takes its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EjectionSpec {
    /// See [`crate::snapshot::Ejection::failures`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// See [`crate::snapshot::Ejection::base_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ms: Option<u64>,
    /// See [`crate::snapshot::Ejection::max_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<u64>,
    /// See [`crate::snapshot::Ejection::percent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
    /// See [`crate::snapshot::Ejection::gateway_errors`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway_errors: bool,
}

/// Bounds per origin; what is absent takes the default of [`crate::snapshot::Choice`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginLimits {
    /// See [`crate::snapshot::Choice::connections`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// See [`crate::snapshot::Choice::pending`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
}

/// HTTP/2 to an origin group's origins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginHttp2 {
    /// See [`crate::snapshot::Http2::streams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u64>,
    /// See [`crate::snapshot::Http2::ping_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_ms: Option<u64>,
}

/// One origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginSpec {
    /// `https://host[:port]`, or `http://host[:port]` where the group says `clearText: allow`. No path, query or userinfo.
    pub url: String,
    /// 1 to 1000, default 50: its part of the requests among its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    /// 1 (the default) to 5: those with the lowest that are well get the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
    /// A disabled origin takes no request.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
}

impl OriginSpec {
    /// With the usual part of the requests.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), weight: None, priority: None, enabled: true }
    }
}

/// How an origin group's origins are verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginTls {
    /// A TrustBundle's name, or `system` (the node's own roots; the default), or `internal` (this console's CA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_bundle: Option<String>,
    /// The name the certificate must be for, also sent as SNI; default: the host of the origin's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_name: Option<String>,
    /// `none` turns verification off for this group: visible and audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// A Certificate that is shown to origins that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// A name to send as SNI instead of the expected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}
