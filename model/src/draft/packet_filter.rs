//! Packet filters and prefix sets as people write them.

use serde::{Deserialize, Serialize};

use super::{NodeSelector, is_default};

/// `kind: PrefixSet`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixSetSpec {
    /// Prefixes, IPv4 or IPv6, without host bits; at least one, unless they are fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Where the console fetches the prefixes from; a list that was fetched replaces `prefixes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PrefixSourceSpec>,
}

/// Where prefixes are fetched from. Only administrators set it: the console connects to what it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixSourceSpec {
    /// `https://host[:port]/path`.
    pub url: String,
    /// The JSON key or CSV column that has the prefixes; without, whatever is a prefix counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Seconds between two fetches, 60 to 604,800; default 3,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// The longest document that is read, 1 to 8,388,608 bytes (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Whom the origin's certificate is verified against: `system` (the console's own roots; the default), `internal` (the
    /// console's CA) or a TrustBundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_bundle: Option<String>,
    /// A list that has lost more than so many percent of its prefixes is kept back, 0 to 100; default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_shrink_percent: Option<u64>,
}

/// `kind: PacketFilter`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PacketFilterSpec {
    /// The rules. The higher priority decides, then the longer prefix, then deny.
    #[serde(default)]
    pub rules: Vec<FilterRuleSpec>,
    /// The IP protocols that may reach the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<ProtocolListSpec>,
    /// Which nodes have these rules.
    #[serde(default, skip_serializing_if = "is_default")]
    pub node_selector: NodeSelector,
}

impl PacketFilterSpec {
    /// What has a number and counters of its own: `filter/rule` for each rule, and the list of protocols.
    pub fn counted(&self, filter: &str) -> Vec<String> {
        let list = self.protocols.is_some().then_some("protocols");
        let names = self.rules.iter().map(|rule| &*rule.name).chain(list);
        names.map(|name| format!("{filter}/{name}")).collect()
    }
}

/// The IP protocols that may reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtocolListSpec {
    /// Words or numbers as in a rule; TCP must be among them.
    pub allow: Vec<String>,
    /// As in a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// One packet filter rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRuleSpec {
    /// Unique within the filter; names the rule in counters and flows.
    pub name: String,
    /// `Deny`: packets it is about are dropped. `Allow`: they pass, and others that would need an allow rule do not.
    pub action: String,
    /// `Enforce` (the default), or `Observe`: only count what would be dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// 0 (the default) to 65535; the higher is asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
    /// Source prefixes, IPv4 or IPv6, without host bits; at least one, or a prefix set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Names of prefix sets, whose prefixes are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix_sets: Vec<String>,
    /// IP protocols it is about: words such as `UDP`, or numbers as text; without, all, but TCP where there are ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
    /// Destination ports, such as `443` or `8000-8010`; for TCP and UDP only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// ICMP types, 0 to 255; for ICMP and ICMPv6 only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp_types: Vec<u64>,
}
