//! Watched packets at the keeper: what the worker asks to watch goes to the kernel for as long as it is asked for, and what the
//! program leaves in its ring goes to the worker. Nobody looks into the packets here: their bytes were written by strangers.

mod rate;
mod refused;
mod wanted;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::flow::{NOT_TAKEN, Seen, WATCHES_MAX, Watch};
use model::flow::{ByVerdict, FlowCounts, FlowWatch, LEASE_SECONDS, Verdict};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use self::rate::Rate;
use self::refused::Refused;
use super::kernel::{Kernel, Record, interface_name};
use super::run::Keeper;
use super::supervise::WorkerNumber;
use crate::handover::message::{Taken, WatchedPacket};
use crate::handover::{self, ToWorker};
use crate::sentence;

/// Between two looks into the ring while packets come: so often at most the worker is told.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks while none come: figures and rates go on.
const QUIET: Duration = Duration::from_secs(1);
/// Records taken at one look; more wait in the ring.
const MOST: usize = 1024;
/// What of a frame a watch that captures nothing sees: Ethernet, two VLAN tags, IPv6 with extension headers, TCP.
const HEAD: u32 = 128;

/// What is watched.
#[derive(Debug, Default)]
pub(super) struct Flows {
    ring: Option<AsyncFd<OwnedFd>>,
    places: [Option<Place>; WATCHES_MAX],
    refused: Refused,
    /// Until when, unless the worker asks again.
    until: Option<Instant>,
    look_at: Option<Instant>,
    /// The last look did not take all there was.
    more: bool,
}

/// A watch in force.
#[derive(Debug)]
struct Place {
    asked: FlowWatch,
    kernel: Watch,
    /// The kernel's clock when it began, nanoseconds: what the ring had before is another watch's.
    begun: u64,
    /// The kernel's counters then.
    before: Seen,
    rates: ByVerdict<Rate>,
    /// Packets captured.
    captured: u32,
}

impl Flows {
    /// Waits until there is something to look at; for ever while nothing is watched.
    pub(super) async fn due(&self) {
        let (Some(ring), Some(look_at), Some(until)) = (&self.ring, self.look_at, self.until) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(look_at).await;
        if self.more {
            return;
        }
        let quiet = (look_at + QUIET).min(until.max(look_at));
        tokio::select! {
            readable = ring.readable() => if let Ok(mut readable) = readable {
                // All of it is taken before anybody waits again.
                readable.clear_ready();
            },
            () = tokio::time::sleep_until(quiet) => {}
        }
    }

    fn end(&mut self) {
        (self.places, self.until, self.look_at, self.more) = (Default::default(), None, None, false);
        self.refused.clear();
    }

    /// Gives what is asked a place; what had one keeps it, and what is not asked for any more makes room. The places with another
    /// watch than before, and which watches there cannot be and why: those are nobody else's trouble.
    fn place(&mut self, asked: Vec<FlowWatch>, seen: &Seen, now: Instant) -> Placed {
        let (mut anew, mut refused) = (Vec::new(), Vec::new());
        for place in &mut self.places {
            place.take_if(|place| !asked.contains(&place.asked));
        }
        for asked in asked {
            if self.places.iter().flatten().any(|place| place.asked.id == asked.id) {
                continue;
            }
            let kernel = match wanted::watch(&asked.filter) {
                Ok(kernel) => kernel,
                Err(why) => {
                    refused.push((asked.id, why));
                    continue;
                }
            };
            let free = self.places.iter_mut().enumerate().find(|(_, place)| place.is_none());
            let Some((at, free)) = free else { break };
            *free = Some(Place::new(asked, kernel, *seen, now));
            anew.push(at);
        }
        Placed { anew, refused }
    }

    /// Captures for which the kernel has counted all that they are to take, and for which it was not all: CPUs that count at once, or
    /// still for the watch that had the place before, count wrongly. They are to take what is missing. Asked once the ring is empty.
    fn short(&mut self, counted: &[u64; WATCHES_MAX]) -> Vec<usize> {
        let mut short = Vec::new();
        for (at, (place, counted)) in self.places.iter_mut().zip(counted).enumerate() {
            let Some(place) = place else { continue };
            let missing = place.missing();
            if missing != 0 && place.kernel.limit != 0 && *counted >= place.kernel.limit.into() {
                place.kernel.limit = missing;
                short.push(at);
            }
        }
        short
    }

