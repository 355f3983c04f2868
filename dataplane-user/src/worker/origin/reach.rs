//! Connects to an origin: its addresses in turn, TLS, and the version of HTTP that is wanted and agreed on.

use std::net::SocketAddr;
use std::rc::Rc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::net::Host;
use model::snapshot::Protocols;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout_at};

use super::either::Connection;
use super::http1::Http1;
use super::http2::{self, NotHttp2, Settings, Shared, Stream};
use super::pool::{Dial, Key};
use super::resolve::{Names, System};
use crate::worker::hops::context::ThreadCtx;
use crate::worker::http::request::Request;
use crate::worker::live::{GroupLive, OriginLive, SecurityLive};
use crate::worker::proxy::write::Behalf;
use crate::worker::refusal::Reason;
use crate::worker::tls::dial::{self, Alpn, DialError, dial};

/// RFC 8305's connection attempt delay: the next address gets its chance after this, the first one goes on.
const STAGGER: Duration = Duration::from_millis(250);

/// Which versions of HTTP a request can be sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in clear text with prior knowledge (RFC 9113, 3.3).
    Http2,
    /// HTTP/2 where the origin chooses it by ALPN, else HTTP/1.1.
    Either,
}

/// What a request is, as far as it bears on the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It can be sent with any.
    Plain,
    /// gRPC exists over HTTP/2 only.
    Grpc,
    /// It asks for another protocol, which origins are asked for over HTTP/1.1 only.
    Upgrade,
}

impl Kind {
    /// That of a request; `upgrade`: the origin is to be asked for another protocol.
    pub fn of(request: &Request, upgrade: bool) -> Self {
        match (upgrade, request.grpc()) {
            (true, _) => Self::Upgrade,
            (false, true) => Self::Grpc,
            (false, false) => Self::Plain,
        }
    }

    /// Whether a failure tells of the origin's health: not where a client asks an origin that was said to speak HTTP/2 for
    /// what only HTTP/1.1 has. Otherwise clients could have origins ejected.
    pub fn tells(self, protocols: Protocols) -> bool {
        !(self == Self::Upgrade && protocols == Protocols::Http2)
    }
}

impl Want {
    /// What the group says for a request of this kind.
    pub fn of(protocols: Protocols, security: &SecurityLive, kind: Kind) -> Self {
        let clear = matches!(security, SecurityLive::ClearText);
        match (protocols, kind) {
            // Whatever the group says.
            (_, Kind::Upgrade) => Self::Http1,
            (Protocols::Http2, _) => Self::Http2,
            (Protocols::Auto, Kind::Grpc) if clear => Self::Http2,
            (Protocols::Auto, Kind::Grpc) => Self::Either,
            (Protocols::Either, _) if !clear => Self::Either,
            (Protocols::Auto | Protocols::Http1 | Protocols::Either, _) => Self::Http1,
        }
    }
}

/// Why an origin could not be reached: the reason and a sentence for the status.
#[derive(Debug, Clone)]
pub struct Unreached {
    /// What the client is told.
    pub reason: Reason,
    /// What the operator is told.
    pub sentence: String,
    /// No connection stood, whatever was to be spoken on it.
    unconnected: bool,
}

impl Unreached {
    fn of(reason: Reason, sentence: String) -> Self {
        Self { reason, sentence, unconnected: false }
    }
}

impl From<DialError> for Unreached {
    fn from(error: DialError) -> Self {
        Self { reason: error.reason(), sentence: error.to_string(), unconnected: true }
    }
}

impl From<NotHttp2> for Unreached {
    fn from(error: NotHttp2) -> Self {
        Self::of(Reason::OriginUnreachable, error.to_string())
    }
}

/// A connection that stands.
pub(super) enum Reached {
    Http1(Box<Http1>),
    Http2(Rc<Shared>),
}

