//! The recipes end to end, against origins in this process.

mod bench;
mod choice;
mod clear_text;
mod floods;
mod grpc;
mod h2c;
mod http1;
mod http2;
mod kinds;
mod linger;
mod origin_http2;
mod pace;
mod refusals;
mod resets;
mod secured;
mod transform;
mod upgrade;
