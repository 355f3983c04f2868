//! The table of destinations: a slot for whatever a packet can be for, whose value is its class.

/// TCP by destination port.
pub const TCP: u32 = 0;
/// UDP by destination port.
pub const UDP: u32 = TCP + 65_536;
/// ICMP by type.
pub const ICMP: u32 = UDP + 65_536;
/// ICMPv6 by type.
pub const ICMPV6: u32 = ICMP + 256;
/// Other protocols by number.
pub const OTHER: u32 = ICMPV6 + 256;
/// Later fragments by protocol; of protocol 0 are those that hide even that.
pub const LATER_FRAGMENT: u32 = OTHER + 256;
/// How many there are.
pub const SLOTS: u32 = LATER_FRAGMENT + 256;

/// Set in a slot's class: some listener's exact address has another class there, so the table of listeners is asked first.
pub const EXACT_FIRST: u32 = 1 << 15;

const _: () = assert!(SLOTS == 132_096);
