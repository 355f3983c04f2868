//! Who a request is for: the Host field, or the authority of an absolute target or of HTTP/2.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use model::name::{HostName, InvalidHost};
use model::net::Host;

/// A host and, when one was given, a port. Never user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name in lower case, or the address.
    pub host: Host,
    /// The port, when given.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `host`, `host:port`, `[v6]`, `[v6]:port`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, port) = split_port(text)?;
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse::<u16>().ok()?)
            }
            Some(_) => return None,
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => Host::Address(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into()),
            None => match host.parse::<HostName>() {
                Ok(name) => Host::Name(name),
                Err(InvalidHost::Address) => Host::Address(host.parse::<Ipv4Addr>().ok()?.into()),
                Err(InvalidHost::Length | InvalidHost::Label | InvalidHost::Wildcard) => return None,
            },
        };
        Some(Self { host, port })
    }

    /// The host when it is a name.
    pub fn name(&self) -> Option<&HostName> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(std::net::IpAddr::V6(address)) => write!(f, "[{address}]")?,
            host @ (Host::Name(_) | Host::Address(_)) => write!(f, "{host}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let end = text.find(']')? + 1;
        let (host, rest) = text.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}
