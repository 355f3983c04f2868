//! The nodes' end of the console: enrolment, snapshots, reports.
//!
//! In: HTTP/2 over TLS from nodes. Out: signed snapshots; figures for pages. What is said is in `model::link`.

mod figures;
mod live;

pub use figures::Figures;
pub use live::{Live, LiveNode};
