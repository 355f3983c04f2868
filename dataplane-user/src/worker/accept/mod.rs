//! Accepts connections and decides who may go on: listening sockets in, secured connections out to [`hops::serve`].
//!
//! Every thread has its own sockets. Threads meet only where a connection is counted in and out. The accepted socket's own address
//! says which listener it belongs to, so a socket is the same for all of them.

mod admission;
mod client;
mod proxied;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use model::filter::Verdict;
use model::name::HostName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::worker::hops::connection::reset;
use crate::worker::hops::passthrough::{self, Passed};
use crate::worker::hops::{self, Secured, ThreadCtx, Unsecured};
use crate::worker::live::{Door, ListenerLive, Live, RouteLive};
use crate::worker::observe::Shard;
use crate::worker::overload::Refusing;
use crate::worker::proxy::Peer;
use crate::worker::proxy::read::Said;
use crate::worker::refusal::Reason;
use crate::worker::tls;
use crate::worker::tls::hello::{self, Hello};
use crate::worker::tls::serve::{self, Served};

use admission::{Admission, Open};
use client::Client;

/// How long to wait when no descriptor or memory is left: connections that end meanwhile give some back.
const BREATH: Duration = Duration::from_millis(50);

/// One thread's sockets and the connections that came from them.
pub struct Acceptor {
    gate: Rc<Gate>,
    sockets: RefCell<HashMap<u64, oneshot::Sender<()>>>,
}

/// What every connection passes.
struct Gate {
    ctx: Rc<ThreadCtx>,
    shard: Rc<Shard>,
    open: Open,
}

impl Acceptor {
    /// For one thread.
    pub fn new(ctx: Rc<ThreadCtx>, shard: Rc<Shard>) -> Self {
        Self { gate: Rc::new(Gate { ctx, shard, open: Open::default() }), sockets: RefCell::default() }
    }

    /// Accepts on one more socket. To be called inside a `LocalSet`.
    ///
    /// # Errors
    /// The descriptor is no listening socket that the runtime can wait for.
    pub fn add(&self, id: u64, socket: std::net::TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let (leave, left) = oneshot::channel();
        spawn_local(accept(socket, left, Rc::clone(&self.gate)));
        self.sockets.borrow_mut().insert(id, leave);
        self.gate.shard.accepting(true);
        Ok(())
    }

    /// Takes what waits in a socket's queue, then closes it.
    pub fn remove(&self, id: u64) {
        let mut sockets = self.sockets.borrow_mut();
        sockets.remove(&id);
        self.gate.shard.accepting(!sockets.is_empty());
    }

    /// Does the same with all of them.
    pub fn remove_all(&self) {
        self.sockets.borrow_mut().clear();
        self.gate.shard.accepting(false);
    }

    /// Waits until every connection has ended.
    pub async fn ended(&self) {
        self.gate.open.ended().await;
    }
}

/// Accepts until the sender is dropped, and then what is left in the queue.
async fn accept(socket: TcpListener, mut leave: oneshot::Receiver<()>, gate: Rc<Gate>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut leave => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => gate.admit(tcp, peer),
            Err(error) if exhausted(&error) => {
                gate.shard.accept_error();
                tracing::warn!(%error, "connections wait: no descriptor or memory for another");
                tokio::time::sleep(BREATH).await;
            }
            // The client was gone before it was its turn.
            Err(_) => {}
        }
    }
    while let Some(Ok((tcp, peer))) = socket.accept().now_or_never() {
        gate.admit(tcp, peer);
    }
}

fn exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().any(|one| errno == Some(one))
}

impl Gate {
    /// Lets a connection in or resets it.
    fn admit(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let Ok(local) = tcp.local_addr() else { return };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        match self.judge(peer, local) {
            Ok((listener, admission)) => {
                spawn_local(connection(Rc::clone(self), tcp, listener, (peer, local), admission));
            }
            Err(reason) => {
                tracing::debug!(%peer, %local, reason = reason.name(), "connection refused");
                reset(&tcp);
            }
        }
    }

    /// Which listener a connection is for and whether it may go on.
    fn judge(&self, peer: SocketAddr, local: SocketAddr) -> Result<(Arc<ListenerLive>, Admission), Reason> {
        let refuse = |reason| {
            self.shard.refused(reason);
            Err(reason)
        };
        let live = self.ctx.live.load();
        let Some(listener) = live.listener_at(local) else { return refuse(Reason::NoListener) };
        self.allowed(&live, &peer.into(), local)?;
        self.observe(&live, &peer.into(), local);
        if self.ctx.overload.refusing() >= Refusing::Connections {
            return refuse(Reason::OverloadedConnection);
        }
        // Whose connection a balancer's is will be known behind its header.
        let client = (!listener.proxied(peer.ip())).then_some(peer.ip());
        let make_room = || self.ctx.idle.evict(&listener.open);
        match self.open.admit(listener, client, self.shard.connection(), make_room) {
            Ok(admission) => Ok((Arc::clone(listener), admission)),
            Err(reason) => refuse(reason),
        }
    }

    /// What the packet filter says; told where it is a refusal.
    fn allowed(&self, live: &Live, peer: &Peer, local: SocketAddr) -> Result<(), Reason> {
        match live.judge(peer, local) {
            Verdict::Pass => return Ok(()),
            Verdict::Denied { rule } => self.shard.denied(rule),
            Verdict::NotAllowed => self.shard.refused(Reason::Denied),
        }
        Err(Reason::Denied)
    }

