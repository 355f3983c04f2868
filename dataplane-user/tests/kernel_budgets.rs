//! Budgets in the kernel: frames through `BPF_PROG_TEST_RUN`, and real handshakes over a wire.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::Address;
use dataplane_ebpf::wire::budget::{SOURCES_MAX, Source, place};
use model::filter::{FilterBudget, FilterBudgets, FilterMode};
use sallyport_node::keeper::kernel::{Kernel, Linux};
use support::budgets::{
    budget, cookies, datagram, plan, port, provoked, put, reasons, slow, stretch, syn_from,
};
use support::corpus::Counts;
use support::frames::{ethernet, extension, fragment, ipv4, ipv6, tcp};
use support::sockets::Sockets;
use support::{Bpffs, Port, WAYS, Wire};

const WITHIN: Reason = Reason::NoRule;
const OVER: Reason = Reason::SynBudget;
/// How long after a SYN over the budget of all sources the node says that there is pressure.
const PRESSED: Duration = Duration::from_secs(5);

fn within(count: usize) -> Vec<Reason> {
    vec![WITHIN; count]
}

#[test]
fn a_source_has_its_burst_and_no_more() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        put(&bpffs, &mut kernel, FilterBudgets { syn_per_source: slow(7, 4), ..FilterBudgets::default() });
        for source in ["10.1.0.1", "2001:db8:1:2::1"] {
            let seen = reasons(&kernel, wire, vec![syn_from(source, 443); 6]);
            assert_eq!(seen, [within(4), vec![OVER; 2]].concat(), "{source}");
        }
        // A /64 is one source, its neighbour and another address of IPv4 are others, and other segments are nobody's budget.
        let seen = reasons(
            &kernel,
            wire,
            [
                syn_from("2001:db8:1:2:ffff::9", 22),
                syn_from("2001:db8:1:3::1", 443),
                syn_from("10.1.0.2", 443),
                datagram("10.1.0.1", 53),
            ],
        );
        assert_eq!(seen, [OVER, WITHIN, WITHIN, WITHIN]);
        let drops = kernel.take_drops().unwrap();
        let [drop] = &drops[..] else { panic!("{drops:?}") };
        assert_eq!((&*drop.reason, drop.rule, drop.count), ("syn-budget", 7, 5));

        // Without the budget nothing is over it.
        put(&bpffs, &mut kernel, FilterBudgets::default());
        assert_eq!(reasons(&kernel, wire, vec![syn_from("10.1.0.1", 443); 3]), within(3));
    }
}

/// The second packet of a source pays for the first, unless that was long ago.
#[test]
fn a_bucket_is_full_again_also_for_the_second_packet() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        let budgets = FilterBudgets { udp_per_source: budget(7, 20, 1), ..FilterBudgets::default() };
        kernel.apply(&plan(budgets)).unwrap();
        for source in ["10.1.0.1", "2001:db8:1::1"] {
            let one = || reasons(&kernel, wire, [datagram(source, 53)]);
            assert_eq!(one(), within(1));
            std::thread::sleep(Duration::from_millis(120));
            assert_eq!(one(), within(1), "{source} has waited for two intervals");
        }
    }
}

/// The rest of a datagram is of its source too, also where IPv6 hides what it is the rest of.
#[test]
fn later_fragments_are_charged() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        put(&bpffs, &mut kernel, FilterBudgets { udp_per_source: slow(7, 2), ..FilterBudgets::default() });
        let four = ethernet(&[], 0x0800, &ipv4("10.1.0.1", "10.0.0.1", 17, 185, &[], &[0; 64]));
        let six =
            ethernet(&[], 0x86dd, &ipv6("2001:db8:1::1", "fd00::1", 44, 64, &fragment(17, 185, &[0; 64])));
        let hidden =
            ethernet(&[], 0x86dd, &ipv6("2001:db8:2::1", "fd00::1", 44, 64, &fragment(60, 185, &[0; 64])));
        for frame in [four, six, hidden] {
            let seen = reasons(&kernel, wire, vec![frame; 4]);
            assert_eq!(seen, [WITHIN, WITHIN, Reason::UdpBudget, Reason::UdpBudget]);
        }
    }
}

