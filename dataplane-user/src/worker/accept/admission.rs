//! How many connections may be open: per listener on this node, per client address on this thread.

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
    key: Key,
    _seen: observe::Open,
}

impl Open {
    /// A place for a connection, if there is one.
    ///
    /// # Errors
    /// The limit that was reached.
    pub(super) fn admit(
        &self,
        listener: &ListenerLive,
        client: IpAddr,
        seen: observe::Open,
    ) -> Result<Admission, Reason> {
        let key = (Arc::as_ptr(&listener.open) as usize, network(client));
        let mut by_address = self.0.by_address.borrow_mut();
        let here = by_address.get(&key).copied().unwrap_or_default();
        if here >= listener.limits.connections_per_address {
            return Err(Reason::TooManyFromAddress);
        }
        if listener.open.fetch_add(1, Ordering::Relaxed) >= listener.limits.connections {
            listener.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::TooManyConnections);
        }
        by_address.insert(key, here + 1);
        self.0.all.set(self.0.all.get() + 1);
        Ok(Admission { counts: Rc::clone(&self.0), listener: Arc::clone(&listener.open), key, _seen: seen })
    }

    /// Waits until no connection is open.
    pub(super) async fn ended(&self) {
        while self.0.all.get() > 0 {
            self.0.ended.notified().await;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.listener.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.counts.by_address.borrow_mut();
        match by_address.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_address.remove(&self.key)),
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
