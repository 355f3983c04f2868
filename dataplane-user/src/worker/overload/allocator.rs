//! What the allocator holds of memory that nobody uses: glibc's keeps whatever was freed below what is still in use, so that
//! after a load the worker would look as full as under it.

/// Gives free memory back to the kernel.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc's malloc_trim has no safe name")]
pub(super) fn give_back() {
    // SAFETY: it takes no pointer, and any thread may call it at any time (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}
