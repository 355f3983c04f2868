//! The recipes end to end, against origins in this process.

mod bench;
mod http1;
mod http2;
mod kinds;
mod refusals;
mod secured;
mod transform;
mod upgrade;
