//! Where listeners accept, and which of them has a connection.
//!
//! A [`Place`] is an address, a prefix of addresses or every address, with a port or any port. Places may overlap, and one
//! rule says whose a connection is, here, in the worker, in the kernel's program and in the console alike:
//!
//! 1. the place with the longer prefix; a single address is one of 32 or 128 bits, every address one of none;
//! 2. among places with the same prefix, that with the port before that with any port.
//!
//! Two listeners of a node with the same place contradict each other, and are refused when they are published.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::{InvalidPrefix, Prefix};

/// A TCP port that a listener accepts on, or any of them: a number from 1 to 65535, or `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Every port that nothing else on the node listens on.
    Any,
    /// This one.
    One(NonZeroU16),
}

/// Why something is no [`Port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a port from 1 to 65535, or any")]
pub struct InvalidPort;

impl Port {
    /// How [`Port::Any`] is written.
    pub const ANY: &str = "any";

    /// The number, where it is one.
    pub fn number(self) -> Option<u16> {
        match self {
            Self::Any => None,
            Self::One(port) => Some(port.get()),
        }
    }
}

impl TryFrom<u64> for Port {
    type Error = InvalidPort;

    fn try_from(number: u64) -> Result<Self, InvalidPort> {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        port.map(Self::One).ok_or(InvalidPort)
    }
}

impl std::str::FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        match text {
            Self::ANY => Ok(Self::Any),
            number => number.parse().map(Self::One).map_err(|_not_a_port| InvalidPort),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(Self::ANY),
            Self::One(port) => write!(f, "{port}"),
        }
    }
}

/// As it travels: a number or `"any"`. Nodes of releases that know numbers only refuse a snapshot with the other.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Word(String),
}

impl Serialize for Port {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str(Self::ANY),
            Self::One(port) => serializer.serialize_u16(port.get()),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let port = match Written::deserialize(deserializer)? {
            Written::Number(number) => Self::try_from(number),
            Written::Word(word) if word == Self::ANY => Ok(Self::Any),
            Written::Word(_) => Err(InvalidPort),
        };
        port.map_err(serde::de::Error::custom)
    }
}

/// Addresses that a listener accepts on: a single one or a prefix, without host bits, neither all there are of a family nor
/// multicast, and IPv4 as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Addresses(Prefix);

/// Why a text is no [`Addresses`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddresses {
    /// Neither an address nor a prefix.
    #[error(
        "is no IPv4 or IPv6 address or prefix; write one such as 192.0.2.1, 2001:db8::1, 10.0.7.0/24 or 2001:db8:7::/64"
    )]
    Syntax,
    /// The address is one, the length is none.
    #[error("has no length behind its / that there is; write a number from 1 to {0}")]
    Length(u8),
    /// Bits behind the prefix length are set.
    #[error("has bits set behind its /{}; write {} for the prefix, or {} for the one address", .0.prefix_len(), .0.trunc(), .0.addr())]
    HostBits(IpNet),
    /// All there are.
    #[error("means every address; leave the list empty for that")]
    Every,
    /// Multicast.
    #[error("is a multicast address; nothing can connect to it")]
    Multicast,
    /// IPv4 in IPv6.
    #[error("is IPv4; write {0}")]
    Mapped(Addresses),
}

impl Addresses {
    /// The prefix.
    pub fn net(&self) -> IpNet {
        self.0.net()
    }

    /// The one address, where it is one.
    pub fn single(&self) -> Option<IpAddr> {
        let net = self.net();
        (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
    }
}

impl From<IpAddr> for Addresses {
    /// An IPv4-mapped address is its IPv4 address.
    fn from(address: IpAddr) -> Self {
        Self(Prefix::from(address))
    }
}

impl std::str::FromStr for Addresses {
    type Err = InvalidAddresses;

    fn from_str(text: &str) -> Result<Self, InvalidAddresses> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(|_neither| match text.parse::<Prefix>() {
                Err(InvalidPrefix::Length(most)) => InvalidAddresses::Length(most),
                _ => InvalidAddresses::Syntax,
            })?,
        };
        if net.prefix_len() == 0 || net.addr().is_unspecified() {
            return Err(InvalidAddresses::Every);
        }
        match text.parse() {
            _ if net.addr().is_multicast() => Err(InvalidAddresses::Multicast),
            Ok(prefix) => Ok(Self(prefix)),
            Err(InvalidPrefix::HostBits(_)) => Err(InvalidAddresses::HostBits(net)),
            Err(InvalidPrefix::Mapped) => Err(InvalidAddresses::Mapped(as_ipv4(net)?)),
            Err(InvalidPrefix::Length(most)) => Err(InvalidAddresses::Length(most)),
            Err(InvalidPrefix::Syntax) => Err(InvalidAddresses::Syntax),
        }
    }
}

/// An IPv4-mapped prefix as IPv4.
fn as_ipv4(net: IpNet) -> Result<Addresses, InvalidAddresses> {
    let length = net.prefix_len().saturating_sub(96);
    format!("{}/{length}", net.addr().to_canonical()).parse()
}

impl TryFrom<String> for Addresses {
    type Error = InvalidAddresses;

    fn try_from(text: String) -> Result<Self, InvalidAddresses> {
        text.parse()
    }
}

