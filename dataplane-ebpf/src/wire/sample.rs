//! The gate of sampled packets: of 2^n packets it lets about one through, which then stands for 2^n.
//!
//! Every packet draws by itself, from a generator a CPU, so a sender cannot time his packets past it and sums of what is let
//! through are unbiased estimates, whenever n changes. With n = 0 nothing is left to chance: every packet is let through.

/// The largest n: one in a million.
pub const SHIFT_MAX: u32 = 20;

/// A multiplier for a linear congruential generator modulo 2^64, and an odd increment: its period is 2^64 (Hull and Dobell), for the
/// multiplier is one more than a multiple of 4. Both fit into an instruction.
const MULTIPLIER: u64 = 0x5851_f42d;
const INCREMENT: u64 = 0x1405_7b7f;

/// The state of a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Draw(pub u64);

impl Draw {
    /// The state that the next packet draws.
    #[inline(always)]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT))
    }
}

/// The gate, a word: which of the numbers that packets draw are let through, the highest of them. So a word of 0 lets all through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Gate(pub u32);

impl Gate {
    /// The gate for n, at most [`SHIFT_MAX`].
    pub const fn new(shift: u32) -> Self {
        Self(!(u32::MAX >> if shift > SHIFT_MAX { SHIFT_MAX } else { shift }))
    }

    /// n.
    #[inline(always)]
    pub const fn shift(self) -> u32 {
        let shift = self.0.leading_ones();
        if shift > SHIFT_MAX { SHIFT_MAX } else { shift }
    }

    /// Whether a packet that drew this is let through. The generator's upper bits are the random ones.
    #[inline(always)]
    pub const fn passes(self, Draw(state): Draw) -> bool {
        state >> 32 >= self.0 as u64
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
        let mut draw = Draw(0);
        for _ in 0..1000 {
            draw = draw.next();
            assert!(Gate::default().passes(draw));
        }
    }

    /// Binomial: within five standard deviations, for each n and for every residue of a sender's own period.
    #[test]
    fn one_in_two_to_the_n_passes_whatever_the_period() {
        const PACKETS: u32 = 1 << 20;
        for shift in 1..=8 {
            for period in [1_u32, 2, 3, 64] {
                let mut passed = [0_u32; 64];
                let mut draw = Draw(0x5eed);
                for packet in 0..PACKETS {
                    draw = draw.next();
                    passed[(packet % period) as usize] += u32::from(Gate::new(shift).passes(draw));
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
    fn the_word_says_which_gate() {
        assert_eq!(Gate::default(), Gate::new(0));
        for shift in 0..=SHIFT_MAX {
            assert_eq!(Gate::new(shift).shift(), shift);
        }
        assert_eq!(Gate::new(SHIFT_MAX + 1), Gate::new(SHIFT_MAX));
        assert_eq!(Gate(u32::MAX).shift(), SHIFT_MAX);
    }
}
