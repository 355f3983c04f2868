//! Random frames through the kernel and through the pure decision.

use std::collections::BTreeMap;
use std::thread;

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use dataplane_ebpf::decide::{Decision, Looped, decide};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::{RuleReason, maps};
use sallyport_node::keeper::kernel::{Filter, Linux, PlanTables};
use sallyport_node::keeper::plan::KernelPlan;

use super::corpus::{Counts, XDP_DROP, corpus};
use super::random::Random;
use super::{Bpffs, Port, structure};

/// The families by which [`Seen`] is ordered.
pub(crate) const FAMILIES: [&str; 3] = ["neither family", "IPv4", "IPv6"];

/// How many packets had which reason, and which rule for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) reasons: BTreeMap<Reason, u64>,
    pub(crate) rules: BTreeMap<RuleReason, u64>,
}

impl Seen {
    fn add(&mut self, Decision { reason, rule, .. }: Decision) {
        *self.reasons.entry(reason).or_default() += 1;
        if rule != 0 {
            *self.rules.entry(RuleReason { rule, reason: reason.number() }).or_default() += 1;
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        other.reasons.iter().for_each(|(key, count)| *self.reasons.entry(*key).or_default() += count);
        other.rules.iter().for_each(|(key, count)| *self.rules.entry(*key).or_default() += count);
    }

    /// Packets of which a rule was blamed for this reason.
    pub(crate) fn blamed(&self, reason: Reason) -> u64 {
        self.rules.iter().filter(|(key, _)| key.reason == reason.number()).map(|(_, count)| count).sum()
    }
}

/// Runs this many frames, made from the seed, by one plan that is in force: each must have the decision's verdict, and all of a family
/// together its reasons and its rules. Gives by family how many had which.
pub(crate) fn fuzz(bpffs: &Bpffs, kernel: &Linux, plan: &KernelPlan, seed: u64, frames: usize) -> [Seen; 3] {
    let mut random = Random::new(seed);
    let seeds = [corpus().into_iter().map(|(_, frame, _)| frame).collect(), structure::frames()];
    let mut families = [const { Vec::new() }; 3];
    // Each as it is, too: of what is changed little is whole.
    let mut whole = seeds.iter().flatten();
    for _ in 0..frames {
        let bytes = whole.next().cloned().unwrap_or_else(|| mutated(&mut random, &seeds));
        let looped = random.below(4) == 0;
        families[family(&bytes)].push(Frame { looped, bytes });
    }
    let batch = Batch { bpffs, kernel, plan, port: bpffs.port(), seed };
    [0, 1, 2].map(|family| batch.agrees(FAMILIES[family], &families[family]))
}

struct Frame {
    looped: bool,
    bytes: Vec<u8>,
}

/// Where a frame's sums belong: as far as its types say, whatever comes of it.
fn family(frame: &[u8]) -> usize {
    let mut types = frame[12..].chunks(4).map(|word| [word[0], *word.get(1).unwrap_or(&0)]);
    match types.find(|kind| ![[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]].contains(kind)) {
        Some([0x08, 0x00]) => 1,
        Some([0x86, 0xdd]) => 2,
        _ => 0,
    }
}

struct Batch<'a> {
    bpffs: &'a Bpffs,
    kernel: &'a Linux,
    plan: &'a KernelPlan,
    port: Port<'a>,
    seed: u64,
}

