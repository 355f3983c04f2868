//! One request and its answer: the recipe.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use model::header::FieldValue;
use model::transform::Asked;
use tokio::time::{Duration, Instant};

use super::clear_text::{Judged, judged};
use super::connection::Hop;
use super::context::ThreadCtx;
use super::flow::{Failed, Flow};
use super::record::Record;
use super::timer::Timer;
use super::tunnel;
use crate::worker::http::authority::Authority;
use crate::worker::http::client::Client;
use crate::worker::http::request::{Framing, Request};
use crate::worker::http::response::Response;
use crate::worker::http::upgrade::{self, Offer, Upgrade};
use crate::worker::http::write::{Added, Forwarding};
use crate::worker::http::{grpc, respond, transform};
use crate::worker::live::{Door, ListenerLive, RouteLive, Target};
use crate::worker::origin::Connection;
use crate::worker::origin::pick::Attempts;
use crate::worker::origin::pool::Key;
use crate::worker::origin::reach::Kind;
use crate::worker::overload::Refusing;
use crate::worker::policy::{Permit, permit};
use crate::worker::refusal::Reason;

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Another request may follow.
    Next,
    /// It ends in an orderly way.
    Close,
    /// It is cut: an answer was broken off, or the client is gone.
    Abort,
}

/// One exchange's surroundings.
pub(crate) struct Scene<'a, 't> {
    pub(crate) ctx: &'a ThreadCtx,
    pub(crate) hop: &'a Hop,
    pub(crate) listener: Arc<ListenerLive>,
    pub(crate) timer: &'a mut Timer<'t>,
    /// When the client wants it to be over (gRPC).
    pub(crate) deadline: Option<Instant>,
    /// Whether the connection takes no request after this one.
    pub(crate) last: bool,
}

/// Reads nothing and forgets nothing: takes a request that was read, or the reason it was refused, answers it, and
/// tells of it once.
pub(crate) async fn exchange<C: Client>(
    ctx: &ThreadCtx,
    hop: &Hop,
    request: Result<Request, Reason>,
    client: &mut C,
    timer: &mut Timer<'_>,
    last: bool,
) -> After {
    let listener = hop.listener();
    let mut record = Record::new(ctx, hop, Arc::clone(&listener), request.as_ref().ok(), C::PROTOCOL);
    let mut scene = Scene { ctx, hop, listener, timer, deadline: None, last };
    let outcome = match &request {
        Ok(request) => proxy(&mut scene, request, client, &mut record).await,
        Err(reason) => Err(Failed::Refused(*reason)),
    };
    let after = match outcome {
        Ok(after) => {
            record.refusal = None;
            after
        }
        Err(Failed::Refused(reason)) => {
            record.refusal = Some(reason);
            respond(&mut scene, reason, request.as_ref().ok(), client, &mut record).await
        }
        Err(Failed::Broken(reason)) => {
            record.refusal = Some(reason);
            client.abort(reason, record.id.as_str());
            After::Abort
        }
        // `proxy` tries again until no origin is left.
        Err(Failed::Stale) => After::Abort,
    };
    record.received = client.received();
    after
}

/// permit -> choose -> forward.
async fn proxy<C: Client>(
    scene: &mut Scene<'_, '_>,
    request: &Request,
    client: &mut C,
    record: &mut Record<'_>,
) -> Result<After, Failed> {
    if scene.ctx.overload.refusing() >= Refusing::Requests {
        return Err(Failed::Refused(Reason::Overloaded));
    }
    bounded(request, &scene.listener)?;
    let permit = match &scene.listener.door {
        Door::Tls(_) => routed(scene, request, record)?,
        Door::ClearText(clear) => match judged(scene, clear, request)? {
            Judged::Permit(permit) => permit,
            Judged::Routes => routed(scene, request, record)?,
            Judged::Answer(response, body) => {
                return Ok(say(scene, (response, body), Some(request), client, record).await);
            }
        },
    };
    if let Some((mut response, body)) = answer(scene, permit.route(), request) {
        // Over HTTP/2 success would mean a tunnel, and none of these is one.
        if matches!(request.offer, Offer::Connect(_)) {
            return Err(Failed::Refused(Reason::UpgradeRefused));
        }
        if let Some(transform) = &permit.route().transform {
            response.fields = transform::fields(&response.fields, &transform.response_headers);
        }
        return Ok(say(scene, (response, body), Some(request), client, record).await);
    }
    scene.deadline = deadline(request, record.started)?;
    let upgrade = upgrade(scene, request, &permit, client)?;
    let mut attempts = Attempts::new(Kind::of(request, upgrade.is_some()), scene.hop.behalf(), scene.ctx);
    let mut fresh = false;
    loop {
        let origin = choose(scene, (&permit, &mut attempts, fresh), client, record).await?;
        match forward(scene, (request, &permit, upgrade.as_ref()), client, origin, record).await {
            Err(Failed::Stale) => {
                fresh = true;
                attempts.again();
            }
            done => {
                attempts.ended(&permit, done.as_ref().map(|_| record.status).map_err(|failed| *failed));
                return done;
            }
        }
    }
}