impl From<Addresses> for String {
    fn from(addresses: Addresses) -> Self {
        addresses.to_string()
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Where a listener accepts. Any port of every address is no place: it would take what services listen on that start later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A port of every local address, IPv4 and IPv6.
    Everywhere(NonZeroU16),
    /// A port, or any, of these addresses.
    At(Addresses, Port),
}

/// A place that a socket can be bound to: an address (`None` is every local one) and a port.
pub type Bound = (Option<IpAddr>, u16);

impl Place {
    /// The places of a listener with these addresses (none are all) and this port.
    pub fn all(addresses: &[Addresses], port: Port) -> impl Iterator<Item = Self> {
        let everywhere = match port {
            Port::One(port) if addresses.is_empty() => Some(Self::Everywhere(port)),
            Port::One(_) | Port::Any => None,
        };
        everywhere.into_iter().chain(addresses.iter().map(move |addresses| Self::At(*addresses, port)))
    }

    /// The port.
    pub fn port(&self) -> Port {
        match self {
            Self::Everywhere(port) => Port::One(*port),
            Self::At(_, port) => *port,
        }
    }

    /// Whether connections to `local` could be its.
    pub fn holds(&self, local: SocketAddr) -> bool {
        let at = match self {
            Self::Everywhere(_) => true,
            Self::At(addresses, _) => addresses.0.contains(local.ip()),
        };
        // Nothing is at port 0.
        at && local.port() != 0 && self.port().number().is_none_or(|port| port == local.port())
    }

    /// Of places that hold an address and port, that with the greatest of these has its connections: the bits of the prefix, and
    /// whether it has a port.
    pub fn rank(&self) -> (u8, bool) {
        match self {
            Self::Everywhere(_) => (0, true),
            Self::At(addresses, port) => (addresses.net().prefix_len(), *port != Port::Any),
        }
    }

    /// The place of a socket that is bound; nothing for port 0.
    pub fn of_bound((address, port): Bound) -> Option<Self> {
        let port = NonZeroU16::new(port)?;
        Some(match address {
            None => Self::Everywhere(port),
            Some(address) => Self::At(address.into(), Port::One(port)),
        })
    }

    /// What a socket is bound to; nothing where sockets cannot be and the kernel has to steer.
    pub fn bound(&self) -> Option<Bound> {
        match self {
            Self::Everywhere(port) => Some((None, port.get())),
            Self::At(addresses, port) => Some((Some(addresses.single()?), port.number()?)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, "port {port} of every address"),
            Self::At(addresses, Port::Any) => write!(f, "any port of {addresses}"),
            Self::At(addresses, port) => write!(f, "port {port} of {addresses}"),
        }
    }
}

/// What is where: of the places that hold an address and port, the one whose connections they are has the answer. One hash
/// lookup for a place with a single address and a port, one more for every address, and where there are ranges two for each
/// length of prefix in use.
#[derive(Debug, Clone)]
pub struct Atlas<T> {
    bound: HashMap<Bound, T>,
    /// By length of the prefix, longest first.
    ranges: Vec<(u8, OfLength<T>)>,
}

/// What is at prefixes of one length.
type OfLength<T> = HashMap<(IpNet, Port), T>;

impl<T> Default for Atlas<T> {
    fn default() -> Self {
        Self { bound: HashMap::new(), ranges: Vec::new() }
    }
}

impl<T> Atlas<T> {
    /// Says what is at a place.
    pub fn insert(&mut self, place: Place, what: T) {
        let (addresses, port) = match (place, place.bound()) {
            (_, Some(bound)) => return drop(self.bound.insert(bound, what)),
            (Place::At(addresses, port), None) => (addresses, port),
            (Place::Everywhere(_), None) => return,
        };
        let length = addresses.net().prefix_len();
        let at = self.ranges.partition_point(|(other, _)| *other > length);
        if self.ranges.get(at).is_none_or(|(other, _)| *other != length) {
            self.ranges.insert(at, (length, HashMap::new()));
        }
        self.ranges[at].1.insert((addresses.net(), port), what);
    }

    /// What has the connections to an address and port; an IPv4-mapped address is its IPv4 address. No allocation.
    pub fn get(&self, local: SocketAddr) -> Option<&T> {
        let (address, port) = (local.ip().to_canonical(), local.port());
        self.bound
            .get(&(Some(address), port))
            .or_else(|| self.in_range(address, port))
            .or_else(|| self.bound.get(&(None, port)))
    }

    fn in_range(&self, address: IpAddr, port: u16) -> Option<&T> {
        if self.ranges.is_empty() {
            return None;
        }
        let port = Port::One(NonZeroU16::new(port)?);
        self.ranges.iter().find_map(|(length, places)| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            places.get(&(net, port)).or_else(|| places.get(&(net, Port::Any)))
        })
    }
}

impl<T> FromIterator<(Place, T)> for Atlas<T> {
    fn from_iter<I: IntoIterator<Item = (Place, T)>>(places: I) -> Self {
        let mut atlas = Self::default();
        places.into_iter().for_each(|(place, what)| atlas.insert(place, what));
        atlas
    }
}

#[cfg(test)]
mod tests;
