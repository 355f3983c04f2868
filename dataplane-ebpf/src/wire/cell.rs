//! What happens to packets of a class of sources to a class of destinations.

/// A cell, at source class * number of destination classes + destination class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Cell {
    /// The rule or protocol list that decides, 0 where none does.
    pub rule: u32,
    /// The reason's number.
    pub verdict: u32,
    /// The rule or list that would drop what passes, were it not only observed; 0 where none would.
    pub observed: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Cell>() == 16 && align_of::<Cell>() == 4);

impl Cell {
    /// A cell.
    pub const fn new(rule: u32, verdict: u32, observed: u32) -> Self {
        Self { rule, verdict, observed, reserved: 0 }
    }

    /// From its words as they lie in the map.
    #[inline(always)]
    pub const fn from_words([rule, verdict, observed, reserved]: [u32; 4]) -> Self {
        Self { rule, verdict, observed, reserved }
    }

    /// As it lies in the map.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let words = [self.rule, self.verdict, self.observed, self.reserved];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_in_order() {
        let bytes = Cell::new(1, 2, 3).to_bytes();
        let words = [0, 4, 8, 12].map(|at| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()));
        assert_eq!(words, [1, 2, 3, 0]);
        assert_eq!(Cell::from_words(words), Cell::new(1, 2, 3));
    }
}
