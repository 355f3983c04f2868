//! What must not leak: the master key and what it seals, the console's CA, the key that signs snapshots.
//!
//! In: the state directory and the store's settings. Out: sealed bytes, certificates, signatures; never a key.

mod ca;
mod seal;
mod signer;
mod text;

pub use ca::{Authority, IssueError, Issued};
pub use seal::{MasterKey, SealError};
pub use signer::{Signer, SignerError};
pub use text::{random, random_text};
