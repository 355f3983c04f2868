//! Figures to text.

use std::fmt::Write;
use std::time::Duration;

use crate::workload::Workload;

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// The proxy's CPU time over what its quota allowed.
    pub(crate) busy: f64,
}

impl Round {
    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.requests as f64 / self.cpu.as_secs_f64()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }
}

/// All measurements of one workload: by peer, then by round.
pub(crate) struct Series {
    pub(crate) title: String,
    pub(crate) workload: Workload,
    pub(crate) rounds: Vec<Vec<Round>>,
}

/// What idle connections cost, by peer.
pub(crate) struct Memory {
    pub(crate) connections: usize,
    /// Bytes for each connection.
    pub(crate) bytes: Vec<f64>,
}

/// A peer's name and version.
type Named = (&'static str, String);

/// Median, lowest, highest.
struct Spread(f64, f64, f64);

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (last, half) = (values.len().saturating_sub(1), values.len() / 2);
        let median = if values.len() % 2 == 1 {
            at(half)
        } else {
            f64::midpoint(at(half.saturating_sub(1)), at(half))
        };
        Self(median, at(0), at(last))
    }
}

/// The tables: one block a workload, one row a peer, ratios of the first peer to each other round by round.
pub(crate) fn render(series: &[Series], memory: &[Memory], peers: &[Named], quota: String) -> String {
    let mut text = String::from(
        "\n| workload | proxy | requests per proxy-CPU-second (lowest to highest) | first row's ratio to it (lowest to highest) |\n|---|---|---|---|\n",
    );
    for one in series {
        for (at, (peer, _)) in peers.iter().enumerate() {
            let Some((rounds, first)) = one.rounds.get(at).zip(one.rounds.first()) else { continue };
            let Spread(median, low, high) = Spread::of(rounds.iter().map(Round::per_cpu_second).collect());
            let ratio = match at {
                0 => String::new(),
                _ => {
                    let ratios = first
                        .iter()
                        .zip(rounds)
                        .map(|(ours, theirs)| ours.per_cpu_second() / theirs.per_cpu_second());
                    let Spread(median, low, high) = Spread::of(ratios.collect());
                    format!("{median:.2} ({low:.2} to {high:.2})")
                }
            };
            let title = if at == 0 { one.title.as_str() } else { "" };
            let _ = writeln!(text, "| {title} | {peer} | {median:.0} ({low:.0} to {high:.0}) | {ratio} |");
        }
    }
    render_memory(&mut text, memory, peers);
    let idle: Vec<_> = series
        .iter()
        .flat_map(|one| one.rounds.iter().zip(peers).map(move |(rounds, peer)| (one, peer, rounds)))
        .filter(|(_, _, rounds)| rounds.iter().any(|round| round.busy < 0.85))
        .map(|(one, (peer, _), _)| format!("{peer} at {}", one.workload.name))
        .collect();
    let versions = peers.iter().map(|(peer, version)| format!("{peer} ({version})")).collect::<Vec<_>>();
    let _ = writeln!(text, "\nRan: {}.", versions.join("; "));
    let _ = writeln!(text, "{quota}; {}.", machine());
    if !idle.is_empty() {
        let _ = writeln!(
            text,
            "Not the bottleneck in every round (under 85 % of the quota): {}.",
            idle.join(", ")
        );
    }
    text
}

fn render_memory(text: &mut String, memory: &[Memory], peers: &[Named]) {
    if memory.is_empty() {
        return;
    }
    text.push_str(
        "\n| idle connections | proxy | bytes of memory for each | its ratio to the first row's |\n|---|---|---|---|\n",
    );
    for one in memory {
        let first = one.bytes.first().copied().unwrap_or(f64::NAN);
        for (at, ((peer, _), bytes)) in peers.iter().zip(&one.bytes).enumerate() {
            let (title, ratio) = match at {
                0 => (one.connections.to_string(), String::new()),
                _ => (String::new(), format!("{:.2}", bytes / first)),
            };
            let _ = writeln!(text, "| {title} | {peer} | {bytes:.0} | {ratio} |");
        }
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, Linux {}", model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

/// The page for the documentation.
pub(crate) fn page(table: &str, used: &str) -> String {
    format!("{}{table}\nMedian of {used}.\n{}", include_str!("page_head.md"), include_str!("page_tail.md"))
}
