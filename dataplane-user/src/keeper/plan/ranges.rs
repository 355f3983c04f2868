//! Listeners on prefixes and any port -> what the kernel looks up by longest prefix.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use model::listen::{Atlas, Place, Port};

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
        let left = busy.iter().filter_map(|local| left_out(*place, addresses.net(), *local, &atlas));
        ranges.extend(left.filter(|left| at(*left).is_none_or(|place| !places.contains(&place))));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// What somebody who listens at `local` keeps of any port of a prefix.
fn left_out(place: Place, net: IpNet, local: SocketAddr, atlas: &Atlas<Place>) -> Option<Range> {
    let port = Port::try_from(u64::from(local.port())).ok()?;
    let ip = local.ip();
    let net = if ip.is_unspecified() {
        // What has a longer prefix has an entry of its own.
        (ip.is_ipv4() == net.addr().is_ipv4()).then_some(net)?
    } else {
        (net.contains(&ip) && atlas.get(local) == Some(&place)).then(|| IpNet::from(ip))?
    };
    Some(Range { net, port, steered: false })
}

/// All addresses of the family.
fn every(address: IpAddr) -> IpNet {
    IpNet::new_assert(address, 0)
}

/// The place of a range that is not everywhere.
fn at(range: Range) -> Option<Place> {
    Some(Place::At(range.net.to_string().parse().ok()?, range.port))
}
