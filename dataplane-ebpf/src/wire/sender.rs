//! Who is sending: what sampled packets have in common, and their sums.

use super::Address;

/// Entries the table has. The least recently used go first; the keeper empties it long before it is full.
pub const SENDERS_MAX: u32 = 65_536;

/// A sender and what he sends to: addresses in 16 bytes each, IPv4 in its mapped form, and the slot of the table of destinations
/// (`super::slot`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Sender {
    /// The source address.
    pub source: [u8; 16],
    /// The destination address.
    pub destination: [u8; 16],
    /// What the packets carry.
    pub slot: u32,
    /// The CPU that counts: an entry of its own for each means that no two ever write the same one.
    pub cpu: u32,
}

const _: () = assert!(size_of::<Sender>() == 40 && align_of::<Sender>() == 4);

/// Sums over a sender's sampled packets, each counted as many times as it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, link layer included.
    pub bytes: u64,
    /// Of the packets, TCP segments that ask for a connection.
    pub syns: u64,
    /// Of the packets, those dropped.
    pub drops: u64,
    /// When the first was seen, in nanoseconds of `CLOCK_MONOTONIC`.
    pub first: u64,
    /// When the last was.
    pub last: u64,
}

const _: () = assert!(size_of::<Sent>() == 48 && align_of::<Sent>() == 8);

impl Sender {
    /// As it lies in the map.
    pub const SIZE: usize = size_of::<Self>();

    /// The key of packets from one address to another.
    #[inline(always)]
    pub const fn new(source: Address, destination: Address, slot: u32, cpu: u32) -> Self {
        Self { source: source.octets(), destination: destination.octets(), slot, cpu }
    }

    /// From how it lies in the map.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let (mut source, mut destination, mut slot, mut cpu) = ([0; 16], [0; 16], [0; 4], [0; 4]);
        source.copy_from_slice(&bytes[..16]);
        destination.copy_from_slice(&bytes[16..32]);
        slot.copy_from_slice(&bytes[32..36]);
        cpu.copy_from_slice(&bytes[36..]);
        Self { source, destination, slot: u32::from_ne_bytes(slot), cpu: u32::from_ne_bytes(cpu) }
    }
}

impl Sent {
    /// As it lies in the map.
    pub const SIZE: usize = size_of::<Self>();

    /// From how it lies in the map.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let [packets, bytes, syns, drops, first, last] = words;
        Self { packets, bytes, syns, drops, first, last }
    }
}
