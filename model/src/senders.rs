//! Who sends to a node, as far as its packet filter has looked at packets: from node to console.
//!
//! Sums are estimates where [`Senders::shift`] is not 0: of 2^shift packets about one was looked at, and counts that many times.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::filter::Payload;

/// Senders in one message, at most.
pub const MOST_SENDERS: usize = 2048;

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sums {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, link layer included.
    pub bytes: u64,
    /// Of the packets, TCP segments that ask for a connection.
    pub syns: u64,
    /// Of the packets, those the packet filter dropped.
    pub drops: u64,
}

impl Sums {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
            syns: self.syns.saturating_add(other.syns),
            drops: self.drops.saturating_add(other.drops),
        }
    }

    /// Packets that passed.
    pub fn passed(self) -> u64 {
        self.packets.saturating_sub(self.drops)
    }
}

/// One source and what it sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Row", try_from = "Row")]
pub struct Sender {
    /// The source; IPv4 never in its mapped form.
    pub source: IpAddr,
    /// The destination; likewise.
    pub destination: IpAddr,
    /// What the packets carry.
    pub payload: Payload,
    /// How much.
    pub sums: Sums,
    /// When the first came, milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// When the last did.
    pub last_ms: i64,
}

/// A sender as it travels: there are many, so names are left out.
type Row = (IpAddr, IpAddr, u32, [u64; 4], i64, i64);

/// A slot that no payload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no slot of the table of destinations")]
pub struct NoSuchSlot(u32);

impl From<Sender> for Row {
    fn from(sender: Sender) -> Self {
        let Sums { packets, bytes, syns, drops } = sender.sums;
        let slot = sender.payload.slot();
        (
            sender.source,
            sender.destination,
            slot,
            [packets, bytes, syns, drops],
            sender.first_ms,
            sender.last_ms,
        )
    }
}

impl TryFrom<Row> for Sender {
    type Error = NoSuchSlot;

    fn try_from((source, destination, slot, sums, first_ms, last_ms): Row) -> Result<Self, NoSuchSlot> {
        let [packets, bytes, syns, drops] = sums;
        Ok(Self {
            source: source.to_canonical(),
            destination: destination.to_canonical(),
            payload: Payload::of_slot(slot).ok_or(NoSuchSlot(slot))?,
            sums: Sums { packets, bytes, syns, drops },
            first_ms,
            last_ms,
        })
    }
}

/// Who sent to a node, by a record that reaches back an hour at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Senders {
    /// Where the record begins, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Where it ends.
    pub at_ms: i64,
    /// The largest n of the time: sums may be of one packet in 2^n, each counted so many times.
    pub shift: u8,
    /// What was seen too seldom to be kept by itself, or was pushed out of the kernel's table by others. Of what was pushed out only
    /// the packets are known.
    pub others: Sums,
    /// Those kept, [`MOST_SENDERS`] at most, by packets, most first.
    pub senders: Vec<Sender>,
}

impl Senders {
    /// About how many packets one that was looked at stands for, at most; 1 where each was looked at.
    pub fn one_in(&self) -> u64 {
        1_u64.checked_shl(self.shift.into()).unwrap_or(u64::MAX)
    }

    /// How far the record reaches back, milliseconds.
    pub fn span_ms(&self) -> i64 {
        self.at_ms.saturating_sub(self.since_ms).max(0)
    }

    /// Everything that was counted.
    pub fn total(&self) -> Sums {
        self.senders.iter().fold(self.others, |sum, sender| sum.plus(sender.sums))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::SLOTS;

    #[test]
    fn senders_travel_and_come_back() {
        let sender = Sender {
            source: "2001:db8::1".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            payload: Payload::Tcp(443),
            sums: Sums { packets: 5, bytes: 500, syns: 2, drops: 1 },
            first_ms: 1,
            last_ms: 9,
        };
        let sent =
            Senders { since_ms: 0, at_ms: 10, shift: 3, others: Sums::default(), senders: vec![sender] };
        let text = serde_json::to_string(&sent).unwrap();
        assert!(text.contains(r#"["2001:db8::1","192.0.2.1",443,[5,500,2,1],1,9]"#), "{text}");
        assert_eq!(serde_json::from_str::<Senders>(&text).unwrap(), sent);
        assert_eq!((sent.one_in(), sent.span_ms(), sent.total().passed()), (8, 10, 4));
    }

    #[test]
    fn what_no_node_sends_is_refused_or_made_plain() {
        let row = |source: &str, slot: u32| format!(r#"["{source}","192.0.2.1",{slot},[1,1,0,0],0,0]"#);
        let mapped: Sender = serde_json::from_str(&row("::ffff:192.0.2.9", SLOTS - 1)).unwrap();
        assert_eq!(mapped.source, "192.0.2.9".parse::<IpAddr>().unwrap());
        assert!(serde_json::from_str::<Sender>(&row("192.0.2.9", SLOTS)).is_err());
        assert!(serde_json::from_str::<Sender>(&row("nobody", 0)).is_err());
    }

    #[test]
    fn every_slot_is_one_payload() {
        for slot in 0..SLOTS {
            assert_eq!(Payload::of_slot(slot).map(Payload::slot), Some(slot));
        }
        assert_eq!(Payload::of_slot(SLOTS), None);
    }
}
