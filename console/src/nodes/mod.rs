//! The nodes' end of the console: enrolment, snapshots, reports.
//!
//! In: HTTP/2 over TLS from nodes. Out: signed snapshots; figures for pages. What is said is in `model::link`.

mod again;
mod figures;
mod flows;
mod frames;
mod identity;
mod link;
mod live;
mod requests;
mod verify;

pub use figures::Figures;
pub use identity::{Caller, Shown};
pub use live::{Live, LiveNode, Orders};
pub use requests::router;
pub use verify::NodeCertificates;

#[cfg(test)]
mod tests;
