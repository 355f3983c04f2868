//! The table of ranges: where listeners accept on a prefix of addresses or any port. One longest-prefix trie for both families,
//! looked up for the port and for any port.
//!
//! A key's data is two bytes port in network order (0: any), one byte family, one byte zero, sixteen bytes address, IPv4 in
//! its mapped form. A value is the bits of the address that the entry has, times two, and 1 where it is steered: of the
//! entries that the two lookups find, that with more bits decides, and that with the port before the other.

use super::listener::{Address, in_bytes};

/// The value's bit of what is steered.
const STEERED: u32 = 1;
/// Bits of a key before the address.
const HEAD: u32 = 32;
/// Bits of a whole key.
pub const WHOLE: u32 = HEAD + 128;
/// The port of an entry for any.
pub const ANY_PORT: u16 = 0;

/// A key's data in words, for a program.
#[inline(always)]
pub const fn range_words(address: Address, port: u16) -> [u32; 5] {
    let ([high, low], family) = (port.to_be_bytes(), if address.is_v6() { 6 } else { 4 });
    let [a, b, c, d] = address.quarters();
    [u32::from_ne_bytes([high, low, family, 0]), a, b, c, d]
}

/// A whole key: how many bits count, in the machine's order, then the data. `length` is the prefix's own.
pub fn range_key(address: Address, length: u8, port: u16) -> [u8; 24] {
    let mut key = [0; 24];
    let (head, data) = key.split_at_mut(4);
    head.copy_from_slice(&(HEAD + bits(address, length)).to_ne_bytes());
    data.copy_from_slice(&in_bytes(range_words(address, port)));
    key
}

/// A value.
pub const fn range_value(address: Address, length: u8, steered: bool) -> u32 {
    bits(address, length) << 1 | steered as u32
}

const fn bits(address: Address, length: u8) -> u32 {
    if address.is_v6() { length as u32 } else { length as u32 + 96 }
}

/// What the values found for a port and for any say: whether it is steered, or nothing where no range is about it.
#[inline(always)]
pub const fn is_steered(port: Option<u32>, any: Option<u32>) -> Option<bool> {
    let value = match (port, any) {
        (Some(port), Some(any)) => {
            if any >> 1 > port >> 1 {
                any
            } else {
                port
            }
        }
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return None,
    };
    Some(value & STEERED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_begin_with_what_is_looked_up_exactly() {
        let four = Address::v4([10, 0, 7, 0]);
        let key = range_key(four, 24, 443);
        assert_eq!(key[..4], 152_u32.to_ne_bytes());
        assert_eq!(key[4..8], [1, 0xbb, 4, 0]);
        assert_eq!(key[20..], [10, 0, 7, 0]);
        assert_eq!(range_key(four, 24, ANY_PORT)[4..8], [0, 0, 4, 0]);
        // Every IPv6 address is none of IPv4.
        assert_eq!(range_key(Address::v6([0; 16]), 0, 443)[6], 6);
    }

    #[test]
    fn more_bits_decide_then_the_port() {
        let value = |length, steered| Some(range_value(Address::v4([0; 4]), length, steered));
        assert_eq!(is_steered(None, None), None);
        assert_eq!(is_steered(value(24, false), value(24, true)), Some(false));
        assert_eq!(is_steered(value(24, false), value(25, true)), Some(true));
        assert_eq!(is_steered(value(24, true), value(16, false)), Some(true));
        assert_eq!(is_steered(None, value(0, true)), Some(true));
    }
}