/// What the listener's routes say.
fn routed(scene: &Scene<'_, '_>, request: &Request, record: &mut Record<'_>) -> Result<Permit, Reason> {
    let permit = permit(&scene.listener, scene.hop.sni.as_ref(), request)?;
    record.route = Some(Arc::clone(permit.route()));
    Ok(permit)
}

/// What a route answers by itself.
fn answer(scene: &Scene<'_, '_>, route: &RouteLive, request: &Request) -> Option<(Response, Bytes)> {
    match &route.target {
        Target::Origins(_) => None,
        Target::Redirect(redirect) => {
            let location = redirect.location(&Asked {
                scheme: scene.hop.scheme(),
                host: &Authority { port: None, ..request.authority.clone() },
                port: scene.hop.local.port(),
                path: &request.path,
                query: request.query_bytes().and_then(|query| std::str::from_utf8(query).ok()),
            });
            Some(respond::redirect(redirect.status, &location))
        }
        Target::Fixed { status, content_type, body } => {
            Some(respond::fixed(*status, content_type.as_ref().map(FieldValue::as_str), body.clone()))
        }
    }
}

fn bounded(request: &Request, listener: &ListenerLive) -> Result<(), Reason> {
    match (request.framing, listener.limits.body_bytes) {
        (Framing::Length(length), bound @ 1..) if length > bound => Err(Reason::BodyTooLarge),
        _ => Ok(()),
    }
}

/// When a gRPC client wants its call to be over.
fn deadline(request: &Request, started: Instant) -> Result<Option<Instant>, Reason> {
    let timeout = grpc::timeout(request).map_err(|_invalid| Reason::BadGrpcTimeout)?;
    Ok(timeout.and_then(|timeout| started.checked_add(timeout.duration())))
}

/// What the origin is to be asked for beyond an ordinary answer.
fn upgrade<'p, C: Client>(
    scene: &mut Scene<'_, '_>,
    request: &Request,
    permit: &'p Permit,
    client: &C,
) -> Result<Option<Upgrade<'p>>, Reason> {
    if request.offer == Offer::None {
        return Ok(None);
    }
    let chosen = upgrade::choose(request, &permit.route().upgrades);
    // What follows an upgrade that does not come about could be read in two ways: so nothing is read behind it.
    scene.last |= !matches!(chosen, Ok(None));
    match chosen {
        Ok(Some(_)) if client.premature() => Err(Reason::PrematureUpgrade),
        chosen => chosen,
    }
}

async fn choose<C: Client>(
    scene: &mut Scene<'_, '_>,
    (permit, attempts, fresh): (&Permit, &mut Attempts, bool),
    client: &mut C,
    record: &mut Record<'_>,
) -> Result<Connection, Reason> {
    let before = Instant::now();
    let chosen = match scene.deadline {
        Some(deadline) if deadline <= before => Err(Reason::GrpcDeadline),
        deadline => {
            let connecting = attempts.connect(permit, fresh, scene.ctx);
            wanted(client, deadline, scene.timer, connecting).await
        }
    };
    record.waited += before.elapsed();
    record.attempts = attempts.made;
    record.origin.clone_from(&attempts.last);
    let connection = chosen?;
    record.address = Some(connection.address());
    record.leg = Some(std::rc::Rc::clone(connection.leg()));
    record.reused = connection.reused();
    Ok(connection)
}

/// A connection for a client that is still there, in time for one of gRPC.
async fn wanted<C: Client>(
    client: &mut C,
    deadline: Option<Instant>,
    timer: &mut Timer<'_>,
    connecting: impl Future<Output = Result<Connection, Reason>>,
) -> Result<Connection, Reason> {
    let mut connecting = pin!(connecting);
    // Asked first: a stream may be over before anything was done for it, and no origin is to notice those.
    poll_fn(|cx| match client.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(Err(Reason::ClientGone)),
        Poll::Pending => match connecting.as_mut().poll(cx) {
            Poll::Pending if deadline.is_some_and(|deadline| timer.poll_expired(cx, deadline)) => {
                Poll::Ready(Err(Reason::GrpcDeadline))
            }
            polled @ (Poll::Pending | Poll::Ready(_)) => polled,
        },
    })
    .await
}

