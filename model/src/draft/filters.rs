//! A route's filters as people write them: Gateway API's HTTPRoute filters, each at most once, so by name and not as a
//! list.

use serde::{Deserialize, Serialize};

use super::is_default;

/// A route's filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FiltersSpec {
    /// What happens to a request's header on the way to the origin.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request_header_modifier: HeaderModifierSpec,
    /// What happens to a response's header on the way to the client.
    #[serde(default, skip_serializing_if = "is_default")]
    pub response_header_modifier: HeaderModifierSpec,
    /// Answers with another place instead of asking an origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RedirectSpec>,
    /// Asks the origin for another host or path than the client did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<RewriteSpec>,
    /// Answers with a fixed response instead of asking an origin (not in Gateway API).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponseSpec>,
}

/// Gateway API's `HTTPHeaderFilter`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifierSpec {
    /// Replace all fields of their name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<FieldSpec>,
    /// Are appended to what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<FieldSpec>,
    /// Names of fields that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// One field (Gateway API's `HTTPHeader`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldSpec {
    /// Its name; case means nothing.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Gateway API's `HTTPRequestRedirectFilter`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedirectSpec {
    /// `http` or `https`; default: the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Default: the host that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Default: the port of `scheme`, or without one the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u64>,
    /// Default: the path that was asked for. The query stays in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifierSpec>,
    /// 301, 302 (the default), 303, 307 or 308.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u64>,
}

/// Gateway API's `HTTPURLRewriteFilter`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RewriteSpec {
    /// The `Host` that the origin reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path that the origin is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifierSpec>,
}

/// Gateway API's `HTTPPathModifier`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifierSpec {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The path in the place of the whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// The path in the place of the prefix that matched; only with exactly one match, of type `PathPrefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// A fixed response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectResponseSpec {
    /// 200 to 599.
    pub status_code: u64,
    /// `Content-Type`; default `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// At most 32,768 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}
