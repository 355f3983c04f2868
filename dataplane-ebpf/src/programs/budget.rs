//! Spends budgets: see [`dataplane_ebpf::wire::budget`] for what lies where.
//!
//! Buckets are of sources, and sources cost an attacker nothing, so a bucket is made only for who comes a second time; before
//! that a source has a place that the next may take (a door). Two that take it from each other in turn would never have come
//! before, so one in [`CONTESTED`] that finds another's name there has its bucket at once. Who sent back a SYN cookie has its bucket elsewhere, where nobody
//! comes who cannot do the same: a flood with invented sources pushes out its own buckets and no others. Who is pushed out
//! has a full bucket when it comes again.
#![expect(unsafe_code, reason = "a map's value is reached through a pointer the kernel gave")]

use aya_ebpf::bindings::{BPF_NOEXIST, xdp_action};
use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::budget::Rate;
use dataplane_ebpf::decide::{Decision, Kind};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::budget::{Budget, DOORS_MAX, SOURCES_MAX, Source, over, place, pressure};
use dataplane_ebpf::wire::{Active, Address};

use crate::cookie::{self, Tail};
use crate::here;
use crate::judged::Judged;
use crate::maps::{self, InForce};
use crate::packet::hidden;

const PORTS: usize = 65_536;
/// How often a bucket that another CPU changes at the same time is tried; then what asked is over the budget.
const TRIES: u32 = 3;

/// Of so many that meet another at their door one has a bucket as if it came a second time. A power of two.
const CONTESTED: u32 = 16;

/// A door remembers when its source came in units of 2^20 ns, about a millisecond.
const STAMP: u32 = 20;

type Buckets = LruHashMap<Source, u64, { SOURCES_MAX as usize }>;

#[btf_map]
static BUDGETS: Array<Budget, { place::PLACES as usize }> = Array::new();
#[btf_map]
static BUDGET_PORTS: Array<u32, PORTS> = Array::new();
#[btf_map]
static PORT_BUCKETS: Array<u64, PORTS> = Array::new();
#[btf_map]
static SYN_BUCKETS: Buckets = Buckets::new();
#[btf_map]
static UDP_BUCKETS: Buckets = Buckets::new();
#[btf_map]
static CONNECTION_BUCKETS: Buckets = Buckets::new();
#[btf_map]
static KNOWN: Buckets = Buckets::new();
#[btf_map]
static DOORS: Array<u64, { DOORS_MAX as usize }> = Array::new();
#[btf_map]
static PRESSURE: Array<u64, { pressure::WORDS as usize }> = Array::new();

/// What follows a decision.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing.
    Done,
    /// Budgets are asked.
    Spend,
    /// It may bring a cookie back.
    Learn,
}

/// What follows what the rules said of a packet. What they drop costs nobody anything.
#[inline(always)]
pub(crate) fn then(word: Active, kind: Kind, decision: Decision) -> Then {
    if !word.has_packet_budgets() || decision.reason.is_drop() {
        return Then::Done;
    }
    let (syn, udp) = (word.has_syn_budgets(), word.has_udp_budgets());
    let datagram = kind.is_udp() || kind.is_rest_of_udp();
    if (kind.is_syn() && syn) || (datagram && udp) {
        return Then::Spend;
    }
    if kind.is_tcp() && syn && cookies_are_out() { Then::Learn } else { Then::Done }
}

/// What came of it: what the packet is counted and told under, and the budget's counter and rule.
#[derive(Clone, Copy)]
enum Outcome {
    Within,
    Observed(u32, u32),
    Over(Reason, u32, u32),
    Answer(u32, u32),
}

/// Spends the budgets that a packet is about, and counts it.
#[inline(always)]
pub(crate) fn spend(context: &XdpContext) -> u32 {
    let Some(judged) = Judged::find() else { return xdp_action::XDP_PASS };
    let outcome = if judged.kind().is_tcp() { syn(judged) } else { udp(&Source::of(&judged.source())) };
    match outcome {
        // Told before: the answer takes the frame's place.
        Outcome::Answer(counter, rule) => {
            if cookie::deserves_one(context) {
                told(context, Reason::SynCookie, rule);
                // Counts by itself, and comes back only where it is missing.
                cookie::enter(context, Tail::Answer);
            } else {
                told(context, Reason::SynBudget, rule);
            }
            maps::count_rule(counter);
            here::count(Reason::SynBudget);
            xdp_action::XDP_DROP
        }
        Outcome::Over(reason, counter, rule) => {
            told(context, reason, rule);
            maps::count_rule(counter);
            here::count(reason);
            xdp_action::XDP_DROP
        }
        // Of several that are observed the first is told.
        Outcome::Observed(counter, rule) if judged.reason != Reason::Observed.number() => {
            told(context, Reason::Observed, rule);
            maps::count_rule(counter);
            here::count(Reason::Observed);
            xdp_action::XDP_PASS
        }
        Outcome::Observed(..) | Outcome::Within => {
            Judged::tell(context);
            maps::count_rule(judged.counter);
            here::count_number(judged.reason);
            xdp_action::XDP_PASS
        }
    }
}