impl Reached {
    /// For one exchange.
    pub(super) fn into_connection(self) -> Connection {
        match self {
            Self::Http1(connection) => Connection::Http1(*connection),
            Self::Http2(shared) => Connection::Http2(Box::new(Stream::new(&shared))),
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// Which versions of HTTP will do.
    pub want: Want,
    /// Whether a failure tells of the origin's health.
    pub tells: bool,
    /// Whose request it is.
    pub behalf: Behalf,
}

/// A new connection, or a place on one that another request is opening. Tells what came of its own attempt, of a failure only
/// where it `tells`.
///
/// # Errors
/// Nothing answers, is believed, or speaks what is wanted; or not within the group's `connectTimeoutMs`.
pub async fn reach(
    origin: &OriginLive,
    group: &GroupLive,
    Purpose { want, tells, behalf }: Purpose,
    ctx: &ThreadCtx,
) -> Result<Connection, Unreached> {
    let deadline = Instant::now() + group.connect_timeout;
    let key = Key::of(origin, &behalf);
    let mut mine = None;
    if want != Want::Http1 {
        while let Some(other) = under_way(key, group, ctx) {
            timeout_at(deadline, other.wait()).await.unwrap_or_else(|_elapsed| Err(late(origin)))?;
            let shared = ctx.pool.borrow_mut().take(key, want, true, Instant::now());
            if let Some(connection) = shared {
                return Ok(connection);
            }
        }
        mine = Some(Mine::begin(key, ctx));
    }
    let reached = dialled(origin, (want, &behalf), &group.http2, deadline, &ctx.names).await;
    // A gRPC client chose HTTP/2 for an origin of which nobody said that it speaks it: that it does not is no failure, or clients
    // could have origins ejected.
    let guessed = want == Want::Http2 && group.protocols != Protocols::Http2;
    let tells = reached.as_ref().is_err_and(|unreached| tells && (unreached.unconnected || !guessed));
    let mut pool = ctx.pool.borrow_mut();
    match &reached {
        Ok(_) => drop(pool.succeeded(origin.key)),
        Err(_) if tells => pool.failed(origin.key, Instant::now()),
        Err(_) => {}
    }
    match &reached {
        Ok(Reached::Http1(_)) if want == Want::Either => pool.chose_http1(key, true),
        Ok(Reached::Http2(shared)) => {
            pool.chose_http1(key, false);
            pool.share(key, shared);
        }
        Ok(Reached::Http1(_)) | Err(_) => {}
    }
    drop(pool);
    if tells {
        group.failed(origin);
    }
    let connection = reached.map(Reached::into_connection);
    ctx.tell.origin(origin, connection.as_ref().map(Connection::address));
    if let Some(mine) = mine {
        mine.dial.end(connection.as_ref().err().cloned());
    }
    connection
}

fn under_way(key: Key, group: &GroupLive, ctx: &ThreadCtx) -> Option<Rc<Dial>> {
    ctx.pool.borrow().dial_under_way(key, group.http2.streams)
}

/// This request's own dial, which others may wait for. Where the request ends first, they look again.
struct Mine<'a> {
    dial: Rc<Dial>,
    key: Key,
    ctx: &'a ThreadCtx,
}

impl<'a> Mine<'a> {
    fn begin(key: Key, ctx: &'a ThreadCtx) -> Self {
        Self { dial: ctx.pool.borrow_mut().begin_dial(key), key, ctx }
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        self.ctx.pool.borrow_mut().end_dial(self.key, &self.dial);
        if !self.dial.ended() {
            self.dial.end(None);
        }
    }
}

fn late(origin: &OriginLive) -> Unreached {
    Unreached::of(Reason::OriginConnectTimeout, format!("{} was not connected in time", origin.address))
}

/// A new connection, as wanted.
///
/// # Errors
/// See [`reach`].
pub(super) async fn dialled(
    origin: &OriginLive,
    (want, behalf): (Want, &Behalf),
    settings: &Settings,
    deadline: Instant,
    names: &Names<System>,
) -> Result<Reached, Unreached> {
    somewhere(origin, deadline, names, |address| one(origin, address, (want, behalf), settings)).await
}

/// A connection that nothing has been said on yet. Tells what came of it, as [`reach`] does.
///
/// # Errors
/// Nothing answers, or not within the group's `connectTimeoutMs`.
pub(super) async fn connect(
    origin: &OriginLive,
    group: &GroupLive,
    ctx: &ThreadCtx,
) -> Result<(TcpStream, SocketAddr), Unreached> {
    let deadline = Instant::now() + group.connect_timeout;
    let one = async |address| Ok((dial::connect(address).await?, address));
    let connected = somewhere(origin, deadline, &ctx.names, one).await;
    match &connected {
        Ok(_) => drop(ctx.pool.borrow_mut().succeeded(origin.key)),
        Err(_) => {
            ctx.pool.borrow_mut().failed(origin.key, Instant::now());
            group.failed(origin);
        }
    }
    ctx.tell.origin(origin, connected.as_ref().map(|(_, address)| *address));
    connected
}

/// Whatever `one` makes of the first of an origin's addresses that answers.
async fn somewhere<T>(
    origin: &OriginLive,
    deadline: Instant,
    names: &Names<System>,
    one: impl AsyncFn(SocketAddr) -> Result<T, Unreached>,
) -> Result<T, Unreached> {
    let port = origin.address.port;
    let reached = timeout_at(deadline, async {
        match &origin.address.host {
            Host::Address(address) => one(SocketAddr::new(*address, port)).await,
            Host::Name(name) => match names.addresses(name, Instant::now()).await {
                Some(addresses) => any(&one, addresses.iter().map(|ip| SocketAddr::new(*ip, port))).await,
                None => Err(Unreached::of(Reason::OriginUnresolved, format!("{name} cannot be resolved"))),
            },
        }
    });
    reached.await.unwrap_or_else(|_elapsed| Err(late(origin)))
}

async fn one(
    origin: &OriginLive,
    address: SocketAddr,
    (want, behalf): (Want, &Behalf),
    settings: &Settings,
) -> Result<Reached, Unreached> {
    let alpn = match want {
        Want::Http1 => Alpn::Http1,
        Want::Http2 => Alpn::Http2,
        Want::Either => Alpn::Either,
    };
    let dialled = dial(origin, address, alpn, behalf).await?;
    let http2 = dialled.http2 || want == Want::Http2 && matches!(origin.security, SecurityLive::ClearText);
    if http2 {
        Ok(Reached::Http2(http2::open(dialled.stream, dialled.leg, address, settings).await?))
    } else if want == Want::Http2 {
        let sentence =
            format!("{address} does not offer HTTP/2 (ALPN h2), and this origin group asks for it");
        Err(Unreached::of(Reason::OriginUnreachable, sentence))
    } else {
        Ok(Reached::Http1(Box::new(Http1::new(dialled.stream, dialled.leg, address))))
    }
}

/// Tries several addresses, each a little after the one before or as soon as that has failed; the first to stand wins.
async fn any<T>(
    one: &impl AsyncFn(SocketAddr) -> Result<T, Unreached>,
    mut addresses: impl Iterator<Item = SocketAddr>,
) -> Result<T, Unreached> {
    let mut racing = FuturesUnordered::new();
    let mut last = Unreached::of(Reason::OriginUnreachable, "no address".to_owned());
    loop {
        let more = addresses.next().map(|address| racing.push(one(address))).is_some();
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
