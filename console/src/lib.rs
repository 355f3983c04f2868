//! Sallyport's console: the store of what people want, the compiler's caller, the nodes' other end, REST, pages and the
//! command line.
//!
//! In: forms, files and REST calls; reports of nodes. Out: signed snapshots, pages, answers. Deliberately absent: traffic.

pub mod api;
pub mod cli;
mod client;
pub mod clock;
pub mod demo;
mod fetch;
pub mod flows;
mod forms;
pub mod nodes;
pub mod ops;
pub mod pages;
pub mod publish;
pub mod router;
pub mod secrets;
pub mod server;
pub mod session;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
mod up;
