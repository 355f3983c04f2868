//! Watched packets: what the program in the kernel leaves in its ring, and what it counts.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::flow::{NOT_TAKEN, RING_BYTES, Watch, Watches};
use dataplane_ebpf::wire::{Address, slot};
use model::filter::FilterBudgets;
use sallyport_node::keeper::kernel::{Kernel, Linux, Record};
use support::budgets::{self, datagram, slow, syn_from};
use support::corpus::{corpus, plan};
use support::frames::{TCP, ethernet, ipv4, syn};
use support::{Bpffs, WAYS};

/// Every packet, for as long as the test.
fn any() -> Watch {
    Watch { until: u64::MAX, reasons: u64::MAX, slots: [[0, u32::MAX]; 2], snap: 128, ..Watch::default() }
}

fn only(watch: Watch) -> Watches {
    [watch, Watch::default(), Watch::default(), Watch::default()]
}

fn all(kernel: &mut Linux) -> Vec<Record> {
    kernel.take_records(usize::MAX)
}

#[test]
fn every_packet_leaves_a_record_that_says_what_it_was() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        kernel.apply(&plan()).unwrap();
        kernel.watch(&only(any()), &[0]).unwrap();
        for (what, frame, expected) in corpus() {
            // The kernel runs no test over a frame without its Ethernet header.
            if frame.len() < 14 {
                continue;
            }
            let filter = kernel.filter().unwrap();
            port.namespace.inside(|| filter.judge_from(port.index, &frame, 1).unwrap());
            let records = all(&mut kernel);
            let [record] = &records[..] else { panic!("{what}: {records:?}") };
            let head = record.head;
            assert_eq!(head.reason, expected.number(), "{what}");
            assert_eq!((head.length as usize, head.interface), (frame.len(), port.index), "{what}");
            assert_eq!(record.bytes, frame[..frame.len().min(128)], "{what}");
            assert_eq!(head.shifts, [0, NOT_TAKEN, NOT_TAKEN, NOT_TAKEN], "{what}");
            assert!(
                head.time != 0
                    && (head.rule != 0) == (expected == Reason::Denied || expected == Reason::Allowed),
                "{what}"
            );
        }
    }
}

#[test]
fn nothing_is_left_while_nobody_watches() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, _port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        kernel.apply(&plan()).unwrap();
        let frame = syn("10.1.1.1", "10.0.0.1", 443);
        kernel.filter().unwrap().judge(&frame, 100).unwrap();
        assert_eq!(all(&mut kernel), []);
        // A lease that has ended is none, also where nobody took the watch away.
        kernel.watch(&only(Watch { until: 1, ..any() }), &[0]).unwrap();
        kernel.filter().unwrap().judge(&frame, 100).unwrap();
        assert_eq!(all(&mut kernel), []);
        assert_eq!(kernel.seen().unwrap().matched, [[0; 2]; 4]);
        // A change of the tables leaves what is watched.
        kernel.watch(&only(any()), &[0]).unwrap();
        kernel.apply(&support::corpus::plan_without(&[1, 2, 11])).unwrap();
        kernel.filter().unwrap().judge(&frame, 1).unwrap();
        assert_eq!(all(&mut kernel).len(), 1);
        kernel.watch(&Watches::default(), &[]).unwrap();
        kernel.filter().unwrap().judge(&frame, 1).unwrap();
        assert_eq!(all(&mut kernel), []);
    }
}

