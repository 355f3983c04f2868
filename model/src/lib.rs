//! The words of Sallyport.
//!
//! In: text and bytes that people, Kubernetes and nodes wrote. Out: types that are right by construction, and the
//! compiler that turns a [`draft`] into a [`snapshot`] or into [`problem`]s.
//! Deliberately absent: I/O, clocks, randomness, async; private keys, but for [`certificate::PrivateKey`], which reads one and
//! forgets it.
#![warn(missing_docs)]

pub mod certificate;
pub mod clear_text;
pub mod compile;
pub mod diff;
pub mod digest;
pub mod draft;
pub mod error_page;
pub mod filter;
pub mod flow;
pub mod grpc;
pub mod header;
pub mod https_url;
pub mod labels;
pub mod link;
pub mod listen;
pub mod name;
pub mod nearest;
pub mod net;
pub mod problem;
pub mod report;
pub mod route;
pub mod senders;
pub mod snapshot;
pub mod transform;
pub mod upgrade;
