//! What no client should do, done: each kind of abuse meets its limit and its counter, and costs neither memory without
//! bound nor a well-behaved client its answers. `docs/abuse.md` has the table.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it saw"
)]

mod floods;
mod http2;
mod memory;
mod overload;
mod slow;
mod tls;
