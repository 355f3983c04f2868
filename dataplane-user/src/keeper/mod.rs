//! The privileged process: kernel tables, listening sockets, the state directory, the worker's life.

pub mod directory;
pub mod kernel;
pub mod owner;
pub mod plan;
pub mod sockets;
pub mod state;
