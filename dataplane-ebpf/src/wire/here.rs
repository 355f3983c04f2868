//! What each CPU has for itself of every packet: one value, so that a packet asks for it once.

use super::sample::Draw;
use crate::reason::SLOTS;

/// What each CPU has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Here {
    /// The state of its generator; the keeper gives it one before there are packets.
    pub draw: Draw,
    /// Packets by the number of their reason.
    pub reasons: [u64; SLOTS as usize],
}

const _: () = assert!(size_of::<Here>() == 8 + 8 * SLOTS as usize && align_of::<Here>() == 8);
