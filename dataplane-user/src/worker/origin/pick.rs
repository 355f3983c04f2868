//! Chooses an origin and a connection to it; the next best one when a connection fails. No byte of a request is sent
//! before a connection stands, so any method may fail over.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::choose::{Candidate, choose, point, warmth};
use super::either::Connection;
use super::gate::Permission;
use super::health::clock;
use super::pool::{Key, Pool};
use super::reach::{Kind, Purpose, Want, connect, reach};
use crate::worker::hops::context::ThreadCtx;
use crate::worker::hops::flow::Failed;
use crate::worker::live::{GroupLive, Member, OriginLive};
use crate::worker::policy::Permit;
use crate::worker::proxy::write::Behalf;
use crate::worker::refusal::{Fault, Reason};

/// How often one request is sent again because its connection turned out to be dead or the origin had not looked at it.
const MOST_AGAIN: u32 = 2;

/// Places in a group. Nearly every request tries one only, which costs no memory of its own.
#[derive(Debug, Default)]
struct Tried {
    first: Option<usize>,
    others: Vec<usize>,
}

impl Tried {
    fn add(&mut self, at: usize) {
        match self.first {
            None => self.first = Some(at),
            Some(_) => self.others.push(at),
        }
    }

    fn has(&self, at: usize) -> bool {
        self.first == Some(at) || self.others.contains(&at)
    }

    fn last(&self) -> Option<usize> {
        self.others.last().copied().or(self.first)
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}

/// One request's attempts at the origins of its group.
#[derive(Debug)]
pub struct Attempts {
    kind: Kind,
    behalf: Behalf,
    point: u64,
    tried: Tried,
    again: Option<usize>,
    agains: u32,
    /// Attempts made so far.
    pub made: u32,
    /// The origin tried last.
    pub last: Option<Arc<OriginLive>>,
}

impl Attempts {
    /// For one request of this kind.
    pub fn new(kind: Kind, behalf: Behalf, ctx: &ThreadCtx) -> Self {
        let point = point(ctx.pool.borrow_mut().turn());
        Self { kind, behalf, point, tried: Tried::default(), again: None, agains: 0, made: 0, last: None }
    }

    /// After a connection turned out to be stale, or the origin had not looked at the request: the same origin again, but
    /// not for ever.
    pub fn again(&mut self) {
        self.agains += 1;
        self.again = self.tried.last().filter(|_| self.agains <= MOST_AGAIN);
    }

    /// A connection for the request. `fresh`: no idle one.
    ///
    /// # Errors
    /// The last failure's reason when no origin is left, or why none may be tried.
    pub async fn connect(
        &mut self,
        permit: &Permit,
        fresh: bool,
        ctx: &ThreadCtx,
    ) -> Result<Connection, Reason> {
        let group = permit.group()?;
        let mut reason = match (self.made, self.agains) {
            (0, _) => Reason::NoOrigin,
            (_, 0) => Reason::OriginUnreachable,
            (_, _) => Reason::OriginGone,
        };
        while let Some(member) = self.following(group, ctx)? {
            self.made += 1;
            let origin = self.last.insert(Arc::clone(&member.origin));
            match Box::pin(one(member, group, (self.kind, &self.behalf), fresh, ctx)).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => reason = failure,
            }
            tracing::trace!(origin = %origin.address, reason = reason.name(), "not this origin");
        }
        Err(reason)
    }

    /// A connection that nothing has been said on yet, of one of the group's origins.
    ///
    /// # Errors
    /// As [`Attempts::connect`].
    pub async fn dial(&mut self, group: &GroupLive, ctx: &ThreadCtx) -> Result<Wire, Reason> {
        let mut reason = Reason::NoOrigin;
        while let Some(member) = self.following(group, ctx)? {
            self.made += 1;
            let origin = self.last.insert(Arc::clone(&member.origin));
            match wire(member, group, ctx).await {
                Ok(wire) => return Ok(wire),
                Err(failure) => reason = failure,
            }
            tracing::trace!(origin = %origin.address, reason = reason.name(), "not this origin");
        }
        Err(reason)
    }

    /// What came of the exchange, for the origin's health: a status, or why it ended.
    pub(crate) fn ended(&self, permit: &Permit, outcome: Result<u16, Failed>) {
        if let Ok(group) = permit.group() {
            self.judged(group, outcome);
        }
    }

