//! What lies in the maps. Every key and value is free of padding, its size asserted; no enum ever goes into a map, since
//! the other side may be of another release.

pub mod budget;
pub mod cell;
pub mod flow;
pub mod here;
pub mod listener;
pub mod maps;
pub mod range;
pub mod sample;
pub mod sender;
pub mod shared;
pub mod slot;
pub mod table;
pub mod word;

pub use cell::Cell;
pub use listener::{Address, listener_key, listener_words};
pub use word::{Active, Steering};

/// Worker threads a node can have at most.
pub const THREADS_MAX: u32 = 64;
/// CPUs the cpu -> thread table covers; a CPU beyond it uses its number modulo this.
pub const CPUS_MAX: u32 = 1024;
/// Rules that have their own counter; drops by the rest are counted by reason alone.
pub const RULES_MAX: u32 = 16_384;
/// Generations of the rule tables: the one in force and the one being filled.
pub const GENERATIONS: u32 = 2;

/// What a rule's counter counts: rule id and reason number. A rule that turned from deny to allow has one of each. Userspace
/// knows which counter is whose; a cell has the counter itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct RuleReason {
    /// The rule's stable id.
    pub rule: u32,
    /// The reason's stable number.
    pub reason: u32,
}

const _: () = assert!(size_of::<RuleReason>() == 8 && align_of::<RuleReason>() == 4);

impl RuleReason {
    /// As it lies in the map.
    pub const fn to_bytes(self) -> [u8; 8] {
        pair_to_bytes(self.rule, self.reason)
    }

    /// From how it lies in the map.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        let (rule, reason) = pair_from_bytes(bytes);
        Self { rule, reason }
    }
}

/// The index of a socket in the socket map.
#[inline(always)]
pub const fn socket_index(thread: u32, v6: bool) -> u32 {
    thread * 2 + v6 as u32
}

const fn pair_to_bytes(first: u32, second: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

const fn pair_from_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> (u32, u32) {
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_the_map() {
        let key = RuleReason { rule: 7, reason: 32 };
        assert_eq!(RuleReason::from_bytes(key.to_bytes()), key);
    }
}
