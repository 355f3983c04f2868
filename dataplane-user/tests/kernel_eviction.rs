//! Whom a flood from a million sources pushes out of the tables of buckets: neither who is over his budget and goes on, nor, to his
//! harm, who is within it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;

use aya::TestRun;
use aya::programs::TestRunOptions;
use aya::programs::socket_filter::SocketFilter;
use dataplane_ebpf::wire::budget::SOURCES_MAX;
use dataplane_ebpf::wire::maps;
use model::filter::FilterBudgets;
use sallyport_node::keeper::kernel::{Filter, Kernel};
use support::budgets::{datagram, put, slow, syn_from};
use support::corpus::XDP_PASS;
use support::sockets::Sockets;
use support::{Bpffs, Port, WAYS, emulated};

/// `SK_PASS`.
const SK_PASS: u32 = 1;
/// Nothing comes back while the test runs.
const BURST: u32 = 1500;
/// Of each family half.
const FLOOD: u32 = 1_000_000;
const KINDS: [Kind; 3] = [Kind::Syn, Kind::Udp, Kind::Connection];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Syn,
    Udp,
    Connection,
}

/// The budgets as they are loaded, of which sources can ask.
struct Asks<'a> {
    kind: Kind,
    filter: Filter,
    /// Not its type, but only the type's wrapper can run what is pinned, whatever that is.
    steer: SocketFilter,
    port: Port<'a>,
}

impl Asks<'_> {
    /// Whether one more of a source is let through.
    fn passes(&self, frames: &mut Frames, source: IpAddr) -> bool {
        let frame = frames.from(source);
        match self.kind {
            Kind::Connection => {
                let options = TestRunOptions { ctx_in: Some(frame), ..TestRunOptions::new() };
                self.steer.test_run(options).unwrap().return_value == SK_PASS
            }
            Kind::Syn | Kind::Udp => {
                self.filter.judge_from(self.port.index, frame, 1).unwrap().verdict == XDP_PASS
            }
        }
    }
}

/// What asks, of each family, and where its source stands in it.
struct Frames {
    four: (Vec<u8>, usize),
    six: (Vec<u8>, usize),
}

impl Frames {
    fn new(kind: Kind) -> Self {
        let make = |source: &str, lookup, at| match kind {
            Kind::Syn => (syn_from(source, 443), at),
            Kind::Udp => (datagram(source, 53), at),
            Kind::Connection => lookup,
        };
        Self {
            four: make("10.1.0.1", (lookup("10.0.0.1"), 16), 26),
            six: make("2001:db8::1", (lookup("fd00::1"), 20), 22),
        }
    }

    fn from(&mut self, source: IpAddr) -> &[u8] {
        let ((frame, at), octets) = match source {
            IpAddr::V4(address) => (&mut self.four, address.octets().to_vec()),
            IpAddr::V6(address) => (&mut self.six, address.octets().to_vec()),
        };
        frame[*at..*at + octets.len()].copy_from_slice(&octets);
        frame
    }
}

/// `struct bpf_sk_lookup` of a connection to 443.
fn lookup(local: &str) -> Vec<u8> {
    let mut bytes = vec![0; 72];
    let (family, at, octets) = match local.parse().unwrap() {
        IpAddr::V4(address) => (2_u32, 40, address.octets().to_vec()),
        IpAddr::V6(address) => (10, 44, address.octets().to_vec()),
    };
    bytes[8..12].copy_from_slice(&family.to_ne_bytes());
    bytes[12..16].copy_from_slice(&6_u32.to_ne_bytes());
    bytes[at..at + octets.len()].copy_from_slice(&octets);
    bytes[60..64].copy_from_slice(&443_u32.to_ne_bytes());
    bytes
}

/// One of the flood: of both families in turn.
fn other(number: u32) -> IpAddr {
    if number.is_multiple_of(2) {
        Ipv6Addr::from((0x2a00_0000 << 96) + (u128::from(number) << 64) + 7).into()
    } else {
        Ipv4Addr::from(0x0b00_0000 + number).into()
    }
}

/// Somebody of each family.
#[derive(Debug)]
struct Somebody {
    what: &'static str,
    addresses: [IpAddr; 2],
    /// Sends once whenever so many of the flood have come.
    every: u32,
    passed: u32,
    dropped: u32,
}

