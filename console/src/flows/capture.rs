//! Captures: the next packets of a kind at one node, with their bytes, for a while.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::flow::{CAPTURE_SNAP_MAX, Capture, Captured, FlowFilter};
use time::OffsetDateTime;

use super::{ABSENT, Busy, CAPTURES, Hub, Key, State, pcap};
use crate::clock;

/// What is to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureOrder {
    /// At this node.
    pub node: String,
    /// Which packets.
    pub filter: FlowFilter,
    /// The same in words, for the list.
    pub words: String,
    /// How much.
    pub capture: Capture,
    /// It ends after so long, whatever has come.
    pub lasts: Duration,
    /// Who asked.
    pub actor: String,
}

/// A capture as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureView {
    /// Its number.
    pub id: u64,
    /// Where.
    pub node: String,
    /// Which packets, in words.
    pub filter: String,
    /// Who asked.
    pub actor: String,
    /// When.
    #[serde(with = "clock::rfc3339")]
    pub at: OffsetDateTime,
    /// Packets wanted.
    pub packets: u32,
    /// Bytes of each at most.
    pub snap: u32,
    /// Packets there are.
    pub taken: usize,
    /// Packets that should have been taken and were lost on the way.
    pub lost: u64,
    /// Whether it goes on.
    pub running: bool,
    /// Why the node takes nothing at present, while it goes on.
    pub problem: Option<String>,
    /// Who stopped it, where somebody did before it had all or its time was over.
    pub stopped: Option<String>,
}

/// A capture.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) id: u64,
    order: CaptureOrder,
    at: OffsetDateTime,
    until: Instant,
    packets: Vec<pcap::Packet>,
    lost: u64,
    stopped: Option<String>,
}

impl Taking {
    pub(super) fn take(&mut self, captured: Vec<Captured>, lost: u64) {
        self.lost = lost;
        let room = (self.order.capture.packets as usize).saturating_sub(self.packets.len());
        let snap = self.order.capture.snap as usize;
        for one in captured.into_iter().take(room) {
            let mut bytes = STANDARD.decode(&one.bytes).unwrap_or_default();
            bytes.truncate(snap);
            self.packets.push(pcap::Packet { time_ns: one.time_ns, length: one.length, bytes });
        }
    }

    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.until <= now || self.packets.len() >= self.order.capture.packets as usize
    }

    fn view(&self, now: Instant, state: &State) -> CaptureView {
        let running = !self.has_ended(now);
        let refused = || state.watches.get(&self.id)?.refused.get(&self.order.node).cloned();
        let problem = match state.nodes.get(&self.order.node) {
            _ if !running => None,
            Some(stream) => stream.cannot.clone().or_else(refused),
            None => Some(ABSENT.to_owned()),
        };
        CaptureView {
            id: self.id,
            node: self.order.node.clone(),
            filter: self.order.words.clone(),
            actor: self.order.actor.clone(),
            at: self.at,
            packets: self.order.capture.packets,
            snap: self.order.capture.snap,
            taken: self.packets.len(),
            lost: self.lost,
            running,
            problem,
            stopped: self.stopped.clone(),
        }
    }
}

/// Somebody who waits for a capture: it ends with this, unless it is left to itself.
#[derive(Debug)]
pub struct Attended {
    hub: Hub,
    id: u64,
    left: bool,
}

impl Attended {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How far it is; nothing where it has ended and made room for another.
    pub fn view(&self) -> Option<CaptureView> {
        self.hub.capture_view(self.id)
    }

    /// Lets it go on until it has all or its time is over; its number.
    pub fn leave(mut self) -> u64 {
        self.left = true;
        self.id
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !self.left {
            self.hub.end(self.id);
        }
    }
}

impl State {
    fn capture(&self, id: u64, now: Instant) -> Option<CaptureView> {
        let taking = self.captures.iter().find(|taking| taking.id == id)?;
        Some(taking.view(now, self))
    }

    fn end(&mut self, id: u64, now: Instant) {
        if let Some(taking) = self.captures.iter_mut().find(|taking| taking.id == id) {
            taking.until = taking.until.min(now);
        }
        self.tidy(now);
        self.order();
    }
}

impl Hub {
    /// Begins a capture.
    ///
    /// # Errors
    /// See [`Busy`].
    pub fn capture(&self, order: CaptureOrder) -> Result<Attended, Busy> {
        let (mut state, now) = (self.lock(), Instant::now());
        state.tidy(now);
        let until = now + order.lasts;
        let order = CaptureOrder { capture: order.capture.bounded(), ..order };
        let key = Key { node: Some(order.node.clone()), filter: order.filter.clone() };
        while state.captures.len() >= CAPTURES {
            match state.captures.iter().position(|taking| taking.has_ended(now)) {
                Some(oldest) => state.captures.remove(oldest),
                None => return Err(Busy::Captures),
            };
        }
        let id = state.begin(key, Some(order.capture), until)?;
        let (packets, lost) = (Vec::new(), 0);
        let taking = Taking { id, order, at: clock::now(), until, packets, lost, stopped: None };
        state.captures.push_back(taking);
        Ok(Attended { hub: self.clone(), id, left: false })
    }

    /// Ends a capture; what it has is kept.
    fn end(&self, id: u64) {
        self.lock().end(id, Instant::now());
    }

    /// Ends a capture before its time; what it has is kept. What it is now, and nothing where there is no such capture.
    pub fn stop(&self, id: u64, by: &str) -> Option<CaptureView> {
        let (mut state, now) = (self.lock(), Instant::now());
        let taking = state.captures.iter_mut().find(|taking| taking.id == id)?;
        if !taking.has_ended(now) {
            taking.stopped = Some(by.to_owned());
        }
        state.end(id, now);
        state.capture(id, now)
    }

    /// A capture; nothing where there is no such one.
    pub fn capture_view(&self, id: u64) -> Option<CaptureView> {
        self.lock().capture(id, Instant::now())
    }

    /// All captures, newest first.
    pub fn captures(&self) -> Vec<CaptureView> {
        let now = Instant::now();
        let state = self.lock();
        state.captures.iter().rev().map(|taking| taking.view(now, &state)).collect()
    }

    /// What a capture has so far, as a pcap file; nothing where there is no such capture.
    pub fn pcap(&self, id: u64) -> Option<(CaptureView, Vec<u8>)> {
        let state = self.lock();
        let taking = state.captures.iter().find(|taking| taking.id == id)?;
        let snap = taking.order.capture.snap.min(CAPTURE_SNAP_MAX);
        Some((taking.view(Instant::now(), &state), pcap::file(snap, &taking.packets)))
    }
}
