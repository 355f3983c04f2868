//! Listening, TLS and HTTP for both of the console's ports.
//!
//! In: sockets and a router. Out: answered requests. A slow or silent peer costs a bounded time, a flood of connections a
//! bounded number.

mod owner;
mod serve;
mod tls;

pub use serve::{BindError, Port, bind, serve};
pub use tls::{Tls, TlsError, server_names};
