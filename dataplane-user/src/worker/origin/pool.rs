//! Idle connections, by origin: the last one in is the first one out, so that the rest can age and go.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use super::connection::Connection;

/// An idle connection is not used after this long: many origins close at 60 or 75 seconds, and a close that crosses a
/// request costs a retry or, where a retry is not safe, an error.
const IDLE: Duration = Duration::from_secs(50);

/// Idle connections kept per origin and thread.
const MOST: usize = 256;

/// How long a failing origin is tried last: doubled with each failure in a row.
const BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// One thread's connections and what it knows of origins' health.
#[derive(Debug, Default)]
pub struct Pool {
    idle: HashMap<u64, Vec<Connection>>,
    failing: HashMap<u64, Failing>,
    turn: usize,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    in_a_row: u32,
    until: Instant,
}

impl Pool {
    /// A number that goes round, for where to start among origins.
    pub fn turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }

    /// The youngest living idle connection to an origin.
    pub fn take(&mut self, key: u64, now: Instant) -> Option<Connection> {
        let idle = self.idle.get_mut(&key)?;
        while let Some(mut connection) = idle.pop() {
            if now.duration_since(connection.since) > IDLE {
                idle.clear();
                return None;
            }
            if connection.alive() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn put(&mut self, key: u64, mut connection: Connection, now: Instant) {
        connection.rest();
        connection.since = now;
        let idle = self.idle.entry(key).or_default();
        if idle.len() < MOST {
            idle.push(connection);
        }
    }

    /// Closes what is too old or dead.
    pub fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|connection| now.duration_since(connection.since) <= IDLE && connection.alive());
            !idle.is_empty()
        });
        self.failing.retain(|_, failing| now < failing.until + LONGEST_BACKOFF);
    }

    /// Number of idle connections.
    pub fn idle(&self) -> usize {
        self.idle.values().map(Vec::len).sum()
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
