//! The table of listeners: address and port -> the class of destinations there.
//!
//! One hash table for both families: IPv4 lies in its mapped form, so "every IPv4 address" is `::ffff:0.0.0.0` and "every
//! IPv6 address" is `::`. Each address also has an entry with port 0, "some port here", for fragments that hide theirs.

/// The port of the entry that says an address has a listener on some port.
pub const SOME_PORT: u16 = 0;

/// The value where the class is the slot's.
pub const NO_CLASS: u32 = u32::MAX;

/// The word before an IPv4 address in its mapped form, as it lies.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An address as it stood in a packet: 16 bytes as they lay, IPv4 in its mapped form. Words rather than bytes, because bytes the
/// compiler keeps and moves one by one, for which a program has neither the stack nor the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    words: [u64; 2],
    is_v6: bool,
}

impl Address {
    /// An IPv4 address.
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::v4_as_it_lies(u32::from_ne_bytes(octets))
    }

    /// An IPv6 address.
    pub const fn v6(octets: [u8; 16]) -> Self {
        let [high, low] = halves(u128::from_ne_bytes(octets));
        Self::v6_as_it_lies([high, low])
    }

    /// An IPv4 address that was loaded as a word.
    #[inline(always)]
    pub const fn v4_as_it_lies(word: u32) -> Self {
        Self { words: [0, join(MAPPED, word)], is_v6: false }
    }

    /// An IPv6 address that was loaded as words.
    #[inline(always)]
    pub const fn v6_as_it_lies(words: [u64; 2]) -> Self {
        Self { words, is_v6: true }
    }

    /// From what [`Self::words`] and [`Self::is_v6`] gave.
    #[inline(always)]
    pub const fn from_words(words: [u64; 2], is_v6: bool) -> Self {
        Self { words, is_v6 }
    }

    /// Whether it is IPv6.
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        self.is_v6
    }

    /// The 16 bytes as they lie, in two words.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        self.words
    }

    /// The 16 bytes as they lie, in four words.
    #[inline(always)]
    pub(super) const fn quarters(self) -> [u32; 4] {
        let ([a, b], [c, d]) = (split(self.words[0]), split(self.words[1]));
        [a, b, c, d]
    }

    /// The 16 bytes.
    pub const fn octets(self) -> [u8; 16] {
        let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]] =
            [self.words[0].to_ne_bytes(), self.words[1].to_ne_bytes()];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The address as a string of bits from the highest on: 32 or 128 of them, zeros behind.
    #[inline(always)]
    pub const fn bits(self) -> [u64; 2] {
        let [high, low] = [u64::from_be(self.words[0]), u64::from_be(self.words[1])];
        if self.is_v6 { [high, low] } else { [low << 32, 0] }
    }

    /// The address that stands for every address of the same family.
    #[inline(always)]
    pub const fn any(self) -> Self {
        let low = if self.is_v6 { 0 } else { join(MAPPED, 0) };
        Self { words: [0, low], is_v6: self.is_v6 }
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(address) => Self::v4(address.octets()),
            core::net::IpAddr::V6(address) => Self::v6(address.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        let octets = address.octets();
        match octets {
            [.., a, b, c, d] if !address.is_v6 => Self::from([a, b, c, d]),
            _ => Self::from(octets),
        }
    }
}

/// Two words that lie side by side as one.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// What [`join`] joins.
#[inline(always)]
const fn split(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

const fn halves(both: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = both.to_ne_bytes();
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// A key of the listener table: 16 bytes address, 2 bytes port in network order, 2 bytes zero.
pub const fn listener_key(address: Address, port: u16) -> [u8; 20] {
    in_bytes(listener_words(address, port))
}

/// The same in words, for a program: of bytes that are stored one by one, whoever then loads a word waits for all four.
#[inline(always)]
pub const fn listener_words(address: Address, port: u16) -> [u32; 5] {
    let ([a, b, c, d], [high, low]) = (address.quarters(), port.to_be_bytes());
    [a, b, c, d, u32::from_ne_bytes([high, low, 0, 0])]
}

/// Five words as they lie.
pub(super) const fn in_bytes([v, w, x, y, z]: [u32; 5]) -> [u8; 20] {
    let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (v.to_ne_bytes(), w.to_ne_bytes(), x.to_ne_bytes());
    let ([m, n, o, p], [q, r, s, t]) = (y.to_ne_bytes(), z.to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t]
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_is_the_bytes_it_was() {
        let four = Address::v4([192, 0, 2, 1]);
        assert_eq!(four.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(four.bits(), [0xc000_0201_0000_0000, 0]);
        assert_eq!(four.any(), Address::v4([0; 4]));
        let octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let six = Address::v6(octets);
        assert_eq!((six.octets(), six.bits()), (octets, [0x2001_0db8_0000_0000, 1]));
        assert_eq!(six.any(), Address::v6([0; 16]));
        // A mapped address of IPv6 has the same bytes as an IPv4 address, and is none.
        assert_ne!(Address::v6(four.octets()), four);
        for text in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }
}
