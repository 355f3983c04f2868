//! Who is sending, in the kernel: sums by sender, samples, and what a spray of sources does to them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_ebpf::wire::here::Here;
use dataplane_ebpf::wire::sender::{SENDERS_MAX, Sender, Sent};
use dataplane_ebpf::wire::{Address, slot};
use model::filter::FilterBudgets;
use sallyport_node::keeper::kernel::{Kernel, Linux, Taken};
use support::Bpffs;
use support::budgets::{self, datagram, reasons, slow};
use support::corpus::plan;
use support::frames::{ICMP, TCP, UDP, ethernet, icmp, ipv4, ipv6, syn, tcp, udp};

/// The sums of one sender over all CPUs: packets, bytes, SYNs, drops.
fn sums(taken: &Taken) -> BTreeMap<Sender, [u64; 4]> {
    let mut sums = BTreeMap::new();
    for (key, Sent { packets, bytes, syns, drops, first, last }) in &taken.senders {
        assert!(first <= last);
        let sum: &mut [u64; 4] = sums.entry(Sender { cpu: 0, ..*key }).or_default();
        for (sum, number) in sum.iter_mut().zip([packets, bytes, syns, drops]) {
            *sum += number;
        }
    }
    sums
}

fn v4(source: &str, destination: &str, slot: u32) -> Sender {
    let octets = |text: &str| Address::v4(text.parse::<std::net::Ipv4Addr>().unwrap().octets());
    Sender::new(octets(source), octets(destination), slot, 0)
}

