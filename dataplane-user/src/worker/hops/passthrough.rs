//! A connection that is not decrypted: choose -> connect -> bytes both ways, the ClientHello first.
//!
//! Each direction goes no faster than its taker takes, holds at most one buffer's rest, and ends for itself. Copied in
//! userspace through the thread's buffer; the kernel could do it without us (`splice(2)`, a sockmap).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use model::name::HostName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::attend;
use super::connection::{Hop, Secured, reset};
use super::context::{RequestId, ThreadCtx};
use super::flow::Failed;
use crate::worker::live::{GroupLive, ListenerLive, OriginLive, RouteLive, Target};
use crate::worker::observe::{Exchange, OriginPart};
use crate::worker::origin::pick::{Attempts, Wire};
use crate::worker::origin::reach::Kind;
use crate::worker::proxy::write::header;
use crate::worker::refusal::Reason;

/// Buffers moved in one turn before other connections get theirs.
const TURN: u32 = 16;

/// A connection whose ClientHello was read and names a host of a passthrough route.
pub struct Passed {
    /// The client's socket behind its ClientHello, with who it is; `sni` and `leg` say all that is known of its TLS.
    pub connection: Secured<TcpStream>,
    /// The host.
    pub host: HostName,
    /// The ClientHello, and what came with it.
    pub hello: Vec<u8>,
    /// The route that has the host.
    pub route: Arc<RouteLive>,
}

/// Passes a connection on until it ends. What became of it is told once.
pub async fn serve(passed: Passed, ctx: &Rc<ThreadCtx>) {
    let Passed { connection, host, hello, route } = passed;
    let (hop, mut client, _) = Hop::new(connection, ctx);
    let mut record = Record::new(ctx, &hop, &route);
    let passing = pass(ctx, (&hop, &host), (&mut client, hello), &mut record);
    let ended = attend(ctx, &hop, pin!(passing)).await;
    record.ended(&hop, ended);
    if record.refusal.is_some() {
        // Not an end of either side's own: it shall not look like one.
        reset(&client);
    }
}

async fn pass(
    ctx: &ThreadCtx,
    (hop, host): (&Hop, &HostName),
    (client, hello): (&mut TcpStream, Vec<u8>),
    record: &mut Record<'_>,
) -> Result<(), Reason> {
    // The compiler lets no passthrough route answer by itself.
    let Target::Origins(group) = &Arc::clone(&record.route).target else { return Err(Reason::NoRoute) };
    let mut attempts = Attempts::new(Kind::Plain, hop.behalf(), ctx);
    let wire = attempts.dial(group, ctx).await;
    record.connected(&attempts, wire.as_ref().ok());
    let mut origin = Origin { wire: wire?, orderly: false };
    let first = attempts.last.as_ref().and_then(|origin| origin.proxy);
    let mut ways = Ways::new(first.map(|version| header(version, &hop.behalf())), hello);
    let mut seat = ctx.seat();
    let mut timer = ctx.timers.get();
    let (hello, limits) = (ways.up.read, hop.listener().limits);
    let [idle, handshake] =
        [limits.tunnel_idle_ms, limits.handshake_ms].map(|ms| Duration::from_millis(ms.into()));
    let ended = poll_fn(|cx| {
        // A new snapshot may terminate what it passed on, or have no such host any more.
        if seat.poll_rung(cx) && hop.listener().passed(host).is_none() {
            return Poll::Ready(Err(Reason::NoRoute));
        }
        let ended = ways.poll(cx, client, &mut origin.wire.tcp, &mut ctx.scratch.borrow_mut());
        record.moved(&ways);
        ways.judge(&attempts, group);
        if ended.is_pending() {
            // A client that owes the origin its part of the handshake is waited for as if it owed it to us.
            let owes = ways.up.read == hello && ways.down.read > 0;
            let (patience, reason) =
                if owes { (handshake, Reason::HandshakeTimeout) } else { (idle, Reason::TunnelIdle) };
            if !owes {
                hop.busy();
            } else if hop.leaves(ways.progress, cx) {
                return Poll::Ready(Err(Reason::IdleEvicted));
            }
            if timer.poll_expired(cx, ways.progress + patience) {
                return Poll::Ready(Err(reason));
            }
        }
        ended
    })
    .await;
    if ended == Err(Reason::OriginGone) && ways.down.read == 0 {
        attempts.judged(group, Err(Failed::Broken(Reason::OriginGone)));
    }
    origin.orderly = ended.is_ok();
    ended
}

/// The origin's end; reset where the connection does not come to an end of its own.
struct Origin {
    wire: Wire,
    orderly: bool,
}

impl Drop for Origin {
    fn drop(&mut self) {
        if !self.orderly {
            reset(&self.wire.tcp);
        }
    }
}

/// Both directions.
struct Ways {
    up: Way,
    down: Way,
    progress: Instant,
    moved: u64,
    judged: bool,
}

impl Ways {
    /// The client's first bytes, and what the origin is told before them.
    fn new(told: Option<Vec<u8>>, hello: Vec<u8>) -> Self {
        let read = hello.len() as u64;
        let waiting = match told {
            Some(told) => [told, hello].concat(),
            None => hello,
        };
        let up = Way { read, waiting, ..Way::default() };
        Self { up, down: Way::default(), progress: Instant::now(), moved: 0, judged: false }
    }

