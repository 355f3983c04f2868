//! Random frames through the kernel and through the pure decision.

use std::collections::BTreeMap;
use std::thread;

use dataplane_ebpf::decide::{Looped, decide};
use dataplane_ebpf::reason::Reason;
use sallyport_node::keeper::kernel::{Filter, Linux, PlanTables};
use sallyport_node::keeper::plan::KernelPlan;

use super::Port;
use super::corpus::{Counts, XDP_DROP, corpus};
use super::random::Random;

/// Runs this many frames, made from the seed, by one plan that is in force: each must have the decision's verdict, and all
/// together its reasons. Gives how many had which.
pub(crate) fn fuzz(
    kernel: &Linux,
    plan: &KernelPlan,
    port: Port<'_>,
    seed: u64,
    frames: usize,
) -> BTreeMap<Reason, u64> {
    let seeds: Vec<Vec<u8>> = corpus().into_iter().map(|(_, frame, _)| frame).collect();
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let before = Counts::read(kernel);
    let filter = kernel.filter().unwrap();
    let mut seen = BTreeMap::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let run = Run { filter: &filter, tables: PlanTables(plan), index: port.index, seeds: &seeds };
                let mut random = Random::new(seed.wrapping_mul(64).wrapping_add(worker as u64));
                let share = frames / threads;
                scope.spawn(move || port.namespace.inside(|| run.frames(&mut random, share, seed)))
            })
            .collect();
        for worker in workers {
            let part = worker.join().unwrap_or_else(|failure| std::panic::resume_unwind(failure));
            part.into_iter().for_each(|(reason, count)| *seen.entry(reason).or_default() += count);
        }
    });
    assert_eq!(before.since(kernel), seen, "SALLYPORT_FUZZ_SEED={seed} {plan:?}");
    seen
}

struct Run<'a> {
    filter: &'a Filter,
    tables: PlanTables<'a>,
    index: u32,
    seeds: &'a [Vec<u8>],
}

impl Run<'_> {
    fn frames(&self, random: &mut Random, frames: usize, seed: u64) -> BTreeMap<Reason, u64> {
        let mut seen = BTreeMap::new();
        for _ in 0..frames {
            let frame = mutated(random, self.seeds);
            let (expected, run) = if random.below(4) == 0 {
                (decide(&Looped(&frame), &self.tables), self.filter.judge(&frame, 1))
            } else {
                (decide(&frame[..], &self.tables), self.filter.judge_from(self.index, &frame, 1))
            };
            let dropped = run.unwrap().verdict == XDP_DROP;
            assert_eq!(
                dropped,
                expected.reason.is_drop(),
                "SALLYPORT_FUZZ_SEED={seed} {expected:?} {frame:02x?}"
            );
            *seen.entry(expected.reason).or_default() += 1;
        }
        seen
    }
}

/// Frames of the corpus with bytes changed, cut and grown, and frames of noise behind an Ethernet header.
fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
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
