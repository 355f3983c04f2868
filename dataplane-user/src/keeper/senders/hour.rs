//! The last hour of who is sending, bounded: buckets of five minutes, in each those that were seen most. Pure.
//!
//! Who is kept is decided by samples and not by the packets they stand for: in a flood one sample stands for many packets, and a
//! source seen once would push out whoever sent fewer before. Samples of a second are as many in a flood as without one, so who
//! has a part in it that matters is seen often.
//!
//! Times are milliseconds of `CLOCK_MONOTONIC`, which nobody sets back; only what leaves is in the time of clocks.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use dataplane_ebpf::wire::sender::{Sender as Key, Sent};
use model::filter::Payload;
use model::senders::{MOST_SENDERS, Sender, Senders, Sums};
use serde::{Deserialize, Serialize};

use crate::keeper::kernel::Taken;

/// How long a bucket is filled, milliseconds.
const BUCKET: i64 = 5 * 60_000;
/// How far the record reaches back, milliseconds.
const HOUR: i64 = 60 * 60_000;
/// Senders that a bucket keeps by themselves. While it is filled it may have twice as many.
const KEPT: usize = MOST_SENDERS;

/// Who sends what to whom.
type Who = (IpAddr, IpAddr, u32);

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hour {
    buckets: VecDeque<Bucket>,
    /// Packets of samples whose entries are still to come, below 0 where entries came first.
    missing: i64,
}

/// Five minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bucket {
    since: i64,
    shift: u8,
    others: Sums,
    senders: HashMap<Who, Counted>,
}

/// One sender in five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    sums: Sums,
    /// Packets that were looked at, at least: of a time with several rates by the coarsest.
    samples: u64,
    first: i64,
    last: i64,
}

/// What is written down for the next keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    /// Each bucket as a record of its own, by the monotonic clock.
    buckets: Vec<Senders>,
}

impl Hour {
    /// Adds what was taken at `now`, when one packet in 2^`shift` was looked at.
    pub(super) fn add(&mut self, now: i64, shift: u32, taken: &Taken) {
        self.forget(now);
        let current = self.buckets.back().is_some_and(|bucket| now - bucket.since < BUCKET);
        if !current {
            if let Some(full) = self.buckets.back_mut() {
                full.prune(KEPT);
            }
            // The first also has what was counted before somebody looked.
            let seen = taken.senders.iter().map(|(_, sent)| millis(sent.first)).min();
            let since = seen.filter(|_| self.buckets.is_empty()).map_or(now, |seen| seen.min(now));
            self.buckets.push_back(Bucket { since, ..Bucket::default() });
        }
        let entered: u64 = taken.senders.iter().fold(0, |sum, (_, sent)| sum.saturating_add(sent.packets));
        self.missing = self.missing.saturating_add_unsigned(taken.sampled).saturating_sub_unsigned(entered);
        let Some(bucket) = self.buckets.back_mut() else { return };
        bucket.shift = bucket.shift.max(u8::try_from(shift).unwrap_or(u8::MAX));
        for (key, sent) in &taken.senders {
            bucket.count(key, sent, shift);
        }
        if self.missing > 0 {
            bucket.others.packets = bucket.others.packets.saturating_add(self.missing.unsigned_abs());
            self.missing = 0;
        }
        if bucket.senders.len() > 2 * KEPT {
            bucket.prune(KEPT);
        }
    }

    fn forget(&mut self, now: i64) {
        while self.buckets.front().is_some_and(|bucket| now - bucket.since > HOUR) {
            self.buckets.pop_front();
        }
    }

    /// The record as it leaves the node at `now`; `offset` is what the wall clock has more than the monotonic one.
    pub(super) fn record(&self, now: i64, offset: i64) -> Senders {
        let mut all =
            Bucket { since: self.buckets.front().map_or(now, |bucket| bucket.since), ..Bucket::default() };
        for bucket in &self.buckets {
            all.shift = all.shift.max(bucket.shift);
            all.others = all.others.plus(bucket.others);
            for (who, counted) in &bucket.senders {
                all.senders.entry(*who).and_modify(|known| known.add(counted)).or_insert(*counted);
            }
        }
        all.prune(KEPT);
        all.told(now, offset)
    }