    /// Counts who was just allowed by the rule that would have refused it, were that not only observed.
    fn observe(&self, live: &Live, peer: &Peer, local: SocketAddr) {
        if let Some(rule) = live.observed(peer, local) {
            self.shard.observed(rule);
        }
    }

    /// Reads a balancer's header and judges the client it names as if that had connected.
    async fn told(
        &self,
        tcp: &mut TcpStream,
        (balancer, local): (SocketAddr, SocketAddr),
        (listener, admission): (&ListenerLive, &mut Admission),
        deadline: Instant,
    ) -> Result<Peer, (Reason, String)> {
        let refuse = |reason, sentence| {
            self.shard.refused(reason);
            (reason, sentence)
        };
        let said = proxied::header(tcp, deadline).await;
        let peer = match said.map_err(|unread| refuse(Reason::BadProxyHeader, unread.to_string()))? {
            Said::Client(client) => Peer { client, via: Some(balancer) },
            Said::Nobody => balancer.into(),
        };
        let named = || format!("the PROXY header names {}", peer.client);
        let live = self.ctx.live.load();
        self.allowed(&live, &peer, local).map_err(|reason| (reason, named()))?;
        if peer.via.is_some() {
            self.observe(&live, &peer, local);
        }
        admission.belongs_to(peer.client.ip(), listener).map_err(|reason| refuse(reason, named()))?;
        Ok(peer)
    }
}

/// One connection's life: told; then hello and secure where TLS is its door; serve. The admission ends with it.
async fn connection(
    gate: Rc<Gate>,
    mut tcp: TcpStream,
    listener: Arc<ListenerLive>,
    (peer, local): (SocketAddr, SocketAddr),
    mut admission: Admission,
) {
    // Answers leave in whole writes; waiting for more to send would only delay them.
    let _ = tcp.set_nodelay(true);
    let deadline = Instant::now() + Duration::from_millis(listener.limits.handshake_ms.into());
    let mut peer = Peer::from(peer);
    let ended = |peer: &Peer, (reason, sentence): (Reason, String)| {
        let (peer, listener, reason) = (peer.client, listener.name.as_str(), reason.name());
        tracing::debug!(%peer, listener, reason, sentence, "no handshake");
    };
    if listener.proxied(peer.client.ip()) {
        let told = gate.told(&mut tcp, (peer.client, local), (&listener, &mut admission), deadline);
        match Box::pin(told).await {
            Ok(told) => peer = told,
            Err(why) => {
                ended(&peer, why);
                return reset(&tcp);
            }
        }
    }
    let config = match &listener.door {
        Door::Tls(config) => Arc::clone(config),
        Door::ClearText(_) => {
            let stream = Client::new(tcp, peer, &gate);
            return hops::serve_clear_text(Unsecured { stream, listener, peer, local }, &gate.ctx).await;
        }
    };
    let (mut received, most) = (Vec::new(), listener.limits.handshake_bytes as usize);
    if listener.passthrough.is_some() {
        match Box::pin(waited(&gate, &listener, hello::read(&mut tcp, deadline, most))).await {
            Ok(hello) => match passed(&listener, &hello) {
                Some((route, host)) => {
                    let leg = Arc::new(tls::passed_leg(&host));
                    let (sni, alpn_h2) = (Some(host.clone()), false);
                    let connection = Secured { stream: tcp, listener, peer, local, sni, alpn_h2, leg };
                    let passed = Passed { connection, host, hello: hello.received, route };
                    return Box::pin(passthrough::serve(passed, &gate.ctx)).await;
                }
                None => received = hello.received,
            },
            Err(why) => {
                gate.shard.refused(why.0);
                return ended(&peer, why);
            }
        }
    }
    // Boxed, so that what only the handshake needs is given back after it.
    let line = &gate.ctx.overload.line;
    let shaken = serve::accept((tcp, received), &config, deadline, most, line);
    match Box::pin(waited(&gate, &listener, shaken)).await {
        Ok(Served { stream, sni, h2, leg, resumed }) => {
            gate.shard.handshake(&leg, resumed);
            let stream = Client::new(stream, peer, &gate);
            let leg = Arc::new(leg);
            hops::serve(Secured { stream, listener, peer, local, sni, alpn_h2: h2, leg }, &gate.ctx).await;
        }
        Err(why) => {
            gate.shard.refused(why.0);
            ended(&peer, why);
        }
    }
}

/// The passthrough route for what a client said first, and the host.
fn passed(listener: &ListenerLive, hello: &Hello) -> Option<(Arc<RouteLive>, HostName)> {
    let host = hello.sni.clone()?;
    Some((Arc::clone(listener.passed(&host)?), host))
}

/// What a client is waited for with. Where that takes long and the listener is nearly full, the connection makes room for
/// another.
async fn waited<T>(
    gate: &Gate,
    listener: &ListenerLive,
    work: impl Future<Output = Result<T, (Reason, String)>>,
) -> Result<T, (Reason, String)> {
    let waits = gate.ctx.idle.join(&listener.open);
    let evicted = || (Reason::IdleEvicted, "the handshake was waited for and another client came".to_owned());
    waits.during(work).await.unwrap_or_else(|| Err(evicted()))
}