impl Batch<'_> {
    /// Demands that the kernel counts what the decision says.
    fn agrees(&self, family: &str, frames: &[Frame]) -> Seen {
        let Self { seed, plan, .. } = self;
        let (expected, counted) = self.run(frames);
        if counted != expected {
            let alone = |frame: &&Frame| {
                let (expected, counted) = self.run(std::slice::from_ref(*frame));
                expected != counted
            };
            let first = frames.iter().find(alone).map(|Frame { looped, bytes }| (looped, bytes));
            panic!(
                "SALLYPORT_FUZZ_SEED={seed} {family}: the kernel counts {counted:?} where {expected:?} is right; the first that differs by itself (looped, bytes): {first:02x?} {plan:?}"
            );
        }
        expected
    }

    /// What the decision says of frames, and what the kernel counted of them.
    fn run(&self, frames: &[Frame]) -> (Seen, Seen) {
        let before = (Counts::read(self.kernel), by_rule(self.bpffs));
        let filter = self.kernel.filter().unwrap();
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut expected = Seen::default();
        thread::scope(|scope| {
            let parts = frames.chunks(frames.len().div_ceil(threads).max(1));
            let work = |part| {
                let filter = &filter;
                scope.spawn(move || self.port.namespace.inside(|| self.judge(filter, part)))
            };
            for worker in parts.map(work).collect::<Vec<_>>() {
                let part = worker.join().unwrap_or_else(|failure| std::panic::resume_unwind(failure));
                expected.join(&part);
            }
        });
        let mut rules = by_rule(self.bpffs);
        rules.iter_mut().for_each(|(key, count)| *count -= before.1.get(key).unwrap_or(&0));
        rules.retain(|_, count| *count != 0);
        (expected, Seen { reasons: before.0.since(self.kernel), rules })
    }

    fn judge(&self, filter: &Filter, frames: &[Frame]) -> Seen {
        let (mut seen, tables) = (Seen::default(), PlanTables(self.plan));
        for Frame { looped, bytes } in frames {
            let (expected, run) = if *looped {
                (decide(&Looped(&bytes[..]), &tables), filter.judge(bytes, 1))
            } else {
                (decide(&bytes[..], &tables), filter.judge_from(self.port.index, bytes, 1))
            };
            let (seed, dropped) = (self.seed, run.unwrap().verdict == XDP_DROP);
            assert_eq!(
                dropped,
                expected.reason.is_drop(),
                "SALLYPORT_FUZZ_SEED={seed} {expected:?} {bytes:02x?}"
            );
            seen.add(expected);
        }
        seen
    }
}

/// What the programs have counted by rule, those that let packets pass too: the keeper notes in a map of its own which counter is whose.
fn by_rule(bpffs: &Bpffs) -> BTreeMap<RuleReason, u64> {
    let whose: HashMap<MapData, [u8; 8], u128> = Map::HashMap(bpffs.pinned("TAKEN")).try_into().unwrap();
    let counters: PerCpuArray<MapData, u64> = Map::PerCpuArray(bpffs.pinned(maps::RULES)).try_into().unwrap();
    let entries = whose.iter().map(|entry| entry.unwrap());
    let rules = entries.map(|(key, taken)| (RuleReason::from_bytes(key), taken as u32));
    let total = |counter: u32| counters.get(&(counter - 1), 0).unwrap().iter().sum();
    rules.filter(|(key, _)| key.rule != 0).map(|(key, counter)| (key, total(counter))).collect()
}

/// Frames of either list with bytes changed, cut and grown, and frames of noise behind an Ethernet header.
fn mutated(random: &mut Random, seeds: &[Vec<Vec<u8>>; 2]) -> Vec<u8> {
    let seeds = random.pick(seeds);
    let mut frame = random.pick(seeds).clone();
    if random.below(8) == 0 {
        let ethertype: [u8; 2] =
            *random.pick(&[[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8], [0x08, 0x06]]);
        frame.truncate(12);
        frame.extend_from_slice(&ethertype);
        let length = random.below(120);
        frame.extend(random.bytes(length));
    }
    for _ in 0..random.below(4) {
        let at = 12 + random.below(frame.len().min(80) - 12);
        frame[at] = match random.below(3) {
            0 => random.next() as u8,
            1 => frame[at] ^ (1 << random.below(8)),
            // Protocol numbers and small lengths, where structure is.
            _ => *random.pick(&[0, 1, 2, 4, 6, 17, 43, 44, 51, 58, 59, 60, 0x45, 0x46, 0x60]),
        };
    }
    match random.below(4) {
        0 => frame.truncate(14 + random.below(frame.len() - 13)),
        1 => frame.extend(random.bytes(20)),
        _ => {}
    }
    frame.resize(frame.len().max(14), 0);
    frame
}
