//! The contract between Sallyport's kernel programs and its node, and the decisions both can make.
//!
//! - [`wire`]: what lies in the maps: keys, values, names and sizes.
//! - [`reason`]: every reason to pass or to drop, with a stable number.
//! - [`decide`]: from a frame's bytes to a reason; pure, so the programs and the tests on the host run the same lines.
//!
//! The programs themselves are this package's binary, `sallyport-bpf`; its compiled form is committed under `object/`
//! and comes with the feature `object`. Nothing here knows userspace's libraries, and nothing here allocates.

#![no_std]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod decide;
#[cfg(feature = "object")]
pub mod object;
pub mod reason;
pub mod wire;