/// Two sources that would push each other out of the place where a source waits for its second packet.
#[test]
fn two_in_turn_have_no_more_than_their_budgets() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        put(&bpffs, &mut kernel, FilterBudgets { syn_per_source: slow(7, 4), ..FilterBudgets::default() });
        for first in ["10.1.0.1", "2001:db8:1::1"] {
            let door = |source: &str| {
                Source::of(&Address::from(source.parse::<IpAddr>().unwrap())).door(place::SYN_PER_SOURCE)
            };
            let other = |number: u32| {
                let [_, a, b, c] = number.to_be_bytes();
                if first.contains(':') {
                    format!("2001:db8:{a:x}{b:02x}:{c:x}::1")
                } else {
                    format!("10.{a}.{b}.{c}")
                }
            };
            let second = (0x20_0000..)
                .map(other)
                .find(|other| door(other).0 == door(first).0 && door(other).1 != door(first).1)
                .unwrap();
            let turns = [first, &second].repeat(1000).into_iter().map(|source| syn_from(source, 443));
            let passed = reasons(&kernel, wire, turns).iter().filter(|reason| **reason == WITHIN).count();
            // Each is let through without a bucket sixteen times in the mean: 200 times in one of 400,000 runs.
            assert!((8..=400).contains(&passed), "{first} and {second}: {passed} of 2000");
        }
    }
}

/// In real time: what passes is the burst and what the rate has brought since, exactly as far as the clock says when that was. The
/// bucket never fills again, though this machine had other things to do for twenty seconds.
#[test]
fn the_rate_is_kept() {
    const RATE: u64 = 200;
    const BURST: u64 = 20 * RATE;
    let bpffs = Bpffs::new();
    let (mut kernel, wire) = bpffs.open_wired();
    let budgets = FilterBudgets { udp_per_source: budget(7, RATE, BURST), ..FilterBudgets::default() };
    kernel.apply(&plan(budgets)).unwrap();
    for source in ["10.1.0.1", "2001:db8:1::1"] {
        let ([least, most], passed, dropped) = two_seconds(&kernel, wire, &datagram(source, 53), BURST);
        let brought = |time: Duration| BURST as f64 + RATE as f64 * time.as_secs_f64();
        // Two CPUs may each take the first packet for the first, and a source's first is known to the millisecond.
        let right = brought(least) - 2.0..=brought(most) + 2.0;
        assert!(
            right.contains(&(passed as f64)) && dropped > 0,
            "{source}: {passed}, not {right:?}, {dropped}"
        );
    }
}

/// Spends a burst, and for two seconds sends from both CPUs at once, so that no bucket's change may be lost, and then what is left: the
/// least and the most time in which anything came back to the bucket, how many passed, how many were dropped.
fn two_seconds(kernel: &Linux, wire: Port<'_>, frame: &[u8], burst: u64) -> ([Duration; 2], u64, u64) {
    let filter = kernel.filter().unwrap();
    let more_than_burst = u32::try_from(2 * burst).unwrap();
    let before = Counts::read(kernel);
    let times = wire.namespace.inside(|| {
        let begun = Instant::now();
        filter.judge_from(wire.index, frame, more_than_burst).unwrap();
        let spent = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while spent.elapsed() < Duration::from_secs(2) {
                        filter.judge_from(wire.index, frame, 100).unwrap();
                    }
                });
            }
        });
        let least = spent.elapsed();
        filter.judge_from(wire.index, frame, more_than_burst).unwrap();
        [least, begun.elapsed()]
    });
    let seen = before.since(kernel);
    (times, seen[&WITHIN], seen[&Reason::UdpBudget])
}

#[test]
fn a_port_has_its_own() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        let syn_per_port = vec![port(8, 2, 443, 444), port(9, 1, 22, 22)];
        put(&bpffs, &mut kernel, FilterBudgets { syn_per_port, ..FilterBudgets::default() });
        let sources = ["10.1.0.1", "10.1.0.2", "2001:db8::1", "10.1.0.3"];
        let to = |port| sources.map(|source| syn_from(source, port));
        assert_eq!(reasons(&kernel, wire, to(443)), [WITHIN, WITHIN, OVER, OVER]);
        assert_eq!(reasons(&kernel, wire, to(444)), [WITHIN, WITHIN, OVER, OVER]);
        assert_eq!(reasons(&kernel, wire, to(22)), [WITHIN, OVER, OVER, OVER]);
        assert_eq!(reasons(&kernel, wire, to(80)), within(4));
        // A port that is in no budget any more has none.
        let syn_per_port = vec![port(9, 1, 22, 22)];
        put(&bpffs, &mut kernel, FilterBudgets { syn_per_port, ..FilterBudgets::default() });
        assert_eq!(reasons(&kernel, wire, to(443)), within(4));
        assert_eq!(reasons(&kernel, wire, to(22)), [OVER; 4]);
    }
}

#[test]
fn an_observed_budget_drops_nothing() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        let observed = |id| Some(FilterBudget { mode: FilterMode::Observe, ..slow(id, 2).unwrap() });
        let budgets = FilterBudgets {
            syn_per_source: observed(5),
            syn_pressure: observed(6),
            udp_per_source: observed(7),
            ..FilterBudgets::default()
        };
        put(&bpffs, &mut kernel, budgets);
        let frames = [syn_from("10.1.0.1", 443), datagram("10.1.0.1", 53)];
        for frame in frames {
            let seen = reasons(&kernel, wire, vec![frame; 4]);
            assert_eq!(seen, [WITHIN, WITHIN, Reason::Observed, Reason::Observed]);
        }
        let drops = kernel.take_drops().unwrap();
        let rules: Vec<(u32, u64)> = drops.iter().map(|drop| (drop.rule, drop.count)).collect();
        assert_eq!(rules, [(5, 2), (7, 2)], "{drops:?}");
    }
}

