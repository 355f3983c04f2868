//! A connection's place: on its listener, of which all threads know ([`live::Open`]), and on this thread, which waits for
//! the last one when it ends.
//!
//! A connection that comes through a balancer counts for its client's address, from the moment that is known.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::worker::live::{self, ListenerLive, Network};
use crate::worker::observe;
use crate::worker::refusal::Reason;

/// One thread's open connections.
#[derive(Debug, Default, Clone)]
pub(super) struct Open(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: Cell<usize>,
    ended: Notify,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Rc<Counts>,
    listener: Arc<live::Open>,
    /// For whom it counts, once that is known.
    network: Option<Network>,
    _seen: observe::Open,
}

impl Open {
    /// A place for a connection, if there is one or `make_room` makes one; `client` where it is known already.
    ///
    /// # Errors
    /// The limit that was reached.
    pub(super) fn admit(
        &self,
        listener: &ListenerLive,
        client: Option<IpAddr>,
        seen: observe::Open,
        make_room: impl FnOnce() -> bool,
    ) -> Result<Admission, Reason> {
        let ListenerLive { open, limits, .. } = listener;
        let network = client.map(Network::from);
        network.map_or(Ok(()), |network| open.enter_from(network, limits))?;
        if let Err(full) = open.enter(limits, make_room) {
            network.into_iter().for_each(|network| open.leave_from(network));
            return Err(full);
        }
        self.0.all.set(self.0.all.get() + 1);
        Ok(Admission { counts: Rc::clone(&self.0), listener: Arc::clone(open), network, _seen: seen })
    }

    /// Waits until no connection is open.
    pub(super) async fn ended(&self) {
        while self.0.all.get() > 0 {
            self.0.ended.notified().await;
        }
    }
}

impl Admission {
    /// Counts a connection that was admitted without its client for that one.
    ///
    /// # Errors
    /// The client has too many.
    pub(super) fn belongs_to(&mut self, client: IpAddr, listener: &ListenerLive) -> Result<(), Reason> {
        let network = client.into();
        listener.open.enter_from(network, &listener.limits)?;
        self.network = Some(network);
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.listener.leave();
        self.network.into_iter().for_each(|network| self.listener.leave_from(network));
        self.counts.all.set(self.counts.all.get() - 1);
        if self.counts.all.get() == 0 {
            self.counts.ended.notify_one();
        }
    }
}
