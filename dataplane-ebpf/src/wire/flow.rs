//! Watching packets: what is asked for, and the record of a packet that somebody watches.
//!
//! There are [`WATCHES_MAX`] watches at once. Each says which packets it is about, and of how many one is taken; a packet that a
//! watch takes leaves a record in the ring, with the first bytes of its frame as they are: whoever reads the ring takes them
//! apart with the same lines as the program (`crate::decide::parse`).

/// Watches at once.
pub const WATCHES_MAX: usize = 4;
/// The ring's size, bytes: records of packets that nobody has read yet. A power of two, in whole pages.
pub const RING_BYTES: u32 = 256 << 10;
/// The most of a frame that a record has.
pub const SNAP_MAX: u32 = 1504;
/// Bytes of a packet that there is room for where a record is put together: a power of two, which a mask bounds.
pub const ROOM: u32 = SNAP_MAX.next_power_of_two();
/// The slot of a packet that cannot be read.
pub const NO_SLOT: u32 = u32::MAX;
/// Where a record says a watch's exponent: the watch did not take the packet.
pub const NOT_TAKEN: u8 = 0xff;
/// The largest exponent: one packet in two billion.
pub const SHIFT_MAX: u32 = 31;
/// Classes of verdicts that are sampled apart, so that a flood of one does not hide the other.
pub const CLASSES: usize = 2;

/// One watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Watch {
    /// Until when, nanoseconds of `CLOCK_MONOTONIC`; 0: nothing is watched. Whoever watches moves it on, so a watch whose
    /// owner has died ends by itself.
    pub until: u64,
    /// Bit n: packets of reason n.
    pub reasons: u64,
    /// The prefix of sources, in 16 bytes as the table of listeners has addresses; all zeros with a mask of zeros: any.
    pub source: [u64; 2],
    /// Its mask.
    pub mask: [u64; 2],
    /// Slots (`super::slot`), two ranges, both ends included.
    pub slots: [[u32; 2]; 2],
    /// Packets that this rule decided; 0: any.
    pub rule: u32,
    /// 4 or 6; 0: any, also what is no IP.
    pub family: u32,
    /// One in 2^n, by class: what is dropped (or would be, were it not observed), and what passes.
    pub shifts: [u32; CLASSES],
    /// How much of the frame the record has, at least 1, bytes.
    pub snap: u32,
    /// After so many packets it ends; 0: it does not.
    pub limit: u32,
}

const _: () = assert!(size_of::<Watch>() == 88 && align_of::<Watch>() == 8);

/// All of them, as one value of the map.
pub type Watches = [Watch; WATCHES_MAX];

impl Watch {
    /// As it lies in the map.
    pub fn to_bytes(&self) -> [u8; 88] {
        let mut bytes = [0; 88];
        let longs = [self.until, self.reasons].into_iter().chain(self.source).chain(self.mask);
        let words = self.slots.into_iter().flatten().chain([self.rule, self.family]);
        let words = words.chain(self.shifts).chain([self.snap, self.limit]);
        let (front, back) = bytes.split_at_mut(48);
        front.as_chunks_mut::<8>().0.iter_mut().zip(longs).for_each(|(to, from)| *to = from.to_ne_bytes());
        back.as_chunks_mut::<4>().0.iter_mut().zip(words).for_each(|(to, from)| *to = from.to_ne_bytes());
        bytes
    }

    /// Whether it is about this packet.
    #[inline(always)]
    pub const fn is_about(&self, packet: &Watched) -> bool {
        let [[from, to], [or_from, or_to]] = self.slots;
        let slot = packet.slot;
        self.reasons >> (packet.reason & 63) & 1 != 0
            && (self.rule == 0 || self.rule == packet.rule)
            && (self.family == 0 || self.family == packet.family)
            && packet.source[0] & self.mask[0] == self.source[0]
            && packet.source[1] & self.mask[1] == self.source[1]
            && ((from <= slot && slot <= to) || (or_from <= slot && slot <= or_to))
    }
}

/// A packet as watches look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The source address, zeros where there is none.
    pub source: [u64; 2],
    /// 4, 6, or 0 of what is no IP or cannot be read.
    pub family: u32,
    /// What it carries, or [`NO_SLOT`].
    pub slot: u32,
    /// The reason's number.
    pub reason: u32,
    /// The rule that decided, or 0.
    pub rule: u32,
}

/// What a CPU has counted, by watch and class; the keeper subtracts what was there when the watch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Seen {
    /// Packets the watch was about, taken or not.
    pub matched: [[u64; CLASSES]; WATCHES_MAX],
    /// Packets it took for which the ring had no room.
    pub lost: [[u64; CLASSES]; WATCHES_MAX],
}

