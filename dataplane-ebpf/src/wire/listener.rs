//! The table of listeners: address and port -> the class of destinations there.
//!
//! One hash table for both families: IPv4 lies in its mapped form, so "every IPv4 address" is `::ffff:0.0.0.0` and "every
//! IPv6 address" is `::`. Each address also has an entry with port 0, "some port here", for fragments that hide theirs.

/// The port of the entry that says an address has a listener on some port.
pub const SOME_PORT: u16 = 0;

/// The value where the class is the slot's.
pub const NO_CLASS: u32 = u32::MAX;

/// An address as it stood in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// IPv4, network order.
    V4([u8; 4]),
    /// IPv6, network order.
    V6([u8; 16]),
}

impl Address {
    /// The address that stands for every address of the same family.
    #[inline(always)]
    pub const fn any(self) -> Self {
        match self {
            Self::V4(_) => Self::V4([0; 4]),
            Self::V6(_) => Self::V6([0; 16]),
        }
    }
}

/// A key of the listener table: 16 bytes address, 2 bytes port in network order, 2 bytes zero.
#[inline(always)]
pub const fn listener_key(address: Address, port: u16) -> [u8; 20] {
    let [h, l] = port.to_be_bytes();
    match address {
        Address::V4([a, b, c, d]) => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d, h, l, 0, 0],
        Address::V6([a, b, c, d, e, f, g, i, j, k, m, n, o, p, q, r]) => {
            [a, b, c, d, e, f, g, i, j, k, m, n, o, p, q, r, h, l, 0, 0]
        }
    }
}
