//! Says to an origin whose connection this is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use model::snapshot::ProxyVersion;

use super::SIGNATURE;

/// On whose behalf a connection to an origin is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behalf {
    /// A client's, which had connected to `reached`.
    Client {
        /// The client, as whoever told of it told.
        client: SocketAddr,
        /// Where it connected to on this node.
        reached: SocketAddr,
    },
    /// The node's own: probes.
    Own,
}

/// The header that stands in front of everything else.
pub fn header(version: ProxyVersion, behalf: &Behalf) -> Vec<u8> {
    match (version, behalf) {
        (ProxyVersion::V1, Behalf::Own) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyVersion::V1, Behalf::Client { client, reached }) => {
            let (family, [source, destination]) = match (client.ip(), reached.ip()) {
                pair @ (IpAddr::V4(_), IpAddr::V4(_)) => ("TCP4", [pair.0, pair.1]),
                (source, destination) => {
                    ("TCP6", [source, destination].map(|address| IpAddr::V6(mapped(address))))
                }
            };
            format!("PROXY {family} {source} {destination} {} {}\r\n", client.port(), reached.port())
                .into_bytes()
        }
        // LOCAL, and nothing about a family.
        (ProxyVersion::V2, Behalf::Own) => binary(0x20, 0x00, &[]),
        (ProxyVersion::V2, Behalf::Client { client, reached }) => {
            let ports = [client.port().to_be_bytes(), reached.port().to_be_bytes()].concat();
            match (client.ip(), reached.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    binary(0x21, 0x11, &[&source.octets()[..], &destination.octets(), &ports].concat())
                }
                (source, destination) => {
                    let [source, destination] = [source, destination].map(|address| mapped(address).octets());
                    binary(0x21, 0x21, &[&source[..], &destination, &ports].concat())
                }
            }
        }
    }
}

/// A header names one family: where a balancer told of a client of the other one, IPv4 is written as IPv6 writes it.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    // At most two IPv6 addresses and ports.
    let length = u16::try_from(block.len()).unwrap_or_default().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, block].concat()
}
