//! Flows: packets that somebody watches, as nodes tell them and people read them.
//!
//! A [`FlowWatch`] says which packets it is about. The node's kernel program looks for them, takes one in so many, and the node
//! tells of those as [`FlowEvent`]s; a capture also takes the packets' bytes. A watch is a lease: it ends when nobody renews it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// How long a node goes on with watches that nobody asked for again, seconds.
pub const LEASE_SECONDS: u64 = 15;
/// Watches a node has at once, captures among them.
pub const WATCHES_MAX: usize = 4;
/// Packets of one capture at most.
pub const CAPTURE_PACKETS_MAX: u32 = 1000;
/// Bytes of each captured packet at most.
pub const CAPTURE_SNAP_MAX: u32 = 1500;
/// The bytes of a captured packet where nothing else is said.
pub const CAPTURE_SNAP: u32 = 256;

/// What happened to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It was dropped.
    Drop,
    /// It passed, and would have been dropped were the rule not only observed.
    Observed,
    /// It passed.
    Pass,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Drop, Self::Observed, Self::Pass];

    /// The word in pages, URLs and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Observed => "observed",
            Self::Pass => "pass",
        }
    }
}

/// Which packets a watch is about: those that have all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowFilter {
    /// What happened to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonName>,
    /// The id of the rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Where they come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Prefix>,
    /// The TCP or UDP port they are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Their IP protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

impl FlowFilter {
    /// Whether it is about this packet.
    pub fn is_about(&self, event: &FlowEvent) -> bool {
        let has = |wanted: bool, given: bool| !wanted || given;
        self.verdict.is_none_or(|verdict| verdict == event.verdict)
            && self.reason.as_ref().is_none_or(|reason| reason.0 == event.reason)
            && self.rule.is_none_or(|rule| rule == event.rule)
            && has(self.source.is_some(), self.source_holds(event))
            && has(self.port.is_some(), self.port == event.destination_port)
            && has(self.protocol.is_some(), self.protocol == event.protocol)
    }

    fn source_holds(&self, event: &FlowEvent) -> bool {
        // Not by `Prefix::contains`: what stands in an IPv6 packet is never an IPv4 address.
        self.source.zip(event.source).is_some_and(|(prefix, address)| prefix.net().contains(&address))
    }
}

/// A reason's name as a person wrote it: kebab case. Which there are is the node's to know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReasonName(String);

/// Why a text is no reason's name, protocol or verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFlowFilter {
    /// No reason.
    #[error("a reason is lower-case words with hyphens, such as denied or malformed-ipv4")]
    Reason,
    /// No protocol.
    #[error("a protocol is tcp, udp, icmp, icmpv6 or a number from 0 to 255")]
    Protocol,
    /// No verdict.
    #[error("a verdict is drop, observed or pass")]
    Verdict,
}

impl ReasonName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ReasonName {
    type Err = InvalidFlowFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFlowFilter> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fine = (1..=40).contains(&text.len()) && text.chars().all(fits);
        if fine { Ok(Self(text.to_owned())) } else { Err(InvalidFlowFilter::Reason) }
    }
}

impl TryFrom<String> for ReasonName {
    type Error = InvalidFlowFilter;

    fn try_from(text: String) -> Result<Self, InvalidFlowFilter> {
        text.parse()
    }
}

impl From<ReasonName> for String {
    fn from(reason: ReasonName) -> Self {
        reason.0
    }
}

impl std::str::FromStr for Verdict {
    type Err = InvalidFlowFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFlowFilter> {
        Self::ALL.into_iter().find(|verdict| verdict.word() == text).ok_or(InvalidFlowFilter::Verdict)
    }
}

