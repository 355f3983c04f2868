//! A node under attack: attackers, a well-behaved client beside them, the worker's memory and the counters, all in one run.
//!
//! A [`Siege`] is a stage with one listener whose limits a test reaches within seconds. [`Siege::endure`] measures a
//! well-behaved client before and during an attack, and [`Seen`] says what must hold.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;
use crate::client::{Connection, Dial};
use crate::objects;
use crate::origin::Origin;
use crate::product::{Product, Role};
use crate::space::Space;
use crate::stage::{CLIENT4, FOE4, HOST, Stage, target4};

/// The attacked listener's port.
pub const PORT: u16 = 8700;

/// How long the well-behaved client is measured before the attack.
const QUIET: Duration = Duration::from_secs(2);

/// What the well-behaved client may suffer: its p99 under attack is at most this many times the one before it, or the floor
/// where that is more. Attackers, victim, worker and origin share two cores with each other and with whatever else the machine
/// does: with ten or twenty runnable threads a turn comes every 50 to 100 ms, and a handshake and an exchange take several. So
/// the floor only tells the scheduler's tenths of a second from a worker's that is held up: that one is late by the
/// attack's own seconds (every limit of these tests is above the floor), or does not answer at all.
const TIMES: u32 = 5;
const FLOOR: Duration = Duration::from_millis(400);
/// A new connection takes three turns of everybody: TCP, TLS, the exchange.
const FLOOR_NEW: Duration = Duration::from_millis(800);

/// What the worker may grow by without any attack: log buffers, the well-behaved client's own connections and the pages that
/// the allocator keeps.
const SLACK: u64 = 8 * 1024 * 1024;

/// How a failure to connect begins.
const CONNECTING: &str = "connecting";

/// A node with one listener to attack.
pub struct Siege {
    /// The namespaces.
    pub stage: Stage,
    /// The product.
    pub product: Product,
    /// Its console.
    pub api: Api,
    /// What the listener's only route leads to.
    pub origin: Origin,
    name: String,
}

/// What was seen of an attack.
#[derive(Debug)]
pub struct Seen {
    kind: String,
    /// On a kept connection, on new ones.
    quiet: [Measured; 2],
    during: [Measured; 2],
    failures: Vec<String>,
    /// The worker's resident memory before the attack, at its peak and afterwards, bytes.
    memory: [u64; 3],
}

/// The 99th percentile (nearest rank) of so many answers.
#[derive(Debug, Clone, Copy)]
struct Measured {
    answers: usize,
    p99: Duration,
}

impl Siege {
    /// Sets everything up; the listener `siege` on [`PORT`] has these limits.
    pub fn new(name: &str, limits: Value) -> Self {
        Self::with_flags(name, limits, &[])
    }

    /// The same, with more of the program's flags.
    pub fn with_flags(name: &str, limits: Value, flags: &[&str]) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = Product::start(&stage.node, stage.name(), None, flags);
        let api = product.ready();
        stage.configure(&product, &api, &[origin.url()]);
        let spec = json!({ "port": PORT, "certificates": ["front"], "limits": limits });
        product.applied(api.apply(&[objects::object("Listener", "siege", spec)]));
        Self { stage, product, api, origin, name: name.to_owned() }
    }

    /// An attacker's way to the listener, from an address that is not the well-behaved client's.
    pub fn dial(&self) -> Dial {
        let mut dial = self.stage.dial().from(FOE4.into());
        dial.target = target4(PORT);
        dial
    }

    /// Refusals for a reason so far.
    pub fn count(&self, reason: &str) -> f64 {
        self.product.metric("sallyport_refusals_total", &format!("reason=\"{reason}\""))
    }

    /// Waits until a reason has been counted `more` times since `before`; panics with the count when it has not.
    pub fn counted(&self, reason: &str, before: f64, more: usize) {
        crate::eventually(&format!("{more} refusals for {reason}"), Duration::from_secs(5), || {
            let counted = self.count(reason) - before;
            if counted >= more as f64 { Ok(()) } else { Err(format!("{counted} counted")) }
        });
    }

    /// Measures the well-behaved client, then again while `attack` runs, which is on a thread among the clients. Gives what the
    /// attack left too.
    pub fn endure<T: Send>(&self, attack: impl FnOnce() -> T + Send) -> (Seen, T) {
        let pid = self.product.pids(Role::Worker).first().copied().expect("a worker");
        let mut polite = self.stage.dial().from(CLIENT4.into());
        polite.target = target4(PORT);
        let client = Polite::start(&self.stage.clients, &polite);
        // The first answers open the origin's connections.
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        std::thread::sleep(QUIET);
        let before = resident(pid, "VmRSS");
        forget_peak(pid);
        let attacked = Instant::now();
        let left = self.stage.clients.inside(attack);
        let ended = Instant::now();
        let peak = resident(pid, "VmHWM");
        let (samples, failures) = client.stop();
        let after = resident(pid, "VmRSS");
        let measured =
            |from, to| [false, true].map(|new| Measured::of(&samples, new, |at| (from..to).contains(&at)));
        let seen = Seen {
            kind: self.name.clone(),
            quiet: measured(began, attacked),
            during: measured(attacked, ended),
            failures,
            memory: [before, peak, after],
        };
        eprintln!("{seen}");
        assert_eq!(self.product.pids(Role::Worker), [pid], "another worker");
        (seen, left)
    }
}

