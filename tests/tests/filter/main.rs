//! What the packet filter promises of a whole product: a list that is fetched reaches the kernel, the host's own addresses are
//! protected as soon as it has them, a rule that is only observed counts what it would drop, in the kernel and in the worker, and
//! nobody shuts himself out unasked.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

mod fetched;
mod here;
mod observed;
mod own;
mod place;
mod trial;
