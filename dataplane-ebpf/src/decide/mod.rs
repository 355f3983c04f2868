//! From a frame's bytes to a reason. Pure: the bytes and the tables are arguments, so the program in the kernel and the
//! tests on the host run these very lines.
//!
//! Precedence: what cannot be read is dropped as malformed; ARP, neighbour discovery and path-MTU ICMP pass; then the
//! longest prefix that names the source decides (deny at equal length); then, where some allow rule exists, TCP to a
//! listener needs one. An allow list judges nothing else, because XDP keeps no state: anything wider would drop ssh,
//! DNS answers and the origins' replies.

mod frame;
mod ipv4;
mod ipv6;
#[cfg(test)]
mod tests;

pub use frame::parse;

use crate::reason::Reason;
use crate::wire::{Address, Entry};

/// A frame's bytes; the one way to read them.
pub trait Bytes {
    /// A copy of `N` bytes at `offset`, `N` at least 2 (of a single byte's bounds check the compiler makes a comparison
    /// the verifier does not follow); nothing when the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}

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

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP to this port.
    Tcp(u16),
    /// A later fragment of something that may be TCP.
    LaterFragment,
    /// Neighbour discovery from the link itself.
    NeighbourDiscovery,
    /// ICMP "fragmentation needed" or ICMPv6 "packet too big".
    PathMtu,
    /// Anything else.
    Other,
}

/// A frame that [`parse`] understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Neither ARP nor IP.
    NotIp,
    /// ARP.
    Arp,
    /// An IP packet.
    Ip(Packet),
}

/// One generation of the tables. A missing table is a reason of its own.
pub trait Tables {
    /// Whether packets to listeners need an allow entry.
    fn allow_required(&self) -> bool;

    /// The entry of the longest prefix that holds the source.
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    fn source(&self, source: &Address) -> Result<Option<Entry>, Reason>;

    /// Whether exactly this address and port has a listener.
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    fn listens_exactly(&self, address: &Address, port: u16) -> Result<bool, Reason>;

    /// Whether a listener accepts at this address and port: exactly, or at every address of the family.
    ///
    /// # Errors
    /// [`Reason::NoTable`].
    #[inline(always)]
    fn listens(&self, address: &Address, port: u16) -> Result<bool, Reason> {
        Ok(self.listens_exactly(address, port)? || self.listens_exactly(&address.any(), port)?)
    }
}

/// A reason and the rule that gave it, 0 where none did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub reason: Reason,
    /// Which rule.
    pub rule: u32,
}

impl Decision {
    #[inline(always)]
    const fn without_rule(reason: Reason) -> Self {
        Self { reason, rule: 0 }
    }
}

/// Judges a frame.
#[inline(always)]
pub fn decide<B: Bytes + ?Sized, T: Tables>(frame: &B, tables: &T) -> Decision {
    match parse(frame) {
        Ok(Frame::NotIp) => Decision::without_rule(Reason::NotIp),
        Ok(Frame::Arp) => Decision::without_rule(Reason::Arp),
        Ok(Frame::Ip(packet)) => match judge(&packet, tables) {
            Ok(decision) => decision,
            Err(reason) => Decision::without_rule(reason),
        },
        Err(reason) => Decision::without_rule(reason),
    }
}

/// Judges a packet.
///
/// # Errors
/// [`Reason::NoTable`] when a table is missing.
#[inline(always)]
pub fn judge<T: Tables>(packet: &Packet, tables: &T) -> Result<Decision, Reason> {
    match packet.kind {
        Kind::NeighbourDiscovery => return Ok(Decision::without_rule(Reason::NeighbourDiscovery)),
        Kind::PathMtu => return Ok(Decision::without_rule(Reason::PathMtu)),
        Kind::Tcp(_) | Kind::LaterFragment | Kind::Other => {}
    }
    if let Some(entry) = tables.source(&packet.source)? {
        let reason = if entry.allows() { Reason::Allowed } else { Reason::Denied };
        return Ok(Decision { reason, rule: entry.rule });
    }
    if !tables.allow_required() {
        return Ok(Decision::without_rule(Reason::NoRule));
    }
    let (port, refusal) = match packet.kind {
        Kind::Tcp(port) => (port, Reason::NotAllowed),
        Kind::LaterFragment => (crate::wire::listener::SOME_PORT, Reason::Fragment),
        Kind::NeighbourDiscovery | Kind::PathMtu | Kind::Other => {
            return Ok(Decision::without_rule(Reason::NoRule));
        }
    };
    // Port 0 cannot be listened on, and its entry in the table means something else.
    let concerned = (port != 0 || matches!(packet.kind, Kind::LaterFragment))
        && tables.listens(&packet.destination, port)?;
    Ok(Decision::without_rule(if concerned { refusal } else { Reason::NoRule }))
}
