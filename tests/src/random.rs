//! Seeded numbers, so that a failed run can be repeated.

/// xorshift64*.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From `SALLYPORT_SEED`, else from `default`; says which.
    pub fn seeded(default: u64) -> Self {
        let seed = std::env::var("SALLYPORT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        eprintln!("seed {seed} (SALLYPORT_SEED)");
        Self(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
