//! One table: an outer map and the inner map in force.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dataplane_ebpf::wire::GENERATIONS;

use super::set_outer;
use crate::keeper::kernel::KernelError;
use crate::keeper::kernel::pins::{Layout, Slot, pin_over};
use crate::keeper::kernel::sys::{self, Shape};

/// Elements a batch; the kernel copies one by one, so more gains nothing.
const BATCH: usize = 16 * 1024;

/// A hash table's elements, sorted by key.
pub(super) type Content<const K: usize, const V: usize> = Vec<([u8; K], [u8; V])>;

/// An inner map.
#[derive(Debug, Clone)]
pub(super) struct Inner {
    pub(super) map: Arc<OwnedFd>,
    id: u32,
    pub(super) entries: u32,
}

impl Inner {
    pub(super) fn new(map: OwnedFd, name: &'static str) -> Result<Self, KernelError> {
        let info = sys::map_info(map.as_fd()).map_err(KernelError::table("reading", name))?;
        Ok(Self { map: Arc::new(map), id: info.id, entries: info.shape.entries })
    }

    /// A new inner map with room for so many entries, one at least.
    pub(super) fn make(layout: &'static Layout, entries: usize) -> Result<Self, KernelError> {
        let entries = u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
        let map = sys::map_create(layout.name, Shape { entries, ..layout.shape })
            .map_err(KernelError::table("making", layout.name))?;
        Self::new(map, layout.name)
    }
}

/// An outer map.
#[derive(Debug)]
pub(super) struct Outer {
    layout: &'static Layout,
    map: OwnedFd,
    /// The inner map each generation is known to have; 0: not known.
    entered: [u32; GENERATIONS as usize],
}

impl Outer {
    /// Opens the slot's outer map with the inner one of a generation; makes an empty one where there is none.
    pub(super) fn open(
        slot: &Slot,
        layout: &'static Layout,
        generation: u32,
    ) -> Result<(Self, Inner), KernelError> {
        let map = slot.open(layout.name)?;
        let mut outer = Self { layout, map, entered: [0; GENERATIONS as usize] };
        if let Ok(pinned) = sys::pinned(&slot.table(layout.name, generation)) {
            return Ok((outer, Inner::new(pinned, layout.name)?));
        }
        let empty = Inner::make(layout, 0)?;
        (0..GENERATIONS).try_for_each(|generation| outer.enter(slot, generation, &empty))?;
        Ok((outer, empty))
    }

    /// Enters an inner map in a generation that is not in force, and pins it.
    pub(super) fn enter(&mut self, slot: &Slot, generation: u32, inner: &Inner) -> Result<(), KernelError> {
        let Some(entered) = self.entered.get_mut(generation as usize) else { return Ok(()) };
        if *entered != inner.id {
            // Forgotten first: should the pin fail, the next attempt does both again.
            *entered = 0;
            set_outer(self.map.as_fd(), generation, inner.map.as_fd(), self.layout.name)?;
            pin_over(&inner.map, &slot.table(self.layout.name, generation))?;
            *entered = inner.id;
        }
        Ok(())
    }

    /// Enters an inner map where it already is.
    pub(super) fn rewrite(&self, generation: u32, inner: &Inner) -> Result<(), KernelError> {
        set_outer(self.map.as_fd(), generation, inner.map.as_fd(), self.layout.name)
    }
}

/// A new hash table with these elements.
pub(super) fn hash<const K: usize, const V: usize>(
    layout: &'static Layout,
    content: &Content<K, V>,
) -> Result<Inner, KernelError> {
    let inner = Inner::make(layout, content.len())?;
    for batch in content.chunks(BATCH) {
        let keys: Vec<u8> = batch.iter().flat_map(|(key, _)| *key).collect();
        let values: Vec<u8> = batch.iter().flat_map(|(_, value)| *value).collect();
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        sys::map_update_batch(inner.map.as_fd(), &keys, &values, count)
            .map_err(KernelError::table("filling", layout.name))?;
    }
    Ok(inner)
}

/// What a hash table says.
pub(super) fn read<const K: usize, const V: usize>(
    layout: &'static Layout,
    inner: &Inner,
) -> Result<Content<K, V>, KernelError> {
    let failed = || KernelError::table("reading", layout.name);
    let mut content = Content::new();
    for key in sys::map_keys::<K>(inner.map.as_fd()).map_err(failed())? {
        let mut value = [0; V];
        if sys::map_lookup(inner.map.as_fd(), &key, &mut value).map_err(failed())? {
            content.push((key, value));
        }
    }
    content.sort_unstable();
    Ok(content)
}
