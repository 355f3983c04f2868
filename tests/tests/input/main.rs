//! Bad input through form, API and command line: one sentence each, the same in all, nothing is lost and traffic goes on.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking and says what it did"
)]

mod console;
mod machine;
mod objects;
mod place;
mod snapshots;
