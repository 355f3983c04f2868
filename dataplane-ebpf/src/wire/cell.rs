//! What happens to packets of a class of sources to a class of destinations.

/// A cell, at source class * number of destination classes + destination class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The rule or protocol list that decides, or of a packet with the reason `observed` the one that would; 0 where none does.
    pub rule: u32,
    /// The reason's number.
    pub reason: u32,
    /// The rule's counter for this reason, from 1 on; 0 where it has none.
    pub counter: u32,
}

impl Cell {
    /// A cell without a counter.
    pub const fn new(rule: u32, reason: u32) -> Self {
        Self { rule, reason, counter: 0 }
    }

    /// The two words that lie in the table: the rule; the reason in the lower 8 bits and the counter in the others.
    pub const fn to_words(self) -> [u32; 2] {
        [self.rule, self.reason & 0xff | self.counter << 8]
    }

    /// From the words.
    #[inline(always)]
    pub const fn from_words([rule, rest]: [u32; 2]) -> Self {
        Self { rule, reason: rest & 0xff, counter: rest >> 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_survives_the_table() {
        let cell = Cell { rule: u32::MAX, reason: 51, counter: super::super::RULES_MAX };
        assert_eq!(Cell::from_words(cell.to_words()), cell);
        assert_eq!(Cell::from_words([0; 2]), Cell::new(0, 0));
    }
}