    fn watches(&self, until: u64) -> [Watch; WATCHES_MAX] {
        let watch = |place: &Option<Place>| match place {
            Some(place) if !place.is_full() => Watch { until, ..place.kernel },
            _ => Watch::default(),
        };
        [0, 1, 2, 3].map(|at: usize| self.places.get(at).map_or_else(Watch::default, watch))
    }
}

/// What came of asking.
struct Placed {
    anew: Vec<usize>,
    refused: Vec<(u64, String)>,
}

impl Place {
    fn new(asked: FlowWatch, kernel: Watch, before: Seen, now: Instant) -> Self {
        let capture = asked.capture.map(model::flow::Capture::bounded);
        let (snap, limit) = capture.map_or((HEAD, 0), |capture| (capture.snap, capture.packets));
        let rates = ByVerdict { drops: Rate::new(now), passes: Rate::new(now) };
        let kernel = Watch { snap, limit, ..kernel };
        Self { asked, kernel, begun: monotonic(), before, rates, captured: 0 }
    }

    fn is_full(&self) -> bool {
        self.asked.capture.is_some() && self.missing() == 0
    }

    /// Packets that a capture is still to take.
    fn missing(&self) -> u32 {
        self.asked.capture.map_or(0, |capture| capture.bounded().packets.saturating_sub(self.captured))
    }

    fn counts(&self, at: usize, seen: &Seen) -> FlowCounts {
        let since = |now: &[[u64; 2]; WATCHES_MAX], before: &[[u64; 2]; WATCHES_MAX], class: usize| {
            let of = |counts: &[[u64; 2]; WATCHES_MAX]| {
                counts.get(at).and_then(|counts| counts.get(class)).copied().unwrap_or_default()
            };
            of(now).saturating_sub(of(before))
        };
        let matched = |class| since(&seen.matched, &self.before.matched, class);
        let lost = |class| since(&seen.lost, &self.before.lost, class);
        FlowCounts {
            matched: ByVerdict { drops: matched(0), passes: matched(1) },
            one_in: ByVerdict { drops: self.rates.drops.one_in(), passes: self.rates.passes.one_in() },
            lost: lost(0) + lost(1),
        }
    }

    /// Moves the exponents after what came; whether one did. A capture takes every packet.
    fn adapt(&mut self, counts: &FlowCounts, now: Instant) -> bool {
        if self.asked.capture.is_some() {
            return false;
        }
        let shifts = [
            self.rates.drops.adapt(counts.matched.drops, now),
            self.rates.passes.adapt(counts.matched.passes, now),
        ];
        let moved = shifts != self.kernel.shifts;
        self.kernel.shifts = shifts;
        moved
    }

    /// Whether this watch took the packet, and for how many it stands.
    fn take(&mut self, record: &Record, shift: u8) -> Option<Taken> {
        if shift == NOT_TAKEN || record.head.time < self.begun || self.is_full() {
            return None;
        }
        self.captured += u32::from(self.asked.capture.is_some());
        Some(Taken { watch: self.asked.id, one_in: 1_u32.checked_shl(shift.into()).unwrap_or(1 << 31) })
    }
}

impl Keeper {
    /// The worker asks to watch this, and nothing else, for a while.
    pub(super) async fn watch_flows(&mut self, number: WorkerNumber, asked: Vec<FlowWatch>) {
        let (problem, refused) = match self.enter_watches(asked) {
            Ok(refused) if refused.is_empty() => return,
            Ok(refused) => (None, refused),
            Err(problem) => {
                self.flows.end();
                (Some(problem), Vec::new())
            }
        };
        // A worker of the release before ends the connection over a field that it does not know.
        let knows = self.workers.get(&number).is_some_and(|worker| worker.version >= 7);
        if problem.is_some() || knows {
            let told = ToWorker::Flows { packets: Vec::new(), counts: Vec::new(), problem, refused };
            self.say(number, &told, &[]).await;
        }
    }

    /// Those that cannot be watched, and why; an error where nothing can.
    fn enter_watches(&mut self, mut asked: Vec<FlowWatch>) -> Result<Vec<(u64, String)>, String> {
        if asked.is_empty() {
            self.flows.end();
            // Where nothing can be watched nothing is.
            let _nothing = self.kernel.watch(&Default::default(), &[]);
            return Ok(Vec::new());
        }
        asked.truncate(WATCHES_MAX);
        if self.flows.ring.is_none() {
            self.flows.ring = watched_ring(&*self.kernel).map_err(|error| sentence(&error))?;
        }
        let seen = self.kernel.seen().map_err(|error| sentence(&error))?;
        let now = Instant::now();
        let Placed { anew, refused } = self.flows.place(asked, &seen, now);
        let lease = Duration::from_secs(LEASE_SECONDS);
        self.flows.until = Some(now + lease);
        self.flows.look_at.get_or_insert(now + PAUSE);
        self.write_watches(&anew)?;
        self.flows.refused.note(&refused, now);
        Ok(refused)
    }

