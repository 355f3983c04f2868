//! One client connection as the recipes see it: who it is, which listener it belongs to now, whether it is to end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;

use model::filter::Verdict;
use model::name::HostName;
use model::report::Leg;
use model::snapshot::SnapshotId;
use model::transform::Scheme;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::context::{Stop, ThreadCtx};
use super::idle::Waits;
use crate::worker::live::{Door, ListenerLive};
use crate::worker::proxy::Peer;
use crate::worker::proxy::write::Behalf;
use crate::worker::refusal::Reason;
use crate::worker::tls::clear_text_leg;

/// A secured connection from a client, handed over by the listener.
pub struct Secured<S> {
    /// Plaintext in both directions.
    pub stream: S,
    /// The listener at the time of the handshake.
    pub listener: Arc<ListenerLive>,
    /// The client, and the balancer that told of it.
    pub peer: Peer,
    /// Where it connected to.
    pub local: SocketAddr,
    /// The name it sent.
    pub sni: Option<HostName>,
    /// ALPN chose HTTP/2.
    pub alpn_h2: bool,
    /// What the handshake agreed on.
    pub leg: Arc<Leg>,
}

/// A connection in clear text from a client, handed over by the listener.
pub struct Unsecured<S> {
    /// As it is.
    pub stream: S,
    /// The listener at the time of the accept.
    pub listener: Arc<ListenerLive>,
    /// The client.
    pub peer: Peer,
    /// Where it connected to.
    pub local: SocketAddr,
}

/// A connection without its stream.
pub(crate) struct Hop {
    pub(crate) peer: Peer,
    pub(crate) local: SocketAddr,
    pub(crate) sni: Option<HostName>,
    pub(crate) leg: Arc<Leg>,
    listener: RefCell<Arc<ListenerLive>>,
    seen: Cell<Option<SnapshotId>>,
    closing: Cell<Option<Instant>>,
    patient: Cell<bool>,
    h2c: Cell<bool>,
    waits: Waits,
    /// Why the connection was cut off, when it was.
    pub(crate) cut: Cell<Option<Reason>>,
}

impl Hop {
    /// Takes a connection apart.
    pub(crate) fn new<S>(secured: Secured<S>, ctx: &ThreadCtx) -> (Self, S, bool) {
        let Secured { stream, listener, peer, local, sni, alpn_h2, leg } = secured;
        (Self::of((peer, local), sni, leg, listener, ctx), stream, alpn_h2)
    }

    /// Takes a connection in clear text apart.
    pub(crate) fn unsecured<S>(unsecured: Unsecured<S>, ctx: &ThreadCtx) -> (Self, S) {
        let Unsecured { stream, listener, peer, local } = unsecured;
        (Self::of((peer, local), None, Arc::new(clear_text_leg()), listener, ctx), stream)
    }

    fn of(
        (peer, local): (Peer, SocketAddr),
        sni: Option<HostName>,
        leg: Arc<Leg>,
        listener: Arc<ListenerLive>,
        ctx: &ThreadCtx,
    ) -> Self {
        let waits = ctx.idle.join(&listener.open);
        let (listener, seen, closing) = (RefCell::new(listener), Cell::new(None), Cell::new(None));
        let (patient, h2c, cut) = (Cell::new(false), Cell::new(false), Cell::new(None));
        Self { peer, local, sni, leg, listener, seen, closing, patient, h2c, waits, cut }
    }

    /// How the client came.
    pub(crate) fn scheme(&self) -> Scheme {
        match self.listener.borrow().door {
            Door::Tls(_) => Scheme::Https,
            Door::ClearText(_) => Scheme::Http,
        }
    }

    /// It has begun to speak HTTP/2 in clear text. True when its peer may: that is judged anew with each snapshot.
    pub(crate) fn speaks_h2c(&self) -> bool {
        let trusted = self.listener.borrow().door.trusts(self.peer.client.ip());
        self.h2c.set(trusted);
        trusted
    }

    /// On whose behalf origins are connected for it.
    pub(crate) fn behalf(&self) -> Behalf {
        Behalf::Client { client: self.peer.client, reached: self.local }
    }

    /// The listener as the newest snapshot has it, or as the last one had it that still did.
    pub(crate) fn listener(&self) -> Arc<ListenerLive> {
        Arc::clone(&self.listener.borrow())
    }

    /// Looks at the stop and the newest snapshot.
    ///
    /// False when the connection must end at once; a denial has been told then.
    pub(crate) fn refresh(&self, ctx: &ThreadCtx) -> bool {
        self.patient.set(matches!(ctx.stop(), Stop::Retire { .. }));
        match ctx.stop() {
            Stop::Run => {}
            // The first look sets the deadline: a later one is never earlier.
            Stop::Drained => self.close_by(self.drain_deadline()),
            Stop::Drain { deadline } => self.close_by(deadline),
            Stop::Retire { deadline } => self.close_by(deadline),
            Stop::Now => {
                self.cut.set(Some(Reason::DrainExpired));
                return false;
            }
        }
        let live = ctx.live.load();
        if self.seen.replace(Some(live.id)) == Some(live.id) {
            return true;
        }
        let current = self.listener();
        let denied = match live.judge(&self.peer, self.local) {
            Verdict::Pass => None,
            Verdict::Denied { rule } => Some(rule),
            Verdict::NotAllowed => Some(0),
        };
        if let Some(rule) = denied {
            self.cut.set(Some(Reason::Denied));
            ctx.tell.denied(rule, &current.name);
            return false;
        }
        match live.listeners.get(&current.name) {
            // One that has come in clear text meets no listener's rules for TLS, nor the other way round.
            Some(listener) if listener.door.like(&current.door) => {
                self.listener.replace(Arc::clone(listener));
                if self.h2c.get() && !listener.door.trusts(self.peer.client.ip()) {
                    self.close_by(self.drain_deadline());
                }
            }
            Some(_) | None => self.close_by(self.drain_deadline()),
        }
        true
    }

    /// The deadline when the connection is to end after what is under way.
    pub(crate) fn closing(&self) -> Option<Instant> {
        self.closing.get()
    }

    /// Whether a connection that is to end may stay idle until its next request tells it so: one that is closed under a
    /// request on its way loses it.
    pub(crate) fn patient(&self) -> bool {
        self.patient.get()
    }

    /// The connection waits for a request since then. True when it must end at once, to make room for another.
    pub(crate) fn waits(&self, since: Instant, cx: &Context<'_>, ctx: &ThreadCtx) -> bool {
        let leaves = self.leaves(since, cx);
        if leaves && !self.evicted() {
            self.cut.set(Some(Reason::IdleEvicted));
            ctx.tell.refused(Reason::IdleEvicted, &self.listener.borrow().name);
        }
        leaves
    }

    /// The same where the caller tells of it.
    pub(crate) fn leaves(&self, since: Instant, cx: &Context<'_>) -> bool {
        self.waits.waits(since, cx)
    }

    /// It has a request, or the beginning of one.
    pub(crate) fn busy(&self) {
        self.waits.busy();
    }

    /// Whether it makes room for another: nobody waits for its client then.
    pub(crate) fn evicted(&self) -> bool {
        self.cut.get() == Some(Reason::IdleEvicted)
    }

    fn drain_deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(u64::from(self.listener.borrow().limits.drain_ms))
    }

    fn close_by(&self, deadline: Instant) {
        self.closing.set(Some(self.closing.get().map_or(deadline, |known| known.min(deadline))));
    }
}

/// Makes closing send RST and keep nothing.
pub(crate) fn reset(tcp: &TcpStream) {
    // Failing leaves an ordinary close, which is all there is to fall back to.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}
