//! How long a change of the rules takes.

use std::path::Path;
use std::time::{Duration, Instant};

use sallyport_node::keeper::kernel::Kernel;

use crate::Result;
use crate::generator::{Family, Lie, List};
use crate::variants::{Nft, Node, rule};
use crate::wire::Wire;

/// How many prefixes are in force.
pub(crate) const MANY: u32 = 100_000;
/// Times that all prefixes are replaced; one comes or goes twice as often.
pub(crate) const ROUNDS: usize = 9;

/// The times of one kind of change, round by round.
pub(crate) struct Change {
    pub(crate) title: String,
    pub(crate) times: Vec<Duration>,
}

/// Replaces all prefixes by others, and adds and removes one, by Sallyport and by nft.
pub(crate) fn measure(wire: &Wire, work: &Path) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for family in Family::ALL {
        let list = List { family, count: MANY, lie: Lie::Close };
        changes.extend(sallyport(wire, list)?);
        changes.extend(nft(wire, work, list)?);
    }
    Ok(changes)
}

fn sallyport(wire: &Wire, list: List) -> Result<[Change; 6]> {
    let mut node = Node::open(wire)?;
    let changed = |what: &str| Change { title: format!("{}: {what}", list.family.name()), times: Vec::new() };
    let mut changes = [
        changed("100,000 prefixes replaced, Sallyport: rules to tables"),
        changed("100,000 prefixes replaced, Sallyport: tables into the kernel, one generation"),
        changed("100,000 prefixes replaced, Sallyport: both"),
        changed("one prefix more or less among 100,000, Sallyport: rules to tables"),
        changed("one prefix more or less among 100,000, Sallyport: into the kernel, in place"),
        changed("one prefix more or less among 100,000, Sallyport: both"),
    ];
    let [compile_all, apply_all, all, compile_one, apply_one, one] = &mut changes;
    for round in 0..=ROUNDS as u32 {
        let first = round % 2 * MANY;
        let (compile, apply) = change(wire, &mut node, list, first..first + MANY, 1)?;
        // The first fills empty tables.
        if round > 0 {
            compile_all.times.push(compile);
            apply_all.times.push(apply);
            all.times.push(compile + apply);
        }
    }
    let first = ROUNDS as u32 % 2 * MANY;
    for round in 0..ROUNDS as u32 * 2 {
        let last = first + MANY + (round + 1) % 2;
        let (compile, apply) = change(wire, &mut node, list, first..last, 0)?;
        compile_one.times.push(compile);
        apply_one.times.push(apply);
        one.times.push(compile + apply);
    }
    Ok(changes)
}

/// One change, which must make that many generations.
fn change(
    wire: &Wire,
    node: &mut Node,
    list: List,
    numbers: std::ops::Range<u32>,
    generations: u32,
) -> Result<(Duration, Duration)> {
    let rule = rule(list, numbers)?;
    let begin = Instant::now();
    let plan = node.plan(wire, rule, &[])?;
    let compiled = begin.elapsed();
    let (begin, before) = (Instant::now(), node.linux.generations());
    node.linux.apply(&plan)?;
    let applied = begin.elapsed();
    match node.linux.generations() - before {
        made if made == generations => Ok((compiled, applied)),
        made => Err(format!("{made} generations for a change that makes {generations}").into()),
    }
}

fn nft(wire: &Wire, work: &Path, list: List) -> Result<[Change; 2]> {
    let hook = "type filter hook prerouting priority raw";
    let nft = Nft::load(wire, work, "inet", hook, list)?;
    let timed = |text: String| -> Result<Duration> {
        let begin = Instant::now();
        nft.run(&text)?;
        Ok(begin.elapsed())
    };
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS as u32 {
        let first = round % 2 * MANY;
        let elements = nft.elements("add", list, first..first + MANY);
        all.push(timed(format!("flush set inet bench listed\n{elements}"))?);
    }
    for round in 0..ROUNDS * 2 {
        let verb = if round % 2 == 0 { "add" } else { "delete" };
        one.push(timed(nft.elements(verb, list, std::iter::once(2 * MANY)))?);
    }
    let title = |what: &str| format!("{}: {what}", list.family.name());
    Ok([
        Change { title: title("100,000 prefixes replaced, `nft -f`, one transaction"), times: all },
        Change { title: title("one prefix more or less among 100,000, `nft -f`"), times: one },
    ])
}