fn v6(source: &str, destination: &str, slot: u32) -> Sender {
    let octets = |text: &str| Address::v6(text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    Sender::new(octets(source), octets(destination), slot, 0)
}

fn opened(bpffs: &Bpffs) -> Linux {
    let (mut kernel, _) = bpffs.open_wired();
    kernel.apply(&plan()).unwrap();
    kernel
}

#[test]
fn every_packet_is_counted_while_they_are_few() {
    let bpffs = Bpffs::new();
    let mut kernel = opened(&bpffs);
    assert_eq!(kernel.sampling().unwrap(), Some((0, 0)));
    let filter = kernel.filter().unwrap();
    let ack = {
        let mut segment = tcp(443);
        segment[13] = 16;
        ethernet(&[], 0x0800, &ipv4("10.2.3.5", "10.0.0.1", TCP, 0, &[], &segment))
    };
    let query = ethernet(&[], 0x86dd, &ipv6("2001:db8::9", "2001:db8::1", UDP, 64, &udp(53)));
    let echo = ethernet(&[0x8100], 0x0800, &ipv4("198.51.100.7", "10.0.0.1", ICMP, 0, &[], &icmp(8, 0)));
    let open = syn("10.2.3.5", "10.0.0.1", 443);
    let denied = syn("10.1.9.9", "10.0.0.1", 22);
    for (frame, times) in [(&ack, 30), (&open, 4), (&query, 5), (&echo, 6), (&denied, 7)] {
        filter.judge(frame, times).unwrap();
    }
    // What no table judges has no sender: it cannot be read, or passes whoever sends it.
    filter.judge(&ethernet(&[], 0x0806, &[0; 28]), 9).unwrap();
    filter.judge(&[0; 20], 9).unwrap();
    assert_eq!(kernel.sampling().unwrap(), Some((0, 52)));
    let taken = kernel.take_senders().unwrap();
    let length = |frame: &[u8]| frame.len() as u64;
    let expected = BTreeMap::from([
        (v4("10.2.3.5", "10.0.0.1", slot::TCP + 443), [34, 30 * length(&ack) + 4 * length(&open), 4, 0]),
        (v6("2001:db8::9", "2001:db8::1", slot::UDP + 53), [5, 5 * length(&query), 0, 0]),
        (v4("198.51.100.7", "10.0.0.1", slot::ICMP + 8), [6, 6 * length(&echo), 0, 0]),
        (v4("10.1.9.9", "10.0.0.1", slot::TCP + 22), [7, 7 * length(&denied), 7, 7]),
    ]);
    assert_eq!((sums(&taken), taken.sampled), (expected, 52));
    assert_eq!(kernel.take_senders().unwrap(), Taken::default());
}

/// What is over a budget is dropped as what a rule drops.
#[test]
fn what_a_budget_drops_is_a_drop() {
    let bpffs = Bpffs::new();
    let (mut kernel, wire) = bpffs.open_wired();
    let wanted = FilterBudgets { udp_per_source: slow(7, 3), ..FilterBudgets::default() };
    budgets::put(&bpffs, &mut kernel, wanted);
    kernel.take_senders().unwrap();
    let packets = ["10.1.0.1", "2001:db8:1::1"].map(|source| datagram(source, 53));
    for packet in &packets {
        reasons(&kernel, wire, vec![packet.clone(); 5]);
    }
    let length = packets.map(|packet| 5 * packet.len() as u64);
    let expected = BTreeMap::from([
        (v4("10.1.0.1", "10.0.0.1", slot::UDP + 53), [5, length[0], 0, 2]),
        (v6("2001:db8:1::1", "fd00::1", slot::UDP + 53), [5, length[1], 0, 2]),
    ]);
    assert_eq!(sums(&kernel.take_senders().unwrap()), expected);
}

#[test]
fn what_was_not_taken_is_the_next_keepers() {
    let bpffs = Bpffs::new();
    let mut kernel = opened(&bpffs);
    let frame = syn("10.2.3.5", "10.0.0.1", 443);
    kernel.filter().unwrap().judge(&frame, 3).unwrap();
    kernel.take_senders().unwrap();
    kernel.filter().unwrap().judge(&frame, 5).unwrap();
    kernel.set_sampling(4).unwrap();
    drop(kernel);
    let (mut kernel, _) = bpffs.open_wired();
    assert_eq!(kernel.sampling().unwrap(), Some((4, 5)));
    kernel.set_sampling(0).unwrap();
    kernel.filter().unwrap().judge(&frame, 2).unwrap();
    let taken = kernel.take_senders().unwrap();
    assert_eq!(taken.sampled, 7);
    assert_eq!(sums(&taken)[&v4("10.2.3.5", "10.0.0.1", slot::TCP + 443)][0], 7);
}

/// Binomial: an estimate of one in eight is within five standard deviations, whoever sends how much.
#[test]
fn samples_stand_for_what_was_sent() {
    let bpffs = Bpffs::new();
    let mut kernel = opened(&bpffs);
    kernel.set_sampling(3).unwrap();
    let filter = kernel.filter().unwrap();
    let sent = [("10.2.3.5", 443_u16, 80_000_u32), ("10.2.3.6", 443, 20_000), ("10.1.9.9", 22, 10_000)];
    // Turn by turn, as the packets of senders lie between each other on a wire.
    for _ in 0..1000 {
        for (source, port, packets) in sent {
            filter.judge(&syn(source, "10.0.0.1", port), packets / 1000).unwrap();
        }
    }
    let taken = kernel.take_senders().unwrap();
    let sums = sums(&taken);
    for (source, port, packets) in sent {
        let [counted, bytes, syns, drops] = sums[&v4(source, "10.0.0.1", slot::TCP + u32::from(port))];
        let frame = syn(source, "10.0.0.1", port).len() as u64;
        assert_eq!((counted % 8, bytes, syns), (0, counted * frame, counted));
        assert_eq!(drops, if port == 22 { counted } else { 0 });
        let deviation = (f64::from(packets) * 7.0).sqrt();
        let off = (counted as f64 - f64::from(packets)).abs();
        println!("{source}: {packets} sent, {counted} counted, {:.1} deviations", off / deviation);
        assert!(off < 5.0 * deviation, "{source}: {packets} sent, {counted} counted");
    }
    assert_eq!(taken.sampled, sums.values().map(|sum| sum[0]).sum::<u64>());
}

/// Three times as many sources as the table holds, each with one packet, between those of somebody who sends steadily: the
/// steady sender loses nothing, and what was pushed out is told.
#[test]
fn a_spray_of_sources_pushes_out_itself() {
    let bpffs = Bpffs::new();
    let mut kernel = opened(&bpffs);
    let filter = kernel.filter().unwrap();
    let steady = syn("10.2.3.5", "10.0.0.1", 443);
    let sprayed = 3 * SENDERS_MAX;
    for number in 0..sprayed {
        let source = std::net::Ipv4Addr::from(0x0b00_0000 + number);
        filter.judge(&syn(&source.to_string(), "10.0.0.1", 443), 1).unwrap();
        if number % 64 == 0 {
            filter.judge(&steady, 1).unwrap();
        }
    }
    let taken = kernel.take_senders().unwrap();
    let sums = sums(&taken);
    assert_eq!(taken.sampled, u64::from(sprayed + sprayed / 64));
    assert!(taken.senders.len() <= SENDERS_MAX as usize, "{}", taken.senders.len());
    assert!(taken.senders.len() > SENDERS_MAX as usize / 2, "{}", taken.senders.len());
    println!("{} of {sprayed} sprayed sources are in the table", sums.len() - 1);
    assert_eq!(sums[&v4("10.2.3.5", "10.0.0.1", slot::TCP + 443)][0], u64::from(sprayed / 64));
    // The table is as good as new.
    filter.judge(&steady, 2).unwrap();
    assert_eq!(kernel.take_senders().unwrap().senders.len(), 1);
}

/// What the CPUs draw begins somewhere, each for itself, and goes on under the next keeper.
#[test]
fn every_processor_draws_for_itself() {
    let bpffs = Bpffs::new();
    let states = || {
        let here: PerCpuArray<MapData, [u64; size_of::<Here>() / 8]> =
            Map::PerCpuArray(MapData::from_pin(bpffs.root().join("test/current/maps/HERE")).unwrap())
                .try_into()
                .unwrap();
        here.get(&0, 0).unwrap().iter().map(|words| words[offset_of!(Here, draw) / 8]).collect::<Vec<_>>()
    };
    drop(bpffs.open());
    let first = states();
    let different: BTreeSet<u64> = first.iter().copied().collect();
    assert!(different.len() == first.len() && !different.contains(&0), "{first:x?}");
    drop(bpffs.open());
    assert_eq!(states(), first);
    let filter = bpffs.open().filter().unwrap();
    filter.judge(&syn("10.1.1.1", "10.0.0.1", 443), 1).unwrap();
    assert_ne!(states(), first);
}
