//! A guard in front of the `h2` crate: it sees the heads of frames as they pass, both ways, and says when a peer sends more
//! of what costs us and asks for nothing than its requests and answers account for.
//!
//! What `h2` bounds by itself: resets of streams that nobody looked at yet, frames of one header block, the size of a
//! header list, small pieces of data that wait. What it answers for ever is bounded here: each kind of
//! frame has a budget that useful frames and time fill again. Nothing of a peer's payload is read or copied.
//!
//! Stream errors of a client's are seen by the resets with which `h2` answers them, in a budget too. Those that are not yet
//! sent wait in `h2`: so of a client that reads nothing, nothing more is read after some thousand frames.
//!
//! Empty DATA frames mean nothing, and `h2` takes a hundred of them in a connection's whole life: they are left out of
//! what it reads, and have a budget too.

mod stream;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;

use tokio::time::{Duration, Instant};

pub(crate) use stream::Guarded;

use walk::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD, HEADERS, Head, PADDED, PING, PRIORITY,
    PRIORITY_UPDATE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Walk,
};

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flood {
    /// SETTINGS: each is answered, and may touch every stream.
    Settings,
    /// PING: each is answered.
    Ping,
    /// Streams opened and reset: the origin works for nobody (rapid reset).
    Reset,
    /// PRIORITY and PRIORITY_UPDATE.
    Priority,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// DATA, HEADERS and CONTINUATION with nothing in them.
    Empty,
    /// Frames of any other type.
    Other,
    /// Streams that end in an error of the peer's, or are beyond the number it may open. Seen by `h2`, and by its resets.
    StreamError,
    /// CONTINUATION frames of one header block. Seen by `h2`.
    Continuation,
    /// A header list many times larger than its bound. Seen by `h2`.
    HeaderList,
    /// DATA in pieces of a few bytes that wait to be taken. Seen by `h2`.
    SmallData,
}

impl Flood {
    /// All of them, in order.
    pub const ALL: &[Self] = &[
        Self::Settings,
        Self::Ping,
        Self::Reset,
        Self::Priority,
        Self::WindowUpdate,
        Self::Empty,
        Self::Other,
        Self::StreamError,
        Self::Continuation,
        Self::HeaderList,
        Self::SmallData,
    ];

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Reset => "reset",
            Self::Priority => "priority",
            Self::WindowUpdate => "window-update",
            Self::Empty => "empty",
            Self::Other => "other",
            Self::Continuation => "continuation",
            Self::HeaderList => "header-list",
            Self::StreamError => "stream-error",
            Self::SmallData => "small-data",
        }
    }

    /// What `h2` saw, by the payload of the GOAWAY it sends: its errors do not say.
    fn in_goaway(payload: &[u8]) -> Option<Self> {
        let texts: [(&[u8], Self); 5] = [
            (b"too_many_resets", Self::Reset),
            (b"too_many_continuations", Self::Continuation),
            (b"header_list_way_too_large", Self::HeaderList),
            (b"too_many_internal_resets", Self::StreamError),
            (b"too_many_data_frames", Self::SmallData),
        ];
        texts.into_iter().find(|(text, _)| payload.ends_with(text)).map(|(_, flood)| flood)
    }

    /// Frames at once, and frames a second, without any work; `streams` is what the peer may have open at once.
    fn allowance(self, streams: u32) -> (u32, u32) {
        match self {
            // Clients that measure the path change their window with it, some ten times a second at most.
            Self::Settings => (100, 10),
            // Whoever could have all its streams open may leave all of them alone once a second: time-outs, a page that
            // is left, a map that is moved.
            Self::Reset => (streams.max(100).saturating_mul(4), streams.max(100)),
            Self::WindowUpdate => (1000, 100),
            // A client may ask for more than it may have open, and again for what was refused.
            Self::StreamError => (streams.max(250).saturating_mul(4), streams.max(100)),
            Self::Ping
            | Self::Priority
            | Self::Empty
            | Self::Other
            | Self::Continuation
            | Self::HeaderList
            | Self::SmallData => (1000, 10),
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many HTTP/2 frames of the kind `{}`", self.name())
    }
}

impl std::error::Error for Flood {}

/// Who the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It opens this many streams at once, at most.
    Client { streams: u32 },
    /// We open that many.
    Origin { streams: u32 },
}

/// What work may put by, in frames.
const MOST_CREDIT: u32 = 65_536;

