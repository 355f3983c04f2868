//! The classes of sources: one longest-prefix trie a family, whose value is a class. A source in no prefix has class 0.

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