async fn forward<C: Client>(
    scene: &mut Scene<'_, '_>,
    (request, permit, upgrade): (&Request, &Permit, Option<&Upgrade<'_>>),
    client: &mut C,
    mut origin: Connection,
    record: &mut Record<'_>,
) -> Result<After, Failed> {
    let id = record.id;
    let peer = scene.hop.peer.client.ip().to_canonical();
    let trusted = scene.listener.trusted.iter().any(|prefix| prefix.contains(peer));
    let transform = permit.route().transform.as_deref();
    let changed = transform
        .filter(|transform| transform.changes_requests())
        .map(|transform| transform::request(request, transform));
    let (scheme, port, request_id) = (scene.hop.scheme(), scene.hop.local.port(), id.as_str());
    let forwarding = Forwarding { client: peer, trusted, scheme, port, request_id, upgrade };
    origin.begin(changed.as_ref().unwrap_or(request), &forwarding)?;
    let mut flow = Flow::new(scene, request, permit, client, &mut origin, upgrade.is_some());
    let response = flow.head(scene.timer).await;
    record.waited += flow.waited();
    let mut response = response?;
    let changed_protocol = match upgrade {
        Some(upgrade) if tunnel::is_one(upgrade, &response)? => Some(upgrade),
        Some(_) | None => None,
    };
    if let Some(change) = transform.map(|transform| &transform.response_headers).filter(|c| !c.is_empty()) {
        response.fields = transform::fields(&response.fields, change);
    }
    if let Some(upgrade) = changed_protocol {
        return Box::pin(tunnel::run(scene, request, upgrade, flow, &response, record)).await;
    }
    let close =
        scene.last || !request.keep_alive || scene.hop.closing().is_some() || !flow.client.body_done();
    let date = *scene.ctx.date.borrow_mut().at(Instant::now());
    let added = Added { date: &date, request_id: id.as_str() };
    let close = flow.client.head(&response, close, &added).map_err(Failed::Broken)?;
    record.status = response.status;
    let transferred = flow.transfer(scene.timer).await;
    record.waited += flow.waited();
    record.sent = flow.sent;
    transferred?;
    if let Some(key) = record.origin.as_ref().map(|origin| Key::of(origin, &scene.hop.behalf())) {
        scene.ctx.pool.borrow_mut().put(key, origin, Instant::now());
    }
    Ok(if close || !client.body_done() { After::Close } else { After::Next })
}

/// Every way out that is not an origin's answer.
async fn respond<C: Client>(
    scene: &mut Scene<'_, '_>,
    reason: Reason,
    request: Option<&Request>,
    client: &mut C,
    record: &mut Record<'_>,
) -> After {
    if reason.status() == 0 {
        client.abort(reason, record.id.as_str());
        return After::Abort;
    }
    let answer = respond::refusal(reason, request, record.id.as_str(), &scene.listener.error_pages);
    say(scene, answer, request, client, record).await
}

/// Sends an answer of the node's own.
async fn say<C: Client>(
    scene: &mut Scene<'_, '_>,
    (response, body): (Response, Bytes),
    request: Option<&Request>,
    client: &mut C,
    record: &mut Record<'_>,
) -> After {
    let id = record.id;
    let close = scene.last
        || scene.hop.closing().is_some()
        || !request.is_some_and(|request| request.keep_alive)
        || !client.body_done();
    let date = *scene.ctx.date.borrow_mut().at(Instant::now());
    let deadline = Instant::now() + Duration::from_millis(u64::from(scene.listener.limits.stall_ms));
    let Ok(close) = client.head(&response, close, &Added { date: &date, request_id: id.as_str() }) else {
        return After::Abort;
    };
    let mut queued = false;
    let timer = &mut *scene.timer;
    let sent = poll_fn(|cx| {
        if !queued {
            let room = client.poll_room(cx);
            if room.is_pending() {
                return if timer.poll_expired(cx, deadline) {
                    Poll::Ready(Err(Reason::BodyTimeout))
                } else {
                    Poll::Pending
                };
            }
            ready!(room)?;
            client.data(cx, &body)?;
            client.finish(None)?;
            queued = true;
        }
        match client.poll_flush(cx) {
            Poll::Pending if timer.poll_expired(cx, deadline) => Poll::Ready(Err(Reason::BodyTimeout)),
            flushed @ (Poll::Pending | Poll::Ready(_)) => flushed,
        }
    })
    .await;
    record.status = response.status;
    match sent {
        Err(_) => After::Abort,
        Ok(()) if close => After::Close,
        Ok(()) => After::Next,
    }
}
