//! Which interfaces lead out: those of the default routes.

use std::collections::BTreeSet;

/// The interfaces of all default routes, IPv4 and IPv6, sorted.
pub fn of_default_routes() -> Vec<String> {
    let read = |table| std::fs::read_to_string(table).unwrap_or_default();
    let (v4, v6) = (read("/proc/self/net/route"), read("/proc/self/net/ipv6_route"));
    let found: BTreeSet<&str> =
        v4.lines().filter_map(default_v4).chain(v6.lines().filter_map(default_v6)).collect();
    found.into_iter().map(str::to_owned).collect()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`
fn default_v4(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    match fields.as_slice() {
        [interface, "00000000", _, _, _, _, _, "00000000", ..] => Some(interface),
        _ => None,
    }
}

/// `destination length source length gateway metric references use flags interface`; `lo` has the unreachable default.
fn default_v6(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    match fields.as_slice() {
        [net, "00", _, _, _, _, _, _, _, interface]
            if net.bytes().all(|digit| digit == b'0') && *interface != "lo" =>
        {
            Some(interface)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_only() {
        assert_eq!(default_v4("eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"), Some("eth0"));
        assert_eq!(default_v4("eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0"), None);
        let zero = "0".repeat(32);
        let line = |net: &str, length: &str, interface: &str| {
            format!(
                "{net} {length} {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 {interface}"
            )
        };
        assert_eq!(default_v6(&line(&zero, "00", "eth1")), Some("eth1"));
        assert_eq!(default_v6(&line(&zero, "00", "lo")), None);
        assert_eq!(default_v6(&line(&zero, "40", "eth1")), None);
    }
}