    /// For the next keeper.
    pub(super) fn written(&self) -> Written {
        let told = |bucket: &Bucket| {
            let mut bucket = bucket.clone();
            bucket.prune(KEPT);
            bucket.told(bucket.since, 0)
        };
        Written { buckets: self.buckets.iter().map(told).collect() }
    }

    /// Goes on with what a former keeper has written; what is from later than `now` is from another boot.
    pub(super) fn read(written: Written, now: i64) -> Self {
        let mut hour = Self::default();
        for told in written.buckets {
            let later = hour.buckets.back().is_none_or(|before| told.since_ms > before.since);
            if later && told.since_ms <= now && told.senders.len() <= KEPT {
                hour.buckets.push_back(Bucket::of(told));
            }
        }
        hour.forget(now);
        hour
    }
}

impl Bucket {
    fn count(&mut self, key: &Key, sent: &Sent, shift: u32) {
        let address = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical();
        let sums = Sums { packets: sent.packets, bytes: sent.bytes, syns: sent.syns, drops: sent.drops };
        let samples = samples(sent.packets, shift);
        let counted = Counted { sums, samples, first: millis(sent.first), last: millis(sent.last) };
        let who = (address(key.source), address(key.destination), key.slot);
        self.senders.entry(who).and_modify(|known| known.add(&counted)).or_insert(counted);
    }

    /// Leaves those by themselves that were seen most, at most so many; the rest are others.
    fn prune(&mut self, most: usize) {
        if self.senders.len() <= most {
            return;
        }
        let mut all: Vec<(Who, Counted)> = self.senders.drain().collect();
        // Where many were seen equally often those stay that were there first: a spray came after whoever it is to push out.
        all.select_nth_unstable_by_key(most, |(who, one)| (std::cmp::Reverse(one.samples), one.first, *who));
        let rest = all.split_off(most);
        self.others = rest.iter().fold(self.others, |sum, (_, one)| sum.plus(one.sums));
        self.senders = all.into_iter().collect();
    }

    fn told(&self, now: i64, offset: i64) -> Senders {
        let sender = |((source, destination, slot), one): (&Who, &Counted)| {
            Some(Sender {
                source: *source,
                destination: *destination,
                payload: Payload::of_slot(*slot)?,
                sums: one.sums,
                first_ms: one.first + offset,
                last_ms: one.last + offset,
            })
        };
        let mut senders: Vec<Sender> = self.senders.iter().filter_map(sender).collect();
        senders.sort_unstable_by_key(|one| {
            (std::cmp::Reverse(one.sums.packets), one.source, one.destination, one.payload.slot())
        });
        Senders {
            since_ms: self.since + offset,
            at_ms: now + offset,
            shift: self.shift,
            others: self.others,
            senders,
        }
    }

    fn of(told: Senders) -> Self {
        // How many samples it was is not written down; at the coarsest rate of the bucket it was at least so many.
        let counted = |one: Sender| {
            let samples = samples(one.sums.packets, told.shift.into());
            let counted = Counted { sums: one.sums, samples, first: one.first_ms, last: one.last_ms };
            ((one.source, one.destination, one.payload.slot()), counted)
        };
        let senders = told.senders.into_iter().map(counted).collect();
        Self { since: told.since_ms, shift: told.shift, others: told.others, senders }
    }
}

impl Counted {
    fn add(&mut self, other: &Self) {
        self.sums = self.sums.plus(other.sums);
        self.samples = self.samples.saturating_add(other.samples);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Samples that stand for so many packets at one in 2^`shift`. Whoever was counted was seen.
fn samples(packets: u64, shift: u32) -> u64 {
    packets.checked_shr(shift).unwrap_or(0).max(1)
}

fn millis(nanoseconds: u64) -> i64 {
    i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX)
}