/// A budget decides after the rules, and what it decides is what is told, with its own rule.
#[test]
fn what_a_budget_decides_is_told() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        budgets::cookies(port.namespace, true);
        let wanted = FilterBudgets {
            syn_pressure: slow(62, 1),
            udp_per_source: slow(63, 2),
            syn_per_port: vec![budgets::port(64, 1, 22, 22)],
            ..FilterBudgets::default()
        };
        port.namespace.inside(|| budgets::put(&bpffs, &mut kernel, wanted));
        kernel.watch(&only(any()), &[0]).unwrap();
        let with_options = {
            let segment = &syn_from("10.8.0.9", 443)[34..];
            ethernet(&[], 0x0800, &ipv4("10.8.0.9", "10.0.0.1", TCP, 0, &[1; 4], segment))
        };
        let [spent, open] = [Reason::SynBudget, Reason::NoRule];
        for (source, rest) in [("10.8.0.1", "10.8.0.2"), ("2001:db8:8::1", "2001:db8:9::1")] {
            let (udp, ssh) = (datagram(source, 53), syn_from(source, 22));
            let cases = [
                (syn_from(source, 443), open, 0),
                (syn_from(rest, 443), Reason::SynCookie, 62),
                (with_options.clone(), spent, 62),
                (udp.clone(), open, 0),
                (udp.clone(), open, 0),
                (udp, Reason::UdpBudget, 63),
                (
                    ssh,
                    if source.contains(':') { spent } else { open },
                    if source.contains(':') { 64 } else { 0 },
                ),
            ];
            for (number, (frame, reason, rule)) in cases.into_iter().enumerate() {
                budgets::receive(&kernel.filter().unwrap(), port, &frame);
                let records = all(&mut kernel);
                let [record] = &records[..] else { panic!("{source} {number}: {records:?}") };
                let told = (record.head.reason, record.head.rule);
                assert_eq!(told, (reason.number(), rule), "{source} {number}");
                // Also where the answer took the frame's place, what came is what is told.
                assert_eq!(record.bytes, frame[..frame.len().min(128)], "{source} {number}");
            }
        }
    }
}

#[test]
fn each_watch_takes_its_own() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, _port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        kernel.apply(&plan()).unwrap();
        let mask =
            Address::v6([255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]).words();
        let six = Address::v6([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).words();
        let watches = [
            Watch { rule: 1, ..any() },
            Watch { source: Address::v4([10, 1, 0, 0]).words(), mask, family: 4, ..any() },
            Watch {
                source: six,
                mask: [u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 0, 0]), 0],
                family: 6,
                ..any()
            },
            Watch { slots: [[slot::TCP + 443; 2], [1, 0]], reasons: 1 << Reason::Allowed.number(), ..any() },
        ];
        kernel.watch(&watches, &[0, 1, 2, 3]).unwrap();
        let mut took = |source: &str, destination: &str, port: u16| {
            kernel.filter().unwrap().judge(&syn(source, destination, port), 1).unwrap();
            let records = all(&mut kernel);
            assert!(records.len() < 2);
            records.first().map_or([false; 4], |record| record.head.shifts.map(|shift| shift != NOT_TAKEN))
        };
        assert_eq!(took("10.1.1.1", "10.0.0.1", 22), [true, true, false, false]);
        assert_eq!(took("10.1.2.1", "10.0.0.1", 443), [false, true, false, true]);
        assert_eq!(took("2001:db8:1::1", "fd00::1", 22), [false, false, true, false]);
        assert_eq!(took("2001:db8:1:2::1", "fd00::1", 443), [false, false, true, true]);
        assert_eq!(took("10.9.0.1", "10.0.0.1", 22), [false; 4]);
        assert_eq!(kernel.seen().unwrap().matched, [[1, 0], [1, 1], [1, 1], [0, 2]]);
    }
}

/// What is told, each as often as it stands for, is what came: within five standard deviations.
#[test]
fn samples_stand_for_what_came() {
    let bpffs = Bpffs::new();
    let (mut kernel, _port) = bpffs.open_wired();
    kernel.apply(&plan()).unwrap();
    let (dropped, passed) = (syn("10.1.1.1", "10.0.0.1", 443), syn("10.1.2.1", "10.0.0.1", 443));
    let (packets, rounds) = (500_u32, 100_u32);
    kernel.watch(&only(Watch { shifts: [3, 5], ..any() }), &[0]).unwrap();
    let (mut drops, mut passes) = (0_u64, 0_u64);
    for _round in 0..rounds {
        kernel.filter().unwrap().judge(&dropped, packets).unwrap();
        kernel.filter().unwrap().judge(&passed, packets).unwrap();
        for record in all(&mut kernel) {
            let shift = record.head.shifts[0];
            if record.head.reason == Reason::Denied.number() {
                assert_eq!(shift, 3);
                drops += 1 << shift;
            } else {
                assert_eq!(shift, 5);
                passes += 1 << shift;
            }
        }
    }
    let sent = f64::from(packets * rounds);
    for (told, one_in) in [(drops, 8.0), (passes, 32.0)] {
        let deviation = (sent * (one_in - 1.0_f64)).sqrt();
        assert!((told as f64 - sent).abs() < 5.0 * deviation, "told {told} of {sent}, one in {one_in}");
    }
    let seen = kernel.seen().unwrap();
    assert_eq!(seen.matched[0], [u64::from(packets * rounds); 2]);
    assert_eq!(seen.lost, [[0; 2]; 4]);
}

