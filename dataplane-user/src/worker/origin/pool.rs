//! A thread's connections to origins: idle ones of HTTP/1.1, of which the last one in is the first one out so that the
//! rest can age and go, and shared ones of HTTP/2, of which the first with room is taken for the same reason.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::either::Connection;
use super::http1::Http1;
use super::http2::{Shared, Stream};
use super::reach::{Unreached, Want};
use crate::worker::live::OriginLive;
use crate::worker::proxy::write::Behalf;

/// An idle connection is not used after this long: many origins close at 60 or 75 seconds, and a close that crosses a
/// request costs a retry or, where a retry is not safe, an error.
const IDLE: Duration = Duration::from_secs(50);

/// Idle connections kept per origin and thread.
const MOST: usize = 256;

/// How long a failing origin is tried last: doubled with each failure in a row.
const BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Retries that a group's thread may make at once, thousandths of one; requests put by for more.
const MOST_RETRIES: u32 = 10_000;

/// One thread's connections and what it knows of origins' health.
#[derive(Debug, Default)]
pub struct Pool {
    origins: HashMap<Key, Kept>,
    /// For each client that origins were told of, which ones they were.
    told: HashMap<SocketAddr, Vec<u64>>,
    failing: HashMap<u64, Failing>,
    turn: u64,
    /// By group, what may be spent on retries, thousandths of one.
    budgets: Vec<u32>,
}

/// Whom connections to an origin may serve: everybody, or only the client that it was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    origin: u64,
    client: Option<SocketAddr>,
}

impl Key {
    /// For connections to an origin on somebody's behalf.
    pub fn of(origin: &OriginLive, behalf: &Behalf) -> Self {
        let client = match behalf {
            Behalf::Client { client, .. } if origin.proxy.is_some() => Some(*client),
            Behalf::Client { .. } | Behalf::Own => None,
        };
        Self { origin: origin.key, client }
    }
}

/// What is kept for one origin.
#[derive(Debug, Default)]
struct Kept {
    idle: Vec<Http1>,
    shared: Vec<Rc<Shared>>,
    dials: Vec<Rc<Dial>>,
    /// It was offered both versions last time and chose HTTP/1.1: nobody waits for another's connection.
    chose_http1: bool,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    in_a_row: u32,
    until: Instant,
}

/// A connection on its way that others may share.
#[derive(Debug, Default)]
pub(super) struct Dial {
    ended: Cell<bool>,
    failure: RefCell<Option<Unreached>>,
    waiting: Cell<u32>,
    notify: Notify,
}

