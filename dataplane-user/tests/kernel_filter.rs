//! The filter in the kernel against the pure decision: verdict and reason, frame by frame.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dataplane_ebpf::decide::{Decision, decide};
use dataplane_ebpf::reason::Reason;
use model::filter::FilterRule;
use sallyport_node::keeper::kernel::{Kernel, PlanTables};
use support::corpus::{Counts, corpus, judge, plan, plan_without};
use support::frames::syn;
use support::fuzz::{FAMILIES, Seen, fuzz};
use support::random;
use support::rules::{self, Rules, allow, cases, deny, particular, single_cases};
use support::{Bpffs, WAYS, emulated};

#[test]
fn the_corpus_has_its_reasons() {
    let bpffs = Bpffs::new();
    let (mut kernel, port) = bpffs.open_wired();
    let plan = plan();
    kernel.apply(&plan).unwrap();
    for way in WAYS {
        kernel.set_sampling(way).unwrap();
        for (what, frame, expected) in corpus() {
            assert_eq!(decide(&frame[..], &PlanTables(&plan)).reason, expected, "{what}");
            assert_eq!(judge(&kernel, &plan, port, &frame), expected, "{what}, way {way}");
        }
    }
}

#[test]
fn rules_about_something_decide() {
    let bpffs = Bpffs::new();
    let (mut kernel, port) = bpffs.open_wired();
    let plan = particular().plan();
    kernel.apply(&plan).unwrap();
    for way in WAYS {
        kernel.set_sampling(way).unwrap();
        for (what, frame, reason, rule) in cases().into_iter().chain(single_cases()) {
            assert_eq!(
                decide(&frame[..], &PlanTables(&plan)),
                Decision::new(reason, rule),
                "{what} {frame:02x?}"
            );
            assert_eq!(judge(&kernel, &plan, port, &frame), reason, "{what}, way {way}");
        }
    }
}

/// A million frames by thirty rule sets, a fifth of them on an emulated processor; a failure names the seed.
#[test]
fn random_frames_are_judged_alike() {
    let bpffs = Bpffs::new();
    let (mut kernel, _) = bpffs.open_wired();
    let seed = random::seed();
    let mut random = random::Random::new(seed);
    let share = if emulated() { 6_800 } else { 34_000 };
    let mut seen: [Seen; 3] = Default::default();
    for round in 0..30 {
        let plan = if round == 0 { plan() } else { rules::random(&mut random).plan() };
        kernel.apply(&plan).unwrap();
        kernel.set_sampling(WAYS[round as usize % 2]).unwrap();
        let parts = fuzz(&bpffs, &kernel, &plan, seed.wrapping_add(round), share);
        seen.iter_mut().zip(&parts).for_each(|(seen, part)| seen.join(part));
    }
    // Few at least: how many lists of protocols there are, and how wide, is chance.
    for (family, seen) in FAMILIES.iter().zip(&seen).skip(1) {
        for reason in [Reason::Allowed, Reason::Denied, Reason::Observed, Reason::Protocol] {
            assert!(seen.blamed(reason) > 10, "SALLYPORT_FUZZ_SEED={seed} {family}: {reason:?} {seen:?}");
        }
    }
    let mut reasons = Seen::default();
    seen.iter().for_each(|part| reasons.join(part));
    let frames: u64 = reasons.reasons.values().sum();
    assert!(frames >= if emulated() { 200_000 } else { 1_000_000 }, "{frames}");
    let elsewhere = [
        Reason::SynCookie,
        Reason::SynBudget,
        Reason::UdpBudget,
        Reason::NewConnectionBudget,
        Reason::Steered,
        Reason::NotSteered,
        Reason::NoSocket,
        Reason::NotAssigned,
        Reason::NoTable,
    ];
    let missing: Vec<&Reason> = Reason::ALL
        .iter()
        .filter(|reason| !reasons.reasons.contains_key(reason) && !elsewhere.contains(reason))
        .collect();
    assert!(missing.is_empty(), "SALLYPORT_FUZZ_SEED={seed}: the frames are too much alike: {missing:?}");
}

/// Two plans of which a mixture would let a packet pass that each of them names: the sources of one, the listeners of the
/// other.
#[test]
fn no_packet_is_judged_by_two_generations() {
    let bpffs = Bpffs::new();
    let mut kernel = bpffs.open();
    let plans = [("10.1.1.1/32", 443), ("10.2.2.2/32", 8443)].map(|(allowed, port)| {
        let (rules, listeners) = (vec![allow(1, &[allowed])], vec![(None, port)]);
        Rules { rules, listeners, ..Rules::default() }.plan()
    });
    kernel.apply(&plans[0]).unwrap();
    let before = Counts::read(&kernel);
    let swaps = kernel.generations();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for frame in [syn("10.1.1.1", "10.0.0.1", 8443), syn("10.2.2.2", "10.0.0.1", 443)] {
            let (filter, stop) = (kernel.filter().unwrap(), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    filter.judge(&frame, 2000).unwrap();
                }
            });
        }
        for round in 0..60 {
            kernel.set_sampling(WAYS[round / 2 % 2]).unwrap();
            kernel.apply(&plans[(round + 1) % 2]).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(kernel.generations() - swaps, 60);
    let seen = before.since(&kernel);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [Reason::Allowed, Reason::NotAllowed], "{seen:?}");
}

