//! Ports that a listener on any port leaves to others: those that they listen on.
//!
//! `sk_lookup` would take them, and nobody sees that coming: ssh above all. So who listens is looked at when a plan is made,
//! and once a second while there is a listener on any port.

use std::collections::BTreeSet;
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
    /// Looks again, where there are listeners on any port among `open`; says whether that has changed. `ours` are the inodes of
    /// the node's own sockets. What was seen stays where it
    /// cannot be looked.
    pub fn look<'a>(
        &mut self,
        open: impl Iterator<Item = &'a Place>,
        ours: impl Iterator<Item = u64>,
    ) -> bool {
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
        let ours: BTreeSet<u64> = ours.collect();
        let strangers: Vec<&Listening> =
            seen.iter().filter(|one| !ours.contains(&one.inode)).take(TOLD).collect();
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

    /// What a listener at this place leaves to others, as the tables have it: an IPv6 socket for every address counts among IPv4's
    /// where it takes those as well.
    pub fn left_out_of(&self, place: Place) -> Vec<LeftOut> {
        let Place::At(addresses, Port::Any) = place else { return Vec::new() };
        let net = addresses.net();
        let of_ipv4 = net.addr().is_ipv4();
        let meets = |one: &&LeftOut| {
            let (ip, port) = (one.at.ip(), one.at.port());
            let every_ipv4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            let everywhere = ip.is_ipv4() == of_ipv4 || of_ipv4 && self.at.contains(&every_ipv4);
            net.contains(&ip) || ip.is_unspecified() && everywhere
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
        assert!(!busy.look([].into_iter(), [].into_iter()) && busy.at().is_empty());
        let Ok(both) = TcpListener::bind("[::]:0") else { return };
        let port = both.local_addr().unwrap().port();
        let has = |busy: &Busy, ip: IpAddr| busy.at().contains(&SocketAddr::new(ip, port));
        let (all4, all6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
        assert!(busy.look([six].iter(), [].into_iter()));
        assert!(has(&busy, all6) && !has(&busy, all4));
        // Nobody came or went, and yet it matters now that the socket takes IPv4 as well.
        assert!(busy.look([six, four].iter(), [].into_iter()));
        assert!(has(&busy, all6) && has(&busy, all4));
        let told =
            |busy: &Busy, place| busy.left_out_of(place).iter().filter(|left| left.at.port() == port).count();
        assert_eq!([told(&busy, four), told(&busy, six)], [1, 1]);
        drop(both);
        // One that takes IPv6 alone is nobody's business at IPv4.
        let only = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
        only.set_only_v6(true).unwrap();
        only.bind(&SocketAddr::new(all6, port).into()).unwrap();
        only.listen(1).unwrap();
        assert!(busy.look([six, four].iter(), [].into_iter()));
        assert!(has(&busy, all6) && !has(&busy, all4));
        assert_eq!([told(&busy, four), told(&busy, six)], [0, 1]);
        assert!(busy.look([].into_iter(), [].into_iter()) && busy.at().is_empty());
    }

    #[test]
    fn who_listens_elsewhere_is_not_looked_at() {
        let place = Place::At("127.0.9.0/24".parse().unwrap(), Port::Any);
        let mut busy = Busy::default();
        busy.look([place].iter(), [].into_iter());
        let Ok(elsewhere) = TcpListener::bind("127.0.8.1:0") else { return };
        let Ok(here) = TcpListener::bind("127.0.9.1:0") else { return };
        busy.look([place].iter(), [].into_iter());
        let has = |socket: &TcpListener| busy.at().contains(&socket.local_addr().unwrap());
        assert!(has(&here) && !has(&elsewhere));
    }
}
