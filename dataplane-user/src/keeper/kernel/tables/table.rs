//! One table: an outer map and the inner map in force.

use std::cmp::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dataplane_ebpf::wire::GENERATIONS;

use super::set_outer;
use crate::keeper::kernel::KernelError;
use crate::keeper::kernel::pins::{Layout, Slot, pin_over};
use crate::keeper::kernel::sys::{self, Shape};

/// Elements a batch; the kernel copies one by one, so more gains nothing.
const BATCH: usize = 16 * 1024;
/// Room for single changes in place before a table has to be made anew.
const SLACK: usize = 64;

/// A table's elements, sorted by key.
pub(super) type Content<const K: usize, const V: usize> = Vec<([u8; K], [u8; V])>;

/// An inner map.
#[derive(Debug, Clone)]
pub(super) struct Inner {
    map: Arc<OwnedFd>,
    id: u32,
}

/// How a table would have to change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<const K: usize, const V: usize> {
    None,
    One(Edit<K, V>),
    Many,
}

/// A change of one element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit<const K: usize, const V: usize> {
    Set([u8; K], [u8; V]),
    Remove([u8; K]),
}

#[derive(Debug)]
pub(super) struct Table<const K: usize, const V: usize> {
    layout: &'static Layout,
    outer: OwnedFd,
    in_force: Inner,
    /// The inner map each generation of the outer map is known to have; 0: not known.
    entered: [u32; GENERATIONS as usize],
    /// What the inner map in force says.
    pub(super) content: Content<K, V>,
}

impl<const K: usize, const V: usize> Table<K, V> {
    /// Opens the slot's table with what it says; makes empty generations where there are none.
    pub(super) fn open(slot: &Slot, layout: &'static Layout, generation: u32) -> Result<Self, KernelError> {
        let outer = slot.open(layout.name)?;
        let pinned = sys::pinned(&slot.table(layout.name, generation)).ok();
        let fresh = pinned.is_none();
        let in_force = match pinned {
            Some(map) => Inner::new(map, layout.name)?,
            None => Inner::make(layout, &Content::<K, V>::new())?,
        };
        let content = in_force.read(layout)?;
        let mut table = Self { layout, outer, in_force, entered: [0; GENERATIONS as usize], content };
        if fresh {
            let empty = table.in_force.clone();
            (0..GENERATIONS).try_for_each(|generation| table.enter(slot, generation, &empty))?;
        }
        Ok(table)
    }

    /// What separates the table from what is wanted.
    pub(super) fn change(&self, wanted: &Content<K, V>) -> Change<K, V> {
        change(&self.content, wanted)
    }

    /// Makes a change of one element in place; says whether it worked. The table may be full, and then a new one is made.
    pub(super) fn edit(&self, edit: &Edit<K, V>) -> bool {
        let map = self.in_force.map.as_fd();
        match edit {
            Edit::Set(key, value) => sys::map_update(map, key, value).is_ok(),
            Edit::Remove(key) => sys::map_delete(map, key).is_ok(),
        }
    }

    /// The inner map for the next generation: the one in force where nothing changed.
    pub(super) fn make(&self, wanted: &Content<K, V>) -> Result<Inner, KernelError> {
        if self.content == *wanted { Ok(self.in_force.clone()) } else { Inner::make(self.layout, wanted) }
    }

    /// Enters an inner map in a generation that is not in force, and pins it.
    pub(super) fn enter(&mut self, slot: &Slot, generation: u32, inner: &Inner) -> Result<(), KernelError> {
        let Some(entered) = self.entered.get_mut(generation as usize) else { return Ok(()) };
        if *entered != inner.id {
            // Forgotten first: should the pin fail, the next attempt does both again.
            *entered = 0;
            set_outer(self.outer.as_fd(), generation, inner.map.as_fd(), self.layout.name)?;
            pin_over(&inner.map, &slot.table(self.layout.name, generation))?;
            *entered = inner.id;
        }
        Ok(())
    }

    /// Enters the inner map in force where it already is.
    pub(super) fn rewrite(&self, generation: u32) -> Result<(), KernelError> {
        set_outer(self.outer.as_fd(), generation, self.in_force.map.as_fd(), self.layout.name)
    }

    /// Takes a new inner map for the one in force; gives back what was.
    pub(super) fn replace(&mut self, inner: Inner, content: Content<K, V>) -> (Inner, Content<K, V>) {
        (std::mem::replace(&mut self.in_force, inner), std::mem::replace(&mut self.content, content))
    }

