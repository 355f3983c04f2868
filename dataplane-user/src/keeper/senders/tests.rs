use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane_ebpf::wire::sender::{Sender as Key, Sent};
use dataplane_ebpf::wire::{Address, slot};
use model::senders::{MOST_SENDERS, Senders, Sums};
use proptest::prelude::*;

use super::Sending;
use super::hour::{Hour, Written};
use crate::keeper::kernel::{Memory, Taken};

const MINUTE: i64 = 60_000;

fn entry(source: u32, port: u16, cpu: u32, packets: u64, at_ms: i64) -> (Key, Sent) {
    let key = Key::new(
        Address::v4(source.to_be_bytes()),
        Address::v4([192, 0, 2, 1]),
        slot::TCP + u32::from(port),
        cpu,
    );
    let at = at_ms as u64 * 1_000_000;
    (key, Sent { packets, bytes: 60 * packets, syns: packets, drops: packets / 2, first: at, last: at })
}

fn taken(senders: Vec<(Key, Sent)>) -> Taken {
    let sampled = senders.iter().map(|(_, sent)| sent.packets).sum();
    Taken { senders, sampled }
}

fn by_source(record: &Senders) -> BTreeMap<IpAddr, u64> {
    let mut sums = BTreeMap::new();
    for sender in &record.senders {
        *sums.entry(sender.source).or_default() += sender.sums.packets;
    }
    sums
}

#[test]
fn cpus_and_buckets_are_one_sender() {
    let mut hour = Hour::default();
    hour.add(1000, 0, &taken(vec![entry(1, 443, 0, 4, 900), entry(1, 443, 1, 6, 950)]));
    hour.add(7 * MINUTE, 2, &taken(vec![entry(1, 443, 1, 8, 6 * MINUTE), entry(1, 80, 1, 1, 6 * MINUTE)]));
    let record = hour.record(8 * MINUTE, 1_000_000);
    assert_eq!((record.since_ms, record.at_ms, record.shift), (1_000_900, 1_000_000 + 8 * MINUTE, 2));
    let [first, second] = record.senders.as_slice() else { panic!("{record:?}") };
    assert_eq!(first.sums, Sums { packets: 18, bytes: 60 * 18, syns: 18, drops: 2 + 3 + 4 });
    assert_eq!((first.first_ms, first.last_ms), (1_000_900, 1_000_000 + 6 * MINUTE));
    assert_eq!((second.sums.packets, record.others), (1, Sums::default()));
}

#[test]
fn an_hour_is_forgotten_bucket_by_bucket() {
    let mut hour = Hour::default();
    for minute in 0..=180 {
        let now = minute * MINUTE;
        hour.add(now, 0, &taken(vec![entry(minute as u32, 443, 0, 1, now)]));
        let record = hour.record(now, 0);
        assert!(record.span_ms() <= 60 * MINUTE, "{minute}");
        assert!(minute < 60 || record.span_ms() >= 55 * MINUTE, "{minute}: {}", record.span_ms());
        // One a minute, and nobody from before the record begins.
        assert_eq!(record.total().packets as i64, record.span_ms() / MINUTE + 1, "{minute}");
    }
}

#[test]
fn what_was_pushed_out_is_among_the_others_once() {
    let mut hour = Hour::default();
    // Entries that come before what their samples stood for, and then what was pushed out for good.
    hour.add(0, 0, &Taken { sampled: 5, ..taken(vec![entry(1, 443, 0, 8, 0)]) });
    assert_eq!(hour.record(0, 0).others.packets, 0);
    hour.add(5000, 0, &Taken { sampled: 13, ..taken(vec![entry(1, 443, 0, 4, 0)]) });
    let record = hour.record(5000, 0);
    assert_eq!((record.others.packets, record.total().packets), (6, 18));
    hour.add(10_000, 0, &Taken::default());
    assert_eq!(hour.record(10_000, 0).total().packets, 18);
}

/// A flood that is over before its sums are taken was sampled all the same.
#[test]
fn one_in_so_many_is_that_of_the_busiest_second() {
    let (mut sending, mut kernel) = (Sending::default(), Memory::default());
    let mut look = |second: i64, waiting: u64| {
        kernel.sampled = Some((kernel.sampled.map_or(0, |(shift, _)| shift), waiting));
        sending.look(&mut kernel, second * 1000).unwrap();
        let looked_at = kernel.sampled.unwrap().0;
        (looked_at, sending.hour.record(second * 1000, 0).shift)
    };
    assert_eq!(look(100, 0), (0, 0));
    assert_eq!(look(101, 40_000).0, 3);
    assert_eq!(look(102, 75_000).0, 3);
    assert_eq!(look(103, 75_000).0, 0);
    assert_eq!(look(104, 75_000).0, 0);
    assert_eq!(look(105, 75_000), (0, 3));
    assert_eq!(look(110, 20), (0, 3), "of the hour");
}