/// Frames and bytes from one connection before others of the thread get their turn.
const TURN_FRAMES: u32 = 512;
const TURN_BYTES: usize = 256 * 1024;

/// Frames that are read of a client that takes none of ours: windows full of data, and what `h2` makes of them.
const MOST_UNHEARD: u32 = 4096;

/// What a reset of ours says of the peer, in frames of its budget: `h2` answers errors with these codes, and we with others
/// (RFC 9113, 7).
fn errors(code: Option<u32>) -> u32 {
    match code {
        // PROTOCOL_ERROR and FLOW_CONTROL_ERROR: an exchange had begun.
        Some(1 | 3) => 8,
        // STREAM_CLOSED and REFUSED_STREAM: nothing had. A code that is cut in two may be either.
        Some(5 | 7) | None => 1,
        Some(_) => 0,
    }
}

/// The guard of one connection.
#[derive(Debug)]
pub(crate) struct Guard {
    peer: Peer,
    clock: fn() -> Instant,
    incoming: Walk,
    outgoing: Walk,
    /// By [`Flood`], as far as this guard counts them.
    budgets: [Budget; BUDGETS],
    /// The last stream that was opened.
    last: u32,
    /// Between HEADERS and the end of its header block, where nothing else may stand.
    in_block: bool,
    turn: (u32, usize),
    /// Since when it takes nothing of ours, in frames of its own.
    unheard: Option<u32>,
    flood: Option<Flood>,
    /// What `h2` said there was too much of.
    said: Option<Flood>,
}

const BUDGETS: usize = Flood::StreamError as usize + 1;

#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u32,
    filled: Instant,
}

impl Guard {
    /// For a connection on which nothing has been said yet.
    pub(crate) fn new(peer: Peer, clock: fn() -> Instant) -> Self {
        let (client, streams) = match peer {
            Peer::Client { streams } => (true, streams),
            Peer::Origin { streams } => (false, streams),
        };
        let now = clock();
        let mut budgets = [Budget { left: 0, filled: now }; BUDGETS];
        for (budget, flood) in budgets.iter_mut().zip(Flood::ALL) {
            budget.left = flood.allowance(streams).0;
        }
        Self {
            peer,
            clock,
            incoming: Walk::new(client),
            outgoing: Walk::new(!client),
            budgets,
            last: 0,
            in_block: false,
            turn: (0, 0),
            unheard: None,
            flood: None,
            said: None,
        }
    }

