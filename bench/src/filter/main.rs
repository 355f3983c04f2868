//! Sallyport's packet filter beside nftables with the same sets, and beside no filter, in one interleaved run.
//!
//! The figure is CPU time for each packet that an interface receives. [`generator`] makes packets as live frames, [`variants`]
//! filter them, [`wire`] has the interface and the sockets, and all of that happens in one thread, whose time the scheduler
//! counts; [`updates`] times changes of the rules. Every measurement is checked by counters of the kernel: what was to be
//! dropped did not reach the socket, what was to pass did.
#![expect(clippy::print_stdout, reason = "a command's answer")]

mod generator;
mod read;
mod report;
mod sys;
mod updates;
mod variants;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::thread::CpuSet;

use crate::generator::{Family, Generator, Lie, List, Says, Sources};
use crate::report::{Fate, Row, Sample};
use crate::variants::{InForce, Variant};
use crate::wire::{Socket, Wire};

/// Any failure ends the run: a benchmark with a broken part has no result.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures what a dropped and a passed packet cost: Sallyport, nftables, no filter.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Numbers of prefixes, each from 1 to 1,000,000; with -apart, to 100,000, all over the address space.
    #[arg(long, value_delimiter = ',', default_values = ["10", "1000", "100000", "100000-apart"], value_parser = List::parse)]
    prefixes: Vec<(u32, Lie)>,
    /// Rounds; each measures everyone once, the median of all counts.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Milliseconds of each measurement, after half of it to warm up.
    #[arg(long, default_value_t = 30)]
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
    set.set(wire::CORE);
    rustix::thread::sched_setaffinity(None, &set)?;
    wire::prefer()?;
    std::fs::create_dir_all(&arguments.work_dir)?;
    let wires = Variant::STANDS.into_iter().map(|variant| Ok((variant, Wire::new(variant.label())?)));
    let wires: Vec<(Variant, Wire)> = wires.collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for family in Family::ALL {
        for (count, lie) in &arguments.prefixes {
            let list = List { family, count: *count, lie: *lie };
            rows.extend(measure(&arguments, &wires, list)?);
        }
    }
    drop(wires);
    let changes = updates::measure(&Wire::new("updates")?, &arguments.work_dir)?;
    let text = report::render(&rows, &changes);
    println!("{text}");
    if let Some(path) = &arguments.write {
        let used = format!(
            "{} rounds of {} ms; of changes, of {} and {}",
            arguments.rounds,
            arguments.milliseconds,
            updates::ROUNDS,
            2 * updates::ROUNDS
        );
        std::fs::write(path, report::page(&text, &used))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

/// Rounds until everyone is set up anew: where memory happens to lie is nobody's luck for long.
pub(crate) const STANDING: usize = 4;
/// Packets of a call.
const CALL: u32 = 1 << 16;

/// Who filters, on a wire of its own, and who makes the packets of each row in which it takes part.
struct Stand<'a> {
    wire: &'a Wire,
    generators: Vec<(Fate, Variant, Generator)>,
    _in_force: InForce<'a>,
}

impl<'a> Stand<'a> {
    fn new(
        arguments: &Arguments,
        (variant, wire): &'a (Variant, Wire),
        rows: &[Row],
        list: List,
    ) -> Result<Self> {
        let in_force = InForce::new(wire, &arguments.work_dir, *variant, list)
            .map_err(|error| format!("{}: {error}", variant.name()))?;
        let mut generators = Vec::new();
        for row in rows {
            for one in variant.measured().iter().filter(|one| row.has(**one)) {
                let generator = generator(row.fate, *one, list)?;
                // The same packets on the same wire, which go on without the filter.
                generator.go_on_with(in_force.filter().filter(|_| *one != Variant::Nothing))?;
                generators.push((row.fate, *one, generator));
            }
        }
        Ok(Self { wire, generators, _in_force: in_force })
    }
}

/// Interleaves: everyone stands beside everyone else, and is measured once before anyone is measured again, so that a slow
/// moment hits all.
fn measure(arguments: &Arguments, wires: &[(Variant, Wire)], list: List) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Fate::ALL.into_iter().map(|fate| Row::new(list, fate)).collect();
    let mut stands = Vec::new();
    for round in 0..arguments.rounds {
        if round.is_multiple_of(STANDING) {
            stands.clear();
            let anew = wires.iter().map(|wire| Stand::new(arguments, wire, &rows, list));
            stands = anew.collect::<Result<Vec<Stand<'_>>>>()?;
        }
        for row in &mut rows {
            let fate = row.fate;
            let all =
                stands.iter().flat_map(|stand| stand.generators.iter().map(move |one| (stand.wire, one)));
            let mut turns: Vec<_> = all.filter(|(_, (one, ..))| *one == fate).collect();
            // Another one begins each time, and goes before or behind each of its neighbours.
            let first = round % turns.len();
            turns.rotate_left(first);
            if round.is_multiple_of(2) {
                turns.reverse();
            }
            for (wire, (_, variant, generator)) in turns {
                let sample = wire
                    .node(|| one(arguments, wire, generator, (list.family, fate)))
                    .map_err(|error| format!("{}, {}: {error}", row.title(), variant.name()))?;
                row.push(*variant, sample);
            }
        }
    }
    rows.iter().for_each(|row| println!("{}", row.describe()));
    Ok(rows)
}

fn generator(fate: Fate, variant: Variant, list: List) -> Result<Generator> {
    let says = if variant == Variant::Generator { Says::Drop } else { Says::Pass };
    let (sources, socket) = match fate {
        Fate::Dropped => (Sources::Listed, Socket::Full),
        Fate::Read => (Sources::Unlisted, Socket::Read),
        Fate::Full => (Sources::Unlisted, Socket::Full),
    };
    Generator::new(list, sources, (socket, says))
}

/// Measures in this thread and its reader, in the node's network namespace.
fn one(
    arguments: &Arguments,
    wire: &Wire,
    generator: &Generator,
    (family, fate): (Family, Fate),
) -> Result<Sample> {
    let time = Duration::from_millis(arguments.milliseconds);
    let run = |time: Duration| -> Result<(u64, Duration)> {
        let (begin, before, mut made) = (Instant::now(), sys::spent()?, 0);
        while begin.elapsed() < time {
            generator.send(wire.index, CALL)?;
            made += u64::from(CALL);
        }
        Ok((made, sys::spent()?.saturating_sub(before)))
    };
    let both = |passed: &dyn Fn() -> Result<u64>| -> Result<Sample> {
        run(time / 2)?;
        let before = passed()?;
        let (made, spent) = run(time)?;
        check(fate, made, passed()? - before)?;
        Ok(Sample { spent, made })
    };
    match fate {
        Fate::Read => {
            read::while_read(wire.socket(family), |read| both(&|| Ok(read.load(Ordering::Relaxed))))
        }
        Fate::Dropped | Fate::Full => both(&|| wire::passed(family)),
    }
}

/// The counters must agree with the verdict: the reader's, or the kernel's. A packet in a thousand may be something else: neighbours
/// ask.
fn check(fate: Fate, made: u64, passed: u64) -> Result<()> {
    let (what, wrong) = match fate {
        Fate::Dropped => ("passed", passed),
        Fate::Read | Fate::Full => ("did not reach the socket", made.abs_diff(passed)),
    };
    match wrong > made / 1000 {
        true => Err(format!("{wrong} of {made} packets {what}").into()),
        false => Ok(()),
    }
}
