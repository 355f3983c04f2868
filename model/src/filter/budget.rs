//! Budgets of packets and connections as nodes get them.

use serde::{Deserialize, Serialize};

use super::rule::{FilterMode, PortRange, is_default};

/// Packets or connections a second that a budget can have at most.
pub const MOST_RATE: u64 = 10_000_000;
/// Budgets of ports that a node can have.
pub const MOST_PORT_BUDGETS: usize = 60;

/// What a node's budgets are: one of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterBudgets {
    /// SYNs of one source: an IPv4 address or an IPv6 /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_per_source: Option<FilterBudget>,
    /// SYNs to a port, each port by itself; no port in two of them. Sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syn_per_port: Vec<PortBudget>,
    /// SYNs to listeners of all unknown sources of a family together; what is over is answered with a SYN cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_pressure: Option<FilterBudget>,
    /// UDP packets of one source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_per_source: Option<FilterBudget>,
    /// New connections to listeners of one source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_connections_per_source: Option<FilterBudget>,
}

impl FilterBudgets {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another filter's; of two of one kind the first stays, which the compiler lets nobody write.
    pub fn add(&mut self, other: &Self) {
        let fill = |mine: &mut Option<FilterBudget>, other: &Option<FilterBudget>| {
            if mine.is_none() {
                mine.clone_from(other);
            }
        };
        fill(&mut self.syn_per_source, &other.syn_per_source);
        fill(&mut self.syn_pressure, &other.syn_pressure);
        fill(&mut self.udp_per_source, &other.udp_per_source);
        fill(&mut self.new_connections_per_source, &other.new_connections_per_source);
        self.syn_per_port.extend(other.syn_per_port.iter().cloned());
        self.syn_per_port.sort_by(|a, b| a.budget.name.cmp(&b.budget.name));
    }
}

/// A rate and a burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterBudget {
    /// As a rule's, and never a rule's.
    pub id: u32,
    /// `filter/budget`.
    pub name: String,
    /// How many a second, for good: 1 to [`MOST_RATE`].
    pub rate: u64,
    /// How many at once: 1 to [`MOST_RATE`].
    pub burst: u64,
    /// Whether it drops, or only counts what it would have dropped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: FilterMode,
}

/// A budget that each of its ports has by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortBudget {
    /// The budget.
    pub budget: FilterBudget,
    /// Destination ports, sorted, never empty.
    pub ports: Vec<PortRange>,
}
