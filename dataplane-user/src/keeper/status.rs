//! `status.json`: what `sallyport-node status` prints.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::name::Name;
use model::report::{Feature, LeftOut, ListenerReport, Overload};
use model::snapshot::SnapshotId;
use serde::{Deserialize, Serialize};

pub use super::back::TrialStatus;
use super::filter::KERNEL_TABLES;
use super::kernel::{Config, pins};
use super::run::Keeper;
use super::supervise::{Phase, Worker};
use crate::handover::ToWorker;
use crate::handover::message::ConsoleState;

/// The file's name in the run directory.
pub const FILE: &str = "status.json";

/// A file older than this is not what is going on.
pub const STALE: Duration = Duration::from_secs(15);

/// How often the file is written when nothing changes.
const REFRESH_MS: i64 = 3000;

/// How often a node that is not enrolled looks for a token, seconds.
const TOKEN_TICKS: u64 = 2;

/// How often listeners that cannot open are tried again, seconds.
const RETRY_TICKS: u64 = 5;

/// A node's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// When this was written, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The release.
    pub version: String,
    /// The node's name, once it was enrolled.
    pub node: Option<Name>,
    /// The instance (`--instance`).
    pub instance: String,
    /// The keeper's process id.
    pub keeper: u32,
    /// The process id of the worker that accepts connections.
    pub worker: Option<u32>,
    /// Workers that finish what is open.
    pub draining: Vec<u32>,
    /// Every worker.
    #[serde(default)]
    pub workers: Vec<WorkerStatus>,
    /// Worker threads.
    pub threads: usize,
    /// Open client connections.
    pub connections: u32,
    /// What is refused for too much to do; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// The snapshot in force.
    pub applied: Option<SnapshotId>,
    /// It waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
    /// The last snapshot that was refused since one was applied.
    pub refused: Option<Refused>,
    /// The link to the console.
    pub console: ConsoleState,
    /// The operator drained the node.
    pub drained: bool,
    /// What is in use and why the rest is not.
    pub features: Vec<Feature>,
    /// Where connections are accepted.
    pub listeners: Vec<ListenerReport>,
    /// What the node has pinned below `/sys/fs/bpf`.
    pub pins: Vec<String>,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerStatus {
    /// Its process id.
    pub pid: u32,
    /// Its release, once it has said so.
    pub release: String,
    /// The protocol between it and the keeper; 0 before it has said a word.
    pub protocol: u32,
    /// What it does.
    pub phase: Phase,
    /// Its open client connections.
    pub connections: u32,
    /// How long a draining worker has at most, seconds.
    pub seconds_left: Option<u64>,
}

/// A snapshot that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refused {
    /// Which, where that much could be read.
    pub id: Option<SnapshotId>,
    /// Why, one sentence.
    pub reason: String,
}

impl Status {
    /// For people, and so for terminals. Much of it are a worker's words, which is not believed: none of them says anything to
    /// the terminal itself.
    pub fn words(&self) -> String {
        let visible = |line: String| line.chars().filter(|c| !c.is_control()).collect::<String>() + "\n";
        self.lines().into_iter().map(visible).collect()
    }

    /// What to say of a status as old as this, which is more than [`STALE`]: its keeper has ended, or is there and does not get to
    /// write another.
    pub fn silence(&self, age: Duration) -> String {
        let (keeper, seconds) = (self.keeper, age.as_secs());
        match is_keeper(keeper) {
            true => format!(
                "this was {seconds} s ago: the keeper (process {keeper}) is there and has not answered for {seconds} s; it was stopped, or waits for a processor or the disk"
            ),
            false => format!("this was {seconds} s ago; the keeper does not run any more"),
        }
    }

