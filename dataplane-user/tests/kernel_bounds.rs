//! How long changes of 100,000 prefixes take, in both families, and that no packet meets a mixture meanwhile.
//!
//! A release build is held to the bounds (the step `filter` of ./test): a debug build (the step `kernel`) or an emulated processor has
//! its own pace, and judges the packets alone.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane_ebpf::reason::Reason;
use model::filter::{FilterAction, FilterRule};
use model::net::Prefix;
use rustix::thread::gettid;
use sallyport_node::keeper::kernel::{Kernel, Linux};
use support::corpus::Counts;
use support::frames::syn;
use support::rules::Rules;
use support::{Bpffs, Stop, WAYS, emulated, run};

const PREFIXES: u32 = 100_000;
const REPLACED_WITHIN: Duration = Duration::from_secs(1);
const ONE_WITHIN: Duration = Duration::from_millis(10);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The first address of a number's prefix.
    fn first(self, number: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(0x0b00_0000 + number * 4).into(),
            Self::V6 => Ipv6Addr::from((0x2001_0db8 << 96) + (u128::from(number) << 64)).into(),
        }
    }

    fn prefix(self, number: u32) -> Prefix {
        let length = if matches!(self, Self::V4) { 30 } else { 64 };
        format!("{}/{length}", self.first(number)).parse().unwrap()
    }

    /// A SYN from a number's prefix to no listener.
    fn frame(self, number: u32) -> Vec<u8> {
        let to = if matches!(self, Self::V4) { "10.0.0.1" } else { "fd00::1" };
        syn(&self.first(number).to_string(), to, 22)
    }
}

fn rule(family: Family, action: FilterAction, numbers: impl Iterator<Item = u32>) -> Rules {
    let prefixes = numbers.map(|number| family.prefix(number)).collect();
    Rules { rules: vec![FilterRule::new(7, "f/r", action, prefixes)], ..Rules::default() }
}

/// From the rules until packets are judged by them.
fn apply(kernel: &mut Linux, rules: &Rules) -> Duration {
    let begun = Instant::now();
    kernel.apply(&rules.plan()).unwrap();
    begun.elapsed()
}

/// Whether times are judged.
fn judges() -> bool {
    !cfg!(debug_assertions) && !emulated()
}

/// Lets this thread go before whatever else this machine does, or no more: of an update that takes three milliseconds, waiting for a
/// processor is no part. (`nice` counts in its own session only, where the kernel makes groups of them.)
fn first_in_line(first: bool) {
    if judges() {
        let policy = if first { "-r -p 1" } else { "-o -p 0" };
        run(&format!("chrt {policy} {}", gettid()));
    }
}

/// The median, which is to be below the bound.
fn median(mut times: Vec<Duration>, bound: Duration) -> Duration {
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(!judges() || median < bound, "{median:?} is not below {bound:?}: {times:?}");
    median
}

fn rounds() -> Range<usize> {
    0..if emulated() { 4 } else { 12 }
}

/// Changes something while frames are judged all the time, and gives what they met. The change is told how to wait until all frames were
/// judged once more.
fn meanwhile(
    kernel: &mut Linux,
    frames: &[Vec<u8>],
    change: impl FnOnce(&mut Linux, &dyn Fn()),
) -> Vec<Reason> {
    let (filter, stop, before) = (kernel.filter().unwrap(), Stop::default(), Counts::read(kernel));
    let times = AtomicU32::new(0);
    thread::scope(|scope| {
        let _stop = stop.at_the_end();
        let reader = scope.spawn(|| {
            while !stop.said() {
                for frame in frames {
                    filter.judge(frame, 2000).unwrap();
                }
                times.fetch_add(1, Ordering::Relaxed);
            }
        });
        change(kernel, &|| {
            let begun = times.load(Ordering::Relaxed);
            while times.load(Ordering::Relaxed) < begun + 2 && !reader.is_finished() {
                thread::yield_now();
            }
        });
    });
    before.since(kernel).into_keys().collect()
}

