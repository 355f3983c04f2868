//! The lists of sources: one longest-prefix trie a family holds deny and allow entries together, so one lookup yields
//! the longest prefix of both. At equal length deny wins because userspace enters only the deny.

use super::{pair_from_bytes, pair_to_bytes};

/// A source entry that drops.
pub const DENY: u32 = 0;
/// A source entry that lets through.
pub const ALLOW: u32 = 1;

/// What is known of a source prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// The rule's stable id.
    pub rule: u32,
    /// [`DENY`] or [`ALLOW`]; anything else is taken for [`DENY`].
    pub action: u32,
}

const _: () = assert!(size_of::<Entry>() == 8 && align_of::<Entry>() == 4);

impl Entry {
    /// An entry that drops.
    pub const fn deny(rule: u32) -> Self {
        Self { rule, action: DENY }
    }

    /// An entry that lets through.
    pub const fn allow(rule: u32) -> Self {
        Self { rule, action: ALLOW }
    }

    /// Whether it lets through.
    #[inline(always)]
    pub const fn allows(self) -> bool {
        self.action == ALLOW
    }

    /// As it lies in the map.
    pub const fn to_bytes(self) -> [u8; 8] {
        pair_to_bytes(self.rule, self.action)
    }

    /// From how it lies in the map.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        let (rule, action) = pair_from_bytes(bytes);
        Self { rule, action }
    }
}

/// A key of the IPv4 trie: prefix length in the machine's order, then the address.
pub const fn source4_key(length: u8, [a, b, c, d]: [u8; 4]) -> [u8; 8] {
    let [l, m, n, o] = (length as u32).to_ne_bytes();
    [l, m, n, o, a, b, c, d]
}

/// A key of the IPv6 trie.
pub fn source6_key(length: u8, address: [u8; 16]) -> [u8; 20] {
    let mut key = [0; 20];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&u32::from(length).to_ne_bytes());
    tail.copy_from_slice(&address);
    key
}
