//! Who else listens where a listener would.

use std::net::IpAddr;

use model::listen::{Addresses, Bound};

use super::Sockets;
use super::place::is_taken;
use crate::keeper::owner::{self, Listening, Owner};

impl Sockets {
    /// Someone else who listens on a port of one of these addresses.
    pub(super) fn stranger_in(&self, addresses: Addresses, port: u16, busy: &[Listening]) -> Option<Owner> {
        let net = addresses.net();
        let there = busy.iter().map(|listening| listening.local);
        let there = there.filter(|local| local.port() == port && net.contains(&local.ip()));
        // Whoever listens everywhere listens at this one too.
        let mut at = there.map(|local| local.ip()).chain([net.network()]);
        at.find_map(|address| self.stranger((Some(address), port), busy))
    }

    /// Someone else who listens where `place` would.
    pub(super) fn stranger(&self, place: Bound, busy: &[Listening]) -> Option<Owner> {
        let overlaps = |listening: &&Listening| {
            match (listening.local.ip(), place.0) {
                (_, None) => true,
                // A wildcard IPv6 socket may take IPv4 as well: `/proc` does not say, `bind` does.
                (IpAddr::V6(ip), Some(IpAddr::V4(address))) => {
                    ip.is_unspecified() && is_taken(address.into(), place.1)
                }
                (ip, Some(address)) => {
                    ip == address || ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4()
                }
            }
        };
        let at_port = busy.iter().filter(|listening| listening.local.port() == place.1);
        at_port.filter(overlaps).find_map(|listening| {
            let owner = owner::owner(listening.inode);
            let friend = |pid: &u32| *pid == std::process::id() || self.friends.contains(pid);
            let ours =
                self.owns(listening.inode) || owner.process.as_ref().is_some_and(|(pid, _)| friend(pid));
            (!ours).then_some(owner)
        })
    }

    /// Whether a socket is one of these.
    fn owns(&self, inode: u64) -> bool {
        self.inodes().any(|ours| ours == inode)
    }

    /// The inodes of these sockets.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        self.held.values().filter_map(|held| rustix::fs::fstat(&held.socket).ok()).map(|stat| stat.st_ino)
    }
}