impl Somebody {
    fn new(what: &'static str, net: u8, every: u32) -> Self {
        let addresses = [format!("10.{net}.0.1"), format!("2001:db8:{net}::1")];
        let addresses = addresses.map(|address| address.parse().unwrap());
        Self { what, addresses, every, passed: 0, dropped: 0 }
    }

    fn send(&mut self, asks: &Asks<'_>, frames: &mut Frames) {
        for address in self.addresses {
            match asks.passes(frames, address) {
                true => self.passed += 1,
                false => self.dropped += 1,
            }
        }
    }

    /// Comes to be over its budget.
    fn spend(&mut self, asks: &Asks<'_>, frames: &mut Frames) {
        (0..BURST + 10).for_each(|_| self.send(asks, frames));
        assert_eq!((self.passed, self.dropped), (2 * BURST, 20), "{:?}: {}", asks.kind, self.what);
        (self.passed, self.dropped) = (0, 0);
    }
}

/// Sources of the flood: half of them send twice, which makes a bucket, and half three times, which uses it as well. Beside them those
/// who are watched.
fn flood(asks: &Asks<'_>, numbers: impl Iterator<Item = u32>, beside: &mut [Somebody]) {
    let mut frames = Frames::new(asks.kind);
    for number in numbers {
        for _ in 0..2 + number / 2 % 2 {
            assert!(asks.passes(&mut frames, other(number)), "{:?}: {}", asks.kind, other(number));
        }
        let whose_turn = beside.iter_mut().filter(|somebody| number.is_multiple_of(somebody.every));
        whose_turn.for_each(|somebody| somebody.send(asks, &mut frames));
    }
}

#[test]
fn a_million_sources_push_out_themselves() {
    const { assert!(FLOOD / 15 > SOURCES_MAX) };
    let count = if emulated() { FLOOD / 5 } else { FLOOD };
    for kind in KINDS {
        let bpffs = Bpffs::new();
        let (mut kernel, port) = bpffs.open_wired();
        let _sockets = port.namespace.inside(|| Sockets::alone(&mut kernel));
        let budget = |id| slow(id, BURST.into());
        let budgets = FilterBudgets {
            syn_per_source: budget(5),
            udp_per_source: budget(6),
            new_connections_per_source: budget(7),
            ..FilterBudgets::default()
        };
        put(&bpffs, &mut kernel, budgets);
        let steer = bpffs.root().join("test/current/programs").join(maps::STEER);
        let steer = SocketFilter::from_pin(steer).unwrap();
        let asks = Asks { kind, filter: kernel.filter().unwrap(), steer, port };
        let mut frames = Frames::new(kind);
        let mut over = [
            Somebody::new("over, and goes on", 5, 100),
            // Others than there are buckets come between two of its packets only three times.
            Somebody::new("over, and goes on at leisure", 6, 20_000),
            Somebody::new("within", 7, 1_000),
        ];
        let mut silent = Somebody::new("over, and silent", 8, u32::MAX);
        port.namespace.inside(|| {
            over.iter_mut().take(2).chain([&mut silent]).for_each(|one| one.spend(&asks, &mut frames));
        });
        for (half, way) in WAYS.into_iter().enumerate() {
            kernel.set_sampling(way).unwrap();
            let numbers = half as u32 * (count / 2)..(half as u32 + 1) * (count / 2);
            // Whole pairs, one of each family, on each of two threads.
            let of = |thread| numbers.clone().filter(move |number| number / 4 % 2 == thread);
            thread::scope(|scope| {
                scope.spawn(|| port.namespace.inside(|| flood(&asks, of(1), &mut [])));
                port.namespace.inside(|| flood(&asks, of(0), &mut over));
            });
        }
        let [busy, slow, within] = &over;
        for somebody in [busy, slow] {
            assert!(
                somebody.passed == 0 && somebody.dropped >= count / 20_000,
                "{kind:?}: {}: {somebody:?}",
                somebody.what
            );
        }
        assert!(
            within.dropped == 0 && within.passed >= count / 1000,
            "{kind:?}: {}: {within:?}",
            within.what
        );
        // Or else nobody was pushed out, and the rest shows nothing.
        port.namespace.inside(|| silent.send(&asks, &mut frames));
        assert_eq!((silent.passed, silent.dropped), (2, 0), "{kind:?}: {}, and so forgotten", silent.what);
    }
}