    /// The same where there was no permit to be had.
    pub(crate) fn judged(&self, group: &GroupLive, outcome: Result<u16, Failed>) {
        let Some(origin) = &self.last else { return };
        if !self.kind.tells(group.protocols) {
            return;
        }
        let failed = match outcome {
            Ok(502..=504) => group.ejection.statuses,
            Ok(_) => false,
            // An origin that was asked for what it does not have is not an origin that fails.
            Err(Failed::Refused(Reason::BadUpgrade)) => return,
            Err(Failed::Refused(reason) | Failed::Broken(reason)) if reason.fault() == Fault::Origin => true,
            // The client or an operator's rule ended it: nothing is known of the origin.
            Err(Failed::Refused(_) | Failed::Broken(_) | Failed::Stale) => return,
        };
        if failed { group.failed(origin) } else { origin.health.succeeded() }
    }

    fn following<'g>(&mut self, group: &'g GroupLive, ctx: &ThreadCtx) -> Result<Option<&'g Member>, Reason> {
        if let Some(again) = self.again.take() {
            return Ok(group.members.get(again));
        }
        let mut pool = ctx.pool.borrow_mut();
        if self.made == 0 {
            pool.requested(group.slot, group.retry_percent);
        } else if self.tried.count() < group.members.len() && !pool.may_retry(group.slot) {
            return Err(Reason::RetryBudget);
        }
        let chosen = match group.members.as_slice() {
            [only] if self.tried.count() == 0 => only.enabled.then_some(0),
            members => {
                let now = Instant::now();
                let candidates = members
                    .iter()
                    .enumerate()
                    .map(|(at, member)| candidate(member, group, self.tried.has(at), &pool, now));
                choose(candidates, group.sensitivity, self.point)
            }
        };
        chosen.into_iter().for_each(|at| self.tried.add(at));
        Ok(chosen.and_then(|at| group.members.get(at)))
    }
}

fn candidate(member: &Member, group: &GroupLive, tried: bool, pool: &Pool, now: Instant) -> Candidate {
    let (health, clock) = (&member.origin.health, clock(now));
    Candidate {
        eligible: member.enabled && !tried,
        well: health.well(clock),
        ready: !pool.failing(member.origin.key, now) && !member.gate.as_ref().is_some_and(|gate| gate.full()),
        priority: member.priority,
        weight: member.weight,
        warmth: warmth(health.well_for(clock), group.slow_start),
        latency: health.latency(),
    }
}

/// A connection to one origin: from the pool, or new.
async fn one(
    member: &Member,
    group: &GroupLive,
    (kind, behalf): (Kind, &Behalf),
    fresh: bool,
    ctx: &ThreadCtx,
) -> Result<Connection, Reason> {
    let origin = &member.origin;
    let permission = enter(member, group).await?;
    let want = Want::of(group.protocols, &origin.security, kind);
    let pooled = ctx.pool.borrow_mut().take(Key::of(origin, behalf), want, fresh, Instant::now());
    let mut connection = match pooled {
        Some(connection) => connection,
        None => {
            let purpose = Purpose { want, tells: kind.tells(group.protocols), behalf: *behalf };
            Box::pin(reach(origin, group, purpose, ctx)).await.map_err(|failure| failure.reason)?
        }
    };
    connection.permit(permission);
    Ok(connection)
}

/// A connection as the kernel made it.
#[derive(Debug)]
pub struct Wire {
    /// The socket.
    pub tcp: TcpStream,
    /// The address that answered.
    pub address: SocketAddr,
    /// Its place among the origin's exchanges.
    _permission: Option<Permission>,
}

async fn wire(member: &Member, group: &GroupLive, ctx: &ThreadCtx) -> Result<Wire, Reason> {
    let permission = enter(member, group).await?;
    let (tcp, address) = connect(&member.origin, group, ctx).await.map_err(|failure| failure.reason)?;
    Ok(Wire { tcp, address, _permission: permission })
}

/// The right to one more exchange with an origin.
async fn enter(member: &Member, group: &GroupLive) -> Result<Option<Permission>, Reason> {
    let Some(gate) = &member.gate else { return Ok(None) };
    let deadline = Instant::now() + group.connect_timeout;
    gate.enter(deadline).await.map(Some).map_err(|_full| Reason::OriginBusy)
}
