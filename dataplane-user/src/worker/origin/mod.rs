//! Origins: which one, over which connection.
//!
//! In: a [`Permit`](super::policy::Permit). Out: a connection that is ready for a request, new or from the thread's
//! pool. Each thread has its own pool and names; all share what is known of an origin's health, and its bounds.

pub mod choose;
pub mod either;
pub mod gate;
pub mod health;
pub mod http1;
pub mod http2;
pub mod pick;
pub mod pool;
pub mod probe;
pub mod reach;
pub mod resolve;

pub use either::Connection;
