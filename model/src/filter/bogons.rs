//! Ranges that no packet on the public internet comes from.

use crate::net::Prefix;

/// The name by which rules know them.
pub const BOGONS: &str = "bogons";

/// The special-purpose address registries (RFC 6890): whatever is there "Globally Reachable: False" or no source, and
/// multicast. Not in it: what translators and tunnels use across the internet (64:ff9b::/96, 2002::/16, 2001::/32), and
/// link-local IPv6, without which there is no neighbour.
const RANGES: [&str; 23] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::1/128",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:2::/48",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "ff00::/8",
];

/// The ranges, sorted.
pub fn bogons() -> Vec<Prefix> {
    let mut all: Vec<Prefix> = RANGES.iter().filter_map(|text| text.parse().ok()).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_a_prefix() {
        assert_eq!(bogons().len(), RANGES.len());
    }
}
