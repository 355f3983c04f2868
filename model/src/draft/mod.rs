//! What people and Kubernetes wrote; it may be wrong.
//!
//! One object per document: `apiVersion: sallyport.dev/v1alpha1`, `kind`, `metadata`, `spec`. Values that need more than
//! their JSON type stay text here, so that [`crate::compile`] can report every problem at once, each beside its field.

mod document;
mod filters;
mod packet_filter;
mod port;
mod read;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use document::{UnknownKind, parse};
pub use filters::{
    DirectResponseSpec, FieldSpec, FiltersSpec, HeaderModifierSpec, PathModifierSpec, RedirectSpec,
    RewriteSpec,
};
pub use packet_filter::{
    BudgetSpec, BudgetsSpec, FilterRuleSpec, PacketFilterSpec, PortBudgetSpec, PrefixSetSpec,
    PrefixSourceSpec, ProtocolListSpec,
};
pub use port::PortSpec;

/// The `apiVersion` this release writes.
pub const API_VERSION: &str = "sallyport.dev/v1alpha1";

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Name and labels.
    pub metadata: Metadata,
    /// Kind and spec.
    pub spec: Spec,
}

/// An object's name and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Unique within the kind; parsed as [`crate::name::Name`] by the compiler.
    pub name: String,
    /// Free labels, for selectors and search.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An address and port that nodes accept connections on.
    Listener,
    /// Which host and path goes to which origin group.
    Route,
    /// Origins that can stand in for each other.
    OriginGroup,
    /// A certificate chain and (by digest) its private key.
    Certificate,
    /// Certificate authorities that origins are verified against.
    TrustBundle,
    /// Prefixes with a name, for rules of packet filters.
    PrefixSet,
    /// Prefixes that the kernel drops or lets through.
    PacketFilter,
}

/// A kind with its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// See [`Kind::Listener`].
    Listener(ListenerSpec),
    /// See [`Kind::Route`].
    Route(RouteSpec),
    /// See [`Kind::OriginGroup`].
    OriginGroup(OriginGroupSpec),
    /// See [`Kind::Certificate`].
    Certificate(CertificateSpec),
    /// See [`Kind::TrustBundle`].
    TrustBundle(TrustBundleSpec),
    /// See [`Kind::PrefixSet`].
    PrefixSet(PrefixSetSpec),
    /// See [`Kind::PacketFilter`].
    PacketFilter(PacketFilterSpec),
}

/// Labels that a node must all have; empty selects every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSelector {
    /// Each label with the value it must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

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

/// `kind: Route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Listeners that carry this route; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Host names, exact or `*.suffix`; at least one.
    pub hostnames: Vec<String>,
    /// `Terminate` (the default), or `Passthrough`: connections whose SNI is one of the hosts go to an origin as they are, and
    /// nothing of them is decrypted (Gateway API's `TLSRoute`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Paths; empty means the prefix `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<MatchSpec>,
    /// The certificate served for these hosts; without it one of the listener's certificates must cover them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Where requests go; required unless `filters` has an answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin_group: String,
    /// A disabled route stays stored and answers nothing.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
    /// Let an encoded slash (`%2F`) through unchanged; refused otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_encoded_slash: bool,
    /// How long the origin may take until its response head, in milliseconds; default 60,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_timeout_ms: Option<u64>,
    /// What happens to requests and responses on the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filters: FiltersSpec,
    /// Protocols a connection may change to after a request; default `[websocket]`, `[]` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrades: Option<Vec<String>>,
}

impl RouteSpec {
    /// Whether it passes connections on without decrypting them.
    pub fn is_passthrough(&self) -> bool {
        self.tls.as_deref() == Some(PASSTHROUGH)
    }
}

/// See [`RouteSpec::tls`].
pub const PASSTHROUGH: &str = "Passthrough";

/// One match of a route (Gateway API's `HTTPRouteMatch`); all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatchSpec {
    /// The path; default: the prefix `/`.
    #[serde(default)]
    pub path: PathSpec,
    /// The method, in capitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields and their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatchSpec>,
    /// Query parameters and their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatchSpec>,
}

impl MatchSpec {
    /// Whether more is asked for than a path.
    pub fn is_conditional(&self) -> bool {
        self.method.is_some() || !self.headers.is_empty() || !self.query_params.is_empty()
    }
}

/// A name and the value it must have (Gateway API's `HTTPHeaderMatch` and `HTTPQueryParamMatch`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatchSpec {
    /// `Exact`, which is also the default.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

impl Default for PathSpec {
    fn default() -> Self {
        Self { kind: path_prefix(), value: "/".to_owned() }
    }
}

/// A path match (Gateway API's `HTTPPathMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathSpec {
    /// `PathPrefix` (by whole segments; the default) or `Exact`.
    #[serde(rename = "type", default = "path_prefix")]
    pub kind: String,
    /// Starts with `/`.
    pub value: String,
}

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

/// `kind: Certificate`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// The chain, leaf first, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// The private key, PEM (PKCS#8, PKCS#1 or SEC1), on the way in only: it is sealed and replaced by `privateKeyRef`
    /// before the object is stored, shown or exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Which stored private key: the SHA-256 of its public half's SubjectPublicKeyInfo (DER).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_ref: Option<String>,
    /// Instead of `chain` on the way in: have the console's own CA issue one for these hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_ca: Option<InternalCa>,
}

/// Shows that there is a private key, never which.
impl fmt::Debug for CertificateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSpec")
            .field("chain", &self.chain)
            .field("private_key", &self.private_key.as_ref().map(|_| "(not shown)"))
            .field("private_key_ref", &self.private_key_ref)
            .field("internal_ca", &self.internal_ca)
            .finish()
    }
}

/// What the internal CA issues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InternalCa {
    /// Host names, exact or `*.suffix`; at least one.
    pub hostnames: Vec<String>,
}

/// `kind: TrustBundle`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustBundleSpec {
    /// CA certificates, PEM.
    pub certificates: String,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn path_prefix() -> String {
    "PathPrefix".to_owned()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
