//! After a 101: bytes both ways, each direction for itself, no faster than the other side takes them and with nothing kept
//! but what the flow of a body keeps. Ends when both directions have, when nothing moves for too long, or when a new
//! snapshot no longer allows it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use model::upgrade::Protocol;
use tokio::time::{Duration, Instant};

use super::connection::Hop;
use super::context::Seat;
use super::exchange::{After, Scene};
use super::flow::{Failed, Flow, Upload};
use super::record::Record;
use super::timer::Timer;
use crate::worker::http::client::Client;
use crate::worker::http::frames::Frames;
use crate::worker::http::request::Request;
use crate::worker::http::response::Response;
use crate::worker::http::upgrade::{Upgrade, accepted};
use crate::worker::http::write::Added;
use crate::worker::live::Target;
use crate::worker::policy::permit;
use crate::worker::refusal::Reason;

/// How long before the end of a connection whose worker goes a WebSocket is told: time for its peers to take it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Whether the origin changed the protocol as it was asked to. If it did not, its answer is an ordinary one.
///
/// # Errors
/// It changed to something else, or says so without proof; or it answers success to an extended CONNECT, which the
/// client would take for a tunnel.
pub(super) fn is_one(upgrade: &Upgrade<'_>, response: &Response) -> Result<bool, Reason> {
    match response.status {
        101 if accepted(upgrade, response) => Ok(true),
        101 => Err(Reason::BadUpgrade),
        200..=299 if upgrade.ours => Err(Reason::BadUpgrade),
        _ => Ok(false),
    }
}

/// The tunnel, until it ends. Its record has the bytes both ways.
pub(super) async fn run<C: Client>(
    scene: &mut Scene<'_, '_>,
    request: &Request,
    upgrade: &Upgrade<'_>,
    mut flow: Flow<'_, C>,
    response: &Response,
    record: &mut Record<'_>,
) -> Result<After, Failed> {
    let (began, waited) = (Instant::now(), record.waited);
    let date = *scene.ctx.date.borrow_mut().at(began);
    let id = record.id;
    let added = Added { date: &date, request_id: id.as_str() };
    record.status = flow.client.switch(response, upgrade.protocol, &added).map_err(Failed::Broken)?;
    flow.origin.switch();
    (flow.upload, flow.progress) = (Upload::Running, began);
    let frames = || Frames::of(upgrade.protocol);
    flow.frames = frames().zip(frames()).map(|(down, up)| Box::new([down, up]));
    let allowed = Allowed { hop: scene.hop, request, protocol: upgrade.protocol, seat: scene.ctx.seat() };
    let idle = Duration::from_millis(u64::from(scene.listener.limits.tunnel_idle_ms));
    let mut tunnel = Tunnel { flow, allowed, idle, up: false, down: false, leaving: false };
    let ended = poll_fn(|cx| {
        let ended = tunnel.poll(cx, scene.timer);
        // Kept up to date, because a drain or a denial drops all of this where it stands.
        record.sent = tunnel.flow.sent;
        record.received = tunnel.flow.client.received();
        // The time a tunnel stands is not time that we added.
        record.waited = waited + began.elapsed();
        ended
    })
    .await;
    ended.map(|()| After::Close).map_err(Failed::Broken)
}

struct Tunnel<'a, C> {
    flow: Flow<'a, C>,
    allowed: Allowed<'a>,
    idle: Duration,
    /// Whether the origin knows that the client has ended its direction.
    up: bool,
    /// Whether the client knows that the origin has.
    down: bool,
    /// Both sides were told that we go away.
    leaving: bool,
}

impl<C: Client> Tunnel<'_, C> {
    fn poll(&mut self, cx: &mut Context<'_>, timer: &mut Timer<'_>) -> Poll<Result<(), Reason>> {
        self.allowed.poll(cx)?;
        match self.poll_ways(cx) {
            Ok(()) => {}
            // Who has heard the other's end may leave in any way: nothing was on its way to it.
            Err(Reason::ClientGone) if self.flow.downloaded => return Poll::Ready(Ok(())),
            Err(Reason::OriginGone) if self.flow.downloaded || self.flow.upload == Upload::Done => {
                return Poll::Ready(Ok(()));
            }
            Err(reason) => return Poll::Ready(Err(reason)),
        }
        if self.up && self.down {
            return Poll::Ready(Ok(()));
        }
        if self.flow.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        if !self.leaving && self.poll_last_word(cx, timer)? {
            cx.waker().wake_by_ref();
        }
        if timer.poll_expired(cx, self.flow.progress + self.idle) {
            return Poll::Ready(Err(Reason::TunnelIdle));
        }
        Poll::Pending
    }

    /// Shortly before the connection is cut off, tells both sides where they can be told: each ends as it does after the
    /// other's Close.
    fn poll_last_word(&mut self, cx: &mut Context<'_>, timer: &mut Timer<'_>) -> Result<bool, Reason> {
        let Some(deadline) = self.allowed.hop.closing() else { return Ok(false) };
        let Some([to_client, to_origin]) = self.flow.frames.as_deref_mut() else { return Ok(false) };
        if !timer.poll_expired(cx, deadline.checked_sub(LAST_WORD).unwrap_or(deadline)) {
            return Ok(false);
        }
        // In the middle of a frame, or behind data that is not taken, there is no room for a word yet.
        let Some(close) = to_client.going_away(false) else { return Ok(false) };
        if self.flow.client.poll_room(cx)?.is_pending() {
            return Ok(false);
        }
        to_client.pass(close);
        self.flow.client.data(cx, close)?;
        // What the origin still says would stand behind it.
        (self.flow.downloaded, self.leaving) = (true, true);
        self.flow.client.finish(None)?;
        if let Some(close) = to_origin.going_away(true)
            && self.flow.upload == Upload::Running
            && self.flow.origin.poll_room(cx).is_ready()
            && self.flow.origin.data(cx, close).is_ok()
        {
            to_origin.pass(close);
            self.flow.upload = Upload::Flushing;
        }
        Ok(true)
    }

    /// Moves what can be moved, and hands on each side's end.
    fn poll_ways(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        let flow = &mut self.flow;
        flow.poll_download(cx)?;
        if flow.downloaded && !self.down {
            self.down = flow.client.poll_end(cx)?.is_ready();
        } else if !flow.downloaded {
            // Where it has to wait, it wakes us.
            let _ = flow.client.poll_flush(cx)?;
        }
        if matches!(flow.upload, Upload::Running | Upload::Flushing) {
            flow.poll_upload(cx)?;
        }
        match flow.upload {
            Upload::Done if !self.up => {
                self.up = flow.origin.poll_end(cx).map_err(|_gone| Reason::OriginGone)?.is_ready();
            }
            Upload::Stopped => return Err(Reason::OriginGone),
            Upload::Running | Upload::Flushing | Upload::Done => {}
        }
        Ok(())
    }
}

/// What allowed the tunnel, asked again with every snapshot.
struct Allowed<'a> {
    hop: &'a Hop,
    request: &'a Request,
    protocol: &'a Protocol,
    seat: Seat<'a>,
}

impl Allowed<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Result<(), Reason> {
        if !self.seat.poll_rung(cx) {
            return Ok(());
        }
        let permit = permit(&self.hop.listener(), self.hop.sni.as_ref(), self.request)?;
        let route = permit.route();
        // A route that now answers by itself has no tunnels.
        let carries = matches!(route.target, Target::Origins(_));
        if carries && route.upgrades.contains(self.protocol) { Ok(()) } else { Err(Reason::UpgradeRefused) }
    }
}