impl Dial {
    /// Waits for its end. Fails as it failed; otherwise the pool is worth another look.
    pub(super) async fn wait(&self) -> Result<(), Unreached> {
        let _waiting = Waiting::new(&self.waiting);
        while !self.ended.get() {
            self.notify.notified().await;
        }
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    pub(super) fn end(&self, failure: Option<Unreached>) {
        *self.failure.borrow_mut() = failure;
        self.ended.set(true);
        self.notify.notify_waiters();
    }
}

struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Pool {
    /// A number that goes round, to spread requests over origins.
    pub fn turn(&mut self) -> u64 {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }

    /// A request to the group of this number: `percent` of a retry is put by.
    pub fn requested(&mut self, group: usize, percent: u32) {
        if self.budgets.len() <= group {
            self.budgets.resize(group + 1, MOST_RETRIES);
        }
        if let Some(budget) = self.budgets.get_mut(group) {
            *budget = budget.saturating_add(percent * 10).min(MOST_RETRIES);
        }
    }

    /// Whether a request to the group may be tried at another origin: spends one retry.
    pub fn may_retry(&mut self, group: usize) -> bool {
        let left = self.budgets.get_mut(group).and_then(|budget| {
            *budget = budget.checked_sub(1000)?;
            Some(())
        });
        left.is_some()
    }

    /// A connection that stands: the first shared one with room, or the youngest living idle one. `fresh`: not an idle
    /// one, the last of those was dead. Where either version will do, an idle one only after the origin chose HTTP/1.1: a
    /// plain request may have left it, for which HTTP/2 was not offered.
    pub fn take(&mut self, key: Key, want: Want, fresh: bool, now: Instant) -> Option<Connection> {
        let kept = self.origins.get_mut(&key)?;
        while want != Want::Http1
            && let Some(at) = kept.shared.iter().position(|shared| shared.has_room())
        {
            match kept.shared.get(at).filter(|shared| shared.alive()) {
                Some(shared) => return Some(Connection::Http2(Box::new(Stream::new(shared)))),
                None => drop(kept.shared.remove(at)),
            }
        }
        let http1 = match want {
            Want::Http1 => true,
            Want::Either => kept.chose_http1,
            Want::Http2 => false,
        };
        while http1
            && !fresh
            && let Some(mut connection) = kept.idle.pop()
        {
            if now.duration_since(connection.since) > IDLE {
                kept.idle.clear();
                return None;
            }
            if connection.alive() {
                connection.reused = true;
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// Keeps a connection for the next request, where it can take one.
    pub fn put(&mut self, key: Key, connection: Connection, now: Instant) {
        let mut connection = match connection {
            Connection::Http1(connection) if connection.reusable() => connection,
            // Shared ones are here already.
            Connection::Http1(_) | Connection::Http2(_) => return,
        };
        connection.rest();
        connection.permission = None;
        connection.since = now;
        let idle = &mut self.kept(key).idle;
        if idle.len() < MOST {
            idle.push(connection);
        }
    }

    /// Shares a connection from now on.
    pub(super) fn share(&mut self, key: Key, shared: &Rc<Shared>) {
        self.kept(key).shared.push(Rc::clone(shared));
    }

    /// Remembers which version an origin chose when it was offered both.
    pub(super) fn chose_http1(&mut self, key: Key, chose: bool) {
        self.kept(key).chose_http1 = chose;
    }

    /// A dial on its way whose connection will have room for one more, with `streams` on each.
    pub(super) fn dial_under_way(&self, key: Key, streams: u32) -> Option<Rc<Dial>> {
        let kept = self.origins.get(&key).filter(|kept| !kept.chose_http1)?;
        kept.dials.iter().find(|dial| dial.waiting.get() + 1 < streams).map(Rc::clone)
    }

    pub(super) fn begin_dial(&mut self, key: Key) -> Rc<Dial> {
        let dial = Rc::new(Dial::default());
        self.kept(key).dials.push(Rc::clone(&dial));
        dial
    }

    pub(super) fn end_dial(&mut self, key: Key, dial: &Rc<Dial>) {
        if let Some(kept) = self.origins.get_mut(&key) {
            kept.dials.retain(|other| !Rc::ptr_eq(other, dial));
        }
    }

    fn kept(&mut self, key: Key) -> &mut Kept {
        let told = &mut self.told;
        self.origins.entry(key).or_insert_with(|| {
            if let Some(client) = key.client {
                told.entry(client).or_default().push(key.origin);
            }
            Kept::default()
        })
    }

    /// A client is gone: nobody else may use the connections that origins were told are its own.
    pub fn left(&mut self, client: SocketAddr) {
        if !self.told.is_empty() {
            for origin in self.told.remove(&client).unwrap_or_default() {
                self.origins.remove(&Key { origin, client: Some(client) });
            }
        }
    }

    /// Closes what is too old or dead.
    pub fn sweep(&mut self, now: Instant) {
        let young = |since: Instant| now.duration_since(since) <= IDLE;
        self.origins.retain(|_, kept| {
            kept.idle.retain_mut(|connection| young(connection.since) && connection.alive());
            kept.shared.retain(|shared| shared.alive() && shared.quiet_since().is_none_or(young));
            !(kept.idle.is_empty() && kept.shared.is_empty() && kept.dials.is_empty())
        });
        let kept = &self.origins;
        self.told.retain(|client, origins| {
            let client = Some(*client);
            origins.retain(|origin| kept.contains_key(&Key { origin: *origin, client }));
            !origins.is_empty()
        });
        self.failing.retain(|_, failing| now < failing.until + LONGEST_BACKOFF);
    }

    /// Number of connections without a request.
    pub fn idle(&self) -> usize {
        let quiet = |kept: &Kept| kept.shared.iter().filter(|shared| shared.quiet_since().is_some()).count();
        self.origins.values().map(|kept| kept.idle.len() + quiet(kept)).sum()
    }

    /// Whether an origin failed so lately that others come first.
    pub fn failing(&self, key: u64, now: Instant) -> bool {
        !self.failing.is_empty() && self.failing.get(&key).is_some_and(|failing| now < failing.until)
    }

    /// An attempt failed.
    pub fn failed(&mut self, key: u64, now: Instant) {
        let failing = self.failing.entry(key).or_insert(Failing { in_a_row: 0, until: now });
        failing.until = now + (BACKOFF * 2_u32.pow(failing.in_a_row.min(8))).min(LONGEST_BACKOFF);
        failing.in_a_row += 1;
    }

    /// An attempt succeeded. True when the origin was failing before.
    pub fn succeeded(&mut self, key: u64) -> bool {
        !self.failing.is_empty() && self.failing.remove(&key).is_some()
    }
}
