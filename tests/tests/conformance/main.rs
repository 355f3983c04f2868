//! Suites that others wrote, run through the real product. `docs/conformance.md` has their results.
//!
//! A suite is one file: a test that makes a [`Place`], runs the suite's programs in the clients' namespace with
//! [`Place::client`] and hands a [`Report`] to its end, which fails where a case failed, or where there were too few.
//! What it needs is installed by `./test` (Go programs by `tests/tools/go.mod`) and found with [`place::tool`].
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

mod autobahn;
mod clients;
mod grpc;
mod h2spec;
mod place;
mod report;
mod sslyze;
