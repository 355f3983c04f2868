//! pcap files (draft-ietf-opsawg-pcap): 24 bytes, then each packet behind 16 of its own. Written little-endian with nanoseconds.

/// The magic number that says nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: (u16, u16) = (2, 4);
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;
const NANOSECONDS: u64 = 1_000_000_000;

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    /// Nanoseconds since the Unix epoch.
    pub(super) time_ns: u64,
    /// The frame's length, bytes.
    pub(super) length: u32,
    /// Its first bytes.
    pub(super) bytes: Vec<u8>,
}

/// A file of these packets, of each of which there are `snap` bytes at most.
pub(super) fn file(snap: u32, packets: &[Packet]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(MAGIC.to_le_bytes());
    file.extend(VERSION.0.to_le_bytes());
    file.extend(VERSION.1.to_le_bytes());
    // Reserved.
    file.extend([0; 8]);
    file.extend(snap.to_le_bytes());
    file.extend(ETHERNET.to_le_bytes());
    for packet in packets {
        let seconds = u32::try_from(packet.time_ns / NANOSECONDS).unwrap_or(u32::MAX);
        let rest = u32::try_from(packet.time_ns % NANOSECONDS).unwrap_or_default();
        let captured = u32::try_from(packet.bytes.len()).unwrap_or_default();
        for word in [seconds, rest, captured, packet.length.max(captured)] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&packet.bytes);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_head_and_its_packets() {
        assert_eq!(
            file(256, &[]),
            [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0]
        );
        let packet = Packet { time_ns: 3_000_000_007, length: 60, bytes: vec![9, 8] };
        let with = file(256, std::slice::from_ref(&packet));
        assert_eq!(with[24..], [3, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 60, 0, 0, 0, 9, 8]);
    }
}