impl Seen {
    /// The well-behaved client was answered every time, and as fast as before.
    pub fn unaffected(&self) -> &Self {
        assert!(self.failures.is_empty(), "{}: {:?}", self.kind, self.failures);
        self.as_fast(&[0, 1])
    }

    /// It was on the connection it had. New ones may have been refused.
    pub fn established_unaffected(&self) -> &Self {
        let asked: Vec<_> = self.failures.iter().filter(|what| !what.starts_with(CONNECTING)).collect();
        assert!(asked.is_empty(), "{}: {asked:?}", self.kind);
        self.as_fast(&[0])
    }

    fn as_fast(&self, which: &[usize]) -> &Self {
        for (quiet, during, floor) in
            which.iter().map(|at| (self.quiet[*at], self.during[*at], [FLOOR, FLOOR_NEW][*at]))
        {
            assert!(during.answers >= 20, "{}: only {} answers under attack", self.kind, during.answers);
            let most = (quiet.p99 * TIMES).max(floor);
            assert!(during.p99 <= most, "{self}: p99 above {most:?}");
        }
        self
    }

    /// The worker grew by no more than `bytes`, beside what it grows by anyhow.
    pub fn grew_at_most(&self, bytes: u64) -> &Self {
        let [before, peak, _] = self.memory;
        let grown = peak.saturating_sub(before);
        assert!(grown <= bytes + SLACK, "{self}: grew by {} KiB, {} allowed", grown >> 10, bytes >> 10);
        self
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |measured: &Measured| measured.p99.as_secs_f64() * 1000.0;
        let mib = self.memory.map(|bytes| bytes as f64 / (1 << 20) as f64);
        write!(
            f,
            "{}: p99 kept {:.1} -> {:.1} ms ({} answers), new {:.1} -> {:.1} ms ({} answers); resident {:.1}, {:.1}, {:.1} MiB",
            self.kind,
            ms(&self.quiet[0]),
            ms(&self.during[0]),
            self.during[0].answers,
            ms(&self.quiet[1]),
            ms(&self.during[1]),
            self.during[1].answers,
            mib[0],
            mib[1],
            mib[2],
        )
    }
}

impl Measured {
    fn of(samples: &[Sample], new: bool, within: impl Fn(Instant) -> bool) -> Self {
        let chosen = samples.iter().filter(|sample| sample.new == new && within(sample.begun));
        let mut times: Vec<Duration> = chosen.map(|sample| sample.took).collect();
        times.sort_unstable();
        let rank = (times.len() * 99).div_ceil(100).saturating_sub(1);
        Self { answers: times.len(), p99: times.get(rank).copied().unwrap_or(Duration::MAX) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    begun: Instant,
    took: Duration,
    new: bool,
}

/// A client that does nothing wrong: a request every 10 ms on a kept connection, and one every 50 ms on a new one.
struct Polite {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    samples: Mutex<Vec<Sample>>,
    failures: Mutex<Vec<String>>,
}

impl Polite {
    fn start(space: &Arc<Space>, dial: &Dial) -> Self {
        let shared = Arc::<Shared>::default();
        let threads = [false, true].map(|new| {
            let (space, dial, shared) = (Arc::clone(space), dial.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                space.enter();
                shared.ask(&dial, new);
            })
        });
        Self { shared, threads: threads.into() }
    }

    fn stop(self) -> (Vec<Sample>, Vec<String>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client"));
        let taken = |list: &Mutex<Vec<_>>| std::mem::take(&mut *list.lock().expect("failures"));
        (std::mem::take(&mut *self.shared.samples.lock().expect("samples")), taken(&self.shared.failures))
    }
}

impl Shared {
    fn ask(&self, dial: &Dial, new: bool) {
        let mut kept = None;
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            match answered(dial, &mut kept) {
                Ok(()) => {
                    let sample = Sample { begun, took: begun.elapsed(), new };
                    self.samples.lock().expect("samples").push(sample);
                }
                Err(what) => {
                    kept = None;
                    self.failures.lock().expect("failures").push(what);
                }
            }
            if new {
                kept = None;
            }
            std::thread::sleep(Duration::from_millis(if new { 50 } else { 10 }));
        }
    }
}

/// One right answer, on the connection that was kept or else on a new one.
fn answered(dial: &Dial, kept: &mut Option<Connection>) -> Result<(), String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => dial.open().map_err(|error| format!("{CONNECTING}: {error}"))?,
    };
    let answer = connection.get(HOST, "/").map_err(|error| format!("asking: {error}"))?;
    if answer.status != 200 || !answer.body.starts_with(b"hello from ") {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    *kept = Some(connection).filter(|_| !answer.closes());
    Ok(())
}

/// A line of a process's memory, bytes.
fn resident(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the worker's status");
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = found.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("kilobytes") * 1024
}

/// Lets the peak begin at what is resident now.
fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the worker's peak");
}

/// Runs `attackers` threads, which each open and keep their share of `connections`.
pub fn attackers(space: &Space, attackers: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for index in 0..attackers {
            let work = &work;
            scope.spawn(move || {
                space.enter();
                work(index);
            });
        }
    });
}