    fn lines(&self) -> Vec<String> {
        let node = self.node.as_ref().map_or("not enrolled", Name::as_str);
        let worker =
            self.worker.map_or("none".to_owned(), |pid| format!("process {pid}, {} threads", self.threads));
        let applied = self
            .applied
            .map_or("nothing yet".to_owned(), |id| format!("revision {} (epoch {})", id.revision, id.epoch));
        let console = match (&self.console.connected, &self.console.problem) {
            (true, _) => "connected".to_owned(),
            (false, Some(problem)) => problem.clone(),
            (false, None) => "connecting".to_owned(),
        };
        let mut lines = vec![
            format!("node      {node} ({}), release {}", self.instance, self.version),
            format!("keeper    process {}", self.keeper),
            format!("worker    {worker}, {} connections", self.connections),
            format!("console   {console}"),
            format!(
                "in force  {applied}{}{}",
                self.trial.as_ref().map_or(String::new(), TrialStatus::words),
                if self.drained { ", drained by the operator" } else { "" }
            ),
        ];
        for worker in self.workers.iter().filter(|worker| Some(worker.pid) != self.worker) {
            let WorkerStatus { pid, release, connections, .. } = worker;
            let left = worker.seconds_left.map_or(String::new(), |left| format!(", {left} seconds at most"));
            lines.push(match worker.phase {
                Phase::Draining => {
                    format!("finishing process {pid}, release {release}, {connections} connections{left}")
                }
                Phase::Connected | Phase::Starting | Phase::Serving => {
                    format!("starting  process {pid}, release {release}")
                }
            });
        }
        if let Some(Refused { id, reason }) = &self.refused {
            let which =
                id.map_or(String::new(), |id| format!("revision {} (epoch {}): ", id.revision, id.epoch));
            lines.push(format!("refused   {which}{reason}"));
        }
        lines.extend(self.overload.iter().map(|overload| format!("overload  {}", overload.sentence())));
        for listener in &self.listeners {
            let addresses = listener.addresses.iter().map(ToString::to_string);
            let places: Vec<String> =
                addresses.chain(listener.ranges.iter().map(ToString::to_string)).collect();
            let places = if places.is_empty() { "no address".to_owned() } else { places.join(", ") };
            let problem = listener.problem.as_ref().map_or(String::new(), |problem| format!(" - {problem}"));
            lines.push(format!("listener  {} on {places} ({}){problem}", listener.listener, listener.mode));
            let left_out = |left: &LeftOut| format!("left out  {}: {left}", listener.listener);
            lines.extend(listener.left_out.iter().map(left_out));
        }
        for feature in &self.features {
            let on = if feature.on { "on" } else { "off" };
            lines.push(format!("feature   {} {on}: {}", feature.name, feature.detail));
        }
        lines.extend(self.pins.iter().map(|pin| format!("pin       {pin}")));
        lines
    }
}

impl Keeper {
    /// Once a second, which is [`FIGURES_EVERY`](crate::handover::message::FIGURES_EVERY).
    pub(super) async fn tick(&mut self) {
        self.check_transition();
        self.check_trial().await;
        self.check_launches().await;
        self.check_time().await;
        self.kernel.look();
        let drops = self.kernel.take_drops();
        match drops {
            Ok(drops) => self.drops.extend(drops),
            Err(error) => tracing::debug!(%error, "kernel counters"),
        }
        if self.settings.kernel && self.ticks.is_multiple_of(RETRY_TICKS) {
            self.look_up_pins();
        }
        if self.ticks.is_multiple_of(TOKEN_TICKS) {
            self.look_for_token();
        }
        self.ticks += 1;
        self.follow_addresses();
        self.follow_busy_ports();
        self.follow_access_log().await;
        self.follow_senders().await;
        let Some(number) = self.current else { return };
        let calm = self.transition.is_none() && self.returning.is_none() && self.upgrade.is_none();
        if calm && !self.problems.is_empty() && self.ticks.is_multiple_of(RETRY_TICKS) {
            let ids = self.open_sockets();
            self.give_sockets(number, &ids).await;
            self.enter_filter();
        } else if calm
            && self.shortcomings.contains_key(KERNEL_TABLES)
            && self.ticks.is_multiple_of(RETRY_TICKS)
        {
            self.enter_filter();
        }
        let drops = std::mem::take(&mut self.drops);
        let (features, listeners) = (self.features(), self.listeners());
        // A worker of the release before ends the connection over a field that it does not know.
        let knows = self.workers.get(&number).is_some_and(|worker| worker.version >= 7);
        let syn_pressure = self.kernel.syn_pressure();
        let filters = if knows { self.kernel.filters() } else { Vec::new() };
        let figures = ToWorker::Figures { drops, features, listeners, syn_pressure, filters };
        self.say(number, &figures, &[]).await;
    }

    fn listeners(&self) -> Vec<ListenerReport> {
        let Some(snapshot) = &self.in_force else { return Vec::new() };
        let mut listeners = self.sockets.report(snapshot, &self.problems, &self.busy);
        if let Some(why) = self.kernel.steering_gone() {
            refuse(&mut listeners, why);
        }
        listeners
    }

    /// Writes `status.json` when it says something new, or has not been written for a while.
    pub(super) fn write_status(&mut self) {
        let status = self.status();
        let unchanged = |last: &Status| {
            status.at_ms - last.at_ms < REFRESH_MS && Status { at_ms: status.at_ms, ..last.clone() } == status
        };
        if self.last_status.as_ref().is_some_and(unchanged) {
            return;
        }
        let written = serde_json::to_vec_pretty(&status).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|json| self.run.write_volatile(FILE, &json, 0o644)) {
            tracing::warn!(%error, "status.json cannot be written");
        }
        self.last_status = Some(status);
    }

    /// Looks up what `detach` would remove.
    fn look_up_pins(&mut self) {
        let found = pins(Path::new(Config::PIN_ROOT), &self.settings.instance).unwrap_or_default();
        self.pins = found.into_iter().map(|pin| pin.path.display().to_string()).collect();
    }

    fn status(&self) -> Status {
        let draining = self.workers.values().filter(|worker| worker.phase == Phase::Draining);
        let current = self.current.and_then(|number| self.workers.get(&number));
        Status {
            at_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.state.identity().map(|identity| identity.node.clone()),
            instance: self.settings.instance.clone(),
            keeper: std::process::id(),
            worker: current.map(|worker| worker.pid),
            draining: draining.map(|worker| worker.pid).collect(),
            workers: self.workers.values().map(worker_status).collect(),
            threads: self.sockets.threads(),
            connections: self.connections,
            overload: current.and_then(|worker| worker.overload.clone()),
            applied: self.in_force.as_ref().map(|snapshot| snapshot.id),
            trial: self.state.trial().map(TrialStatus::of),
            refused: self.refused.clone(),
            console: self.console.clone(),
            drained: self.drained,
            features: self.features(),
            listeners: self.listeners(),
            pins: self.pins.clone(),
        }
    }
}

