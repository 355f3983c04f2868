//! Origins: which one, over which connection.
//!
//! In: a [`Permit`](super::policy::Permit). Out: a connection that is ready for a request, new or from the thread's
//! pool. Each thread has its own pool, health and names; nothing is shared.

pub mod connection;
pub mod pick;
pub mod pool;
pub mod resolve;
