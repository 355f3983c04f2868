//! From a frame's bytes to a reason. Pure: the bytes and the tables are arguments, so the program in the kernel and the
//! tests on the host run these very lines.
//!
//! Precedence: what cannot be read or cannot be meant is dropped with a reason of its own; ARP, neighbour and
//! multicast listener discovery and path-MTU ICMP pass; what has a source that no wire has is dropped; then the tables decide. Which rule wins was settled
//! when they were compiled (`model::filter`): the source has a class, what the packet is for has one, and a cell says what
//! happens to both together. No state is kept, so replies look like anything else.

pub mod budget;
mod bytes;
pub mod cookie;
mod frame;
mod ipv4;
mod ipv6;
pub mod quick;
#[cfg(test)]
mod tests;
mod transport;
pub mod walk;

pub use bytes::{Bytes, Front, Looped};
pub use frame::{parse, untag, whole};

use crate::reason::Reason;
use crate::wire::listener::SOME_PORT;
use crate::wire::{Address, Cell, slot};

/// What of an IP packet matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: Address,
    /// The destination address.
    pub destination: Address,
    /// What it carries.
    pub kind: Kind,
}

/// What an IP packet carries, as a number: the slot that the table of destinations has for it, and whether it opens a
/// connection. Numbers rather than an enum, because of an enum that is handed through the parser the compiler makes code
/// the verifier does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(u32);

impl Kind {
    /// Set beside the slot of a TCP segment with SYN and without ACK.
    const OPENING: u32 = 1 << 31;

    /// TCP to a port.
    #[inline(always)]
    pub const fn tcp(port: u16) -> Self {
        Self(slot::TCP + port as u32)
    }

    /// TCP to a port that asks for a connection: SYN without ACK.
    #[inline(always)]
    pub const fn syn(port: u16) -> Self {
        Self(Self::tcp(port).0 | Self::OPENING)
    }

    /// UDP to a port.
    #[inline(always)]
    pub const fn udp(port: u16) -> Self {
        Self(slot::UDP + port as u32)
    }

    /// ICMP of a type.
    #[inline(always)]
    pub const fn icmp(kind: u8) -> Self {
        Self(slot::ICMP + kind as u32)
    }

    /// ICMPv6 of a type.
    #[inline(always)]
    pub const fn icmpv6(kind: u8) -> Self {
        Self(slot::ICMPV6 + kind as u32)
    }

    /// Another protocol.
    #[inline(always)]
    pub const fn other(protocol: u8) -> Self {
        Self(slot::OTHER + protocol as u32)
    }

    /// A later fragment of a protocol; of 0 when an extension header hides it.
    #[inline(always)]
    pub const fn later_fragment(protocol: u8) -> Self {
        Self(slot::LATER_FRAGMENT + protocol as u32)
    }

    /// As a number, for [`Self::from_number`].
    #[inline(always)]
    pub const fn to_number(self) -> u32 {
        self.0
    }

    /// From what [`Self::to_number`] gave.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 & !Self::OPENING
    }

    /// Whether it is a TCP segment that asks for a connection: SYN without ACK.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.0 & Self::OPENING != 0
    }

    /// Whether it is a later fragment of UDP, or of what an IPv6 extension header hides.
    #[inline(always)]
    pub const fn is_rest_of_udp(self) -> bool {
        self.0 == Self::later_fragment(transport::UDP).0 || self.0 == Self::later_fragment(0).0
    }

    /// Whether it is a query, report or end of multicast listener discovery (RFC 2710, RFC 3810).
    #[inline(always)]
    pub const fn is_multicast_listener(self) -> bool {
        matches!(self.0.wrapping_sub(slot::ICMPV6), 130..=132 | 143)
    }

    /// Whether it is UDP, of which the port can be seen.
    #[inline(always)]
    pub const fn is_udp(self) -> bool {
        self.0 >= slot::UDP && self.0 < slot::ICMP
    }

    /// Whether it is TCP, of which the port can be seen.
    #[inline(always)]
    pub const fn is_tcp(self) -> bool {
        self.slot() < slot::UDP
    }

    /// The port that a listener could have, where it is TCP: [`SOME_PORT`] of a fragment, which hides it.
    #[inline(always)]
    pub const fn listener_port(self) -> Option<u16> {
        if self.slot() < slot::UDP {
            Some(self.0 as u16)
        } else if self.0 == slot::LATER_FRAGMENT + transport::TCP as u32 {
            Some(SOME_PORT)
        } else {
            None
        }
    }
}

