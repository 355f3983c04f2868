//! Where documents may be fetched from: the public internet, and what the console's command line adds.
//!
//! The console stands in networks that the person who writes an address may not be in: without this, an address would make
//! it speak to loopback services, to a cloud's metadata service or to the neighbours behind a firewall.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::filter::bogons;
use model::net::{OriginAddress, Prefix};

use super::FetchError;

/// The places that may be fetched from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// Prefixes that are no public addresses and may be fetched from all the same.
    pub(crate) also: Vec<Prefix>,
}

impl Places {
    /// The addresses that may be connected to; never none.
    pub(super) fn permitted(
        &self,
        wanted: &OriginAddress,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        let refused = addresses.first().copied();
        addresses.retain(|address| self.permits(address.ip()));
        match (addresses.is_empty(), refused) {
            (false, _) => Ok(addresses),
            (true, Some(address)) => Err(FetchError::Private(wanted.clone(), address.ip())),
            (true, None) => Err(FetchError::Name(wanted.clone(), "it has no address".to_owned())),
        }
    }

    fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.also.iter().any(|prefix| prefix.contains(address))
    }
}

/// Whether everybody on the internet could reach the address.
fn is_public(address: IpAddr) -> bool {
    let special = bogons().iter().any(|prefix| prefix.contains(address));
    !special
        && match address {
            IpAddr::V4(address) => address != Ipv4Addr::BROADCAST,
            IpAddr::V6(address) => is_public_v6(address),
        }
}

/// Global unicast (RFC 4291, 2.4), without 2001::/23 (protocols, among them Teredo) and 6to4: both have an IPv4 address in
/// them. Translators (64:ff9b::/96) are not in 2000::/3.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && second < 0x0200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_unless_said_otherwise() {
        let public = ["1.1.1.1", "2606:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1", "2001:4860::8888"];
        for text in public {
            assert!(Places::default().permits(text.parse().unwrap()), "{text}");
        }
        let private = [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
        ];
        for text in private {
            assert!(!Places::default().permits(text.parse().unwrap()), "{text}");
        }
        let also = Places { also: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()] };
        for (text, yes) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd00::1", true),
            ("::1", false),
        ] {
            assert_eq!(also.permits(text.parse().unwrap()), yes, "{text}");
        }
    }

    #[test]
    fn of_several_addresses_only_the_permitted_ones_are_connected_to() {
        let wanted: OriginAddress = "lists.example:443".parse().unwrap();
        let all: Vec<SocketAddr> =
            ["127.0.0.1:443", "1.1.1.1:443", "[::1]:443"].map(|text| text.parse().unwrap()).to_vec();
        let left = Places::default().permitted(&wanted, all.clone()).unwrap();
        assert_eq!(left, ["1.1.1.1:443".parse().unwrap()]);
        let only = all.into_iter().filter(|address| address.ip().is_loopback()).collect();
        let why = Places::default().permitted(&wanted, only).unwrap_err();
        assert_eq!(why.reason(), "refused-address");
        assert!(why.to_string().contains("lists.example:443 is 127.0.0.1"), "{why}");
    }
}