/// Only SYNs to listeners are under pressure, each family for itself; without cookies they are dropped, and it is said.
#[test]
fn pressure_without_cookies_drops() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        cookies(wire.namespace, false);
        let budgets = FilterBudgets { syn_pressure: slow(6, 2), ..FilterBudgets::default() };
        wire.namespace.inside(|| put(&bpffs, &mut kernel, budgets));
        let four = ["10.1.0.1", "10.1.0.2", "10.1.0.3"].map(|source| syn_from(source, 443));
        let six = ["2001:db8:1::1", "2001:db8:2::1", "2001:db8:3::1"].map(|source| syn_from(source, 443));
        assert_eq!(reasons(&kernel, wire, four), [WITHIN, WITHIN, OVER]);
        let pressed = Instant::now();
        assert_eq!(reasons(&kernel, wire, six), [WITHIN, WITHIN, OVER]);
        assert_eq!(reasons(&kernel, wire, vec![syn_from("10.1.0.4", 22); 3]), within(3));
        let said = |kernel: &Linux| {
            let features = wire.namespace.inside(|| kernel.features());
            features.into_iter().find(|feature| feature.name == "syn-cookies").unwrap()
        };
        let off = said(&kernel);
        assert!(!off.on && off.detail.contains("tcp_syncookies"), "{off:?}");
        assert!(off.detail.contains("SYNs over the budget are dropped"), "{off:?}");
        // What is only observed passes, also without cookies.
        let observed = FilterBudget { mode: FilterMode::Observe, ..slow(6, 2).unwrap() };
        let budgets = FilterBudgets { syn_pressure: Some(observed), ..FilterBudgets::default() };
        wire.namespace.inside(|| put(&bpffs, &mut kernel, budgets));
        let unknown = ["10.2.0.1", "10.2.0.2", "10.2.0.3"].map(|source| syn_from(source, 443));
        assert_eq!(reasons(&kernel, wire, unknown)[2], Reason::Observed);
        let off = said(&kernel);
        assert!(!off.on && off.detail.contains("are only observed, and in Enforce they would"), "{off:?}");
        let budgets = FilterBudgets { syn_pressure: slow(6, 2), ..FilterBudgets::default() };
        wire.namespace.inside(|| put(&bpffs, &mut kernel, budgets));
        // The host's setting is followed.
        cookies(wire.namespace, true);
        wire.namespace.inside(|| kernel.look());
        stretch(&bpffs);
        let on = said(&kernel);
        let now = on.detail.contains("over the budget now") || pressed.elapsed() > PRESSED;
        assert!(on.on && now, "{on:?}");
        let after = ["10.1.0.5", "10.1.0.6", "10.1.0.7"].map(|source| syn_from(source, 443));
        assert_eq!(reasons(&kernel, wire, after), [Reason::SynCookie; 3]);
    }
}

/// A cookie goes to the addresses that were judged: what lies where a VLAN tag would put them is the sender's invention.
#[test]
fn no_cookie_goes_to_addresses_that_nobody_judged() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        cookies(wire.namespace, true);
        let budgets = FilterBudgets { syn_pressure: slow(6, 1), ..FilterBudgets::default() };
        wire.namespace.inside(|| put(&bpffs, &mut kernel, budgets));
        let spend = syn_from("2001:db8:1::1", 443);
        assert_eq!(reasons(&kernel, wire, [spend]), [WITHIN]);
        // An extension header, a flow label that looks like a type, and an address that looks like a next header.
        let segment = extension(6, 0, &tcp(443));
        let mut packet = ipv6("2001:6b8::1", "fd00::1", 60, 64, &segment);
        packet[2..4].copy_from_slice(&0x86dd_u16.to_be_bytes());
        assert_eq!(packet[10], 6);
        // Where the other header would say how long it is, this one has what it acknowledges.
        packet[40 + 8 + 8] = 0x50;
        packet.extend([0; 40]);
        let length = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        let plain = syn_from("2001:db8:2::1", 443);
        let seen = reasons(&kernel, wire, [ethernet(&[], 0x86dd, &packet), plain]);
        assert_eq!(seen, [OVER, Reason::SynCookie]);
        // Behind tags the addresses are where the tags put them.
        for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
            let tagged = ethernet(tags, 0x86dd, &ipv6("2001:db8:3::1", "fd00::1", 6, 64, &tcp(443)));
            assert_eq!(reasons(&kernel, wire, [tagged]), [Reason::SynCookie], "{tags:x?}");
        }
    }
}