/// One generation of the tables. A missing table is a reason of its own.
pub trait Tables {
    /// Whether there is anything to look up.
    fn any(&self) -> bool;

    /// The class of the longest prefix that holds the source, 0 where none does.
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    fn source(&self, source: &Address) -> Result<u32, Reason>;

    /// The class in a slot, with [`slot::EXACT_FIRST`].
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    fn column(&self, slot: u32) -> Result<u32, Reason>;

    /// The class that a listener at exactly this address and port has, where it has one of its own.
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    fn exact(&self, address: &Address, port: u16) -> Result<Option<u32>, Reason>;

    /// What happens to packets of these classes.
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    fn cell(&self, source: u32, destination: u32) -> Result<Cell, Reason>;
}

/// A reason and the rule that gave it, 0 where none did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub reason: Reason,
    /// Which rule.
    pub rule: u32,
    /// The counter of both, from 1 on; 0 where there is none.
    pub counter: u32,
}

impl Decision {
    /// A decision that no counter but the reason's counts.
    #[inline(always)]
    pub const fn new(reason: Reason, rule: u32) -> Self {
        Self { reason, rule, counter: 0 }
    }

    /// A decision that is no rule's.
    #[inline(always)]
    pub const fn without_rule(reason: Reason) -> Self {
        Self::new(reason, 0)
    }
}

/// Judges a frame.
#[inline(always)]
pub fn decide<B: Bytes + ?Sized, T: Tables>(frame: &B, tables: &T) -> Decision {
    match parse(frame).and_then(|packet| judge(&packet, tables)) {
        Ok(decision) => decision,
        Err(reason) => Decision::without_rule(reason),
    }
}

/// Judges a packet by the tables.
///
/// # Errors
/// [`Reason::NoTable`] when a table is missing or says what no release says.
#[inline(always)]
pub fn judge<T: Tables>(packet: &Packet, tables: &T) -> Result<Decision, Reason> {
    if !tables.any() {
        return Ok(Decision::without_rule(Reason::NoRule));
    }
    judge_by(packet, tables)
}

/// The same where there is something to look up.
#[inline(always)]
fn judge_by<T: Tables>(packet: &Packet, tables: &T) -> Result<Decision, Reason> {
    let destination = destination(packet, tables)?;
    let source = tables.source(&packet.source)?;
    let cell = tables.cell(source, destination)?;
    let reason = verdict(cell.reason).ok_or(Reason::NoTable)?;
    Ok(Decision { reason, rule: cell.rule, counter: cell.counter })
}

#[inline(always)]
fn destination<T: Tables>(packet: &Packet, tables: &T) -> Result<u32, Reason> {
    let class = tables.column(packet.kind.slot())?;
    if class & slot::EXACT_FIRST == 0 {
        return Ok(class);
    }
    let exact = match packet.kind.listener_port() {
        Some(port) => tables.exact(&packet.destination, port)?,
        None => None,
    };
    Ok(match exact {
        Some(class) => class,
        None => class & !slot::EXACT_FIRST,
    })
}

/// The reasons that a cell may have; any other number is another release's.
#[inline(always)]
const fn verdict(number: u32) -> Option<Reason> {
    const NO_RULE: u32 = Reason::NoRule.number();
    const ALLOWED: u32 = Reason::Allowed.number();
    const OBSERVED: u32 = Reason::Observed.number();
    const DENIED: u32 = Reason::Denied.number();
    const NOT_ALLOWED: u32 = Reason::NotAllowed.number();
    const FRAGMENT: u32 = Reason::Fragment.number();
    const OWN_ADDRESS: u32 = Reason::OwnAddress.number();
    const PROTOCOL: u32 = Reason::Protocol.number();
    match number {
        NO_RULE => Some(Reason::NoRule),
        ALLOWED => Some(Reason::Allowed),
        OBSERVED => Some(Reason::Observed),
        DENIED => Some(Reason::Denied),
        NOT_ALLOWED => Some(Reason::NotAllowed),
        FRAGMENT => Some(Reason::Fragment),
        OWN_ADDRESS => Some(Reason::OwnAddress),
        PROTOCOL => Some(Reason::Protocol),
        _ => None,
    }
}