/// Tells what a budget decided.
#[inline(always)]
fn told(context: &XdpContext, reason: Reason, rule: u32) {
    Judged::overrule(reason, rule);
    Judged::tell(context);
}

#[inline(always)]
fn udp(who: &Source) -> Outcome {
    let Some(budget) = budget(place::UDP_PER_SOURCE) else { return Outcome::Within };
    match source(&UDP_BUCKETS, place::UDP_PER_SOURCE, who, budget.rate(), now()) {
        true => Outcome::Within,
        false if budget.over == over::OBSERVE => Outcome::Observed(budget.counter, budget.rule),
        false => Outcome::Over(Reason::UdpBudget, budget.counter, budget.rule),
    }
}

/// What one more connection of a source is over: the reason, and the counter of that.
#[inline(always)]
pub(crate) fn connection(tables: &InForce, remote: &Address) -> Option<(Reason, u32)> {
    if !tables.word().has_connection_budgets() {
        return None;
    }
    let budget = budget(place::CONNECTIONS_PER_SOURCE)?;
    let who = Source::of(remote);
    if source(&CONNECTION_BUCKETS, place::CONNECTIONS_PER_SOURCE, &who, budget.rate(), now()) {
        return None;
    }
    let reason = if budget.over == over::OBSERVE { Reason::Observed } else { Reason::NewConnectionBudget };
    Some((reason, budget.counter))
}

/// First its source's, then what all unknown ones, or all known ones, may send to listeners, then its port's. To be known
/// frees nobody: without a budget of its own a known source has the pressure's for itself, and what is over gets cookies again.
#[inline(always)]
fn syn(judged: &Judged) -> Outcome {
    let (who, port, now) = (&Source::of(&judged.source()), judged.kind().slot(), now());
    let listens = InForce::of(judged.word()).listens(&judged.destination(), port as u16);
    // A number whose origin is hidden: else the compiler joins this branch with later ones, and keeps the table's pointer in a
    // register that other paths have a number in.
    let listens = hidden(u64::from(listens)) != 0;
    let pressed = budget(place::SYN_PRESSURE).filter(|_| listens);
    let known = if pressed.is_some() { KNOWN.get_ptr_mut(who) } else { None };
    let mut observed = None;
    let own = budget(place::SYN_PER_SOURCE);
    if let Some(budget) = own {
        let within = match known {
            Some(bucket) => charge(bucket, budget.rate(), now),
            None => source(&SYN_BUCKETS, place::SYN_PER_SOURCE, who, budget.rate(), now),
        };
        if !within {
            match budget.over {
                over::OBSERVE => observed = Some((budget.counter, budget.rule)),
                _ => return Outcome::Over(Reason::SynBudget, budget.counter, budget.rule),
            }
        }
    }
    if let Some(budget) = pressed
        && !unpressed(who, known, own.is_some(), budget.rate(), now)
    {
        match budget.over {
            over::OBSERVE => observed = observed.or(Some((budget.counter, budget.rule))),
            over::COOKIE => return Outcome::Answer(budget.counter, budget.rule),
            _ => return Outcome::Over(Reason::SynBudget, budget.counter, budget.rule),
        }
    }
    let place = BUDGET_PORTS.get(port).copied().unwrap_or(0);
    if place != 0
        && let Some(budget) = budget(place)
        && let Some(bucket) = PORT_BUCKETS.get_ptr_mut(port)
        && !charge(bucket, budget.rate(), now)
    {
        match budget.over {
            over::OBSERVE => observed = observed.or(Some((budget.counter, budget.rule))),
            _ => return Outcome::Over(Reason::SynBudget, budget.counter, budget.rule),
        }
    }
    match observed {
        Some((counter, rule)) => Outcome::Observed(counter, rule),
        None => Outcome::Within,
    }
}

/// A budget, where there is one. Userspace may write it meanwhile: a packet that meets an old rate with a new burst is one
/// packet.
#[inline(always)]
fn budget(place: u32) -> Option<Budget> {
    BUDGETS.get(place).copied().filter(|budget| budget.rate().is_on())
}

