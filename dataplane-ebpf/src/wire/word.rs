//! Words that a program reads once a packet.

/// The active-generation word. It is one aligned load, so everything in it flips together.
///
/// Bit 0: generation; bit 1: somebody watches packets; bits 2 to 4: there are budgets of SYNs, of UDP packets and of new
/// connections; bits 8..: how many swaps there have been, for people who look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Active(pub u32);

const _: () = assert!(size_of::<Active>() == 4);

impl Active {
    /// The word for a generation.
    pub const fn new(generation: u32, swaps: u32) -> Self {
        Self(generation & 1 | swaps << 8)
    }

    /// The word with the other generation in force.
    #[must_use]
    pub const fn flipped(self) -> Self {
        Self((self.0 ^ 1).wrapping_add(1 << 8))
    }

    /// The word with packets watched, or not.
    #[must_use]
    pub const fn with_watched(self, watched: bool) -> Self {
        Self(self.0 & !2 | (watched as u32) << 1)
    }

    /// Whether somebody watches packets.
    #[inline(always)]
    pub const fn is_watched(self) -> bool {
        self.0 & 2 != 0
    }

    /// The word with budgets of SYNs, of UDP packets and of new connections, or without.
    #[must_use]
    pub const fn with_budgets(self, syn: bool, udp: bool, connections: bool) -> Self {
        Self(self.0 & !0x1c | (syn as u32) << 2 | (udp as u32) << 3 | (connections as u32) << 4)
    }

    /// Whether there are budgets of SYNs or of UDP packets.
    #[inline(always)]
    pub const fn has_packet_budgets(self) -> bool {
        self.0 & 12 != 0
    }

    /// Whether there are budgets of SYNs.
    #[inline(always)]
    pub const fn has_syn_budgets(self) -> bool {
        self.0 & 4 != 0
    }

    /// Whether there are budgets of UDP packets.
    #[inline(always)]
    pub const fn has_udp_budgets(self) -> bool {
        self.0 & 8 != 0
    }

    /// Whether there are budgets of new connections.
    #[inline(always)]
    pub const fn has_connection_budgets(self) -> bool {
        self.0 & 16 != 0
    }

    /// The generation, an index of the outer maps.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 & 1
    }

    /// How many swaps there have been, modulo 2^24.
    pub const fn swaps(self) -> u32 {
        self.0 >> 8
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
        for bits in 0..16 {
            let generation = bits >> 3;
            let word = Active::new(generation, u32::MAX >> 8);
            assert_eq!((word.generation(), word.swaps()), (generation, u32::MAX >> 8));
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
