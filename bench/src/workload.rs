//! What is asked for, by how many at once.

use crate::Result;

/// How a client talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HTTP/1.1 on kept connections.
    Get,
    /// HTTP/1.1, a connection and a full handshake for each request.
    Handshake,
    /// HTTP/1.1 POST of the length, on kept connections; the answer is 1 KiB.
    Upload,
    /// Streams of one HTTP/2 connection, this many at once.
    Http2(usize),
    /// Unary gRPC calls, this many at once on one HTTP/2 connection.
    Grpc(usize),
    /// WebSocket messages of the length, one at a time, sent back by the origin.
    WebSocket,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    /// Bytes of the body that counts.
    pub(crate) length: usize,
    pub(crate) connections: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[rustfmt::skip]
const ALL: [Workload; 8] = [
    Workload { name: "1k", title: "1 KiB, 64 kept connections", kind: Kind::Get, length: KIB, connections: 64 },
    Workload { name: "16k", title: "16 KiB, 64 kept connections", kind: Kind::Get, length: 16 * KIB, connections: 64 },
    Workload { name: "1m", title: "1 MiB, 16 kept connections", kind: Kind::Get, length: MIB, connections: 16 },
    Workload { name: "handshake", title: "full handshake and 1 KiB, 32 at once", kind: Kind::Handshake, length: KIB, connections: 32 },
    Workload { name: "upload", title: "upload of 1 MiB, 16 kept connections", kind: Kind::Upload, length: MIB, connections: 16 },
    Workload { name: "h2", title: "HTTP/2, 1 KiB, 8 connections of 8 streams", kind: Kind::Http2(8), length: KIB, connections: 8 },
    Workload { name: "grpc", title: "gRPC unary, 100 bytes each way, 8 connections of 8 calls, HTTP/2 to the origin", kind: Kind::Grpc(8), length: 100, connections: 8 },
    Workload { name: "websocket", title: "WebSocket echo of 1 KiB, 64 connections", kind: Kind::WebSocket, length: KIB, connections: 64 },
];

impl Workload {
    /// The names there are.
    pub(crate) fn names() -> impl Iterator<Item = String> {
        ALL.iter().map(|one| one.name.to_owned())
    }

    pub(crate) fn named(name: &str) -> Result<Self> {
        match ALL.iter().find(|one| one.name == name) {
            Some(one) => Ok(*one),
            None => Err(format!("no such workload: {name}").into()),
        }
    }

    /// The path that a client asks for.
    pub(crate) fn path(&self) -> &'static str {
        match (self.kind, self.length) {
            (Kind::Upload, _) => "/upload",
            (Kind::Grpc(_), _) => GRPC_PATH,
            (Kind::WebSocket, _) => WEBSOCKET_PATH,
            (_, MIB) => "/1m",
            (_, KIB) => "/1k",
            (_, _) => "/16k",
        }
    }
}

/// The method of the gRPC service, and what peers route by.
pub(crate) const GRPC_PATH: &str = "/bench.Echo/Unary";
/// Where the origin takes WebSockets.
pub(crate) const WEBSOCKET_PATH: &str = "/socket";
