//! Words that a program reads once a packet.

/// The active-generation word. It is one aligned load, so everything in it flips together.
///
/// Bit 0: generation; bit 1: somebody watches packets; bit 2: the IPv4 trie has entries; bit 3: the IPv6 trie has; bits 4 to
/// 6: there are budgets of SYNs, of UDP packets and of new connections; bits 16..32: how many classes of
/// destinations there are, 0 where nothing is looked up at all; bits 32..: how many swaps there have been, for people who look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Active(pub u64);

const _: () = assert!(size_of::<Active>() == 8);

impl Active {
    /// The word for a generation.
    pub const fn new(generation: u32, destinations: u16, has4: bool, has6: bool, swaps: u32) -> Self {
        Self(
            (generation & 1) as u64
                | (destinations as u64) << 16
                | (has4 as u64) << 2
                | (has6 as u64) << 3
                | (swaps as u64) << 32,
        )
    }

    /// The word with packets watched, or not.
    #[must_use]
    pub const fn with_watched(self, watched: bool) -> Self {
        Self(self.0 & !2 | (watched as u64) << 1)
    }

    /// Whether somebody watches packets.
    #[inline(always)]
    pub const fn is_watched(self) -> bool {
        self.0 & 2 != 0
    }

    /// The word with budgets of SYNs, of UDP packets and of new connections, or without.
    #[must_use]
    pub const fn with_budgets(self, syn: bool, udp: bool, connections: bool) -> Self {
        Self(self.0 & !0x70 | (syn as u64) << 4 | (udp as u64) << 5 | (connections as u64) << 6)
    }

    /// Whether there are budgets of SYNs.
    #[inline(always)]
    pub const fn has_syn_budgets(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Whether there are budgets of UDP packets.
    #[inline(always)]
    pub const fn has_udp_budgets(self) -> bool {
        self.0 & 0x20 != 0
    }

    /// Whether there are budgets of new connections.
    #[inline(always)]
    pub const fn has_connection_budgets(self) -> bool {
        self.0 & 0x40 != 0
    }

    /// The generation, an index of the outer maps.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 & 1) as u32
    }

    /// How many classes of destinations there are; 0: no packet is judged by the tables.
    #[inline(always)]
    pub const fn destinations(self) -> u32 {
        (self.0 >> 16) as u32 & 0xffff
    }

    /// Whether the IPv4 trie has entries; without, its lookup is left out.
    #[inline(always)]
    pub const fn has_sources4(self) -> bool {
        self.0 & 4 != 0
    }

    /// Whether the IPv6 trie has entries.
    #[inline(always)]
    pub const fn has_sources6(self) -> bool {
        self.0 & 8 != 0
    }

    /// How many swaps there have been, modulo 2^32.
    pub const fn swaps(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How a thread is chosen: bits 0..16 the number of threads, bit 16: by flow rather than by CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Steering(pub u32);

const _: () = assert!(size_of::<Steering>() == 4);

impl Steering {
    /// The word for a number of threads.
    pub const fn new(threads: u32, by_flow: bool) -> Self {
        Self((threads & 0xffff) | (by_flow as u32) << 16)
    }

    /// The number of threads; never 0.
    #[inline(always)]
    pub const fn threads(self) -> u32 {
        let threads = self.0 & 0xffff;
        if threads == 0 { 1 } else { threads }
    }

    /// Whether a flow's hash chooses the thread. So it must where fewer receive queues than threads would leave threads idle.
    #[inline(always)]
    pub const fn by_flow(self) -> bool {
        self.0 & 0x1_0000 != 0
    }
}

/// Mixes a client's address and port into a number whose remainders are even (the finaliser of MurmurHash3).
#[inline(always)]
pub const fn flow_hash(a: u32, b: u32) -> u32 {
    let mut h = a ^ b.wrapping_mul(0x9e37_79b1);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_keeps_its_parts() {
        for bits in 0..16_u32 {
            let destinations = if bits & 2 == 0 { 1024 } else { u16::MAX };
            let word = Active::new(bits & 1, destinations, bits & 4 != 0, bits & 8 != 0, u32::MAX);
            assert_eq!(word.generation(), bits & 1);
            assert_eq!(word.destinations(), u32::from(destinations));
            assert_eq!(word.has_sources4(), bits & 4 != 0);
            assert_eq!(word.has_sources6(), bits & 8 != 0);
            assert_eq!(word.swaps(), u32::MAX);
            assert!(!word.is_watched() && word.with_watched(true).is_watched());
            assert_eq!(word.with_watched(true).with_watched(false), word);
            let with = word.with_budgets(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            assert_eq!(
                [with.has_syn_budgets(), with.has_udp_budgets(), with.has_connection_budgets()],
                [1, 2, 4].map(|bit| bits & bit != 0)
            );
            assert_eq!(with.with_budgets(false, false, false), word);
        }
    }

    #[test]
    fn steering_keeps_its_parts() {
        let word = Steering::new(64, true);
        assert_eq!((word.threads(), word.by_flow()), (64, true));
        assert_eq!(Steering::default().threads(), 1);
    }

    #[test]
    fn neighbouring_ports_spread() {
        let mut seen = [0_u32; 4];
        for port in 0..4000 {
            seen[(flow_hash(0x0a00_0001, port) % 4) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
    }
}
