//! How many connections may be open: per listener on this node, per client address on this thread.
//!
//! A connection that comes through a balancer counts for its client's address, from the moment that is known.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::worker::live::ListenerLive;
use crate::worker::observe;
use crate::worker::refusal::Reason;

/// A listener (by the address of its count, which the entry's connections keep alive) and an IPv4 address or IPv6 /64.
type Key = (usize, IpAddr);

/// One thread's open connections.
#[derive(Debug, Default, Clone)]
pub(super) struct Open(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: Cell<usize>,
    /// No entry without an open connection, so there are never more of them than of those.
    by_address: RefCell<HashMap<Key, u32>>,
    ended: Notify,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Rc<Counts>,
    listener: Arc<AtomicU32>,
    /// For whom it counts, once that is known.
    key: Option<Key>,
    _seen: observe::Open,
}

impl Open {
    /// A place for a connection, if there is one; `client` where it is known already.
    ///
    /// # Errors
    /// The limit that was reached.
    pub(super) fn admit(
        &self,
        listener: &ListenerLive,
        client: Option<IpAddr>,
        seen: observe::Open,
    ) -> Result<Admission, Reason> {
        let key = client.map(|client| self.0.room(listener, client)).transpose()?;
        if listener.open.fetch_add(1, Ordering::Relaxed) >= listener.limits.connections {
            listener.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::TooManyConnections);
        }
        self.0.all.set(self.0.all.get() + 1);
        let (counts, listener) = (Rc::clone(&self.0), Arc::clone(&listener.open));
        let mut admission = Admission { counts, listener, key: None, _seen: seen };
        admission.count(key);
        Ok(admission)
    }

    /// Waits until no connection is open.
    pub(super) async fn ended(&self) {
        while self.0.all.get() > 0 {
            self.0.ended.notified().await;
        }
    }
}

impl Counts {
    /// Under which key one more connection of a client may count.
    fn room(&self, listener: &ListenerLive, client: IpAddr) -> Result<Key, Reason> {
        let key = (Arc::as_ptr(&listener.open) as usize, network(client));
        let here = self.by_address.borrow().get(&key).copied().unwrap_or_default();
        if here >= listener.limits.connections_per_address {
            return Err(Reason::TooManyFromAddress);
        }
        Ok(key)
    }
}

impl Admission {
    /// Counts a connection that was admitted without its client for that one.
    ///
    /// # Errors
    /// The client has too many.
    pub(super) fn belongs_to(&mut self, client: IpAddr, listener: &ListenerLive) -> Result<(), Reason> {
        let key = self.counts.room(listener, client)?;
        self.count(Some(key));
        Ok(())
    }

    fn count(&mut self, key: Option<Key>) {
        if let Some(key) = key {
            *self.counts.by_address.borrow_mut().entry(key).or_default() += 1;
        }
        self.key = key;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.listener.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.key {
            let mut by_address = self.counts.by_address.borrow_mut();
            match by_address.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(by_address.remove(&key)),
            }
        }
        self.counts.all.set(self.counts.all.get() - 1);
        if self.counts.all.get() == 0 {
            self.counts.ended.notify_one();
        }
    }
}

/// The client's IPv4 address, or its IPv6 /64: one subscriber has that many addresses.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}
