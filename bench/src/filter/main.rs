//! Sallyport's packet filter beside nftables with the same sets, and beside no filter, in one interleaved run.
//!
//! The figure is CPU time for each packet that an interface receives: all of it is spent in one kernel thread ([`wire`]),
//! which the scheduler counts. [`generator`] sends live frames, [`variants`] filter them, [`updates`] times changes of the
//! rules. Every measurement is checked by counters of the kernel: what was to be dropped did not reach the socket, what
//! was to pass did.
#![expect(clippy::print_stdout, reason = "a command's answer")]

mod generator;
mod report;
mod sys;
mod updates;
mod variants;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rustix::thread::CpuSet;

use crate::generator::{Family, Generator, Sources};
use crate::report::{Row, Sample};
use crate::variants::{InForce, Variant};
use crate::wire::Wire;

/// Any failure ends the run: a benchmark with a broken part has no result.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures what a dropped and a passed packet cost: Sallyport, nftables, no filter.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Numbers of prefixes, each from 1 to 1,000,000.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 100_000], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prefixes: Vec<u32>,
    /// Rounds; each measures everyone once, the median of all counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of each measurement, after a quarter of it to warm up.
    #[arg(long, default_value_t = 400)]
    milliseconds: u64,
    /// Scratch: the files that nft reads.
    #[arg(long, default_value = "target/bench-filter")]
    work_dir: PathBuf,
    /// Writes the result as a page, such as docs/benchmarks-filter.md.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut set = CpuSet::new();
    set.set(wire::GENERATOR_CORE);
    rustix::thread::sched_setaffinity(None, &set)?;
    wire::prefer(None)?;
    std::fs::create_dir_all(&arguments.work_dir)?;
    let wire = Wire::new()?;
    let mut rows = Vec::new();
    for family in Family::ALL {
        for count in &arguments.prefixes {
            rows.extend(measure(&arguments, &wire, family, *count)?);
        }
    }
    let changes = updates::measure(&wire, &arguments.work_dir, arguments.rounds)?;
    drop(wire);
    let text = report::render(&rows, &changes);
    println!("{text}");
    if let Some(path) = &arguments.write {
        let used = format!("{} rounds of {} ms", arguments.rounds, arguments.milliseconds);
        std::fs::write(path, report::page(&text, &used))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

/// Interleaves: everyone is measured once before anyone is measured again, so that a slow minute hits all.
fn measure(arguments: &Arguments, wire: &Wire, family: Family, count: u32) -> Result<[Row; 2]> {
    let [listed, unlisted] = [Sources::Listed, Sources::Unlisted];
    let generators =
        [Generator::new(wire, family, listed, count)?, Generator::new(wire, family, unlisted, count)?];
    let mut rows = [listed, unlisted].map(|sources| Row::new(family, count, sources));
    for round in 0..arguments.rounds {
        // Another one begins each time, so that nobody always follows the same neighbour.
        for offset in 0..Variant::ALL.len() {
            let Some(variant) = Variant::ALL.get((round + offset) % Variant::ALL.len()).copied() else {
                continue;
            };
            let _in_force = InForce::new(wire, &arguments.work_dir, variant, family, count)
                .map_err(|error| format!("{}: {error}", variant.name()))?;
            for (row, generator) in rows.iter_mut().zip(&generators) {
                if !row.has(variant) {
                    continue;
                }
                let sample = one(arguments, wire, family, generator)?;
                let title = format!("{}, {}", row.title(), variant.name());
                check(row.sources, sample).map_err(|error| format!("{title}: {error}"))?;
                println!("round {} {title}: {}", round + 1, sample.describe());
                row.push(variant, sample);
            }
        }
    }
    Ok(rows)
}

fn one(arguments: &Arguments, wire: &Wire, family: Family, generator: &Generator) -> Result<Sample> {
    let receiver = wire.receiver()?;
    let time = Duration::from_millis(arguments.milliseconds);
    wire.generator(|| generator.send(time / 4))?;
    let before = wire.counts(receiver, family)?;
    let begin = std::time::Instant::now();
    wire.generator(|| generator.send(time))?;
    let wall = begin.elapsed();
    let counts = wire.counts(receiver, family)?.since(&before);
    Ok(Sample { spent: counts.spent, received: counts.received, passed: counts.passed, wall })
}

/// The kernel's counters must agree with the verdict. A packet in a thousand may be something else: neighbours ask.
fn check(sources: Sources, sample: Sample) -> Result<()> {
    let Sample { received, passed, .. } = sample;
    if received < 10_000 {
        return Err(format!("only {received} packets arrived").into());
    }
    let (what, wrong) = match sources {
        Sources::Listed => ("passed", passed),
        Sources::Unlisted => ("did not reach the socket", received.abs_diff(passed)),
    };
    match wrong > received / 1000 {
        true => Err(format!("{wrong} of {received} packets {what}").into()),
        false => Ok(()),
    }
}