/// Loading the programs anew writes to what they share with those in force: nothing that was not there.
#[test]
fn packets_are_judged_by_what_is_in_force_while_keepers_come_and_go() {
    let bpffs = Bpffs::new();
    let mut kernel = bpffs.open();
    kernel.apply(&Rules { rules: vec![deny(9, &["10.1.0.0/16"])], ..Rules::default() }.plan()).unwrap();
    let (before, filter) = (Counts::read(&kernel), kernel.filter().unwrap());
    let mut judged = 0;
    for way in WAYS {
        kernel.set_sampling(way).unwrap();
        drop(kernel);
        judged += thread::scope(|scope| {
            let comes_and_goes = scope.spawn(|| (0..10).for_each(|_| drop(bpffs.open())));
            let mut judged = 0;
            while !comes_and_goes.is_finished() {
                filter.judge(&syn("10.1.1.1", "10.0.0.1", 443), 2000).unwrap();
                judged += 2000;
            }
            judged
        });
        kernel = bpffs.open();
    }
    let seen = before.since(&kernel);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(Reason::Denied, judged)]);
}

#[test]
fn one_prefix_changes_in_place_and_more_make_a_generation() {
    let bpffs = Bpffs::new();
    let (mut kernel, port) = bpffs.open_wired();
    let with = |rules: Vec<FilterRule>| {
        let listeners = vec![(None, 443)];
        Rules { rules, listeners, ..Rules::default() }.plan()
    };
    // A class of sources is known already, so that one prefix more is one entry more.
    let mut plan = with(vec![deny(5, &["10.9.0.0/16"])]);
    kernel.apply(&plan).unwrap();
    let swaps = kernel.generations();
    let frame = syn("10.3.0.1", "10.0.0.1", 22);
    assert_eq!(judge(&kernel, &plan, port, &frame), Reason::NoRule);
    plan = with(vec![deny(5, &["10.3.0.0/16", "10.9.0.0/16"])]);
    kernel.apply(&plan).unwrap();
    assert_eq!(judge(&kernel, &plan, port, &frame), Reason::Denied);
    plan = with(vec![deny(5, &["10.9.0.0/16"])]);
    kernel.apply(&plan).unwrap();
    assert_eq!(judge(&kernel, &plan, port, &frame), Reason::NoRule);
    kernel.apply(&plan).unwrap();
    assert_eq!(kernel.generations(), swaps);
    plan = with(vec![deny(5, &["10.3.0.0/16", "10.4.0.0/16", "10.9.0.0/16"])]);
    kernel.apply(&plan).unwrap();
    assert_eq!(kernel.generations(), swaps + 1);
    // The first allow rule makes listeners need one: never in place.
    plan = with(vec![deny(5, &["10.3.0.0/16", "10.4.0.0/16", "10.9.0.0/16"]), allow(6, &["10.5.0.0/16"])]);
    kernel.apply(&plan).unwrap();
    assert_eq!(kernel.generations(), swaps + 2);
    assert_eq!(judge(&kernel, &plan, port, &syn("10.6.0.1", "10.0.0.1", 443)), Reason::NotAllowed);
}

#[test]
fn drops_are_taken_once_with_their_rule_also_over_a_restart() {
    let bpffs = Bpffs::new();
    let mut kernel = bpffs.open();
    let plan = plan();
    kernel.apply(&plan).unwrap();
    let taken = |kernel: &mut sallyport_node::keeper::kernel::Linux| -> Vec<(String, u32, u64)> {
        let drops = kernel.take_drops().unwrap();
        drops.into_iter().map(|drop| (drop.reason, drop.rule, drop.count)).collect()
    };
    let (denied, not_allowed) = (syn("10.1.9.9", "10.0.0.1", 22), syn("10.9.9.9", "10.0.0.1", 443));
    let filter = kernel.filter().unwrap();
    filter.judge(&denied, 3).unwrap();
    filter.judge(&not_allowed, 2).unwrap();
    filter.judge(&syn("10.2.3.5", "10.0.0.1", 443), 4).unwrap();
    assert_eq!(taken(&mut kernel), [("denied".to_owned(), 1, 3), ("not-allowed".to_owned(), 0, 2)]);
    assert_eq!(taken(&mut kernel), []);
    filter.judge(&denied, 5).unwrap();
    drop(kernel);
    let mut kernel = bpffs.open();
    assert_eq!(taken(&mut kernel), [("denied".to_owned(), 1, 5)]);
    // A rule that goes takes its counter with it once that was read, and one that comes back begins at 0.
    kernel.filter().unwrap().judge(&denied, 1).unwrap();
    kernel.apply(&plan_without(&[1])).unwrap();
    assert_eq!(taken(&mut kernel), [("denied".to_owned(), 1, 1)]);
    assert_eq!(taken(&mut kernel), []);
    kernel.apply(&plan).unwrap();
    kernel.filter().unwrap().judge(&denied, 1).unwrap();
    assert_eq!(taken(&mut kernel), [("denied".to_owned(), 1, 1)]);
}