    /// Writes what is watched into the kernel, until the lease ends.
    fn write_watches(&mut self, anew: &[usize]) -> Result<(), String> {
        let left = self.flows.until.map_or(Duration::ZERO, |until| until - Instant::now());
        let until = monotonic().saturating_add(u64::try_from(left.as_nanos()).unwrap_or(0));
        self.kernel.watch(&self.flows.watches(until), anew).map_err(|error| sentence(&error))
    }

    /// Takes what the ring has, tells the worker, and moves the rates.
    pub(super) async fn look_at_flows(&mut self) {
        let now = Instant::now();
        if self.flows.until.is_none_or(|until| until <= now) {
            tracing::debug!("nobody asks for flows any more");
            let _nothing = self.enter_watches(Vec::new());
            return;
        }
        let seen = self.kernel.seen().unwrap_or_default();
        // Before the ring is read: whatever is counted here is in it.
        let counted = self.kernel.captured().unwrap_or_default();
        let records = self.kernel.take_records(MOST);
        self.flows.more = records.len() == MOST;
        self.flows.look_at = Some(now + PAUSE);
        let clock = Clock::read();
        let packets = records.iter().filter_map(|record| self.flows.packet(record, &clock)).collect();
        let (mut counts, mut moved) = (Vec::new(), false);
        for (at, place) in self.flows.places.iter_mut().enumerate() {
            let Some(place) = place else { continue };
            let figures = place.counts(at, &seen);
            moved |= place.adapt(&figures, now) | (place.is_full() && place.kernel.limit != 0);
            if place.is_full() {
                place.kernel.limit = 0;
            }
            counts.push((place.asked.id, figures));
        }
        let short = if self.flows.more { Vec::new() } else { self.flows.short(&counted) };
        let changed = moved || !short.is_empty();
        let problem = if changed { self.write_watches(&short).err() } else { None };
        let Some(number) = self.current else { return };
        let told = ToWorker::Flows { packets, counts, problem, refused: Vec::new() };
        self.say(number, &told, &[]).await;
    }
}

impl Flows {
    /// A record for the worker; nothing where no watch in force took it.
    fn packet(&mut self, record: &Record, clock: &Clock) -> Option<WatchedPacket> {
        let places = self.places.iter_mut().zip(record.head.shifts);
        let taken: Vec<Taken> =
            places.filter_map(|(place, shift)| place.as_mut()?.take(record, shift)).collect();
        let reason = Reason::ALL.iter().find(|reason| reason.number() == record.head.reason)?;
        let interface = record.head.interface;
        (!taken.is_empty()).then(|| WatchedPacket {
            taken,
            time_ns: clock.of(record.head.time),
            length: record.head.length,
            interface: interface_name(interface).unwrap_or_else(|| interface.to_string()),
            verdict: verdict(*reason),
            reason: reason.name().to_owned(),
            rule: record.head.rule,
            bytes: STANDARD.encode(&record.bytes),
        })
    }
}

fn verdict(reason: Reason) -> Verdict {
    match reason.is_drop() {
        true => Verdict::Drop,
        false if reason == Reason::Observed => Verdict::Observed,
        false => Verdict::Pass,
    }
}

/// Waits on a duplicate of the ring's descriptor; none where the kernel has none.
fn watched_ring(kernel: &dyn Kernel) -> std::io::Result<Option<AsyncFd<OwnedFd>>> {
    let ring = kernel.ring().as_ref().map(BorrowedFd::try_clone_to_owned).transpose()?;
    ring.map(handover::watch).transpose()
}

/// The kernel's clock that programs read, nanoseconds.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, rest) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or(0))
}

/// What time it was when the kernel's clock said something.
struct Clock {
    monotonic: u64,
    unix: u64,
}

impl Clock {
    fn read() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { monotonic: monotonic(), unix: u64::try_from(unix.as_nanos()).unwrap_or(0) }
    }

    fn of(&self, time: u64) -> u64 {
        self.unix.saturating_sub(self.monotonic.saturating_sub(time))
    }
}

#[cfg(test)]
mod tests;