    /// What the peer sent too much of, once it did. Nothing it sends from then on counts.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood
    }

    /// What `h2` told the peer that it sent too much of.
    pub(crate) fn said(&self) -> Option<Flood> {
        self.said
    }

    /// Whether the others of the thread are to have their turn before more is read.
    pub(crate) fn turn_is_over(&mut self) -> bool {
        let (frames, bytes) = self.turn;
        let over = frames >= TURN_FRAMES || bytes >= TURN_BYTES;
        if over {
            self.turn = (0, 0);
        }
        over
    }

    /// Whether the peer takes what we send; to be told at each attempt.
    fn heard(&mut self, heard: bool) {
        self.unheard = if heard { None } else { Some(self.unheard.unwrap_or(0)) };
    }

    /// Whether nothing is to be read of the client before it reads itself.
    fn is_deaf(&self) -> bool {
        let client = matches!(self.peer, Peer::Client { .. });
        client && self.unheard.is_some_and(|frames| frames >= MOST_UNHEARD)
    }

    /// The peer sent these bytes: how many of them, moved to the front, are to be read. Not those of empty DATA frames,
    /// and none from the frame on that was one too many.
    pub(crate) fn received(&mut self, bytes: &mut [u8]) -> usize {
        self.turn.1 += bytes.len();
        let (mut at, mut kept) = (0, 0);
        while self.flood.is_none()
            && let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty())
        {
            let (length, head) = self.incoming.step(rest);
            let keep = head.is_none_or(|head| self.judge(head, length == HEAD));
            if keep {
                if kept != at {
                    bytes.copy_within(at..at + length, kept);
                }
                kept += length;
            }
            at += length;
        }
        kept
    }

    /// We sent these bytes.
    pub(crate) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (length, head) = self.outgoing.step(bytes);
            bytes = bytes.get(length..).unwrap_or_default();
            match head {
                Some(head) if head.kind == GOAWAY => {
                    let payload = bytes.get(..head.length as usize);
                    self.said = self.said.or(payload.and_then(Flood::in_goaway));
                }
                Some(head) if head.kind == RST_STREAM => {
                    let code = bytes.first_chunk().map(|code| u32::from_be_bytes(*code));
                    if matches!(self.peer, Peer::Client { .. }) {
                        for _ in 0..errors(code) {
                            self.spend(Flood::StreamError);
                        }
                    }
                }
                Some(head) => self.worked(head),
                None => {}
            }
        }
    }

    /// Whether a frame of the peer's is to be read; `whole` says that its head came in one piece.
    fn judge(&mut self, head: Head, whole: bool) -> bool {
        self.turn.0 += 1;
        self.unheard = self.unheard.map(|frames| frames.saturating_add(1));
        let nothing = head.length == 0;
        match head.kind {
            DATA if nothing && !head.has(END_STREAM) => {
                let known = head.stream != 0 && head.stream <= self.last && !self.in_block;
                return self.spend(Flood::Empty) && !(whole && known && !head.has(PADDED));
            }
            DATA => self.credit(Flood::Empty, 1),
            HEADERS => {
                self.in_block = !head.has(END_HEADERS);
                if matches!(self.peer, Peer::Client { .. }) {
                    self.last = self.last.max(head.stream);
                }
                // What clients send along with a request: its priority, its window, a frame of a reserved type to see
                // that we ignore it (RFC 8701's way, for HTTP/2).
                self.credit(Flood::Priority, 16);
                self.credit(Flood::WindowUpdate, 2);
                self.credit(Flood::Other, 4);
                return !(nothing && self.in_block) || self.spend(Flood::Empty);
            }
            CONTINUATION => {
                self.in_block &= !head.has(END_HEADERS);
                return !nothing || self.spend(Flood::Empty);
            }
            PRIORITY | PRIORITY_UPDATE => return self.spend(Flood::Priority),
            RST_STREAM => return self.spend(Flood::Reset),
            // An answer to settings of ours, of which h2 knows how many there are.
            SETTINGS if head.has(ACK) => {}
            SETTINGS => return self.spend(Flood::Settings),
            PING => return self.spend(Flood::Ping),
            WINDOW_UPDATE => return self.spend(Flood::WindowUpdate),
            _ => return self.spend(Flood::Other),
        }
        true
    }

    /// A frame of ours, and what the peer may send because of it.
    fn worked(&mut self, head: Head) {
        match (head.kind, self.peer) {
            (DATA, _) => {
                // At the worst a client opens the stream's and the connection's window for every 256 bytes it reads.
                self.credit(Flood::WindowUpdate, 2 + head.length / 128);
            }
            (HEADERS, Peer::Origin { .. }) => {
                self.last = self.last.max(head.stream);
                // An origin may refuse every request.
                self.credit(Flood::Reset, 1);
            }
            (HEADERS, Peer::Client { .. }) => {}
            (_, _) => return,
        }
        // gRPC measures the path with a ping for what it receives.
        self.credit(Flood::Ping, 1);
        if head.has(END_STREAM) && matches!(self.peer, Peer::Client { .. }) {
            self.credit(Flood::Reset, 1);
            self.credit(Flood::StreamError, 4);
        }
    }

    fn credit(&mut self, flood: Flood, frames: u32) {
        if let Some(budget) = self.budgets.get_mut(flood as usize) {
            budget.left = budget.left.saturating_add(frames).min(MOST_CREDIT);
        }
    }

    /// Whether another frame is within its budget. The clock is only read where nothing is left.
    fn spend(&mut self, flood: Flood) -> bool {
        let (Peer::Client { streams } | Peer::Origin { streams }) = self.peer;
        let Some(budget) = self.budgets.get_mut(flood as usize) else { return true };
        if budget.left == 0 {
            let now = (self.clock)();
            budget.left = earned(flood.allowance(streams), now.duration_since(budget.filled));
            budget.filled = now;
        }
        match budget.left.checked_sub(1) {
            Some(left) => budget.left = left,
            None => self.flood = Some(flood),
        }
        self.flood.is_none()
    }
}

/// Frames that a time makes good.
fn earned((most, per_second): (u32, u32), time: Duration) -> u32 {
    let frames = time.as_millis().saturating_mul(u128::from(per_second)) / 1000;
    u32::try_from(frames).unwrap_or(u32::MAX).min(most)
}
