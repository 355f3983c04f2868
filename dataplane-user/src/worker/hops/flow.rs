//! Moves a request to an origin and its response back, both at once and each no faster than the other side takes it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant};

use super::context::ThreadCtx;
use super::exchange::Scene;
use super::pace::Pace;
use super::timer::Timer;
use crate::worker::http::client::Client;
use crate::worker::http::frames::Frames;
use crate::worker::http::receive::{Broken, Got};
use crate::worker::http::request::Request;
use crate::worker::http::response::Response;
use crate::worker::origin::Connection;
use crate::worker::origin::either::NoHead;
use crate::worker::policy::Permit;
use crate::worker::refusal::Reason;

/// Informational responses forwarded for one request, and bytes of them.
const MOST_INFORMATIONAL: u32 = 32;
const MOST_INFORMATIONAL_BYTES: usize = 64 * 1024;

/// Pieces moved in one turn before other connections get theirs.
const TURN: u32 = 16;

/// Why an exchange did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// A pooled connection was dead or the origin did not look at the request, nothing was lost, and another may be tried.
    Stale,
    /// Nothing has been answered yet.
    Refused(Reason),
    /// The answer had begun.
    Broken(Reason),
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// The client's body is being sent.
    Running,
    /// All of it is with us.
    Flushing,
    /// All of it is on its way.
    Done,
    /// The origin takes no more; it may have answered.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Origin,
}

/// An exchange under way.
pub(crate) struct Flow<'a, C> {
    pub(crate) client: &'a mut C,
    pub(super) origin: &'a mut Connection,
    ctx: &'a ThreadCtx,
    pub(super) upload: Upload,
    pub(super) downloaded: bool,
    /// Whom the last turn waited for.
    blocked: Side,
    /// Whether body bytes have been taken from the client: it cannot be sent again.
    touched: bool,
    /// Whether anything has left for the origin.
    left: bool,
    idempotent: bool,
    awaiting_continue: bool,
    stall: Duration,
    /// What the client may still take its time with, until the origin answers and from then on. gRPC calls have none.
    sends: Option<Pace>,
    takes: Option<Pace>,
    /// How long who owes a body may be silent, and what an origin that is still so is called. In a gRPC call it is no fault.
    silence: (Duration, Reason),
    response_timeout: Duration,
    deadline: Option<Instant>,
    pub(super) progress: Instant,
    waiting: Option<Instant>,
    waited: Duration,
    /// Body bytes to the client.
    pub(crate) sent: u64,
    /// A tunnel's frames to the client and to the origin, where it has frames.
    pub(super) frames: Option<Box<[Frames; 2]>>,
}

impl<'a, C: Client> Flow<'a, C> {
    /// For a request whose head was written to `origin`.
    pub(crate) fn new(
        scene: &Scene<'a, '_>,
        request: &Request,
        permit: &Permit,
        client: &'a mut C,
        origin: &'a mut Connection,
        upgrade: bool,
    ) -> Self {
        let now = Instant::now();
        // What a client sends behind an upgrade request is the other protocol's, once there is one.
        let upload = if upgrade && origin.finish(None) { Upload::Flushing } else { Upload::Running };
        let limits = &scene.listener.limits;
        let stall = Duration::from_millis(u64::from(limits.stall_ms));
        let (least, silence) = match request.grpc() {
            true => (0, (Duration::from_millis(u64::from(limits.tunnel_idle_ms)), Reason::TunnelIdle)),
            false => (limits.body_bytes_per_second, (stall, Reason::OriginStalled)),
        };
        Self {
            client,
            origin,
            ctx: scene.ctx,
            upload,
            downloaded: false,
            blocked: Side::Origin,
            touched: false,
            left: false,
            idempotent: request.method.idempotent(),
            awaiting_continue: request.expect_continue,
            stall,
            sends: Pace::new(stall, least),
            takes: Pace::new(stall, least),
            silence,
            response_timeout: permit.route().response_timeout,
            deadline: scene.deadline,
            progress: now,
            waiting: Some(now),
            waited: Duration::ZERO,
            sent: 0,
            frames: None,
        }
    }