    /// Takes back what [`Self::replace`] gave.
    pub(super) fn restore(&mut self, (inner, content): (Inner, Content<K, V>)) {
        (self.in_force, self.content) = (inner, content);
    }
}

impl Inner {
    fn new(map: OwnedFd, name: &'static str) -> Result<Self, KernelError> {
        let id = sys::map_info(map.as_fd()).map_err(KernelError::table("reading", name))?.id;
        Ok(Self { map: Arc::new(map), id })
    }

    /// A new inner map with these elements and room for some more.
    fn make<const K: usize, const V: usize>(
        layout: &'static Layout,
        content: &Content<K, V>,
    ) -> Result<Self, KernelError> {
        let entries = match layout.shape.entries {
            0 => u32::try_from(content.len() + content.len() / 4 + SLACK).unwrap_or(u32::MAX),
            fixed => fixed,
        };
        let map = sys::map_create(layout.name, Shape { entries, ..layout.shape })
            .map_err(KernelError::table("making", layout.name))?;
        for batch in content.chunks(BATCH) {
            let keys: Vec<u8> = batch.iter().flat_map(|(key, _)| *key).collect();
            let values: Vec<u8> = batch.iter().flat_map(|(_, value)| *value).collect();
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            sys::map_update_batch(map.as_fd(), &keys, &values, count)
                .map_err(KernelError::table("filling", layout.name))?;
        }
        Self::new(map, layout.name)
    }

    fn read<const K: usize, const V: usize>(
        &self,
        layout: &'static Layout,
    ) -> Result<Content<K, V>, KernelError> {
        let name = layout.name;
        let mut content = Content::new();
        for key in sys::map_keys::<K>(self.map.as_fd()).map_err(KernelError::table("reading", name))? {
            let mut value = [0; V];
            if sys::map_lookup(self.map.as_fd(), &key, &mut value)
                .map_err(KernelError::table("reading", name))?
            {
                // An array has every key; what was never set is not part of what it says.
                if layout.shape.kind != sys::ARRAY || value != [0; V] {
                    content.push((key, value));
                }
            }
        }
        content.sort_unstable();
        Ok(content)
    }
}

/// What separates two sorted contents; stops at the second difference.
fn change<const K: usize, const V: usize>(old: &Content<K, V>, new: &Content<K, V>) -> Change<K, V> {
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    let mut found = Change::None;
    loop {
        let edit = match (olds.peek(), news.peek()) {
            (None, None) => return found,
            (Some((key, _)), None) => Edit::Remove(*key),
            (None, Some((key, value))) => Edit::Set(*key, *value),
            (Some((old_key, old_value)), Some((key, value))) => match old_key.cmp(key) {
                Ordering::Less => Edit::Remove(*old_key),
                Ordering::Greater => Edit::Set(*key, *value),
                Ordering::Equal if old_value == value => {
                    olds.next();
                    news.next();
                    continue;
                }
                Ordering::Equal => {
                    olds.next();
                    Edit::Set(*key, *value)
                }
            },
        };
        match edit {
            Edit::Remove(_) => drop(olds.next()),
            Edit::Set(..) => drop(news.next()),
        }
        match found {
            Change::None => found = Change::One(edit),
            Change::One(_) | Change::Many => return Change::Many,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_change_is_what_it_takes(old: std::collections::BTreeMap<[u8; 1], [u8; 1]>, new: std::collections::BTreeMap<[u8; 1], [u8; 1]>) {
            let (before, after): (Content<1, 1>, Content<1, 1>) = (old.clone().into_iter().collect(), new.clone().into_iter().collect());
            let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let differences = keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).count();
            let mut edited = old.clone();
            match change(&before, &after) {
                Change::None => prop_assert_eq!(differences, 0),
                Change::One(Edit::Set(key, value)) => { edited.insert(key, value); prop_assert_eq!(&edited, &new) }
                Change::One(Edit::Remove(key)) => { edited.remove(&key); prop_assert_eq!(&edited, &new) }
                Change::Many => prop_assert!(differences > 1),
            }
        }

        #[test]
        fn one_difference_is_seen_as_one(mut content: std::collections::BTreeMap<[u8; 1], [u8; 1]>, key: [u8; 1], value: [u8; 1]) {
            let before: Content<1, 1> = content.clone().into_iter().collect();
            content.insert(key, value);
            let after: Content<1, 1> = content.into_iter().collect();
            let differs = before != after;
            prop_assert_eq!(change(&before, &after), if differs { Change::One(Edit::Set(key, value)) } else { Change::None });
            prop_assert_eq!(matches!(change(&after, &before), Change::None), !differs);
        }
    }
}
