//! What the tests that need the built programs have in common.
//!
//! A [`stage::Stage`] is three network namespaces: clients, the node, the origins. [`product::Product`] is the real
//! `sallyport up` in the middle one, configured through its API ([`api::Api`]). Traffic comes from [`client`] and goes
//! to [`origin::Origin`] or nginx. Deliberately absent: anything that skips; what cannot be tested fails and says why.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's helpers fail by panicking: there is nobody to hand an error to"
)]

pub mod abuse;
pub mod api;
pub mod browser;
pub mod client;
pub mod conformance;
pub mod frames;
pub mod grpc;
pub mod h2client;
pub mod hello;
pub mod kept;
pub mod load;
pub mod objects;
pub mod origin;
pub mod pki;
pub mod probe;
pub mod product;
pub mod random;
pub mod space;
pub mod spray;
pub mod stage;
pub mod websocket;

use std::time::{Duration, Instant};

/// Asks until the answer is there; panics with the last complaint when it does not come in time.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + within;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(complaint) if Instant::now() > until => panic!("{what}: not within {within:?}: {complaint}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
