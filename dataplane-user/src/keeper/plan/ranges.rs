//! Listeners on prefixes and any port -> what the kernel looks up by longest prefix.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use model::listen::{Addresses, Atlas, Place, Port};

/// What is steered to a prefix, at a port or any. Of those that hold an address and port, that with the longest prefix decides,
/// and among two of the same prefix that with the port: what [`model::listen`] says, with what is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The addresses; all of a family where its length is 0.
    pub net: IpNet,
    /// The port.
    pub port: Port,
    /// Whether it is steered, or left to whoever listens there.
    pub steered: bool,
}

/// All of it, sorted; nothing where no place needs it. `busy` is where somebody else listens, the unspecified address being
/// every one of its family: of any port, that is left to him.
pub fn of(places: &BTreeSet<Place>, busy: &[SocketAddr]) -> Vec<Range> {
    if places.iter().all(|place| place.bound().is_some()) {
        return Vec::new();
    }
    let steered = |place: &Place| match place {
        Place::At(addresses, port) => vec![Range { net: addresses.net(), port: *port, steered: true }],
        Place::Everywhere(port) => [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()]
            .map(|all| Range { net: every(all), port: Port::One(*port), steered: true })
            .to_vec(),
    };
    let mut ranges: Vec<Range> = places.iter().flat_map(steered).collect();
    let atlas: Atlas<Place> = places.iter().map(|place| (*place, *place)).collect();
    for place in places {
        let Place::At(addresses, Port::Any) = place else { continue };
        let left = busy.iter().filter_map(|local| left_out(*place, *addresses, *local, &atlas));
        let (left, steered) = (left.filter(|at| !places.contains(&Place::At(at.0, at.1))), false);
        ranges.extend(left.map(|(addresses, port)| Range { net: addresses.net(), port, steered }));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// What somebody who listens at `local` keeps of any port of these addresses.
fn left_out(
    place: Place,
    addresses: Addresses,
    local: SocketAddr,
    atlas: &Atlas<Place>,
) -> Option<(Addresses, Port)> {
    let port = Port::try_from(u64::from(local.port())).ok()?;
    let (ip, net) = (local.ip(), addresses.net());
    if ip.is_unspecified() {
        // What has a longer prefix has an entry of its own.
        return (ip.is_ipv4() == net.addr().is_ipv4()).then_some((addresses, port));
    }
    (net.contains(&ip) && atlas.get(local) == Some(&place)).then(|| (Addresses::from(ip), port))
}

/// All addresses of the family.
fn every(address: IpAddr) -> IpNet {
    IpNet::new_assert(address, 0)
}
