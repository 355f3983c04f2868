//! Watched packets: what the program looks for, and the ring in which it leaves them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
use dataplane_ebpf::wire::flow::{CLASSES, Head, Seen, WATCHES_MAX, Watches};
use dataplane_ebpf::wire::maps;

use super::pins::Slot;
use super::{KernelError, sys};

const KEY: [u8; 4] = 0_u32.to_ne_bytes();

/// A packet that a watch took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the program says of it.
    pub head: Head,
    /// The frame's first bytes. Nobody has looked into them.
    pub bytes: Vec<u8>,
}

pub(super) struct Flows {
    watches: OwnedFd,
    captured: OwnedFd,
    seen: OwnedFd,
    ring: RingBuf<MapData>,
    cpus: usize,
}

impl Flows {
    pub(super) fn open(slot: &Slot) -> Result<Self, KernelError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| KernelError::table("counting the CPUs for", maps::SEEN)(error))?;
        let failed = |error: MapError| {
            KernelError::table("opening", maps::FLOWS)(std::io::Error::other(error.to_string()))
        };
        let ring = MapData::from_fd(slot.open(maps::FLOWS)?).map_err(failed)?;
        Ok(Self {
            watches: slot.open(maps::WATCHES)?,
            captured: slot.open(maps::CAPTURED)?,
            seen: slot.open(maps::SEEN)?,
            ring: RingBuf::try_from(Map::RingBuf(ring)).map_err(failed)?,
            cpus,
        })
    }

    /// Says what is watched.
    pub(super) fn set(&self, watches: &Watches) -> Result<(), KernelError> {
        let bytes = watches.map(|watch| watch.to_bytes()).concat();
        sys::map_update(self.watches.as_fd(), &KEY, &bytes)
            .map_err(KernelError::table("writing", maps::WATCHES))
    }

    /// How many records each watch has left in the ring.
    pub(super) fn captured(&self) -> Result<[u64; WATCHES_MAX], KernelError> {
        let mut bytes = [0; 8 * WATCHES_MAX];
        sys::map_lookup(self.captured.as_fd(), &KEY, &mut bytes)
            .map_err(KernelError::table("reading", maps::CAPTURED))?;
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        Ok([(); WATCHES_MAX].map(|()| words.next().unwrap_or_default()))
    }

    /// What the watch at this place has taken counts from the beginning.
    pub(super) fn forget_captured(&self, place: usize) -> Result<(), KernelError> {
        let mut captured = self.captured()?;
        if let Some(taken) = captured.get_mut(place) {
            *taken = 0;
        }
        let bytes = captured.map(u64::to_ne_bytes).concat();
        sys::map_update(self.captured.as_fd(), &KEY, &bytes)
            .map_err(KernelError::table("writing", maps::CAPTURED))
    }

    /// What all CPUs have counted since the map was made.
    pub(super) fn seen(&self) -> Result<Seen, KernelError> {
        let mut bytes = vec![0; size_of::<Seen>() * self.cpus];
        sys::map_lookup(self.seen.as_fd(), &KEY, &mut bytes)
            .map_err(KernelError::table("reading", maps::SEEN))?;
        let mut sum = Seen::default();
        for cpu in bytes.chunks_exact(size_of::<Seen>()) {
            let mut words = cpu.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
            let places: [&mut [[u64; CLASSES]; WATCHES_MAX]; 2] = [&mut sum.matched, &mut sum.lost];
            for count in places.into_iter().flatten().flatten() {
                *count += words.next().unwrap_or_default();
            }
        }
        Ok(sum)
    }

    /// Takes records from the ring, oldest first, `most` at once.
    pub(super) fn take(&mut self, most: usize) -> Vec<Record> {
        let mut records = Vec::new();
        while records.len() < most {
            let Some(item) = self.ring.next() else { break };
            if let Some((head, bytes)) = Head::split(&item) {
                records.push(Record { head, bytes: bytes.to_vec() });
            }
        }
        records
    }

    /// Readable while there are records.
    pub(super) fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
