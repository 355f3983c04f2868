//! The PROXY protocol, versions 1 and 2 (`doc/proxy-protocol.txt` of HAProxy): a load balancer's first bytes say whose
//! connection it passes on.
//!
//! In: bytes off the wire. Out: who the client is; and the same said to an origin. Sockets, time and who is believed are the callers' matter.

pub mod read;
#[cfg(test)]
mod tests;
pub mod write;

use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client: whom a PROXY header named, or the TCP peer.
    pub client: SocketAddr,
    /// The TCP peer, where a PROXY header named somebody else.
    pub via: Option<SocketAddr>,
}

impl From<SocketAddr> for Peer {
    fn from(client: SocketAddr) -> Self {
        Self { client, via: None }
    }
}

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
