//! The unprivileged process: the only place where TLS, HTTP and DNS are parsed; never imports the keeper.
//!
//! One thread per core, each a current-thread runtime with its own origin pool; nothing is shared on the path but the
//! live handle and counters.

pub mod live;
pub mod observe;
pub mod refusal;
pub mod tls;