const _: () = assert!(size_of::<Seen>() == 128 && align_of::<Seen>() == 8);

/// What a record begins with; the frame's first `captured` bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The frame's length, bytes.
    pub length: u32,
    /// How much of it follows.
    pub captured: u32,
    /// The index of the interface that received it.
    pub interface: u32,
    /// The reason's number.
    pub reason: u32,
    /// The rule that decided, or 0.
    pub rule: u32,
    /// By watch: the exponent with which it was taken, or [`NOT_TAKEN`].
    pub shifts: [u8; WATCHES_MAX],
}

const _: () = assert!(size_of::<Head>() == 32 && align_of::<Head>() == 8);

impl Head {
    /// As it lies in the ring.
    pub const SIZE: usize = size_of::<Self>();

    /// A record taken apart; nothing where it is too short for what it says.
    pub fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = record.split_first_chunk::<{ Self::SIZE }>()?;
        let (time, words) = head.split_first_chunk::<8>()?;
        let word = |at: usize| {
            let bytes = words.as_chunks::<4>().0.get(at).copied().unwrap_or_default();
            u32::from_ne_bytes(bytes)
        };
        let head = Self {
            time: u64::from_ne_bytes(*time),
            length: word(0),
            captured: word(1),
            interface: word(2),
            reason: word(3),
            rule: word(4),
            shifts: word(5).to_ne_bytes(),
        };
        // The ring rounds lengths up.
        Some((head, rest.get(..head.captured as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::wire::Address;

    fn packet() -> Watched {
        Watched {
            source: Address::v4([10, 1, 2, 3]).words(),
            family: 4,
            slot: 443,
            reason: Reason::Denied.number(),
            rule: 7,
        }
    }

    fn any() -> Watch {
        Watch { reasons: u64::MAX, slots: [[0, u32::MAX]; 2], ..Watch::default() }
    }

    #[test]
    fn a_watch_is_about_what_has_all_it_asks_for() {
        assert!(any().is_about(&packet()));
        let mask = [u64::MAX, u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 0, 0])];
        let source = Address::v4([10, 1, 0, 0]).words();
        let yes = [
            Watch { reasons: 1 << 32, ..any() },
            Watch { rule: 7, ..any() },
            Watch { family: 4, ..any() },
            Watch { source, mask, ..any() },
            Watch { slots: [[1, 2], [443, 443]], ..any() },
        ];
        assert!(yes.iter().all(|watch| watch.is_about(&packet())));
        let no = [
            Watch { reasons: !(1 << 32), ..any() },
            Watch { rule: 8, ..any() },
            Watch { family: 6, ..any() },
            Watch { source: Address::v4([10, 2, 0, 0]).words(), mask, ..any() },
            Watch { slots: [[1, 442], [444, 500]], ..any() },
        ];
        assert!(no.iter().all(|watch| !watch.is_about(&packet())));
    }

    #[test]
    fn a_watch_lies_as_the_program_reads_it() {
        let watch = Watch {
            until: 1,
            reasons: 2,
            source: [3, 4],
            mask: [5, 6],
            slots: [[7, 8], [9, 10]],
            rule: 11,
            family: 12,
            shifts: [13, 14],
            snap: 15,
            limit: 16,
        };
        let bytes = watch.to_bytes();
        let longs = bytes[..48].as_chunks::<8>().0.iter().map(|long| u64::from_ne_bytes(*long));
        assert!(longs.eq(1..=6));
        let words = bytes[48..].as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word));
        assert!(words.eq(7..=16));
    }

    #[test]
    fn a_record_is_taken_apart_or_refused() {
        let mut record = [0_u8; 40];
        record[..8].copy_from_slice(&5_u64.to_ne_bytes());
        for (at, word) in [60_u32, 3, 2, 32, 7].into_iter().enumerate() {
            record[8 + at * 4..12 + at * 4].copy_from_slice(&word.to_ne_bytes());
        }
        record[28..32].copy_from_slice(&[0, NOT_TAKEN, 4, NOT_TAKEN]);
        record[32..35].copy_from_slice(b"abc");
        let (head, bytes) = Head::split(&record).unwrap();
        assert_eq!(bytes, b"abc");
        assert_eq!((head.time, head.length, head.interface, head.reason, head.rule), (5, 60, 2, 32, 7));
        assert_eq!(head.shifts, [0, NOT_TAKEN, 4, NOT_TAKEN]);
        assert_eq!(Head::split(&record[..34]), None);
        assert_eq!(Head::split(&record[..20]), None);
    }
}