/// Whether a process is a keeper, of whatever release: when one has ended another process may be given its number. What a process
/// was started with anybody may read; the keeper's locks and sockets are for its own user.
fn is_keeper(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"run")
}

fn worker_status(worker: &Worker) -> WorkerStatus {
    let left = |until: tokio::time::Instant| until.saturating_duration_since(tokio::time::Instant::now());
    WorkerStatus {
        pid: worker.pid,
        release: worker.release.clone(),
        protocol: worker.version,
        phase: worker.phase,
        connections: worker.connections,
        // Rounded, so that the file is not written anew every second for it.
        seconds_left: worker.until.map(|until| left(until).as_secs().next_multiple_of(5)),
    }
}

/// The wall clock, milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Listeners accept no more, for nobody steers connections to them. What did not accept before has its own reason still.
fn refuse(listeners: &mut [ListenerReport], why: &str) {
    for listener in listeners.iter_mut().filter(|one| !(one.addresses.is_empty() && one.ranges.is_empty())) {
        listener.addresses.clear();
        listener.ranges.clear();
        listener.problem = Some(format!("steering is off, so every connection is refused: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_steering_a_listener_that_accepted_says_so_and_another_keeps_its_reason() {
        let report = |addresses: &[&str], problem: Option<&str>| ListenerReport {
            listener: "https".parse().unwrap(),
            mode: "steered".to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ranges: Vec::new(),
            left_out: Vec::new(),
            connections: 0,
            problem: problem.map(str::to_owned),
        };
        let mut listeners =
            [report(&["0.0.0.0:443", "[::]:443"], Some("left out")), report(&[], Some("port taken"))];
        refuse(&mut listeners, "gone");
        assert!(listeners.iter().all(|listener| listener.addresses.is_empty()));
        let said: Vec<&str> = listeners.iter().filter_map(|listener| listener.problem.as_deref()).collect();
        assert_eq!(said, ["steering is off, so every connection is refused: gone", "port taken"]);
    }

    fn status(keeper: u32, said: String) -> Status {
        Status {
            at_ms: 0,
            version: "0.1.0".to_owned(),
            node: None,
            instance: "default".to_owned(),
            keeper,
            worker: None,
            draining: Vec::new(),
            workers: Vec::new(),
            threads: 1,
            connections: 0,
            overload: Some(Overload { connections: 2, requests: 1, why: said.clone() }),
            applied: None,
            trial: None,
            refused: Some(Refused { id: None, reason: said.clone() }),
            console: ConsoleState { problem: Some(said.clone()), ..ConsoleState::default() },
            drained: false,
            features: vec![Feature { name: "seccomp".to_owned(), on: true, detail: said }],
            listeners: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// Only whose process is gone has ended, and another process of the same number is no keeper.
    #[test]
    fn an_old_status_tells_a_dead_keeper_from_a_silent_one() {
        let said = |pid| status(pid, String::new()).silence(Duration::from_secs(20));
        let stranger = said(std::process::id());
        assert_eq!(stranger, "this was 20 s ago; the keeper does not run any more");
        // What has ended and was not collected yet has no command line.
        let mut ended = std::process::Command::new("true").arg("run").spawn().unwrap();
        rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&ended)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert_eq!(said(ended.id()), stranger);
        ended.wait().unwrap();
        assert_eq!(said(ended.id()), stranger);
    }

    #[test]
    fn a_workers_words_say_nothing_to_a_terminal() {
        let said = "\u{1b}]0;title\u{7}\u{9b}2Jfine\nkeeper    process 1".to_owned();
        let status = status(7, said);
        let words = status.words();
        assert_eq!(words.lines().count(), 8, "{words:?}");
        assert!(words.chars().all(|c| c == '\n' || !c.is_control()), "{words:?}");
        let overload =
            "overload  new connections are refused by 2 threads and new requests by 1: ]0;title2Jfine";
        assert!(words.contains(overload), "{words:?}");
        assert!(words.contains("refused   ]0;title2Jfinekeeper    process 1\n"), "{words:?}");
    }
}