/// Two plans: one denies the even prefixes, the other allows the odd ones. Their classes have the same numbers, so that a packet
/// judged by the sources of one and the cells of the other would have a reason that neither gives it.
#[test]
fn a_hundred_thousand_prefixes_are_replaced_as_one() {
    for family in FAMILIES {
        let bpffs = Bpffs::new();
        let mut kernel = bpffs.open();
        let plans = [(FilterAction::Deny, 0), (FilterAction::Allow, 1)]
            .map(|(action, odd)| rule(family, action, (0..PREFIXES).map(move |number| 2 * number + odd)));
        let class = |rules: &Rules| rules.plan().filter.sources[0].1;
        assert_eq!(class(&plans[0]), class(&plans[1]), "a mixture would not show");
        apply(&mut kernel, &plans[0]);
        let mut times = Vec::new();
        for (number, met) in [(0, Reason::Denied), (1, Reason::Allowed)] {
            let swaps = kernel.generations();
            let reasons = meanwhile(&mut kernel, &[family.frame(number)], |kernel, judged| {
                for round in rounds() {
                    kernel.set_sampling(WAYS[round / 2 % 2]).unwrap();
                    times.push(apply(kernel, &plans[(round + 1) % 2]));
                    judged();
                }
            });
            assert_eq!(reasons, [Reason::NoRule, met], "{family:?}");
            assert_eq!(kernel.generations() - swaps, u32::try_from(rounds().len()).unwrap());
        }
        println!("{family:?}: 100,000 prefixes replaced in {:?}", median(times, REPLACED_WITHIN));
    }
}

/// In place: whoever is not in the prefix that comes and goes is judged as ever.
#[test]
fn one_prefix_of_a_hundred_thousand_comes_and_goes() {
    const ONE: u32 = PREFIXES / 2;
    for family in FAMILIES {
        let bpffs = Bpffs::new();
        let mut kernel = bpffs.open();
        let without = rule(family, FilterAction::Deny, (0..=PREFIXES).filter(|number| *number != ONE));
        let with = rule(family, FilterAction::Deny, 0..=PREFIXES);
        let loaded = apply(&mut kernel, &without);
        let swaps = kernel.generations();
        let mut times = Vec::new();
        first_in_line(true);
        for round in rounds() {
            let (rules, reason) =
                if round % 2 == 0 { (&with, Reason::Denied) } else { (&without, Reason::NoRule) };
            times.push(apply(&mut kernel, rules));
            let before = Counts::read(&kernel);
            kernel.filter().unwrap().judge(&family.frame(ONE), 1).unwrap();
            assert_eq!(before.reason_since(&kernel), reason, "{family:?}");
        }
        first_in_line(false);
        let both_ways = |kernel: &mut Linux, judged: &dyn Fn()| {
            for round in rounds() {
                kernel.set_sampling(WAYS[round / 2 % 2]).unwrap();
                apply(kernel, if round % 2 == 0 { &with } else { &without });
                judged();
            }
        };
        let neighbours = [0, ONE - 1, ONE + 1, PREFIXES].map(|number| family.frame(number));
        assert_eq!(meanwhile(&mut kernel, &neighbours, both_ways), [Reason::Denied], "{family:?}");
        let itself = meanwhile(&mut kernel, &[family.frame(ONE)], both_ways);
        assert_eq!(itself, [Reason::NoRule, Reason::Denied], "{family:?}");
        let stranger = meanwhile(&mut kernel, &[family.frame(PREFIXES + 1)], both_ways);
        assert_eq!(stranger, [Reason::NoRule], "{family:?}");
        assert_eq!(kernel.generations(), swaps);
        let one = median(times, ONE_WITHIN);
        println!("{family:?}: 100,000 prefixes loaded in {loaded:?}, one more or less in {one:?}");
    }
}
