//! The host's own addresses come and go while the node runs: nothing from outside may have one of them as its source, from the
//! moment the host has it until it has it no longer.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use dataplane_ebpf::reason::Reason;
use sallyport_tests::probe::{self, Passed};
use sallyport_tests::stage::{CLIENT4, CLIENT6, NODE4, NODE6, hardware};

use super::place::{Place, SENT};

/// Addresses that the node comes to have, and where: at the interface with the filter, at another one, at loopback.
const COMING: [(&str, &str, u8); 6] = [
    ("c0", "10.99.1.77", 24),
    ("c0", "fd99:1::77", 64),
    ("o0", "10.99.3.77", 24),
    ("o0", "fd99:3::77", 64),
    ("lo", "10.50.0.1", 32),
    ("lo", "fd50::1", 128),
];
/// The kernel tells of a change, and the tables follow within a fraction of this.
const SOON: Duration = Duration::from_secs(1);
/// Nobody listens there.
const PORT: u16 = 5000;

struct Outside<'a> {
    place: &'a Place,
    passed: Passed<'a>,
}

impl<'a> Outside<'a> {
    /// Somebody on the link who has, and uses, all addresses that the node will have.
    fn new(place: &'a Place) -> Self {
        let clients = &place.stage.clients;
        let node = hardware(&place.stage.node, "c0").map(|byte| format!("{byte:02x}")).join(":");
        // Whoever asks for the node's address from an address of the node gets no answer.
        clients.ip(&format!("neigh replace {NODE4} lladdr {node} dev c0 nud permanent"));
        clients.ip(&format!("neigh replace {NODE6} lladdr {node} dev c0 nud permanent"));
        for (_, address, _) in COMING {
            clients.ip(&format!("address add {address} dev c0 {}", nodad(address)));
        }
        // Neighbour discovery passes whatever its source is.
        let ours = COMING.map(|(_, address, _)| format!("{address} udp dport {PORT}"));
        let passed = Passed::count_each(&place.stage.node, &ours.each_ref().map(String::as_str));
        Self { place, passed }
    }

    fn send(&self, source: &str, count: u64) {
        let source: IpAddr = source.parse().unwrap();
        let node = if source.is_ipv4() { IpAddr::from(NODE4) } else { NODE6.into() };
        self.place.stage.clients.inside(|| {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            for _ in 0..count {
                socket.send_to(&[7; 10], SocketAddr::new(node, PORT)).unwrap();
            }
        });
    }

    /// How many were dropped as own addresses, and how many passed, of all sources.
    fn counts(&self) -> (u64, u64) {
        let own = Reason::OwnAddress.number();
        (probe::reason(self.place.product.instance(), own), self.passed.packets())
    }

    /// Sends [`SENT`] packets of a source, which are all dropped, or all pass.
    fn are(&self, dropped: bool, source: &str) {
        let before = self.counts();
        self.send(source, SENT);
        let wanted = if dropped { (SENT, 0) } else { (0, SENT) };
        sallyport_tests::eventually(&format!("{source}: {wanted:?} dropped and passed"), SOON, || {
            let (now, passed) = self.counts();
            let since = (now - before.0, passed - before.1);
            if since == wanted { Ok(()) } else { Err(format!("{since:?}")) }
        });
    }

    /// Sends a packet after the other until one is dropped, or passes; how long that took.
    fn until(&self, dropped: bool, source: &str) -> Duration {
        let (begin, before) = (Instant::now(), self.counts());
        loop {
            self.send(source, 1);
            let now = self.counts();
            let came = if dropped { now.0 > before.0 } else { now.1 > before.1 };
            let took = begin.elapsed();
            assert!(
                came || took < SOON,
                "{source} still {} after {took:?}",
                if dropped { "passes" } else { "is dropped" }
            );
            if came {
                return took;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What `ip` wants for an address that is usable at once.
fn nodad(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}

#[test]
fn an_address_that_the_host_gets_later_is_protected_at_once_and_as_long_as_it_has_it() {
    let place = Place::new("filterown", &[]);
    let outside = Outside::new(&place);
    let node = &place.stage.node;
    let mut took = Vec::new();
    for (interface, address, length) in COMING {
        outside.are(false, address);
        node.ip(&format!("address add {address}/{length} dev {interface} {}", nodad(address)));
        let protected = outside.until(true, address);
        outside.are(true, address);
        // The others' packets are no business of it.
        let others = COMING.iter().filter(|(_, other, _)| *other != address);
        others.for_each(|(_, other, _)| outside.are(false, other));
        node.ip(&format!("address del {address}/{length} dev {interface}"));
        let free = outside.until(false, address);
        outside.are(false, address);
        println!(
            "{address} at {interface}: dropped after {protected:?}, and again let through after {free:?}"
        );
        took.extend([protected, free]);
    }
    // Beside being told, the node looks once a second: that alone would take half a second in the median.
    took.sort_unstable();
    assert!(took[took.len() / 2] < SOON / 3, "{took:?}");
    for from in [IpAddr::from(CLIENT4), CLIENT6.into()] {
        assert_eq!(place.get(from, 443).unwrap(), 200, "{from}");
    }
}