    /// Time spent waiting for the origin since the last call.
    pub(crate) fn waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// The final response head. Informational ones are passed on.
    pub(crate) async fn head(&mut self, timer: &mut Timer<'_>) -> Result<Response, Failed> {
        let mut bytes = 0;
        for _ in 0..=MOST_INFORMATIONAL {
            let response = poll_fn(|cx| self.poll_head(cx, timer)).await?;
            if !response.informational() {
                if let Some(since) = self.waiting.take() {
                    self.waited += since.elapsed();
                }
                return Ok(response);
            }
            self.awaiting_continue = false;
            self.progress = Instant::now();
            bytes += response.fields.text().len();
            if bytes > MOST_INFORMATIONAL_BYTES {
                break;
            }
            self.client.informational(&response)?;
        }
        Err(Failed::Refused(Reason::MalformedResponse))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, timer: &mut Timer<'_>) -> Poll<Result<Response, Failed>> {
        self.poll_upload(cx)?;
        let head = self.origin.poll_head(cx, &mut self.ctx.scratch.borrow_mut());
        if let Poll::Ready(head) = head {
            return Poll::Ready(head.map_err(|none| self.no_head(none)));
        }
        if let Poll::Ready(Err(reason)) = self.client.poll_flush(cx) {
            return Poll::Ready(Err(Failed::Broken(reason)));
        }
        if self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Failed::Broken(Reason::ClientGone)));
        }
        let on_origin = matches!(self.upload, Upload::Done | Upload::Stopped) || self.awaiting_continue;
        let end = match (on_origin, self.blocked) {
            (true, _) => (self.progress + self.response_timeout, Reason::OriginTimeout),
            (false, Side::Client) => {
                (self.client_by(self.silence.0, |flow| &mut flow.sends), Reason::BodyTimeout)
            }
            (false, Side::Origin) => (self.progress + self.stall, Reason::OriginStalled),
        };
        let (end, reason) = self.sooner(end);
        if timer.poll_expired(cx, end) { Poll::Ready(Err(Failed::Refused(reason))) } else { Poll::Pending }
    }

    /// The end of this patience or of the client's, whichever comes first.
    fn sooner(&self, end: (Instant, Reason)) -> (Instant, Reason) {
        let deadline = self.deadline.filter(|deadline| *deadline < end.0);
        deadline.map_or(end, |deadline| (deadline, Reason::GrpcDeadline))
    }

    /// Until when the client is waited for, by the pace of a direction or from its last move.
    fn client_by(&mut self, patience: Duration, pace: fn(&mut Self) -> &mut Option<Pace>) -> Instant {
        let restarted = self.progress + patience;
        pace(self).as_mut().map_or(restarted, |pace| pace.wait(Instant::now()))
    }

    /// A request is sent again where its body is still whole and the origin says that it did not look at it; or where a
    /// connection from the pool is dead, no byte of an answer came, and the origin never saw the request or may see it
    /// twice.
    fn no_head(&self, none: NoHead) -> Failed {
        match none {
            NoHead::Unseen if !self.touched => Failed::Stale,
            NoHead::Silent if self.origin.reused() && !self.touched && (self.idempotent || !self.left) => {
                Failed::Stale
            }
            NoHead::Unseen | NoHead::Silent | NoHead::Gone => Failed::Refused(Reason::OriginGone),
            NoHead::Malformed => Failed::Refused(Reason::MalformedResponse),
        }
    }

    /// Moves request body until one side has to wait. An origin that takes no more is no failure yet.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        let mut turn = 0;
        while self.upload == Upload::Running {
            let room = match self.origin.poll_room(cx) {
                Poll::Ready(Ok(room)) => room,
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Stopped;
                    break;
                }
                Poll::Pending => {
                    self.blocked = Side::Origin;
                    if let Some(pace) = &mut self.sends {
                        pace.moved(0, Instant::now());
                    }
                    break;
                }
            };
            let mut scratch = self.ctx.scratch.borrow_mut();
            let room = room.min(scratch.len());
            match self.client.poll_body(cx, scratch.get_mut(..room).unwrap_or_default()) {
                Poll::Ready(Ok(Got::Data(length))) => {
                    self.touched = true;
                    self.awaiting_continue = false;
                    self.progress = Instant::now();
                    if let Some(pace) = &mut self.sends {
                        pace.moved(length, self.progress);
                    }
                    let data = scratch.get(..length).unwrap_or_default();
                    if let Some([_, to_origin]) = self.frames.as_deref_mut() {
                        to_origin.pass(data);
                    }
                    if self.origin.data(cx, data).is_err() {
                        self.upload = Upload::Stopped;
                    }
                }
                Poll::Ready(Ok(Got::End(trailers))) => {
                    self.upload = if self.origin.finish(trailers.as_ref()) {
                        Upload::Flushing
                    } else {
                        Upload::Stopped
                    };
                }
                Poll::Ready(Err(reason)) => return Err(reason),
                Poll::Pending => {
                    self.blocked = Side::Client;
                    break;
                }
            }
            turn += 1;
            if turn == TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
        if matches!(self.upload, Upload::Running | Upload::Flushing) {
            self.push(cx);
        }
        Ok(())
    }

    fn push(&mut self, cx: &mut Context<'_>) {
        match self.origin.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.left = true;
                if self.upload == Upload::Flushing {
                    self.upload = Upload::Done;
                    self.progress = Instant::now();
                }
            }
            Poll::Ready(Err(_)) => self.upload = Upload::Stopped,
            Poll::Pending if self.upload == Upload::Flushing => self.blocked = Side::Origin,
            Poll::Pending => {}
        }
    }

    /// The response's body, until it is complete and written.
    pub(crate) async fn transfer(&mut self, timer: &mut Timer<'_>) -> Result<(), Failed> {
        self.progress = Instant::now();
        poll_fn(|cx| self.poll_transfer(cx, timer)).await.map_err(Failed::Broken)
    }

    fn poll_transfer(&mut self, cx: &mut Context<'_>, timer: &mut Timer<'_>) -> Poll<Result<(), Reason>> {
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        if matches!(self.upload, Upload::Running | Upload::Flushing) {
            self.poll_upload(cx)?;
        }
        self.poll_download(cx)?;
        match self.client.poll_flush(cx)? {
            Poll::Ready(()) if self.downloaded => return Poll::Ready(Ok(())),
            Poll::Ready(()) => {}
            Poll::Pending => self.blocked = Side::Client,
        }
        if self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        let end = match self.blocked {
            Side::Client => (self.client_by(self.stall, |flow| &mut flow.takes), Reason::BodyTimeout),
            Side::Origin => (self.progress + self.silence.0, self.silence.1),
        };
        let (end, reason) = self.sooner(end);
        if timer.poll_expired(cx, end) {
            return Poll::Ready(Err(reason));
        }
        if self.blocked == Side::Origin {
            self.waiting = Some(Instant::now());
            if let Some(pace) = &mut self.takes {
                pace.fill();
            }
        }
        Poll::Pending
    }

    /// Moves response body until one side has to wait.
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        let mut turn = 0;
        while !self.downloaded {
            let room = match self.client.poll_room(cx)? {
                Poll::Ready(room) => room,
                Poll::Pending => {
                    self.blocked = Side::Client;
                    return Ok(());
                }
            };
            let held = self.origin.decode_held(room).map_err(reason)?;
            if held.produced > 0 {
                if let Some(pace) = &mut self.takes {
                    pace.moved(held.produced, Instant::now());
                }
                self.sent += held.produced as u64;
                let data = self.origin.held(held);
                if let Some([to_client, _]) = self.frames.as_deref_mut() {
                    to_client.pass(data);
                }
                self.client.data(cx, data)?;
            }
            self.origin.drop_held(held);
            if held.produced > 0 {
                continue;
            }
            let mut scratch = self.ctx.scratch.borrow_mut();
            let room = room.min(scratch.len());
            match self.origin.poll_body(cx, scratch.get_mut(..room).unwrap_or_default()) {
                Poll::Ready(Ok(Got::Data(length))) => {
                    self.progress = Instant::now();
                    if let Some(pace) = &mut self.takes {
                        pace.moved(length, self.progress);
                    }
                    self.sent += length as u64;
                    let data = scratch.get(..length).unwrap_or_default();
                    if let Some([to_client, _]) = self.frames.as_deref_mut() {
                        to_client.pass(data);
                    }
                    self.client.data(cx, data)?;
                }
                Poll::Ready(Ok(Got::End(trailers))) => {
                    self.downloaded = true;
                    self.client.finish(trailers.as_ref())?;
                }
                Poll::Ready(Err(broken)) => return Err(reason(broken)),
                Poll::Pending => {
                    self.blocked = Side::Origin;
                    return Ok(());
                }
            }
            turn += 1;
            if turn == TURN {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        Ok(())
    }
}

/// What an origin's broken body is called.
fn reason(broken: Broken) -> Reason {
    match broken {
        Broken::Gone => Reason::OriginGone,
        Broken::Bad => Reason::MalformedResponse,
    }
}
