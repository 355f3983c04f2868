//! Addresses: prefixes and origins' addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{HostName, InvalidHost};

/// An IPv4 or IPv6 prefix without host bits. An IPv4-mapped IPv6 prefix is refused: write the IPv4 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNet);

/// Why a text is no [`Prefix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// Not an address with an optional `/length`.
    #[error(
        "a prefix is an address with an optional /length, such as 192.0.2.0/24, 2001:db8::/32 or 192.0.2.7"
    )]
    Syntax,
    /// The address is one, the length is none.
    #[error("the length behind the / is a number from 0 to {0}")]
    Length(u8),
    /// Bits behind the prefix length are set.
    #[error("the address has bits set behind its /length; write {0}")]
    HostBits(IpNet),
    /// `::ffff:0:0/96` or longer.
    #[error("this is an IPv4-mapped IPv6 prefix; write it as IPv4")]
    Mapped,
}

impl Prefix {
    /// The prefix.
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Whether `address` is inside; an IPv4-mapped IPv6 address is taken as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for Prefix {
    /// The prefix of one address; an IPv4-mapped one is IPv4.
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl std::str::FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let net = match text.split_once('/') {
            Some((address, _)) => text.parse::<IpNet>().map_err(|_no_prefix| match address.parse() {
                Ok(IpAddr::V4(_)) => InvalidPrefix::Length(32),
                Ok(IpAddr::V6(_)) => InvalidPrefix::Length(128),
                Err(_) => InvalidPrefix::Syntax,
            })?,
            None => text.parse::<IpAddr>().map(IpNet::from).map_err(|_no_address| InvalidPrefix::Syntax)?,
        };
        if net.trunc() != net {
            return Err(InvalidPrefix::HostBits(net.trunc()));
        }
        if let IpNet::V6(v6) = net
            && v6.prefix_len() >= 96
            && v6.network().to_ipv4_mapped().is_some()
        {
            return Err(InvalidPrefix::Mapped);
        }
        Ok(Self(net))
    }
}

/// As text. A snapshot may have a hundred thousand of them, so none is copied to be read or written.
impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Prefix;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Prefix, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The host part of an origin's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name, to be resolved.
    Name(HostName),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Where an origin is: `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OriginAddress {
    /// The name or address.
    pub host: Host,
    /// The TCP port, not 0.
    pub port: u16,
}

/// Why a text is no [`OriginAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOriginAddress {
    /// No port, or not a number from 1 to 65535.
    #[error(
        "an origin is host:port with a port from 1 to 65535, such as origin.internal:8443 or [2001:db8::1]:8443"
    )]
    Port,
    /// The host part is neither a name nor an address.
    #[error(transparent)]
    Host(#[from] InvalidHost),
}

impl std::str::FromStr for OriginAddress {
    type Err = InvalidOriginAddress;

    fn from_str(text: &str) -> Result<Self, InvalidOriginAddress> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.port() == 0 {
                return Err(InvalidOriginAddress::Port);
            }
            return Ok(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidOriginAddress::Port)?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or(InvalidOriginAddress::Port)?;
        if host.parse::<Ipv6Addr>().is_ok() {
            return Err(InvalidOriginAddress::Port);
        }
        Ok(Self { host: Host::Name(host.parse()?), port })
    }
}

impl TryFrom<String> for OriginAddress {
    type Error = InvalidOriginAddress;

    fn try_from(text: String) -> Result<Self, InvalidOriginAddress> {
        text.parse()
    }
}

impl From<OriginAddress> for String {
    fn from(address: OriginAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for OriginAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host @ (Host::Name(_) | Host::Address(_)) => write!(f, "{host}:{}", self.port),
        }
    }
}
