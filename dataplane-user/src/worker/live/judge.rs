//! What the packet filter's rules say of who is at the other end of a connection.

use std::net::SocketAddr;

use model::filter::{FilterAction, Verdict};

use super::Live;
use crate::worker::proxy::Peer;

impl Live {
    /// What it says of who is at the other end of a connection. A client that a PROXY header named sends no packets here: deny
    /// rules judge it all the same, while allow lists are about who reaches listeners, which its balancer does. `local` is the
    /// socket's own address.
    pub fn judge(&self, peer: &Peer, local: SocketAddr) -> Verdict {
        let client = self.filter.verdict(peer.client.ip(), local);
        let Some(balancer) = peer.via else { return client };
        match (self.filter.verdict(balancer.ip(), local), client) {
            (Verdict::Pass, Verdict::NotAllowed) => Verdict::Pass,
            (Verdict::Pass, client) => client,
            (refused, _) => refused,
        }
    }

    /// The rule that would refuse whom [`Live::judge`] lets pass, were it not only observed. To be asked once of everybody who
    /// connects, and once of the client that he names: what would refuse a balancer is told when that connects.
    pub fn observed(&self, peer: &Peer, local: SocketAddr) -> Option<u32> {
        let of = |address: SocketAddr| self.filter.observed(address.ip(), local);
        let found = match peer.via {
            None => of(peer.client),
            Some(balancer) if of(balancer).is_some() => None,
            Some(_) => of(peer.client).filter(|(_, action)| *action == FilterAction::Deny),
        };
        found.map(|(rule, _)| rule)
    }
}
