//! The demo's addresses and host names. The addresses are those set aside for tests of network devices (RFC 2544,
//! 198.18.0.0/15) and unique local ones (RFC 4193); they exist only inside the namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The demo's shop: two origins that can stand in for each other.
pub(super) const SHOP: &str = "shop.demo.example";
/// Served by the same node with another certificate.
pub(super) const OTHER: &str = "other.demo.example";
/// Its origin shows a certificate for another name.
pub(super) const IMPOSTOR: &str = "impostor.demo.example";
/// No route has it.
pub(super) const UNKNOWN: &str = "unknown.demo.example";
/// What the origins' certificates are for.
pub(super) const ORIGIN_NAME: &str = "origin.demo.example";

const fn v4(third: u8, fourth: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, third, fourth))
}

const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd5a, 0x1179, 0, net, 0, 0, 0, host))
}

/// One wire between two namespaces (or the machine itself, at the near end).
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    /// The third octet, and the IPv6 subnet.
    pub(super) net: u8,
    /// Interface name at the far end (the node's end of the client's and origins' wires is `near`).
    pub(super) near: &'static str,
    /// Interface name at the far end.
    pub(super) far: &'static str,
}

impl Wire {
    /// The near end's addresses.
    pub(super) const fn near_addresses(self) -> [IpAddr; 2] {
        [v4(self.net, 1), v6(self.net as u16, 1)]
    }

    /// The far end's addresses.
    pub(super) const fn far_addresses(self) -> [IpAddr; 2] {
        [v4(self.net, 2), v6(self.net as u16, 2)]
    }

    /// Second addresses at the far end: the source that the packet filter is told to deny.
    pub(super) const fn unwelcome(self) -> [IpAddr; 2] {
        [v4(self.net, 66), v6(self.net as u16, 0x66)]
    }
}

/// Machine to node: the console's link.
pub(super) const LINK: Wire = Wire { net: 0, near: "spdemo0", far: "link0" };
/// Node to client.
pub(super) const CLIENT: Wire = Wire { net: 1, near: "client0", far: "eth0" };
/// Node to the first origin.
pub(super) const FIRST: Wire = Wire { net: 2, near: "first0", far: "eth0" };
/// Node to the second origin.
pub(super) const SECOND: Wire = Wire { net: 3, near: "second0", far: "eth0" };
