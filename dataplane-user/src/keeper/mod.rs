//! The privileged process: kernel tables, listening sockets, the state directory, the worker's life.

pub mod kernel;
pub mod plan;
