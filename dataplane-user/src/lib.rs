//! Sallyport's node: one executable, two processes.
//!
//! The [`keeper`] holds the privileges; the [`worker`] meets the hostile bytes; [`handover`] is all they say to each
//! other. `worker` never imports `keeper`. [`signed`] is what both ask before they believe a snapshot.

pub mod handover;
pub mod keeper;
pub mod signed;
pub mod worker;
