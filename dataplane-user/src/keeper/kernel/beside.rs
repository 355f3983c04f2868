//! A change of layout (decision 10): the new tables stand beside those in force until they say everything.

use super::pins::{Pins, Slot, SlotState};
use super::{KernelError, Linux};

/// How far a change of layout is: the new programs may run only over filled tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// No change of layout, or it is done.
    Settled,
    /// New tables stand beside the ones in force.
    Beside {
        /// A plan was applied to the new tables.
        filled: bool,
        /// Bit n: thread n's sockets are in the new map.
        sockets: u64,
        /// How many threads there are, once it was said.
        threads: usize,
    },
}

impl Linux {
    /// Moves the links to the new programs as soon as their tables say everything, then drops the old tables.
    pub(super) fn settle(&mut self) -> Result<(), KernelError> {
        let Progress::Beside { filled: true, sockets, threads } = self.progress else { return Ok(()) };
        let all =
            u64::MAX.checked_shr(u64::BITS.saturating_sub(u32::try_from(threads).unwrap_or(0))).unwrap_or(0);
        if self.programs.steer.is_ok() && (threads == 0 || sockets & all != all) {
            return Ok(());
        }
        self.attach_filter();
        self.attach_steering()?;
        self.pins.promote()?;
        self.slot = self.pins.current();
        self.tables.moved(&self.slot);
        self.progress = Progress::Settled;
        self.rest();
        Ok(())
    }
}

/// The slot to load into, and whether the links may move at once.
pub(super) fn choose(pins: &Pins) -> Result<(Slot, Progress), KernelError> {
    let current = pins.current();
    match current.state() {
        SlotState::Absent | SlotState::Usable => Ok((current, Progress::Settled)),
        SlotState::Other if pins.has_live_links() => {
            Ok((pins.next(), Progress::Beside { filled: false, sockets: 0, threads: 0 }))
        }
        SlotState::Other => {
            current.remove()?;
            Ok((current, Progress::Settled))
        }
    }
}
