//! Where a listener accepts, how such a place is bound, and why it cannot be.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use model::listen::{Addresses, Bound, Place};
use model::name::Name;
use socket2::{Domain, Protocol, Socket, Type};

use crate::keeper::kernel::local_routes;
use crate::keeper::owner::{self, Listening, Owner};

/// Why a listener cannot accept.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another process listens there.
    #[error(
        "port {port} is in use by {owner}: stop it, choose another port{}",
        if *.steered { ", or set takeOver: true" } else { "" }
    )]
    Busy {
        /// The port.
        port: u16,
        /// Who has it.
        owner: Owner,
        /// Whether `takeOver` would help.
        steered: bool,
    },
    /// `takeOver` without `sk_lookup`.
    #[error(
        "port {port} is in use by {owner}, and takeOver needs sk_lookup steering, which is off on this node"
    )]
    CannotTakeOver {
        /// The port.
        port: u16,
        /// Who has it.
        owner: Owner,
    },
    /// The address belongs to no interface and no local route.
    #[error(
        "{0} is not an address of this machine: add it to an interface, or run `ip {family}route add local {0} dev lo`",
        family = if .0.is_ipv6() { "-6 " } else { "" }
    )]
    NotLocal(IpAddr),
    /// Prefixes that no local route covers: all of the listener's, so that both families are put right at once.
    #[error("not every address of {} is one of this machine's: run {}", each(.0, ToString::to_string), each(.0, route))]
    NotAllLocal(Vec<Addresses>),
    /// A prefix or any port without `sk_lookup`.
    #[error(
        "{0} needs sk_lookup steering, which is off on this node: list single addresses and a port, or see `sallyport-node status` for what steering lacks"
    )]
    NeedsSteering(Place),
    /// Local routes could not be read.
    #[error("the kernel does not say which addresses are local")]
    Routes(#[source] io::Error),
    /// Who listens could not be read.
    #[error("the kernel does not say who listens on this machine already")]
    Listening(#[source] io::Error),
    /// A low port without the privilege.
    #[error(
        "port {0} needs a privilege this node does not have: use a port from 1024, or grant CAP_NET_BIND_SERVICE"
    )]
    NotPermitted(u16),
    /// Anything else.
    #[error("port {port} cannot be opened")]
    Io {
        /// The port.
        port: u16,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Why a snapshot's listeners cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot be opened")]
pub struct CannotOpen {
    /// Which.
    pub listener: Name,
    /// Why.
    pub source: PlaceError,
}

/// What is said of each, one after the other.
fn each(prefixes: &[Addresses], said: impl Fn(&Addresses) -> String) -> String {
    prefixes.iter().map(said).collect::<Vec<_>>().join(" and ")
}

/// The command that makes a prefix this machine's own.
fn route(prefix: &Addresses) -> String {
    let family = if prefix.net().addr().is_ipv6() { "-6 " } else { "" };
    format!("`ip {family}route add local {prefix} dev lo`")
}

pub(super) fn addresses((address, port): Bound) -> Vec<SocketAddr> {
    let every = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let ips = address.map_or(every.to_vec(), |address| vec![address]);
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// A socket bound to an address, not yet listening.
pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        // `bind` knows no local routes of IPv6, unlike those of IPv4; whether there is one is asked before.
        if is_local_route(address.ip()) {
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

pub(super) fn bind_error(address: SocketAddr, source: io::Error) -> PlaceError {
    let port = address.port();
    match rustix::io::Errno::from_io_error(&source) {
        Some(rustix::io::Errno::ADDRNOTAVAIL) => PlaceError::NotLocal(address.ip()),
        Some(rustix::io::Errno::ACCESS) => PlaceError::NotPermitted(port),
        Some(rustix::io::Errno::ADDRINUSE) => {
            PlaceError::Busy { port, owner: Owner { process: None }, steered: false }
        }
        Some(_) | None => PlaceError::Io { port, source },
    }
}

pub(super) fn check_local(address: IpAddr) -> Result<(), PlaceError> {
    bind(SocketAddr::new(address, 0), false)
        .map(drop)
        .map_err(|error| bind_error(SocketAddr::new(address, 0), error))
}

/// What is on this machine when places are opened, read once for all of them.
pub(super) struct Machine {
    listening: io::Result<Vec<Listening>>,
    /// The prefixes of local routes, joined. There may be very many, and only ranges need them.
    local: io::Result<Vec<IpNet>>,
}

impl Machine {
    /// Reads it; the routes only `with_routes`.
    pub(super) fn read(with_routes: bool) -> Self {
        let local = if with_routes { local_routes() } else { Ok(Vec::new()) };
        Self { listening: owner::listening(), local: local.map(|routes| IpNet::aggregate(&routes)) }
    }

    /// Who listens.
    pub(super) fn listening(&self) -> Result<&[Listening], PlaceError> {
        self.listening.as_deref().map_err(|error| PlaceError::Listening(again(error)))
    }

    /// Whether every address of a prefix is local: an interface's, or of a route of type `local`.
    pub(super) fn check_all_local(&self, addresses: Addresses) -> Result<(), PlaceError> {
        let local = self.local.as_ref().map_err(|error| PlaceError::Routes(again(error)))?;
        let covers = |route: &IpNet| route.contains(&addresses.net());
        local.iter().any(covers).then_some(()).ok_or_else(|| PlaceError::NotAllLocal(vec![addresses]))
    }

    /// The same problem with everything that the places have of it.
    pub(super) fn with_all_that_lack(
        &self,
        problem: PlaceError,
        places: impl Iterator<Item = Place>,
    ) -> PlaceError {
        let PlaceError::NotAllLocal(_) = problem else { return problem };
        let prefix = |place| match place {
            Place::At(addresses, _) if addresses.single().is_none() => Some(addresses),
            Place::At(..) | Place::Everywhere(_) => None,
        };
        let lacking: BTreeSet<Addresses> =
            places.filter_map(prefix).filter(|prefix| self.check_all_local(*prefix).is_err()).collect();
        PlaceError::NotAllLocal(lacking.into_iter().collect())
    }
}

/// The same error for one more place.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

pub(super) fn is_taken(address: IpAddr, port: u16) -> bool {
    bind(SocketAddr::new(address, port), false).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

pub(super) fn no_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

/// Whether a route of type `local` covers an IPv6 address (`RTF_LOCAL`, bit 31 of the flags).
fn is_local_route(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    let table = std::fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [net, length, _, _, _, _, _, _, flags, ..] = fields.as_slice() else { return false };
        let parsed =
            (u128::from_str_radix(net, 16), u32::from_str_radix(length, 16), u32::from_str_radix(flags, 16));
        let (Ok(net), Ok(length), Ok(flags)) = parsed else { return false };
        let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
        flags & 0x8000_0000 != 0 && u128::from(address) & mask == net & mask
    })
}