#[test]
fn every_reason_of_a_budget_is_given() {
    for way in WAYS {
        let bpffs = Bpffs::new();
        let (mut kernel, wire) = bpffs.open_wired();
        kernel.set_sampling(way).unwrap();
        let seen = provoked(&bpffs, &mut kernel, wire);
        for reason in [Reason::SynCookie, Reason::SynBudget, Reason::UdpBudget] {
            assert!(seen.contains(&reason), "{reason:?}: {seen:?}");
        }
    }
}

fn connect(to: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(10))
}

/// A connection that carries a word both ways.
fn talk(to: &str, listener: &TcpListener) {
    let mut client = connect(to).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    let mut word = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut word).unwrap();
    server.write_all(&word).unwrap();
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
}

/// Handshakes through cookies that XDP sends and the kernel takes; who has made one is known, also after a million others.
#[test]
fn a_handshake_through_a_cookie() {
    let (bpffs, peer, wire) = (Bpffs::new(), Bpffs::new(), Wire::new());
    cookies(&wire.left, true);
    // A veth sends what XDP answers only where the other end has XDP too.
    let _other_end = wire.right.inside(|| Linux::open(peer.config(&["wire1"])).unwrap());
    let (mut kernel, sockets) = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = Sockets::alone(&mut kernel);
        (kernel, sockets)
    });
    let budgets = FilterBudgets { syn_pressure: slow(6, 2), ..FilterBudgets::default() };
    wire.left.inside(|| put(&bpffs, &mut kernel, budgets));
    let before = Counts::read(&kernel);
    let cookies_since = |kernel: &Linux| before.since(kernel).get(&Reason::SynCookie).copied().unwrap_or(0);
    let families = [("10.99.0.1:443", &sockets.v4), ("[fd99::1]:443", &sockets.v6)];
    // Within the budget: the kernel answers by itself, and takes cookies at these sockets from now on.
    for (to, listener) in families {
        wire.right.inside(|| talk(to, listener));
    }
    assert_eq!(cookies_since(&kernel), 0);
    let (filter, port) = (kernel.filter().unwrap(), wire.left.port("wire0"));
    for (to, listener) in families {
        let stranger = if to.starts_with('[') { "2001:db8:7::7" } else { "10.7.7.7" };
        wire.left.inside(|| filter.judge_from(port.index, &syn_from(stranger, 443), 2).unwrap());
        let before = cookies_since(&kernel);
        wire.right.inside(|| talk(to, listener));
        assert_eq!(cookies_since(&kernel), before + 1, "{to}: answered with a cookie");
        wire.right.inside(|| talk(to, listener));
        assert_eq!(cookies_since(&kernel), before + 1, "{to}: who sent it back is known");
    }

    const FLOOD: u32 = 1_000_000;
    let before_it = cookies_since(&kernel);
    wire.left.inside(|| {
        for source in 0..FLOOD {
            let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + source).to_string();
            filter.judge_from(port.index, &syn_from(&source, 443), 1).unwrap();
        }
    });
    let answered = cookies_since(&kernel);
    assert_eq!(answered, before_it + u64::from(FLOOD));
    const { assert!(FLOOD > 10 * SOURCES_MAX) };
    for (to, listener) in families {
        wire.right.inside(|| talk(to, listener));
    }
    assert_eq!(cookies_since(&kernel), answered, "they are still known");
    // Known, and no freer than others: what is over the budget, of which the two talks were all, is asked again.
    for source in ["10.99.0.2", "fd99::2"] {
        let seen = reasons(&kernel, port, vec![syn_from(source, 443); 10]);
        assert_eq!(seen, [Reason::SynCookie; 10], "{source}");
    }
    let drops = kernel.take_drops().unwrap();
    assert!(drops.iter().any(|drop| (drop.rule, &*drop.reason) == (6, "syn-cookie")), "{drops:?}");
}

#[test]
fn a_source_has_only_so_many_new_connections() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    cookies(&wire.left, false);
    let (mut kernel, sockets) = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = Sockets::alone(&mut kernel);
        (kernel, sockets)
    });
    let budgets = FilterBudgets { new_connections_per_source: slow(6, 3), ..FilterBudgets::default() };
    wire.left.inside(|| put(&bpffs, &mut kernel, budgets));
    for (to, listener) in [("10.99.0.1:443", &sockets.v4), ("[fd99::1]:443", &sockets.v6)] {
        wire.right.inside(|| {
            (0..3).for_each(|_| talk(to, listener));
            let refused = connect(to).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        });
    }
    let drops = kernel.take_drops().unwrap();
    assert!(drops.iter().any(|drop| (drop.rule, &*drop.reason) == (6, "new-connection-budget")), "{drops:?}");
}
