//! Listeners on prefixes and any port: whom the kernel gives a connection, against the slow reference, with real connections.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use dataplane_ebpf::reason::Reason;
use ipnet::IpNet;
use model::listen::{Place, Port};
use sallyport_node::keeper::kernel::{Kernel, Linux};
use sallyport_node::keeper::plan::{KernelPlan, ranges_of};
use socket2::{Domain, Socket, Type};
use support::corpus::Counts;
use support::random::{Random, seed};
use support::sockets::Sockets;
use support::{Bpffs, Wire, emulated};

/// Where a connection was made to that is here within a time: the client's side is done before ours.
fn accepted(sockets: &Sockets, within: Duration) -> Option<SocketAddr> {
    let until = Instant::now() + within;
    loop {
        match sockets.v4.accept().or_else(|_| sockets.v6.accept()) {
            Ok((accepted, _)) => return accepted.local_addr().ok(),
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return None,
        }
    }
}

/// One node's listening side at the left end of a wire, with addresses that are routed to it.
fn node(bpffs: &Bpffs, wire: &Wire) -> (Linux, Sockets) {
    for (command, net) in [("route", "10.77.0.0/16"), ("-6 route", "fd77::/64")] {
        wire.left.ip(&format!("{command} add local {net} dev lo"));
    }
    wire.right.ip("route add 10.77.0.0/16 via 10.99.0.1");
    wire.right.ip("-6 route add fd77::/64 via fd99::1");
    wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = Sockets::alone(&mut kernel);
        sockets.v4.set_nonblocking(true).unwrap();
        sockets.v6.set_nonblocking(true).unwrap();
        (kernel, sockets)
    })
}

fn plan(places: &BTreeSet<Place>, busy: &[SocketAddr]) -> KernelPlan {
    let listeners = places.iter().filter_map(Place::bound).collect();
    KernelPlan { listeners, ranges: ranges_of(places, busy), ..KernelPlan::default() }
}

fn place(addresses: &str, port: &str) -> Place {
    Place::At(addresses.parse().unwrap(), port.parse().unwrap())
}

/// Whether the node has the connection; somebody else's is not told from none.
fn reaches(wire: &Wire, sockets: &Sockets, to: SocketAddr) -> bool {
    let client = wire.right.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)));
    let within = match &client {
        Ok(_) if emulated() => Duration::from_secs(3),
        Ok(_) => Duration::from_millis(300),
        Err(_) => Duration::ZERO,
    };
    match (client, accepted(sockets, within)) {
        (Ok(_client), Some(local)) => {
            assert_eq!(local, to);
            true
        }
        (Ok(_other), None) => false,
        (Err(error), None) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
            false
        }
        (Err(error), Some(local)) => unreachable!("{local} was accepted, and the client has {error}"),
    }
}

#[test]
fn a_range_and_any_port_are_steered_and_what_others_listen_on_is_theirs() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let (mut kernel, sockets) = node(&bpffs, &wire);
    let _ssh = wire.left.inside(|| TcpListener::bind("0.0.0.0:22").unwrap());
    let places = BTreeSet::from([
        place("10.77.7.0/24", "443"),
        place("fd77::/80", "443"),
        place("10.77.8.0/24", "any"),
    ]);
    let busy = ["0.0.0.0:22".parse().unwrap()];
    let all = [
        ("10.77.7.1:443", true),
        ("10.77.7.255:443", true),
        ("[fd77::ffff]:443", true),
        ("10.77.7.1:444", false),
        ("10.77.6.255:443", false),
        ("[fd77::1:0:0:1]:443", false),
        ("10.77.8.1:1", true),
        ("10.77.8.200:65535", true),
        ("10.77.8.1:22", false),
    ];
    for (to, expected) in all {
        assert!(!reaches(&wire, &sockets, to.parse().unwrap()), "{to}, before {expected}");
    }
    kernel.apply(&plan(&places, &busy)).unwrap();
    let before = Counts::read(&kernel);
    for (to, expected) in all {
        assert_eq!(reaches(&wire, &sockets, to.parse().unwrap()), expected, "{to}");
    }
    let seen = before.since(&kernel);
    assert_eq!(seen[&Reason::Steered], 5, "{seen:?}");
    // A keeper that starts leaves them in force, and says the same again.
    drop(kernel);
    let mut kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    for _ in 0..2 {
        for (to, expected) in all {
            assert_eq!(reaches(&wire, &sockets, to.parse().unwrap()), expected, "{to}");
        }
        kernel.apply(&plan(&places, &busy)).unwrap();
    }
    kernel.apply(&KernelPlan::default()).unwrap();
    for (to, _) in all {
        assert!(!reaches(&wire, &sockets, to.parse().unwrap()), "{to}, after");
    }
    kernel.detach().unwrap();
}

fn any_place(random: &mut Random) -> Place {
    let port = *random.pick(&[0_u64, 0, 1001, 1002, 1003]);
    let port = Port::try_from(port).unwrap_or(Port::Any);
    if let (Port::One(port), 0) = (port, random.below(6)) {
        return Place::Everywhere(port);
    }
    let length = *random.pick(&[16_u8, 24, 29, 30, 31, 32]);
    let net = IpNet::new(any_address(random), length);
    let net =
        net.map(|net| if net.addr().is_ipv6() { IpNet::new(net.addr(), length + 96).unwrap() } else { net });
    Place::At(net.unwrap().trunc().to_string().parse().unwrap(), port)
}

fn any_address(random: &mut Random) -> IpAddr {
    let low = random.below(8) as u8;
    match random.below(2) {
        0 => IpAddr::from([10, 77, 0, low]),
        _ => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(low)]),
    }
}

/// Of random listeners, that of the highest rank has the connection, unless it has any port and somebody else listens there.
#[test]
fn connections_go_where_the_slow_reference_says() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let (mut kernel, sockets) = node(&bpffs, &wire);
    let seed = seed();
    println!("SALLYPORT_FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut steered, mut not) = (0, 0);
    for round in 0..40 {
        let places: BTreeSet<Place> = (0..random.below(9)).map(|_| any_place(&mut random)).collect();
        let port = |random: &mut Random| NonZeroU16::new(1000 + random.below(5) as u16).unwrap().get();
        let busy: Vec<SocketAddr> = (0..random.below(3))
            .map(|_| SocketAddr::new(any_address(&mut random), port(&mut random)))
            .collect();
        let holders: Vec<TcpListener> =
            wire.left.inside(|| busy.iter().filter_map(|local| bind(*local)).collect());
        kernel.apply(&plan(&places, &busy)).unwrap();
        for _ in 0..25 {
            let to = SocketAddr::new(any_address(&mut random), port(&mut random));
            let winner = places.iter().filter(|place| place.holds(to)).max_by_key(|place| place.rank());
            let expected = winner.is_some_and(|place| place.port() != Port::Any || !busy.contains(&to));
            assert_eq!(reaches(&wire, &sockets, to), expected, "{to} in round {round}: {places:?}, {busy:?}");
            *(if expected { &mut steered } else { &mut not }) += 1;
        }
        drop(holders);
    }
    println!("{steered} steered, {not} not");
    assert!(steered > 100 && not > 100, "{steered} {not}");
    kernel.detach().unwrap();
}

/// A socket that listens, on an address that only a route makes local.
fn bind(local: SocketAddr) -> Option<TcpListener> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None).ok()?;
    socket.set_reuse_address(true).ok()?;
    if local.is_ipv6() {
        socket.set_freebind_v6(true).ok()?;
    }
    socket.bind(&local.into()).ok()?;
    socket.listen(16).ok()?;
    Some(socket.into())
}
