//! A listener's open connections, of all threads together: one number, and one for each client network.
//!
//! Threads share this when a connection comes and when it goes, and no request looks at it. The networks lie in shards with a
//! lock each, held for one look into a map.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::snapshot::Limits;
use tokio::time::{Duration, Instant};

use crate::worker::refusal::Reason;

/// So many that two threads want the same one only now and then.
const SHARDS: usize = 32;

/// A map that has held more than this gives memory back when most of it is empty.
const KEPT: usize = 64;

/// How long the other threads make room for a connection that was refused: each looks once in 100 ms.
const WANTED: Duration = Duration::from_millis(150);

/// See the module.
#[derive(Debug)]
pub struct Open {
    all: AtomicU32,
    /// Nobody knows which networks share a shard.
    chosen_by: RandomState,
    /// No entry without an open connection, so there are never more of them than of those.
    by_network: [Mutex<HashMap<Network, u32>>; SHARDS],
    made: Instant,
    /// Milliseconds since it was made until which every thread ends one that waits, where it has one.
    wanted_until: AtomicU64,
}

/// What counts as one client: an IPv4 address, or the IPv6 /64 that one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(client: IpAddr) -> Self {
        Self(match client.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        })
    }
}

impl Default for Open {
    fn default() -> Self {
        Self {
            all: AtomicU32::new(0),
            chosen_by: RandomState::new(),
            by_network: std::array::from_fn(|_| Mutex::default()),
            made: Instant::now(),
            wanted_until: AtomicU64::new(0),
        }
    }
}

impl Open {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.all.load(Ordering::Relaxed)
    }

    /// Counts a connection in. When the listener is nearly full, `make_room` is asked to end another one; at the limit the
    /// connection is let in only if it did.
    ///
    /// # Errors
    /// `limits.connections` was reached.
    pub fn enter(&self, limits: &Limits, make_room: impl FnOnce() -> bool) -> Result<(), Reason> {
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        // What is between leaves room for those that come to a thread whose own connections are all busy.
        let nearly = limits.connections - limits.connections / 8;
        if before >= nearly && !make_room() && before >= limits.connections {
            self.leave();
            let until = u64::try_from((self.made.elapsed() + WANTED).as_millis()).unwrap_or(u64::MAX);
            self.wanted_until.store(until, Ordering::Relaxed);
            return Err(Reason::TooManyConnections);
        }
        Ok(())
    }

    /// Whether a thread that had nobody to end refused a connection a moment ago, so that the others make room.
    pub fn wants_room(&self) -> bool {
        self.made.elapsed().as_millis() < u128::from(self.wanted_until.load(Ordering::Relaxed))
    }

    /// Counts a connection out.
    pub fn leave(&self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection for its client.
    ///
    /// # Errors
    /// `limits.connectionsPerAddress` was reached.
    pub fn enter_from(&self, network: Network, limits: &Limits) -> Result<(), Reason> {
        let mut shard = self.shard(network);
        let here = shard.entry(network).or_default();
        if *here >= limits.connections_per_address {
            return Err(Reason::TooManyFromAddress);
        }
        *here += 1;
        Ok(())
    }

    /// Counts it out for its client.
    pub fn leave_from(&self, network: Network) {
        let mut shard = self.shard(network);
        match shard.get_mut(&network) {
            Some(here) if *here > 1 => *here -= 1,
            Some(_) | None => drop(shard.remove(&network)),
        }
        if shard.capacity() > KEPT && shard.len() < shard.capacity() / 8 {
            let twice = shard.len() * 2;
            shard.shrink_to(twice);
        }
    }

    fn shard(&self, network: Network) -> MutexGuard<'_, HashMap<Network, u32>> {
        let at = self.chosen_by.hash_one(network) as usize % SHARDS;
        // A map whose holder panicked is a map still: every change to it is whole.
        self.by_network[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: u32, connections_per_address: u32) -> Limits {
        Limits { connections, connections_per_address, ..Limits::default() }
    }

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn threads_count_together() {
        let (open, limits) = (Open::default(), limits(1000, 10));
        let entered = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..50).filter(|_| open.enter_from(network("192.0.2.1"), &limits).is_ok()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(entered, 10);
        assert_eq!(open.enter_from(network("192.0.2.1"), &limits), Err(Reason::TooManyFromAddress));
        assert_eq!(open.enter_from(network("192.0.2.2"), &limits), Ok(()));
    }

    #[test]
    fn room_is_made_before_the_limit_and_needed_at_it() {
        let (open, limits) = (Open::default(), limits(16, 100));
        let asked = std::cell::Cell::new(0);
        let enter = |room| {
            let make = || {
                asked.set(asked.get() + 1);
                room
            };
            open.enter(&limits, make)
        };
        assert!((0..16).all(|_| enter(false).is_ok()));
        assert_eq!(asked.get(), 2, "from seven eighths on");
        assert_eq!(enter(false), Err(Reason::TooManyConnections));
        assert_eq!(open.count(), 16);
        assert_eq!(enter(true), Ok(()));
    }

    #[test]
    fn nothing_is_left_of_who_left() {
        let (open, limits) = (Open::default(), limits(100_000, 1));
        let networks: Vec<Network> = (0..20_000_u32).map(|n| IpAddr::from(n.to_be_bytes()).into()).collect();
        assert!(networks.iter().all(|network| open.enter_from(*network, &limits).is_ok()));
        networks.iter().for_each(|network| open.leave_from(*network));
        let held: usize = open.by_network.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(held <= SHARDS * KEPT, "room for {held}");
    }
}
