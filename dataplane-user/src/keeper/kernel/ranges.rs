//! Listeners on prefixes and any port: one longest-prefix trie, replaced as a whole.
//!
//! It stands outside of generations, and says everything that is steered where a listener has a range. So a new one comes into
//! force before the table of listeners that goes with it, and the last one goes after: at no time is a connection steered
//! nowhere that both plans steer.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dataplane_ebpf::wire::range::{ANY_PORT, range_key, range_value};
use dataplane_ebpf::wire::{Address, maps};

use super::KernelError;
use super::pins::{RANGES, Slot};
use super::sys::{self, Shape};
use crate::keeper::plan::Range;

/// The place that the program looks at.
const PLACE: [u8; 4] = 0_u32.to_ne_bytes();

/// The table, and what it says; nothing before this process has said it.
pub(super) struct Ranges {
    outer: OwnedFd,
    said: Option<Vec<Range>>,
}

impl Ranges {
    /// Opens the slot's table.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        Ok(Self { outer: slot.open(maps::RANGES)?, said: None })
    }

    /// What it says.
    pub(super) fn said(&self) -> Option<&[Range]> {
        self.said.as_deref()
    }

    /// Makes it say this.
    pub(super) fn say(&mut self, wanted: &[Range]) -> Result<(), KernelError> {
        if self.said() == Some(wanted) {
            return Ok(());
        }
        match wanted {
            [] => self.clear()?,
            wanted => self.fill(wanted)?,
        }
        self.said = Some(wanted.to_vec());
        Ok(())
    }

    fn clear(&self) -> Result<(), KernelError> {
        match sys::map_delete(self.outer.as_fd(), &PLACE) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(KernelError::table("emptying", maps::RANGES)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn fill(&self, wanted: &[Range]) -> Result<(), KernelError> {
        let entries = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let map = sys::map_create(maps::RANGES, Shape { entries, ..RANGES })
            .map_err(KernelError::table("making", maps::RANGES))?;
        for range in wanted {
            let (key, value) = entry(range);
            sys::map_update(map.as_fd(), &key, &value)
                .map_err(KernelError::table("filling", maps::RANGES))?;
        }
        sys::map_update(self.outer.as_fd(), &PLACE, &map.as_raw_fd().to_ne_bytes())
            .map_err(KernelError::table("entering", maps::RANGES))
    }
}

fn entry(range: &Range) -> ([u8; 24], [u8; 4]) {
    let address = Address::from(range.net.network());
    let length = range.net.prefix_len();
    let key = range_key(address, length, range.port.number().unwrap_or(ANY_PORT));
    (key, range_value(address, length, range.steered).to_ne_bytes())
}
