//! Chooses an origin and a connection to it: round robin among those that are well, then the others; the next one when
//! a connection fails. No byte of a request is sent before a connection stands, so any method may fail over.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::net::Host;
use tokio::time::{Duration, Instant, timeout_at};

use super::connection::Connection;
use crate::worker::hops::context::ThreadCtx;
use crate::worker::live::{GroupLive, OriginLive};
use crate::worker::policy::Permit;
use crate::worker::refusal::Reason;
use crate::worker::tls::dial::{DialError, dial};

/// RFC 8305's connection attempt delay: the next address gets its chance after this, the first one goes on.
const STAGGER: Duration = Duration::from_millis(250);

/// The origins of one request's group, in the order they are tried.
#[derive(Debug)]
pub struct Attempts {
    start: usize,
    next: usize,
    tried: u64,
    again: Option<Arc<OriginLive>>,
    /// Attempts made so far.
    pub made: u32,
    /// The origin tried last.
    pub last: Option<Arc<OriginLive>>,
}

impl Attempts {
    /// For one request.
    pub fn new(ctx: &ThreadCtx) -> Self {
        Self { start: ctx.pool.borrow_mut().turn(), next: 0, tried: 0, again: None, made: 0, last: None }
    }

    /// After a pooled connection turned out to be stale: the same origin again.
    pub fn again(&mut self) {
        self.again.clone_from(&self.last);
    }

    /// A connection for the request. `fresh`: not from the pool.
    ///
    /// # Errors
    /// The last failure's reason when no origin is left.
    pub async fn connect(
        &mut self,
        permit: &Permit,
        fresh: bool,
        ctx: &ThreadCtx,
    ) -> Result<Connection, Reason> {
        let group = permit.group()?;
        let mut reason = Reason::OriginUnreachable;
        while let Some(origin) = self.following(group, ctx) {
            self.made += 1;
            let origin = self.last.insert(origin);
            let now = Instant::now();
            let pooled = if fresh { None } else { ctx.pool.borrow_mut().take(origin.key, now) };
            if let Some(connection) = pooled {
                return Ok(connection);
            }
            match Box::pin(reach(origin, now + group.connect_timeout, ctx)).await {
                Ok(connection) => {
                    ctx.pool.borrow_mut().succeeded(origin.key);
                    ctx.tell.origin(origin, Ok(connection.address));
                    return Ok(connection);
                }
                Err(failure) => {
                    ctx.pool.borrow_mut().failed(origin.key, Instant::now());
                    ctx.tell.origin(origin, Err(&failure));
                    reason = failure.reason;
                }
            }
        }
        Err(reason)
    }

    fn following(&mut self, group: &GroupLive, ctx: &ThreadCtx) -> Option<Arc<OriginLive>> {
        if let Some(again) = self.again.take() {
            return Some(again);
        }
        let count = group.origins.len();
        let (pool, now) = (ctx.pool.borrow(), Instant::now());
        // First round: those that are well. Second round: those left over.
        while self.next < count * 2 {
            let (at, second) = (self.start.wrapping_add(self.next) % count, self.next >= count);
            self.next += 1;
            let bit = 1_u64.checked_shl(at as u32).unwrap_or(0);
            let origin = group.origins.get(at)?;
            if self.tried & bit == 0 && (second || !pool.failing(origin.key, now)) {
                self.tried |= bit;
                return Some(Arc::clone(origin));
            }
        }
        None
    }
}

/// Why an origin could not be reached: the reason and a sentence for the status.
#[derive(Debug)]
pub struct Unreached {
    /// What the client is told.
    pub reason: Reason,
    /// What the operator is told.
    pub sentence: String,
}

impl From<DialError> for Unreached {
    fn from(error: DialError) -> Self {
        Self { reason: error.reason(), sentence: error.to_string() }
    }
}

async fn reach(origin: &OriginLive, deadline: Instant, ctx: &ThreadCtx) -> Result<Connection, Unreached> {
    let port = origin.address.port;
    let reached = timeout_at(deadline, async {
        match &origin.address.host {
            Host::Address(address) => one(origin, SocketAddr::new(*address, port)).await,
            Host::Name(name) => match ctx.names.addresses(name, Instant::now()).await {
                Some(addresses) => any(origin, addresses.iter().map(|ip| SocketAddr::new(*ip, port))).await,
                None => {
                    let sentence = format!("{name} cannot be resolved");
                    Err(Unreached { reason: Reason::OriginUnresolved, sentence })
                }
            },
        }
    });
    reached.await.unwrap_or_else(|_elapsed| {
        let sentence = format!("{} was not connected in time", origin.address);
        Err(Unreached { reason: Reason::OriginConnectTimeout, sentence })
    })
}

async fn one(origin: &OriginLive, address: SocketAddr) -> Result<Connection, Unreached> {
    let (stream, leg) = dial(origin, address).await?;
    Ok(Connection::new(stream, leg, address))
}

/// Tries several addresses, each a little after the one before or as soon as that has failed; the first to stand wins.
async fn any(
    origin: &OriginLive,
    mut addresses: impl Iterator<Item = SocketAddr>,
) -> Result<Connection, Unreached> {
    let mut racing = FuturesUnordered::new();
    let mut last = Unreached { reason: Reason::OriginUnreachable, sentence: "no address".to_owned() };
    loop {
        let more = addresses.next().map(|address| racing.push(one(origin, address))).is_some();
        if !more && racing.is_empty() {
            return Err(last);
        }
        let finished = if more {
            tokio::time::timeout(STAGGER, racing.next()).await.ok()
        } else {
            Some(racing.next().await)
        };
        match finished.flatten() {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(failure)) => last = failure,
            None => {}
        }
    }
}
