//! How many packets are looked at: all while they are few, one in 2^n while they are many. Pure.

use dataplane_ebpf::wire::sample::SHIFT_MAX;

/// Samples in a second, at most, once the rate is known: what they cost is then a small part of one CPU, and those of the
/// seconds between two takings find room in the kernel's table, so that nobody is pushed out.
pub(super) const SAMPLES: u64 = 8192;

/// The n for so many packets in a second. It is lowered only with some room to spare, so that a rate at the border does not
/// make it change every second.
pub(super) fn shift(current: u32, per_second: u64) -> u32 {
    let samples = |shift: u32| per_second >> shift;
    let needed = (0..SHIFT_MAX).find(|shift| samples(*shift) <= SAMPLES).unwrap_or(SHIFT_MAX);
    if needed >= current {
        return needed;
    }
    (needed..current).find(|shift| samples(*shift) <= SAMPLES / 4 * 3).unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_are_all_looked_at() {
        assert_eq!(shift(0, 0), 0);
        assert_eq!(shift(0, SAMPLES), 0);
        assert_eq!(shift(0, SAMPLES + 1), 1);
        assert_eq!(shift(0, 2 * SAMPLES), 1);
        assert_eq!(shift(9, 10), 0);
    }

    proptest! {
        #[test]
        fn samples_stay_few_and_the_choice_is_its_own_successor(current in 0..=SHIFT_MAX, rate in 0..u64::MAX >> 20) {
            let chosen = shift(current, rate);
            prop_assert!(rate >> chosen <= SAMPLES || chosen == SHIFT_MAX);
            prop_assert_eq!(shift(chosen, rate), chosen);
            // No coarser than needed by more than one step.
            prop_assert!(chosen == 0 || rate >> (chosen - 1) > SAMPLES / 4 * 3 || chosen == current && rate >> chosen > SAMPLES / 4);
        }
    }
}
