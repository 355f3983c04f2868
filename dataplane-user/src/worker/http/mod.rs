//! HTTP: one strict message model, an HTTP/1.1 codec for both legs, HTTP/2 through the `h2` crate.
//!
//! In: bytes from clients and origins. Out: [`request::Request`] and [`response::Response`], from which every byte that
//! leaves is written anew. Deliberately absent: configuration, routes, origins.

pub mod authority;
pub mod body;
pub(crate) mod client;
pub mod date;
pub mod fields;
pub mod frames;
pub mod grpc;
pub mod guard;
pub mod h1;
pub mod h2;
pub(crate) mod h2_origin;
pub mod negotiate;
pub mod receive;
pub mod request;
pub mod respond;
pub mod response;
pub(crate) mod rewound;
pub mod scan;
pub mod transform;
pub mod upgrade;
pub mod wire;
pub mod write;

#[cfg(test)]
mod codec_tests;
