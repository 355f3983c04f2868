//! The channel between keeper and worker: a closed set of messages, descriptors by `SCM_RIGHTS`.
//!
//! What comes in: messages of [`message`], with the descriptors they promise. What goes out: the same. What is
//! deliberately absent: anything that reads a key, a snapshot or a request; the keeper takes the worker's words as those
//! of a stranger and checks every one against a signature, a bound, or what the kernel says of a descriptor.
//!
//! Messages are JSON in one `SOCK_SEQPACKET` packet, or, when long or secret, in a sealed memory file whose descriptor
//! comes first ([`channel`]).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

pub mod channel;
pub mod hold;
pub mod message;
pub mod operator;
pub mod replace;
pub mod succession;

pub use channel::{Channel, ChannelError};
pub use message::{ToKeeper, ToWorker};

/// The protocol this release speaks.
pub const VERSION: u32 = 8;

/// The oldest protocol this release still speaks: the one before [`VERSION`].
pub const OLDEST: u32 = 7;

/// The newest protocol both sides speak, if there is one.
pub fn common_version(theirs_oldest: u32, theirs_newest: u32) -> Option<u32> {
    let newest = VERSION.min(theirs_newest);
    (newest >= OLDEST.max(theirs_oldest)).then_some(newest)
}

/// Takes up the descriptor that a parent process left open under a number given on the command line.
///
/// # Errors
/// The number is not an open descriptor.
#[expect(unsafe_code, reason = "a descriptor number from the command line becomes an owned descriptor")]
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow lasts for the duplication alone; a number that is not open makes `fcntl` fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number.max(0)) };
    borrowed.try_clone_to_owned()
}

/// Lets the runtime watch a descriptor.
///
/// # Errors
/// What the kernel said.
#[expect(unsafe_code, reason = "tokio cannot know which types own their descriptor")]
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and names the same file, for as long as it lives.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_agree_and_strangers_do_not() {
        assert_eq!(common_version(OLDEST, VERSION), Some(VERSION));
        assert_eq!(common_version(VERSION, VERSION + 1), Some(VERSION));
        assert_eq!(common_version(VERSION + 1, VERSION + 2), None);
        assert_eq!(common_version(0, OLDEST - 1), None);
    }
}
