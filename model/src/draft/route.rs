//! Routes as they are written.

use serde::{Deserialize, Serialize};

use super::{FiltersSpec, is_default, is_yes, yes};

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

fn path_prefix() -> String {
    "PathPrefix".to_owned()
}
