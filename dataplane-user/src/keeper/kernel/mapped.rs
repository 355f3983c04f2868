//! An array's values as memory: filled at the speed of a copy, and changed by stores that no packet sees half of.
#![expect(unsafe_code, reason = "a mapping is reached through the pointer the kernel gave")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane_ebpf::decide::walk::Words;
use dataplane_ebpf::wire::table::LINE;

/// The values of an array made with `BPF_F_MMAPABLE`, shared with the programs that read them.
#[derive(Debug)]
pub(super) struct Mapped(&'static [AtomicU32]);

impl Mapped {
    /// Maps `words` words of an array's values from `first` on, which begins a page; fails where it has fewer pages.
    pub(super) fn of(map: BorrowedFd<'_>, first: usize, words: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(first * size_of::<u32>()).map_err(io::Error::other)?;
        let (length, access) = (words * size_of::<u32>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping wherever the kernel has room; the descriptor is open.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, map.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping has `length` bytes, begins at a page, lives until this value is dropped, which alone has the
        // slice and gives out none, and others who write to it store whole words too.
        Ok(Self(unsafe { std::slice::from_raw_parts(start.cast::<AtomicU32>(), words) }))
    }

    /// Stores words from `at` on, each in one piece and none before those of an earlier call; says whether they have room.
    pub(super) fn store(&self, at: usize, words: &[u32]) -> bool {
        let place = at.checked_add(words.len()).and_then(|end| self.0.get(at..end));
        let Some(place) = place else { return false };
        place.iter().zip(words).for_each(|(to, word)| to.store(*word, Ordering::Release));
        true
    }

    /// One of its words, 0 behind its end.
    pub(super) fn load(&self, at: usize) -> u32 {
        self.0.get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Whether it begins with these words.
    pub(super) fn begins_with(&self, words: &[u32]) -> bool {
        let begin = self.0.get(..words.len());
        begin.is_some_and(|begin| {
            begin.iter().zip(words).all(|(one, word)| one.load(Ordering::Relaxed) == *word)
        })
    }
}

impl Words for Mapped {
    type Line = [u32; LINE];

    fn word(&self, index: u32) -> Option<u32> {
        self.0.get(index as usize).map(|word| word.load(Ordering::Relaxed))
    }

    fn four(&self, index: u32) -> Option<[u32; 4]> {
        Some([self.word(index)?, self.word(index + 1)?, self.word(index + 2)?, self.word(index + 3)?])
    }

    fn line(&self, index: u32) -> Option<[u32; LINE]> {
        let line: &[_; LINE] = self.0.get(index as usize / LINE * LINE..)?.first_chunk()?;
        Some(line.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping of this size, and nobody has a reference into it any more.
        let _nothing_to_do_about_it =
            unsafe { libc::munmap(self.0.as_ptr().cast_mut().cast(), size_of_val(self.0)) };
    }
}
