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
    /// How much may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budgets: Option<BudgetsSpec>,
    /// Which nodes have these rules.
    #[serde(default, skip_serializing_if = "is_default")]
    pub node_selector: NodeSelector,
}

impl PacketFilterSpec {
    /// What has a number and counters of its own: `filter/rule` for each rule, the list of protocols and each budget.
    pub fn counted(&self, filter: &str) -> Vec<String> {
        let list = self.protocols.is_some().then_some("protocols");
        let budgets = self.budgets.iter().flat_map(BudgetsSpec::counted);
        let names = self.rules.iter().map(|rule| &*rule.name).chain(list).chain(budgets);
        names.map(|name| format!("{filter}/{name}")).collect()
    }
}

/// How much may come: each budget that is not here is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetsSpec {
    /// TCP connection attempts (SYNs) of one source, an IPv4 address or an IPv6 /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_per_source: Option<BudgetSpec>,
    /// SYNs to a port, of all sources together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syn_per_port: Vec<PortBudgetSpec>,
    /// SYNs to listeners of all sources that are not known to get our answers; what is over is answered with a SYN cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_pressure: Option<BudgetSpec>,
    /// UDP packets of one source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_per_source: Option<BudgetSpec>,
    /// New connections of one source to listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connections_per_source: Option<BudgetSpec>,
}

impl BudgetsSpec {
    /// Those that a filter has one of: field, the name it is counted under, and the budget.
    pub fn single(&self) -> [(&'static str, &'static str, Option<&BudgetSpec>); 4] {
        [
            ("synPerSource", "syn-per-source", self.syn_per_source.as_ref()),
            ("synPressure", "syn-pressure", self.syn_pressure.as_ref()),
            ("udpPerSource", "udp-per-source", self.udp_per_source.as_ref()),
            (
                "newConnectionsPerSource",
                "new-connections-per-source",
                self.new_connections_per_source.as_ref(),
            ),
        ]
    }

    fn counted(&self) -> impl Iterator<Item = &str> {
        let single = self.single().into_iter().filter(|(_, _, budget)| budget.is_some());
        single.map(|(_, name, _)| name).chain(self.syn_per_port.iter().map(|budget| &*budget.name))
    }
}

/// A budget: a rate and a burst.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetSpec {
    /// How many a second, 1 to 10,000,000.
    pub rate: u64,
    /// How many at once; as many as a second brings where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// As in a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A budget of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortBudgetSpec {
    /// Unique among the filter's rules and budgets; names it in counters.
    pub name: String,
    /// As in a rule; each port has the whole budget.
    pub ports: Vec<String>,
    /// As in [`BudgetSpec`].
    pub rate: u64,
    /// As in [`BudgetSpec`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// As in a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
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
