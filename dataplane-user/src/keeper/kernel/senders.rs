//! Takes what the filter has summed by sender, and sets how many packets it looks at.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};

use dataplane_ebpf::wire::maps;
use dataplane_ebpf::wire::sample::{Gate, SHIFT_MAX};
use dataplane_ebpf::wire::sender::{Sender, Sent};

use super::pins::Slot;
use super::{KernelError, sys};

/// Entries of one system call.
const BATCH: usize = 4096;

/// What was taken of the kernel's table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// The sums since the time before, an entry for each CPU that counted.
    pub senders: Vec<(Sender, Sent)>,
    /// Packets that all samples of the time stood for; those of `senders` among them.
    pub sampled: u64,
}

pub(super) struct Senders {
    gate: OwnedFd,
    senders: OwnedFd,
    sampled: OwnedFd,
    cpus: usize,
    /// Of `sampled`, what was taken.
    taken: u64,
    /// What a former keeper left.
    left: Vec<(Sender, Sent)>,
}

impl Senders {
    /// Opens the slot's tables. What a former keeper left in them is taken with the rest; what it took already is not known
    /// here, and not counted again.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| KernelError::table("counting the CPUs for", maps::SAMPLED)(error))?;
        let mut senders = Self {
            gate: slot.open(maps::GATE)?,
            senders: slot.open(maps::SENDERS)?,
            sampled: slot.open(maps::SAMPLED)?,
            cpus,
            taken: 0,
            left: Vec::new(),
        };
        let sampled = senders.sampled()?;
        senders.left = senders.drain()?;
        let left: u64 = senders.left.iter().map(|(_, sent)| sent.packets).sum();
        senders.taken = sampled.saturating_sub(left);
        Ok(senders)
    }

    /// Packets that samples stood for since the time before; nothing is taken.
    pub(super) fn waiting(&self) -> Result<u64, KernelError> {
        Ok(self.sampled()?.saturating_sub(self.taken))
    }

    pub(super) fn take(&mut self) -> Result<Taken, KernelError> {
        // Before the entries: an entry that is taken is in this number or will be, and is never missing from both.
        let sampled = self.sampled()?;
        let mut senders = std::mem::take(&mut self.left);
        senders.extend(self.drain()?);
        let before = std::mem::replace(&mut self.taken, sampled);
        Ok(Taken { senders, sampled: sampled.saturating_sub(before) })
    }

    /// How many packets are looked at: one in 2^n.
    pub(super) fn shift(&self) -> Result<u32, KernelError> {
        let shifts = self.gates()?;
        Ok(shifts.into_iter().max().unwrap_or(0))
    }

    /// Sets it on every CPU, with a new state for each.
    pub(super) fn set_shift(&self, shift: u32) -> Result<(), KernelError> {
        let shift = shift.min(SHIFT_MAX);
        if self.gates()?.iter().all(|known| *known == shift) {
            return Ok(());
        }
        // Keyed by the kernel's random numbers: nobody can foresee which packets are looked at.
        let random = RandomState::new();
        let gate = |cpu: usize| Gate { state: random.hash_one(cpu), shift: shift.into() }.to_bytes();
        let gates: Vec<u8> = (0..self.cpus).flat_map(gate).collect();
        sys::map_update(self.gate.as_fd(), &0_u32.to_ne_bytes(), &gates)
            .map_err(KernelError::table("writing", maps::GATE))
    }

    fn gates(&self) -> Result<Vec<u32>, KernelError> {
        let mut values = vec![0; self.cpus * size_of::<Gate>()];
        sys::map_lookup(self.gate.as_fd(), &0_u32.to_ne_bytes(), &mut values)
            .map_err(KernelError::table("reading", maps::GATE))?;
        let (words, _) = values.as_chunks::<8>();
        let shifts = words.iter().skip(1).step_by(2).map(|word| u64::from_ne_bytes(*word));
        Ok(shifts.map(|shift| u32::try_from(shift).unwrap_or(SHIFT_MAX)).collect())
    }

    fn sampled(&self) -> Result<u64, KernelError> {
        let mut values = vec![0; self.cpus * 8];
        sys::map_lookup(self.sampled.as_fd(), &0_u32.to_ne_bytes(), &mut values)
            .map_err(KernelError::table("reading", maps::SAMPLED))?;
        let (values, _) = values.as_chunks::<8>();
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(u64::from_ne_bytes(*value))))
    }

    /// Empties the table.
    fn drain(&self) -> Result<Vec<(Sender, Sent)>, KernelError> {
        let mut found = Vec::new();
        sys::map_take_all(self.senders.as_fd(), (Sender::SIZE, Sent::SIZE), BATCH, |key, value| {
            let (key, value) = (key.try_into().ok()?, value.try_into().ok()?);
            found.push((Sender::from_bytes(key), Sent::from_bytes(value)));
            Some(())
        })
        .map_err(KernelError::table("taking from", maps::SENDERS))?;
        Ok(found)
    }
}
