//! Packet filter rules as nodes get them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::net::Prefix;

/// ICMP's number among the IP protocols.
pub const ICMP: u8 = 1;
/// TCP's.
pub const TCP: u8 = 6;
/// UDP's.
pub const UDP: u8 = 17;
/// ICMPv6's.
pub const ICMPV6: u8 = 58;

/// IP protocols that have a word of their own; the others are numbers.
const WORDS: [(&str, u8); 9] = [
    ("TCP", TCP),
    ("UDP", UDP),
    ("ICMP", ICMP),
    ("ICMPv6", ICMPV6),
    ("GRE", 47),
    ("ESP", 50),
    ("AH", 51),
    ("SCTP", 132),
    ("IGMP", 2),
];

/// The number of an IP protocol that somebody wrote as a word or a number.
pub fn protocol_number(text: &str) -> Option<u8> {
    let word = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    word.or_else(|| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten())
}

/// How people call an IP protocol.
pub fn protocol_word(number: u8) -> String {
    WORDS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
}

/// One packet filter rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRule {
    /// Stable over revisions and never 0: names the rule in kernel counters. The console assigns it per filter and rule name.
    pub id: u32,
    /// `filter/rule`.
    pub name: String,
    /// What happens to sources in the prefixes.
    pub action: FilterAction,
    /// Whether it decides, or only counts what it would have dropped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: FilterMode,
    /// Of rules that hold a source, those with the highest are looked at first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: u16,
    /// Sorted, never empty.
    pub prefixes: Vec<Prefix>,
    /// IP protocols it is about, sorted; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<u8>,
    /// Destination ports it is about, sorted; empty: all. Such a rule is about TCP and UDP only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// ICMP and ICMPv6 types it is about, sorted; empty: all. Such a rule is about these two only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp_types: Vec<u8>,
}

impl FilterRule {
    /// A rule about all packets from its prefixes, enforced, with the usual priority.
    pub fn new(id: u32, name: &str, action: FilterAction, prefixes: Vec<Prefix>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            action,
            mode: FilterMode::Enforce,
            priority: 0,
            prefixes,
            protocols: Vec::new(),
            ports: Vec::new(),
            icmp_types: Vec::new(),
        }
    }

    /// Whether it is about all packets, whatever they carry.
    pub fn is_general(&self) -> bool {
        self.protocols.is_empty() && self.ports.is_empty() && self.icmp_types.is_empty()
    }
}

/// The IP protocols that may reach a node: as soon as one list is enforced, others may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtocolList {
    /// As [`FilterRule::id`], and never a rule's.
    pub id: u32,
    /// `filter/protocols`.
    pub name: String,
    /// Sorted; TCP is among them.
    pub allow: Vec<u8>,
    /// Whether it decides, or only counts what it would have dropped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: FilterMode,
}

/// What a packet filter rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FilterAction {
    /// Drop what it is about.
    Deny,
    /// Let it through; what a rule of this kind is about needs one.
    Allow,
}

/// Whether a rule decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FilterMode {
    /// It does.
    #[default]
    Enforce,
    /// Packets pass; those it would have dropped are counted.
    Observe,
}

/// Ports from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no [`PortRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPorts {
    /// Neither a number nor two with a hyphen.
    #[error("ports are a number from 0 to 65535 or two with a hyphen, such as 443 or 8000-8010")]
    Syntax,
    /// The second is lower than the first.
    #[error("the range ends before it begins; write {1}-{0}")]
    Backwards(u16, u16),
}

impl PortRange {
    /// The ports from `first` to `last`; in either order.
    pub fn new(first: u16, last: u16) -> Self {
        Self { first: first.min(last), last: first.max(last) }
    }

    /// The lowest.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    pub fn last(self) -> u16 {
        self.last
    }
}

impl std::str::FromStr for PortRange {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, InvalidPorts> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten().ok_or(InvalidPorts::Syntax)
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if last < first {
            return Err(InvalidPorts::Backwards(first, last));
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for PortRange {
    type Error = InvalidPorts;

    fn try_from(text: String) -> Result<Self, InvalidPorts> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written() {
        for (text, first, last) in [("443", 443, 443), ("8000-8010", 8000, 8010), ("0-65535", 0, 65535)] {
            let range: PortRange = text.parse().unwrap();
            assert_eq!((range.first(), range.last(), range.to_string()), (first, last, text.to_owned()));
        }
        for text in ["", "-", "1-", "-1", "65536", "+1", "1 - 2", "a", "1-2-3"] {
            assert_eq!(text.parse::<PortRange>(), Err(InvalidPorts::Syntax), "{text}");
        }
        assert_eq!("2-1".parse::<PortRange>(), Err(InvalidPorts::Backwards(2, 1)));
    }

    #[test]
    fn protocols_have_words_and_numbers() {
        for (text, number) in [("TCP", 6), ("icmpv6", 58), ("47", 47), ("255", 255), ("0", 0)] {
            assert_eq!(protocol_number(text), Some(number), "{text}");
        }
        for text in ["", "256", "-1", "+6", "QUIC"] {
            assert_eq!(protocol_number(text), None, "{text}");
        }
        assert_eq!((protocol_word(6).as_str(), protocol_word(99).as_str()), ("TCP", "99"));
    }

    #[test]
    fn a_plain_rule_travels_as_it_did_before_there_was_more() {
        let rule = FilterRule::new(7, "f/r", FilterAction::Deny, vec!["192.0.2.0/24".parse().unwrap()]);
        let text = r#"{"id":7,"name":"f/r","action":"deny","prefixes":["192.0.2.0/24"]}"#;
        assert_eq!(serde_json::to_string(&rule).unwrap(), text);
        assert_eq!(serde_json::from_str::<FilterRule>(text).unwrap(), rule);
    }
}
