//! HTTP: one strict message model, an HTTP/1.1 codec for both legs, HTTP/2 through the `h2` crate.
//!
//! In: bytes from clients and origins. Out: [`request::Request`] and [`response::Response`], from which every byte that
//! leaves is written anew. Deliberately absent: configuration, routes, origins.

pub mod authority;
pub mod body;
pub mod fields;
pub mod request;
pub mod response;
pub mod scan;
pub mod wire;

#[cfg(test)]
mod codec_tests;