/// Whether a SYN is within what may come from all unknown sources of its family; or, of a known one, within what may come from it,
/// where that was not asked yet, and from all known ones.
#[inline(always)]
fn unpressed(source: &Source, known: Option<*mut u64>, charged: bool, rate: Rate, now: u64) -> bool {
    let v4 = source.family == 4;
    let within = match known {
        None => share(if v4 { pressure::V4 } else { pressure::V6 }, rate, now),
        Some(bucket) => {
            (charged || charge(bucket, rate, now))
                && share(if v4 { pressure::KNOWN4 } else { pressure::KNOWN6 }, rate, now)
        }
    };
    if !within && let Some(last) = PRESSURE.get_ptr_mut(pressure::LAST) {
        // SAFETY: the map's aligned word; whichever CPU's time stays, it is now.
        unsafe { last.write_volatile(now) };
    }
    within
}

/// Spends one of what many have together.
#[inline(always)]
fn share(word: u32, rate: Rate, now: u64) -> bool {
    PRESSURE.get_ptr_mut(word).is_none_or(|bucket| charge(bucket, rate, now))
}

/// Whether cookies may be on their way back.
#[inline(always)]
fn cookies_are_out() -> bool {
    let Some(last) = PRESSURE.get_ptr(pressure::LAST) else { return false };
    // SAFETY: the map's aligned word.
    let last = unsafe { last.read_volatile() };
    last != 0 && now().wrapping_sub(last) < pressure::LINGERS
}

/// Counts a SYN for which the filter ended in another program.
#[inline(always)]
pub(crate) fn count_pressure(reason: Reason) {
    if let Some(budget) = budget(place::SYN_PRESSURE) {
        maps::count_rule(match reason {
            Reason::SynCookie => u32::from(budget.answered),
            _ => budget.counter,
        });
    }
}

/// Whether a source has shown that it gets our answers.
#[inline(always)]
pub(crate) fn is_known(source: &Source) -> bool {
    KNOWN.get_ptr(source).is_some()
}

/// Enters a source that has: with a full bucket.
#[inline(always)]
pub(crate) fn know(source: &Source) {
    // Where there is no room for a moment it stays unknown, and gets a cookie again.
    let _no_room = KNOWN.insert(source, 0_u64, u64::from(BPF_NOEXIST));
}

/// Spends one of a source's.
#[inline(always)]
fn source(buckets: &Buckets, kind: u32, who: &Source, rate: Rate, now: u64) -> bool {
    if let Some(bucket) = buckets.get_ptr_mut(who) {
        return charge(bucket, rate, now);
    }
    let (door, name) = who.door(kind);
    let Some(door) = DOORS.get_ptr_mut(door) else { return true };
    let stamp = (now >> STAMP) as u32;
    // SAFETY: the map's aligned word; two sources that come at the same time leave one of both.
    let found = unsafe { door.read_volatile() };
    let before = if (found >> 32) as u32 == name {
        // The second is charged with the first as well.
        let since = u64::from(stamp.wrapping_sub(found as u32)) << STAMP;
        now.saturating_sub(since).saturating_add(rate.interval)
    } else {
        // SAFETY: as above.
        unsafe { door.write_volatile(u64::from(name) << 32 | u64::from(stamp)) };
        // SAFETY: the helper takes nothing and cannot fail.
        if found == 0 || unsafe { bpf_get_prandom_u32() } & (CONTESTED - 1) != 0 {
            return true;
        }
        0
    };
    let (word, within) = match rate.charge(before, now) {
        Some(word) => (word, true),
        None => (before, false),
    };
    // Where there is no room for a moment, or another CPU was first, it is as if it had not been seen yet.
    let _no_room = buckets.insert(who, word, u64::from(BPF_NOEXIST));
    within
}

/// Takes one from a bucket, if it has one: no CPU's is lost.
#[inline(always)]
fn charge(bucket: *mut u64, rate: Rate, now: u64) -> bool {
    for _ in 0..TRIES {
        // SAFETY: the map's aligned word, which lives as long as the program runs.
        let word = unsafe { bucket.read_volatile() };
        let Some(next) = rate.charge(word, now) else { return false };
        // SAFETY: as above.
        if unsafe { exchange(bucket, word, next) } == word {
            return true;
        }
    }
    false
}

/// Replaces a word by another if it is still the old one, and gives what it was (`BPF_CMPXCHG`, Linux 5.12). Rust's BPF target
/// has no such operation.
///
/// # Safety
/// The pointer is to an aligned word of a map's value.
#[inline(always)]
unsafe fn exchange(bucket: *mut u64, old: u64, new: u64) -> u64 {
    let was;
    // SAFETY: the instruction reads and writes that word alone.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({bucket} + 0, r0, {new})",
            bucket = in(reg) bucket,
            new = in(reg) new,
            inout("r0") old => was,
        );
    }
    was
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}
