//! Takes what the filter has summed by sender, and sets how many packets it looks at.

use std::hash::{BuildHasher, RandomState};
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};

use dataplane_ebpf::wire::here::Here;
use dataplane_ebpf::wire::maps;
use dataplane_ebpf::wire::sample::Gate;
use dataplane_ebpf::wire::sender::{Sender, Sent};
use dataplane_ebpf::wire::shared::Shared;

use super::mapped::Mapped;
use super::pins::Slot;
use super::{KernelError, sys};

/// Entries of one system call.
const BATCH: usize = 4096;

/// Where the gate is among the words that are mapped.
const GATE: usize = Shared::GATE - Shared::ACTIVE;

/// What was taken of the kernel's table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// The sums since the time before, an entry for each CPU that counted.
    pub senders: Vec<(Sender, Sent)>,
    /// Packets that all samples of the time stood for; those of `senders` among them.
    pub sampled: u64,
}

pub(super) struct Senders {
    /// What programs read of every packet, from [`Shared::ACTIVE`] on.
    words: Mapped,
    senders: OwnedFd,
    sampled: OwnedFd,
    cpus: usize,
    /// Of `sampled`, what was taken.
    taken: u64,
    /// What a former keeper left.
    left: Vec<(Sender, Sent)>,
}

/// Gives each CPU a state to draw from, which it goes on from as long as the map is there; where no packet was met yet, for with the
/// state the counters are written. Keyed by the kernel's random numbers, so nobody can foresee which packets are looked at.
fn seed(slot: &Slot, cpus: usize) -> Result<(), KernelError> {
    let (here, key) = (slot.open(maps::HERE)?, 0_u32.to_ne_bytes());
    let mut values = vec![0; cpus * size_of::<Here>()];
    sys::map_lookup(here.as_fd(), &key, &mut values).map_err(KernelError::table("reading", maps::HERE))?;
    if values.iter().any(|byte| *byte != 0) {
        return Ok(());
    }
    let random = RandomState::new();
    for (cpu, value) in values.chunks_exact_mut(size_of::<Here>()).enumerate() {
        let draw = value.iter_mut().skip(offset_of!(Here, draw));
        draw.zip(random.hash_one(cpu).to_ne_bytes()).for_each(|(to, byte)| *to = byte);
    }
    sys::map_update(here.as_fd(), &key, &values).map_err(KernelError::table("writing", maps::HERE))
}

impl Senders {
    /// Opens the slot's tables. What a former keeper left in them is taken with the rest; what it took already is not known
    /// here, and not counted again.
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| KernelError::table("counting the CPUs for", maps::SAMPLED)(error))?;
        seed(slot, cpus)?;
        let mut senders = Self {
            words: Mapped::of(slot.open(maps::SHARED)?.as_fd(), Shared::ACTIVE, GATE + 1)
                .map_err(KernelError::table("mapping", maps::SHARED))?,
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
    pub(super) fn shift(&self) -> u32 {
        Gate(self.words.load(GATE)).shift()
    }

    /// Sets it. A store costs every CPU the line that each packet reads, so none is made where nothing changes.
    pub(super) fn set_shift(&self, shift: u32) {
        let gate = Gate::new(shift);
        if self.words.load(GATE) != gate.0 {
            self.words.store(GATE, &[gate.0]);
        }
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
