//! The unprivileged process: the only place where TLS, HTTP and DNS are parsed; never imports the keeper.
//!
//! One thread per core, each a current-thread runtime with its own origin pool; nothing is shared on the path but the
//! live handle and counters. One more thread, [`control`], talks to the keeper and follows the console.

pub mod accept;
pub mod admin;
mod console;
pub mod control;
mod flows;
pub mod hops;
pub mod http;
pub mod keeper_link;
pub mod live;
pub mod observe;
pub mod origin;
pub mod overload;
pub mod policy;
mod proposal;
pub mod proxy;
pub mod refusal;
mod reporter;
pub mod sandbox;
pub mod snapshot;
pub mod thread;
pub mod threads;
pub mod tls;
pub mod vault;
