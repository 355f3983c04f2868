//! The privileged process: kernel tables, listening sockets, the state directory, the worker's life.
//!
//! It parses nothing from the network but snapshots whose signature it has verified. Everything happens one event after
//! the other in [`run`]; [`apply`] says how a snapshot comes into force.

pub mod access_log;
pub mod apply;
mod back;
pub mod directory;
mod drain;
mod filter;
mod flows;
mod follow;
mod held;
pub mod interfaces;
pub mod kernel;
pub mod launch;
mod listen;
pub mod memory;
pub mod operator;
pub mod owner;
pub mod plan;
pub mod privileges;
pub mod rendezvous;
pub mod run;
mod senders;
pub mod settings;
pub mod sockets;
mod start;
pub mod state;
pub mod status;
mod stop;
mod store;
pub mod succeed;
pub mod supervise;
pub mod token;
pub mod upgrade;
