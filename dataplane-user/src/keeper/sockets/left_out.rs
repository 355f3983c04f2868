//! Ports that a listener on any port leaves to others: those that they listen on.
//!
//! `sk_lookup` would take them, and nobody sees that coming: ssh above all. So who listens is looked at when a plan is made,
//! and once a second while there is a listener on any port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use model::listen::{Place, Port};
use model::report::LeftOut;

use super::place::bind;
use crate::keeper::owner::{self, Listening, Owner};

/// So many are told by name; all are left out.
const TOLD: usize = 100;

/// Who listens on this machine, as far as listeners on any port have to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Busy {
    /// The addresses of listeners on any port.
    nets: Vec<IpNet>,
    /// Who listens at one of them, or everywhere.
    seen: Vec<Listening>,
    /// Where nothing is to be taken; the unspecified address is every one of its family.
    at: Vec<SocketAddr>,
    told: Vec<LeftOut>,
}

impl Busy {
    /// Looks again, where there are listeners on any port among `open`; says whether that has changed. What was seen stays where it
    /// cannot be looked.
    pub fn look<'a>(&mut self, open: impl Iterator<Item = &'a Place>, ours: impl Fn(u64) -> bool) -> bool {
        let nets: Vec<IpNet> = open.filter_map(any_port).collect();
        let listening = if nets.is_empty() { Ok(Vec::new()) } else { owner::listening() };
        let mut seen = match listening {
            Ok(listening) => listening,
            Err(error) => {
                tracing::warn!(%error, "who listens on this machine cannot be read: what was left out stays left out");
                return false;
            }
        };
        seen.retain(|one| {
            let ip = one.local.ip();
            ip.is_unspecified() || nets.iter().any(|net| net.contains(&ip))
        });
        seen.sort_unstable();
        if (&seen, &nets) == (&self.seen, &self.nets) {
            return false;
        }
        let own = nets.iter().map(IpNet::network).find(IpAddr::is_ipv4);
        let both = |one: &Listening| own.and_then(|address| both_families(one.local, address));
        let at = seen.iter().flat_map(|one| [Some(one.local), both(one)]).flatten().collect();
        let strangers: Vec<&Listening> = seen.iter().filter(|one| !ours(one.inode)).take(TOLD).collect();
        let mut owners = owner::owners(&strangers.iter().map(|one| one.inode).collect());
        let mut owner = |inode| owners.remove(&inode).unwrap_or(Owner { process: None }).to_string();
        let told = strangers.iter().map(|one| LeftOut { at: one.local, owner: owner(one.inode) }).collect();
        *self = Self { nets, seen, at, told };
        true
    }

    /// Where others listen; the unspecified address is every one of its family.
    pub fn at(&self) -> &[SocketAddr] {
        &self.at
    }

    /// What a listener at this place leaves to others.
    pub fn left_out_of(&self, place: Place) -> Vec<LeftOut> {
        let Place::At(addresses, Port::Any) = place else { return Vec::new() };
        let meets = |one: &&LeftOut| {
            let ip = one.at.ip();
            let family = ip.is_ipv6() || addresses.net().addr().is_ipv4();
            addresses.net().contains(&ip) || ip.is_unspecified() && family
        };
        self.told.iter().filter(meets).cloned().collect()
    }
}

/// The addresses of a listener on any port.
fn any_port(place: &Place) -> Option<IpNet> {
    match place {
        Place::At(addresses, Port::Any) => Some(addresses.net()),
        Place::At(..) | Place::Everywhere(_) => None,
    }
}

/// A wildcard IPv6 socket may take IPv4 as well: `/proc` does not say, `bind` does. Whatever it says but "free" is "taken".
fn both_families(local: SocketAddr, address: IpAddr) -> Option<SocketAddr> {
    let everywhere = local.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let taken = || bind(SocketAddr::new(address, local.port()), false).is_err();
    (everywhere && taken()).then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_known_while_there_is_a_listener_on_any_port() {
        let place = |addresses: &str| Place::At(addresses.parse().unwrap(), Port::Any);
        let (four, six) = (place("127.0.7.0/24"), place("2001:db8::/64"));
        let mut busy = Busy::default();
        assert!(!busy.look([].into_iter(), |_| false) && busy.at().is_empty());
        let Ok(both) = TcpListener::bind("[::]:0") else { return };
        let port = both.local_addr().unwrap().port();
        let has = |busy: &Busy, ip: IpAddr| busy.at().contains(&SocketAddr::new(ip, port));
        let (all4, all6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
        assert!(busy.look([six].iter(), |_| false));
        assert!(has(&busy, all6) && !has(&busy, all4));
        // Nobody came or went, and yet it matters now that the socket takes IPv4 as well.
        assert!(busy.look([six, four].iter(), |_| false));
        assert!(has(&busy, all6) && has(&busy, all4));
        assert!(busy.left_out_of(four).iter().any(|left| left.at.port() == port));
        assert!(busy.look([].into_iter(), |_| false) && busy.at().is_empty());
    }

    #[test]
    fn who_listens_elsewhere_is_not_looked_at() {
        let place = Place::At("127.0.9.0/24".parse().unwrap(), Port::Any);
        let mut busy = Busy::default();
        busy.look([place].iter(), |_| false);
        let Ok(elsewhere) = TcpListener::bind("127.0.8.1:0") else { return };
        let Ok(here) = TcpListener::bind("127.0.9.1:0") else { return };
        busy.look([place].iter(), |_| false);
        let has = |socket: &TcpListener| busy.at().contains(&socket.local_addr().unwrap());
        assert!(has(&here) && !has(&elsewhere));
    }
}
