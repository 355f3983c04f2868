//! The access log: one JSON object a line.
//!
//! A thread gathers lines and hands them on when there are 32 KiB or 100 ms have passed; one writer thread writes them
//! with one `write(2)` a buffer. Traffic never waits for the log: when the writer is more than [`QUEUE`] buffers behind
//! (a full pipe, a hanging disk), buffers are dropped and their lines counted (`sallyport_log_lines_dropped_total`).

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use model::report::Leg;
use time::OffsetDateTime;

use super::json::Object;
use super::shard::lock;
use super::{Exchange, OriginPart};

/// A thread's lines are handed on at this size.
const FULL: usize = 32 * 1024;
/// Buffers that may wait for the writer.
const QUEUE: usize = 256;

/// Lines, and how many.
type Lines = (Vec<u8>, u64);

/// Where access logs go. Dropping it waits until everything handed on is written.
#[derive(Debug)]
pub(super) struct Sink {
    queue: Option<SyncSender<Lines>>,
    dropped: Arc<AtomicU64>,
    /// Where to go on writing, from the next buffer on.
    next: Arc<Mutex<Option<File>>>,
    writer: Option<JoinHandle<()>>,
}

impl Sink {
    /// Writes to `file`, or nowhere.
    pub(super) fn new(file: Option<OwnedFd>) -> std::io::Result<Self> {
        let dropped = Arc::new(AtomicU64::new(0));
        let next = Arc::new(Mutex::new(None));
        let Some(file) = file else { return Ok(Self { queue: None, dropped, next, writer: None }) };
        let (queue, lines) = sync_channel(QUEUE);
        let (file, lost, other) = (File::from(file), Arc::clone(&dropped), Arc::clone(&next));
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(file, &lines, &lost, &other))?;
        Ok(Self { queue: Some(queue), dropped, next, writer: Some(writer) })
    }

    /// Goes on in another file: lines that are handed on from now on are in it.
    pub(super) fn reopen(&self, file: OwnedFd) {
        *lock(&self.next) = Some(File::from(file));
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A thread's way to the log.
    pub(super) fn log(&self) -> Log {
        Log {
            queue: self.queue.clone(),
            dropped: Arc::clone(&self.dropped),
            lines: Vec::new(),
            count: 0,
            clock: Clock::default(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Without a sender the writer comes to an end; threads' own senders are gone by now.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(mut file: File, lines: &Receiver<Lines>, lost: &AtomicU64, next: &Mutex<Option<File>>) {
    let mut failing = false;
    for (text, count) in lines {
        if let Some(next) = lock(next).take() {
            file = next;
        }
        match file.write_all(&text) {
            Ok(()) => failing = false,
            Err(error) => {
                lost.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the access log cannot be written; lines are lost until it can");
                }
            }
        }
    }
}

/// One thread's lines.
#[derive(Debug)]
pub(super) struct Log {
    queue: Option<SyncSender<Lines>>,
    dropped: Arc<AtomicU64>,
    lines: Vec<u8>,
    count: u64,
    clock: Clock,
}

impl Log {
    /// Adds a line.
    pub(super) fn exchange(&mut self, exchange: &Exchange<'_>) {
        if self.queue.is_none() {
            return;
        }
        if self.lines.capacity() == 0 {
            self.lines.reserve(FULL + 4096);
        }
        let time = self.clock.now();
        line(&mut self.lines, time, exchange);
        self.count += 1;
        if self.lines.len() >= FULL {
            self.flush();
        }
    }

    /// Hands on what there is.
    pub(super) fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let (lines, count) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.count));
        let refused = self.queue.as_ref().is_none_or(|queue| queue.try_send((lines, count)).is_err());
        if refused {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// RFC 3339 with milliseconds; the part down to the second is formatted once a second.
#[derive(Debug, Default)]
struct Clock {
    second: u64,
    text: [u8; 24],
}

impl Clock {
    fn now(&mut self) -> &str {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.as_secs() != self.second || self.text[0] == 0 {
            self.second = now.as_secs();
            let seconds = i64::try_from(self.second).unwrap_or_default();
            let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let text = format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.000Z",
                date.year(),
                u8::from(date.month()),
                date.day(),
                date.hour(),
                date.minute(),
                date.second()
            );
            self.text.copy_from_slice(text.as_bytes().first_chunk().unwrap_or(b"1970-01-01T00:00:00.000Z"));
        }
        let mut millis = now.subsec_millis();
        for digit in self.text[20..23].iter_mut().rev() {
            *digit = b'0' + (millis % 10) as u8;
            millis /= 10;
        }
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// One line. The names are part of our interface: docs/metrics.md lists them.
fn line(out: &mut Vec<u8>, time: &str, exchange: &Exchange<'_>) {
    let mut object = Object::open(out);
    object.text("time", time);
    object.text("id", exchange.request_id);
    object.text("listener", exchange.listener.name.as_str());
    if let Some(route) = exchange.route {
        object.text("route", route.name.as_str());
    }
    object.address("client", exchange.peer.client);
    if let Some(balancer) = exchange.peer.via {
        object.address("via", balancer);
    }
    object.text("method", exchange.method);
    object.text("host", exchange.host);
    object.text("path", exchange.path);
    object.text("protocol", exchange.protocol);
    object.number("status", exchange.status.into());
    if let Some(reason) = exchange.refusal {
        object.text("reason", reason.name());
    }
    object.number("received", exchange.received);
    object.number("sent", exchange.sent);
    object.number("totalUs", micros(exchange.total));
    object.number("waitedUs", micros(exchange.waited));
    leg(object.object("clientTls"), exchange.client_leg);
    if let Some(part) = &exchange.origin {
        origin(object.object("origin"), part);
    }
    object.close();
    out.push(b'\n');
}

fn origin(mut object: Object<'_>, part: &OriginPart<'_>) {
    object.text("group", part.origin.group.as_str());
    object.text("address", &part.origin.label);
    if let Some(peer) = part.address {
        object.address("peer", peer);
    }
    object.flag("reused", part.reused);
    object.number("attempts", part.attempts.into());
    if let Some(seen) = part.leg {
        leg(object.object("tls"), seen);
    }
    object.close();
}

fn leg(mut object: Object<'_>, leg: &Leg) {
    object.text("version", &leg.version);
    object.some_text("suite", &leg.suite);
    object.some_text("group", &leg.group);
    object.some_text("sni", &leg.sni);
    object.some_text("verified", &leg.verified);
    object.close();
}

pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