/// An IP protocol, by its name where it has one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    const NAMED: [(Self, &'static str); 4] =
        [(Self::ICMP, "icmp"), (Self::TCP, "tcp"), (Self::UDP, "udp"), (Self::ICMPV6, "icmpv6")];
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::NAMED.iter().find(|(protocol, _)| protocol == self) {
            Some((_, name)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = InvalidFlowFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFlowFilter> {
        let named = Self::NAMED.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        match named {
            Some((protocol, _)) => Ok(*protocol),
            None => text.parse().map(Self).map_err(|_not_a_number| InvalidFlowFilter::Protocol),
        }
    }
}

impl TryFrom<String> for Protocol {
    type Error = InvalidFlowFilter;

    fn try_from(text: String) -> Result<Self, InvalidFlowFilter> {
        text.parse()
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> Self {
        protocol.to_string()
    }
}

/// Somebody watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowWatch {
    /// Tells it from any other that this console ever asked for.
    pub id: u64,
    /// Which packets.
    pub filter: FlowFilter,
    /// Their bytes too: of every packet, not of some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
}

/// How much is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capture {
    /// So many packets, at most [`CAPTURE_PACKETS_MAX`].
    pub packets: u32,
    /// So many bytes of each, at most [`CAPTURE_SNAP_MAX`].
    pub snap: u32,
}

impl Capture {
    /// Within the bounds, whatever was asked for.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            packets: self.packets.clamp(1, CAPTURE_PACKETS_MAX),
            snap: self.snap.clamp(1, CAPTURE_SNAP_MAX),
        }
    }
}

/// A packet that was watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowEvent {
    /// When, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The interface that received it; its index where it has no name any more.
    pub interface: String,
    /// What happened to it.
    pub verdict: Verdict,
    /// Why: a reason of the closed list.
    pub reason: String,
    /// The id of the rule that decided; 0 where none did.
    pub rule: u32,
    /// The source, where that much could be read.
    pub source: Option<IpAddr>,
    /// TCP's or UDP's source port.
    pub source_port: Option<u16>,
    /// The destination.
    pub destination: Option<IpAddr>,
    /// TCP's or UDP's destination port.
    pub destination_port: Option<u16>,
    /// The IP protocol.
    pub protocol: Option<Protocol>,
    /// ICMP's or ICMPv6's type.
    pub icmp_type: Option<u8>,
    /// The frame's length, bytes, link layer included.
    pub bytes: u32,
    /// It stands for so many packets, itself among them.
    pub one_in: u32,
    /// The frame's first bytes, hexadecimal, where no address could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

/// A packet that was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Captured {
    /// When, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The frame's length, bytes.
    pub length: u32,
    /// Its first bytes, base64.
    pub bytes: String,
}

/// Drops (observed ones among them) and passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ByVerdict<T> {
    /// Dropped, and observed.
    pub drops: T,
    /// Passed.
    pub passes: T,
}

/// A watch's figures at one node, since it began there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowCounts {
    /// Packets that it was about, whether or not one of them was told: exact.
    pub matched: ByVerdict<u64>,
    /// Of how many packets one is told at present.
    pub one_in: ByVerdict<u32>,
    /// Packets whose turn it was, and which were not told: the kernel's ring was full, or the link to the console was.
    pub lost: u64,
}

/// From node to console, on a stream of its own (see `crate::link`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FlowMessage {
    /// Of one watch.
    Flows {
        /// Which.
        watch: u64,
        /// Packets, oldest first; of a capture none.
        events: Vec<FlowEvent>,
        /// Their bytes, of a capture.
        captured: Vec<Captured>,
        /// Its figures.
        counts: FlowCounts,
    },
    /// Nothing can be watched here.
    Cannot {
        /// Why, one sentence.
        reason: String,
    },
    /// This cannot be watched here, and everything else can: told with every order that has it, and only to a console that
    /// answered the stream with [`REFUSALS`](crate::link::REFUSALS).
    Refused {
        /// Which.
        watch: u64,
        /// Why, one sentence.
        reason: String,
    },
}

/// From console to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FlowOrder {
    /// Watch this, for [`LEASE_SECONDS`], and nothing else.
    Watch {
        /// All of it.
        watches: Vec<FlowWatch>,
    },
}

#[cfg(test)]
mod tests;
