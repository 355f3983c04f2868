//! The gate of sampled packets: of 2^n packets it lets about one through, which then stands for 2^n.
//!
//! Every packet draws by itself, from a generator a CPU, so a sender cannot time his packets past it and sums of what is let
//! through are unbiased estimates, whenever n changes. With n = 0 nothing is left to chance: every packet is let through.

/// The largest n: one in a million.
pub const SHIFT_MAX: u32 = 20;

/// Knuth's multiplier for linear congruential generators modulo 2^64 (MMIX), and an odd increment.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// The gate of one CPU. The program writes `state` alone and the keeper means `shift` alone, so neither undoes what the other
/// does: a lost state is another random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Gate {
    /// The generator's state.
    pub state: u64,
    /// n; what is above [`SHIFT_MAX`] counts as that.
    pub shift: u64,
}

const _: () = assert!(size_of::<Gate>() == 16 && align_of::<Gate>() == 8);

impl Gate {
    /// As it lies in the map.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (state, shift) = bytes.split_at_mut(8);
        state.copy_from_slice(&self.state.to_ne_bytes());
        shift.copy_from_slice(&self.shift.to_ne_bytes());
        bytes
    }

    /// The state after this packet.
    #[inline(always)]
    pub const fn next(state: u64) -> u64 {
        state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)
    }

    /// Whether a packet that drew this state is let through. The generator's upper bits are the random ones.
    #[inline(always)]
    pub const fn passes(state: u64, shift: u32) -> bool {
        // Two steps, so that a shift by 64 is none.
        (state >> 1) >> (63 - shift) == 0
    }
}

/// A packet that the gate let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// It stands for 2^this packets, itself among them.
    pub shift: u32,
}

impl Sample {
    /// How many packets it stands for.
    #[inline(always)]
    pub const fn packets(self) -> u64 {
        1 << self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lets_everything_through() {
        let mut state = 0;
        for _ in 0..1000 {
            state = Gate::next(state);
            assert!(Gate::passes(state, 0));
        }
    }

    /// Binomial: within five standard deviations, for each n and for every residue of a sender's own period.
    #[test]
    fn one_in_two_to_the_n_passes_whatever_the_period() {
        const PACKETS: u32 = 1 << 20;
        for shift in 1..=8 {
            for period in [1_u32, 2, 3, 64] {
                let mut passed = [0_u32; 64];
                let mut state = 0x5eed;
                for packet in 0..PACKETS {
                    state = Gate::next(state);
                    passed[(packet % period) as usize] += u32::from(Gate::passes(state, shift));
                }
                let trials = f64::from(PACKETS / period);
                let share = 1.0 / f64::from(1 << shift);
                let (mean, deviation) = (trials * share, (trials * share * (1.0 - share)).sqrt());
                for count in &passed[..period as usize] {
                    let off = (f64::from(*count) - mean).abs();
                    assert!(off < 5.0 * deviation, "n {shift}, period {period}: {count}, expected {mean}");
                }
            }
        }
    }

    #[test]
    fn words_lie_in_order() {
        let bytes = Gate { state: 1, shift: 2 }.to_bytes();
        let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
        assert!(words.eq([1, 2]));
    }
}
