//! What the kernel says over rtnetlink: of an interface which XDP program it has and how many receive queues, of the host its
//! addresses.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const NESTED: u16 = 0x8000;
/// `nlmsghdr` and `ifinfomsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
/// `ifaddrmsg`.
const ADDRESS: usize = 8;
/// `rtmsg`.
const ROUTE: usize = 12;
/// The loopback interface's index, in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`: what these hand over begins with an Ethernet header.
const WITH_ETHERNET: [u16; 2] = [1, 772];

/// An interface's kind, XDP state and queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// The attached program's id; 0 where there is none, or more than one.
    pub(super) program: u32,
    /// 0 nothing, 1 native, 2 generic, 3 offloaded, 4 several.
    pub(super) attached: u8,
    /// What its frames begin with: `ARPHRD_` of `if_arp.h`.
    pub(super) link_type: u16,
    /// Receive queues that its driver made; not all of them need be in use.
    pub(super) queues: u32,
}

impl Interface {
    /// Whether its frames begin with an Ethernet header.
    pub(super) fn has_ethernet(&self) -> bool {
        WITH_ETHERNET.contains(&self.link_type)
    }
}

/// Asks the kernel of this thread's network namespace.
pub(super) fn interface(index: u32) -> io::Result<Interface> {
    let mut about = [0; LINK];
    if let Some(place) = about.get_mut(4..8) {
        place.copy_from_slice(&index.to_ne_bytes());
    }
    let mut socket = ask(RTM_GETLINK, REQUEST, &about)?;
    let mut answer = vec![0; 32 * 1024];
    let length = socket.read(&mut answer)?;
    parse(answer.get(..length).unwrap_or_default()).ok_or_else(unexpected)
}

/// A socket on which a request was made.
fn ask(kind: u16, flags: u16, about: &[u8]) -> io::Result<Socket> {
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(0)))?;
    let mut request = Vec::with_capacity(HEADER + about.len());
    request.extend_from_slice(&((HEADER + about.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&flags.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(about);
    socket.write_all(&request)?;
    Ok(socket)
}

/// Everything of a kind, message by message.
fn dump<T>(
    (kind, answered): (u16, u16),
    about: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut socket = ask(kind, REQUEST | DUMP, about)?;
    let (mut found, mut answer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let length = socket.read(&mut answer)?;
        let mut rest = answer.get(..length).unwrap_or_default();
        while let Some((kind, message, behind)) = message(rest) {
            match kind {
                DONE => return Ok(found),
                _ if kind == answered => found.extend(read(message)),
                _ => return Err(unexpected()),
            }
            rest = behind;
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::other("an unexpected rtnetlink answer")
}

fn parse(answer: &[u8]) -> Option<Interface> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != RTM_NEWLINK {
        return None;
    }
    let link_type = u16::from_ne_bytes(answer.get(HEADER + 2..HEADER + 4)?.try_into().ok()?);
    let mut found = Interface { link_type, ..Interface::default() };
    for (kind, value) in attributes(answer.get(HEADER + LINK..)?) {
        match kind {
            IFLA_NUM_RX_QUEUES => found.queues = word(value)?,
            IFLA_XDP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_XDP_ATTACHED => found.attached = *value.first()?,
                        IFLA_XDP_PROG_ID => found.program = word(value)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(found)
}

/// Whether no other host on a wire has the same address: every host has the loopback ones, and another link may have the same of
/// IPv6's link-local ones, as `fe80::1` of a bridge and of a gateway.
fn is_one_hosts(address: &IpAddr) -> bool {
    !address.is_loopback() && !matches!(address, IpAddr::V6(six) if six.is_unicast_link_local())
}

/// The addresses of this thread's network namespace that are this host's alone, sorted. Those of the loopback interface are among
/// them: many a host has the addresses there that it serves.
pub(super) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = dump((RTM_GETADDR, RTM_NEWADDR), &[0; ADDRESS], address)?;
    found.retain(is_one_hosts);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The prefixes of the routes of type `local`, in any table of this thread's network namespace: what this host takes for its own.
pub(in crate::keeper) fn local_routes() -> io::Result<Vec<IpNet>> {
    // Of every family there is.
    dump((RTM_GETROUTE, RTM_NEWROUTE), &[0; ROUTE], local_route)
}

/// A route's prefix, where it is of type `local`.
fn local_route(message: &[u8]) -> Option<IpNet> {
    let (family, length, kind) = (*message.first()?, *message.get(1)?, *message.get(7)?);
    if kind != RTN_LOCAL {
        return None;
    }
    let (_, value) = attributes(message.get(ROUTE..)?).find(|(kind, _)| *kind == RTA_DST)?;
    let address = match family {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    IpNet::new(address, length).ok()
}

/// The next message of several: its type, what is behind its header, what is behind it.
pub(super) fn message(rest: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(rest)?).ok()?;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    Some((kind, rest.get(HEADER..length)?, rest.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The host's end of an address; at a point-to-point interface the other one is a peer's.
fn address(message: &[u8]) -> Option<IpAddr> {
    let values: Vec<(u16, &[u8])> = attributes(message.get(ADDRESS..)?).collect();
    let of = |wanted| values.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let value = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
    }
}

fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// Attributes lie one behind the other: length, type, value, padding to four bytes.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_hosts_have_too_is_not_the_hosts_own() {
        let own = |text: &str| is_one_hosts(&text.parse().unwrap());
        assert!(["192.0.2.1", "169.254.20.10", "2001:db8::1", "fd00::1"].into_iter().all(own));
        assert!(!["127.0.0.1", "127.0.0.53", "::1", "fe80::1"].into_iter().any(own));
    }

    #[test]
    fn loopback_answers() {
        let index = crate::keeper::kernel::sys::interface_index("lo").unwrap();
        let lo = interface(index).unwrap();
        assert_eq!((lo.attached, lo.queues, lo.has_ethernet()), (0, 1, true));
        assert!(interface(u32::MAX >> 1).is_err());
    }

    #[test]
    fn the_loopback_network_is_local() {
        let routes = local_routes().unwrap();
        assert!(routes.contains(&"127.0.0.0/8".parse().unwrap()), "{routes:?}");
        assert!(!routes.iter().any(|route| route.prefix_len() == 0), "{routes:?}");
    }

    #[test]
    fn cut_short_attributes_end_the_walk() {
        assert_eq!(attributes(&[9, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }
}