/// A spray of a million sources, each a sample, and three that send steadily.
#[test]
fn a_spray_pushes_out_itself() {
    let mut hour = Hour::default();
    for round in 0..120_u32 {
        let now = i64::from(round) * 5000;
        let sprayed = (0..8000).map(|number| entry(1000 + round * 8000 + number, 443, 0, 8, now));
        let steady = (1..=3).map(|source| entry(source, 443, 0, 16, now));
        hour.add(now, 3, &taken(sprayed.chain(steady).collect()));
    }
    let record = hour.record(600_000, 0);
    assert!(record.senders.len() <= MOST_SENDERS);
    let sums = by_source(&record);
    for source in 1..=3_u32 {
        assert_eq!(sums[&IpAddr::from(source.to_be_bytes())], 120 * 16);
    }
    assert_eq!(record.total().packets, 120 * (8000 * 8 + 3 * 16));
}

/// Each source of the spray stands for more packets than any client sent.
#[test]
fn a_spray_pushes_out_nobody_who_was_seen_before() {
    let clients = |packets, now| (1..=100).map(move |source| entry(source, 443, 0, packets, now));
    let spray = |from, now| (0..8192_u32).map(move |number| entry(from + number, 443, 0, 128, now));
    let mut hour = Hour::default();
    hour.add(0, 0, &taken(clients(50, 0).collect()));
    for round in 1..=20_u32 {
        let now = i64::from(round) * 5000;
        hour.add(now, 7, &taken(spray(1000 + round * 8192, now).collect()));
    }
    let all = |hour: &Hour, now, packets| {
        let record = hour.record(now, 0);
        let sums = by_source(&record);
        let kept =
            (1..=100_u32).filter(|source| sums.get(&IpAddr::from(source.to_be_bytes())) == Some(&packets));
        (kept.count(), record.senders.len(), record.total().packets)
    };
    let sprayed = 20 * 8192 * 128;
    assert_eq!(all(&hour, 100_000, 50), (100, MOST_SENDERS, 5000 + sprayed));
    // Also over a restart in the midst of it, and where somebody was seen once alone.
    let text = serde_json::to_string(&hour.written()).unwrap();
    let mut again = Hour::read(serde_json::from_str::<Written>(&text).unwrap(), 100_000);
    again.add(105_000, 7, &taken(spray(1_000_000, 105_000).collect()));
    assert_eq!(all(&again, 105_000, 50), (100, MOST_SENDERS, 5000 + sprayed + 8192 * 128));
    let mut once = Hour::default();
    once.add(0, 0, &taken(clients(1, 0).collect()));
    once.add(5000, 7, &taken(spray(1000, 5000).collect()));
    assert_eq!(all(&once, 5000, 1), (100, MOST_SENDERS, 100 + 8192 * 128));
}

/// Who has a part in the flood that matters stands before clients that were there, however many those are.
#[test]
fn whoever_floods_is_among_those_kept() {
    let mut hour = Hour::default();
    hour.add(0, 0, &taken((1..=6000).map(|source| entry(source, 443, 0, 20, 0)).collect()));
    // A thousand share 8,192 samples a second, for five.
    hour.add(
        5000,
        7,
        &taken((10_001..=11_000).map(|source| entry(source, 443, 0, 40 * 128, 5000)).collect()),
    );
    let record = hour.record(5000, 0);
    assert_eq!(record.senders.iter().filter(|sender| sender.sums.packets == 40 * 128).count(), 1000);
}

#[test]
fn a_record_survives_its_keeper_and_not_its_boot() {
    let mut hour = Hour::default();
    for minute in 0..20 {
        let now = 100 * MINUTE + minute * MINUTE;
        hour.add(now, 1, &taken(vec![entry(7, 443, 0, 3, now), entry(minute as u32, 53, 0, 1, now)]));
    }
    let now = 121 * MINUTE;
    let text = serde_json::to_string(&hour.written()).unwrap();
    let read = |now| Hour::read(serde_json::from_str::<Written>(&text).unwrap(), now);
    assert_eq!(read(now).record(now, 5), hour.record(now, 5));
    // An earlier clock is another boot's; a later one has forgotten.
    assert_eq!(read(MINUTE).record(MINUTE, 0).total(), Sums::default());
    assert_eq!(read(now + 61 * MINUTE).record(now + 61 * MINUTE, 0).total(), Sums::default());
}

proptest! {
    /// Whatever comes in what order: nothing is counted twice and nothing is lost.
    #[test]
    fn sums_are_kept(
        steps in prop::collection::vec((1..20_000_i64, prop::collection::vec((0..5000_u32, 0..4_u32, 1..9_u64), 0..300)), 1..30)
    ) {
        let (mut hour, mut now, mut sent) = (Hour::default(), 0, 0);
        for (passed, entries) in &steps {
            now += passed;
            let entries: Vec<_> =
                entries.iter().map(|(source, cpu, packets)| entry(*source, 443, *cpu, *packets, now)).collect();
            sent += entries.iter().map(|(_, sent)| sent.packets).sum::<u64>();
            hour.add(now, 0, &taken(entries));
        }
        let record = hour.record(now, 0);
        prop_assert_eq!(record.total().packets, sent);
        prop_assert_eq!(record.total().bytes, 60 * sent);
        prop_assert!(record.senders.windows(2).all(|pair| pair[0].sums.packets >= pair[1].sums.packets));
    }
}