    /// Moves what can be moved, and hands on each side's end.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut TcpStream,
        origin: &mut TcpStream,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Reason>> {
        let up = self.up.poll(cx, client, origin, scratch);
        let down = self.down.poll(cx, origin, client, scratch);
        let moved = self.up.read + self.up.written + self.down.read + self.down.written;
        if moved != self.moved {
            (self.moved, self.progress) = (moved, Instant::now());
        }
        // An origin that closes without a word, under a client that has not: no answer to any ClientHello.
        if self.down.ended && self.down.read == 0 {
            return Poll::Ready(if self.up.ended { Ok(()) } else { Err(Reason::OriginGone) });
        }
        // Who has said and heard all may leave in any way: nothing was on its way to it.
        match (up, down) {
            (Poll::Ready(Err(Gone::From)), _) | (_, Poll::Ready(Err(Gone::To))) if !self.down.ended => {
                Poll::Ready(Err(Reason::ClientGone))
            }
            (Poll::Ready(Err(Gone::To)), _) | (_, Poll::Ready(Err(Gone::From)))
                if !self.down.ended && !self.up.shut =>
            {
                Poll::Ready(Err(Reason::OriginGone))
            }
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Ok(())),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }

    /// An origin that speaks is well.
    fn judge(&mut self, attempts: &Attempts, group: &GroupLive) {
        if self.down.read > 0 && !std::mem::replace(&mut self.judged, true) {
            attempts.judged(group, Ok(200));
        }
    }
}

/// Which end of a direction failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    From,
    To,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Read and not yet taken by the other side: at most one buffer.
    waiting: Vec<u8>,
    /// Of these, what it has taken.
    taken: usize,
    read: u64,
    written: u64,
    /// There is no more to read.
    ended: bool,
    /// The other side knows.
    shut: bool,
}

impl Way {
    /// Ready when all is over here.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Gone>> {
        for _ in 0..TURN {
            while let Some(rest) = self.waiting.get(self.taken..).filter(|rest| !rest.is_empty()) {
                let taken = ready!(Pin::new(&mut *to).poll_write(cx, rest)).map_err(|_gone| Gone::To)?;
                self.taken += taken;
                self.written += taken as u64;
            }
            (self.waiting, self.taken) = (Vec::new(), 0);
            if self.ended {
                if self.read == 0 {
                    return Poll::Ready(Err(Gone::From));
                }
                if !self.shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_gone| Gone::To)?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)).map_err(|_gone| Gone::From)?;
            let filled = buffer.filled();
            self.read += filled.len() as u64;
            self.ended = filled.is_empty();
            let taken = match Pin::new(&mut *to).poll_write(cx, filled) {
                Poll::Ready(taken) if !filled.is_empty() => taken.map_err(|_gone| Gone::To)?,
                Poll::Ready(_) | Poll::Pending => 0,
            };
            self.written += taken as u64;
            self.waiting = filled.get(taken..).unwrap_or_default().to_vec();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What will be told of a connection: once, when this is dropped.
struct Record<'a> {
    ctx: &'a ThreadCtx,
    hop: &'a Hop,
    listener: Arc<ListenerLive>,
    route: Arc<RouteLive>,
    id: RequestId,
    started: Instant,
    waited: Duration,
    received: u64,
    sent: u64,
    /// The origin tried last, the address of it that answered, how many attempts it took.
    origin: Option<(Arc<OriginLive>, Option<SocketAddr>, u32)>,
    refusal: Option<Reason>,
}

impl<'a> Record<'a> {
    fn new(ctx: &'a ThreadCtx, hop: &'a Hop, route: &Arc<RouteLive>) -> Self {
        Self {
            ctx,
            hop,
            listener: hop.listener(),
            route: Arc::clone(route),
            id: ctx.request_id(),
            started: Instant::now(),
            waited: Duration::ZERO,
            received: 0,
            sent: 0,
            origin: None,
            // What stands where the thread ends under the connection.
            refusal: Some(Reason::DrainExpired),
        }
    }

    fn connected(&mut self, attempts: &Attempts, wire: Option<&Wire>) {
        self.waited = self.started.elapsed();
        let address = wire.map(|wire| wire.address);
        self.origin = attempts.last.clone().map(|origin| (origin, address, attempts.made));
    }

    fn moved(&mut self, ways: &Ways) {
        (self.received, self.sent) = (ways.up.read, ways.down.written);
    }

    /// `None`: the connection was cut off, for a reason that the hop knows.
    fn ended(&mut self, hop: &Hop, ended: Option<Result<(), Reason>>) {
        self.refusal = match ended {
            Some(ended) => ended.err(),
            None => hop.cut.get().or(self.refusal),
        };
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.ctx.tell.passed(&Exchange {
            listener: &self.listener,
            route: Some(&self.route),
            peer: self.hop.peer,
            client_leg: &self.hop.leg,
            protocol: "TLS",
            request_id: self.id.as_str(),
            method: "",
            host: self.hop.sni.as_ref().map_or("", HostName::as_str),
            path: "",
            status: 0,
            refusal: self.refusal,
            received: self.received,
            sent: self.sent,
            total: self.started.elapsed(),
            waited: self.waited,
            origin: self.origin.as_ref().map(|(origin, address, attempts)| OriginPart {
                origin,
                address: *address,
                leg: None,
                reused: false,
                attempts: *attempts,
            }),
        });
    }
}