#[test]
fn what_the_ring_has_no_room_for_is_counted() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, _port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        kernel.apply(&plan()).unwrap();
        kernel.watch(&only(any()), &[0]).unwrap();
        let frame = syn("10.1.1.1", "10.0.0.1", 443);
        kernel.filter().unwrap().judge(&frame, 20_000).unwrap();
        let told = all(&mut kernel).len() as u64;
        let seen = kernel.seen().unwrap();
        // A record has 8 bytes before it, is rounded up to 8, and the ring keeps one back.
        let each = (8 + 32 + frame.len() as u64).next_multiple_of(8);
        assert_eq!(told, (u64::from(RING_BYTES) - 1) / each);
        assert_eq!(seen.matched[0], [20_000, 0]);
        assert_eq!(seen.lost[0], [20_000 - told, 0]);
        kernel.filter().unwrap().judge(&frame, 3).unwrap();
        assert_eq!(all(&mut kernel).len(), 3);
    }
}

#[test]
fn a_capture_takes_as_many_as_it_is_to_and_as_much_of_each() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, _port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        kernel.apply(&plan()).unwrap();
        let frame = [syn("10.1.1.1", "10.0.0.1", 443), vec![7; 1400]].concat();
        for snap in [20, 1500] {
            let capture = Watch { rule: 1, snap, limit: 100, ..any() };
            kernel.watch(&only(capture), &[0]).unwrap();
            kernel.filter().unwrap().judge(&syn("10.9.1.1", "10.0.0.1", 443), 50).unwrap();
            kernel.filter().unwrap().judge(&frame, 5000).unwrap();
            let records = all(&mut kernel);
            assert_eq!(records.len(), 100);
            let expected = &frame[..frame.len().min(snap as usize)];
            assert!(
                records
                    .iter()
                    .all(|record| record.bytes == expected && record.head.length as usize == frame.len())
            );
        }
    }
}

/// What the ring had no room for is none of those that were asked for: a capture larger than the ring comes to its end.
#[test]
fn a_capture_larger_than_the_ring_takes_all_it_is_to() {
    const LIMIT: u32 = 1000;
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, _port) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        kernel.apply(&plan()).unwrap();
        let frame = [syn("10.1.1.1", "10.0.0.1", 443), vec![7; 1400]].concat();
        kernel.watch(&only(Watch { rule: 1, snap: 1500, limit: LIMIT, ..any() }), &[0]).unwrap();
        // As it is in a flood: far more come than the ring has room for before somebody reads it.
        let (mut taken, mut looks, mut most, mut last) = (0, 0, 0, 0);
        while taken < LIMIT as usize && looks < 100 {
            kernel.filter().unwrap().judge(&frame, 5000).unwrap();
            let records = all(&mut kernel);
            assert!(records.iter().all(|record| record.bytes.len() == frame.len()));
            last = records.len();
            (taken, looks, most) = (taken + last, looks + 1, most.max(last));
            assert_eq!(kernel.captured().unwrap(), [taken as u64, 0, 0, 0]);
        }
        assert!(most * 2 < LIMIT as usize && looks > 2, "{most} at once");
        assert_eq!(taken, LIMIT as usize);
        kernel.filter().unwrap().judge(&frame, 5000).unwrap();
        assert_eq!(all(&mut kernel), []);
        // What came until the ring was emptied for the last time should have been among them, and is counted.
        let seen = kernel.seen().unwrap();
        assert_eq!(seen.matched[0], [(looks + 1) * 5000, 0]);
        assert_eq!(seen.lost[0], [(looks - 1) * 5000 - (taken - last) as u64, 0]);
    }
}
