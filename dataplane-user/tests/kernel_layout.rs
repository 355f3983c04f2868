//! A change of the tables' layout (decision 10) while traffic runs: packets and connections at a steady pace, whatever comes of the
//! ones before, over keepers that find the tables of another layout and replace them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::mem::offset_of;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::here::Here;
use dataplane_ebpf::wire::maps;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use sallyport_node::handover::message::FilterState;
use sallyport_node::keeper::kernel::{Kernel, Linux};
use sallyport_node::keeper::plan::KernelPlan;
use socket2::{Domain, Socket, Type};
use support::rules::{Rules, deny};
use support::sockets::Sockets;
use support::{Bpffs, Stop, Wire, emulated};

const RULE: u32 = 9;
const DENIED: [&str; 2] = ["10.99.0.3", "fd99::3"];
const ALLOWED: [&str; 2] = ["10.99.0.2", "fd99::2"];
const SERVER: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// Where datagrams go, and where connections go.
const DATAGRAMS: u16 = 9000;
const LISTENER: u16 = 443;
/// Of a SYN or an answer that is lost another comes after a second. (An emulated processor may take as long for anything.)
const AT_ONCE: Duration = Duration::from_millis(900);
const PATIENCE: Duration = Duration::from_secs(20);
/// Changes of layout, one after the other.
const CHANGES: usize = 3;

fn plan() -> KernelPlan {
    let rules = vec![deny(RULE, &["10.99.0.3/32", "fd99::3/128"])];
    Rules { rules, listeners: vec![(None, LISTENER)], ..Rules::default() }.plan()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Does something at a steady pace until told to stop, and makes up for what was late.
fn pace(every: Duration, stop: &Stop, mut work: impl FnMut(usize)) {
    // An emulated processor is that much slower, and so many connections at once have no descriptors.
    let every = if emulated() { every * 20 } else { every };
    let begun = Instant::now();
    for number in 0.. {
        let due = begun + every * u32::try_from(number).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.said() {
            return;
        }
        work(number);
    }
}

/// What was sent and what came of it.
#[derive(Default)]
struct Traffic {
    stop: Stop,
    sent: AtomicU64,
    denied: AtomicU64,
    received: AtomicU64,
    broke_through: AtomicU64,
    connections: AtomicU64,
    answers: AtomicU64,
    failures: Mutex<Vec<String>>,
}

fn more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Traffic {
    fn begin<'s>(&'s self, scope: &'s Scope<'s, '_>, wire: &'s Wire, sockets: &'s Sockets) {
        for listener in [&sockets.v4, &sockets.v6] {
            scope.spawn(|| wire.left.inside(|| self.serve(listener)));
        }
        for (server, source) in SERVER.into_iter().zip(ALLOWED) {
            let receiver = wire.left.inside(|| receiver(server));
            scope.spawn(move || self.receive(&receiver));
            scope.spawn(move || wire.right.inside(|| self.keep(source, server)));
            scope.spawn(move || wire.right.inside(|| self.connect(source, server)));
            scope.spawn(move || wire.right.inside(|| self.send(source, server, b"allowed", &self.sent)));
        }
        for (server, source) in SERVER.into_iter().zip(DENIED) {
            scope.spawn(move || wire.right.inside(|| self.send(source, server, b"denied", &self.denied)));
        }
    }

    fn failed(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    /// Says everything back to everybody.
    fn serve(&self, listener: &TcpListener) {
        listener.set_nonblocking(true).unwrap();
        thread::scope(|scope| {
            while !self.stop.said() {
                match listener.accept() {
                    Ok((mut stream, _)) => drop(scope.spawn(move || {
                        let mut words = [0; 4];
                        while stream.read_exact(&mut words).is_ok() && stream.write_all(&words).is_ok() {}
                    })),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_micros(200));
                    }
                    Err(error) => self.failed(format!("accepting: {error}")),
                }
            }
        });
    }

    /// A new connection every few milliseconds, each of which is answered.
    fn connect(&self, source: &str, server: &str) {
        thread::scope(|scope| {
            pace(Duration::from_millis(6), &self.stop, |number| {
                more(&self.connections);
                scope.spawn(move || {
                    let begun = Instant::now();
                    let answered = dial(source, server).and_then(|stream| ask(&stream));
                    let took = begun.elapsed();
                    if answered.is_err() || (took > AT_ONCE && !emulated()) {
                        self.failed(format!("connection {number} to {server}: {answered:?} after {took:?}"));
                    }
                });
            });
        });
    }

    /// One connection all the time.
    fn keep(&self, source: &str, server: &str) {
        let mut kept = dial(source, server);
        pace(Duration::from_millis(5), &self.stop, |_| {
            let Ok(stream) = &kept else { return };
            match ask(stream) {
                Ok(()) => more(&self.answers),
                Err(error) => kept = Err(error),
            }
        });
        if let Err(error) = kept {
            self.failed(format!("the kept connection to {server}: {error}"));
        }
    }

    fn send(&self, source: &str, server: &str, what: &[u8], sent: &AtomicU64) {
        let socket = UdpSocket::bind(at(source, 0)).unwrap();
        pace(Duration::from_millis(2), &self.stop, |_| {
            socket.send_to(what, at(server, DATAGRAMS)).unwrap();
            more(sent);
        });
    }

    fn receive(&self, socket: &UdpSocket) {
        let mut bytes = [0; 16];
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        loop {
            // Nothing for as long as this after whoever sends was told to stop.
            let stopped = self.stop.said();
            let (length, from) = match socket.recv_from(&mut bytes) {
                Ok(received) => received,
                Err(_nothing) if stopped => return,
                Err(_nothing) => continue,
            };
            match &bytes[..length] {
                b"allowed" => more(&self.received),
                b"denied" => more(&self.broke_through),
                other => panic!("{other:?} from {from}"),
            }
        }
    }
}

/// A connection from one of several addresses.
fn dial(source: &str, server: &str) -> std::io::Result<TcpStream> {
    let (source, server) = (at(source, 0), at(server, LISTENER));
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    Ok(socket.into())
}

/// A word there and back.
fn ask(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut words = [0; 4];
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    stream.read_exact(&mut words)
}

/// A socket for datagrams that loses none while nobody reads for a moment.
fn receiver(server: &str) -> UdpSocket {
    let address = at(server, DATAGRAMS);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
    set_socket_recv_buffer_size_force(&socket, 4 << 20).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.into()
}

/// The programs' counters, also when they are pinned no more.
struct Counters(PerCpuArray<MapData, [u64; size_of::<Here>() / 8]>);

impl Counters {
    fn of(bpffs: &Bpffs) -> Self {
        Self(Map::PerCpuArray(bpffs.pinned(maps::HERE)).try_into().unwrap())
    }

    fn denied(&self) -> u64 {
        let place = offset_of!(Here, reasons) / 8 + Reason::Denied.number() as usize;
        self.0.get(&0, 0).unwrap().iter().map(|words| words[place]).sum()
    }
}

/// How much the keeper tells that the rule dropped since it was last asked.
fn told(kernel: &mut Linux) -> u64 {
    let drops = kernel.take_drops().unwrap();
    drops.iter().filter(|drop| drop.rule == RULE).map(|drop| drop.count).sum()
}

fn open(bpffs: &Bpffs, wire: &Wire) -> Linux {
    wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap())
}

/// As another release would have left it: a map that this one makes in another size.
fn another_layout(bpffs: &Bpffs, name: &str) {
    let map = bpffs.root().join("test/current/maps").join(name);
    fs::remove_file(&map).unwrap();
    PerCpuArray::<MapData, u32>::create(8, 0).unwrap().pin(&map).unwrap();
}

/// What the keeper is told comes in any order; the last of it moves the links.
fn fill(kernel: &mut Linux, wire: &Wire, sockets: &Sockets, number: usize) {
    let mut steps: [&(dyn Fn(&mut Linux) + Sync); 3] =
        [&|kernel| kernel.apply(&plan()).unwrap(), &|kernel| sockets.enter(kernel, 0), &|kernel| {
            kernel.set_threads(1).unwrap()
        }];
    steps.rotate_left(number % 3);
    for step in steps {
        thread::sleep(Duration::from_millis(50));
        let filters = wire.left.inside(|| kernel.filters());
        assert!(matches!(&filters[..], [FilterState { attached: true, .. }]), "{filters:?}");
        wire.left.inside(|| step(kernel));
    }
}

#[test]
fn a_layout_changes_under_traffic() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    for address in ["10.99.0.3/24", "fd99::3/64 nodad"] {
        wire.right.ip(&format!("addr add {address} dev wire1"));
    }
    let mut kernel = open(&bpffs, &wire);
    let sockets = wire.left.inside(Sockets::new);
    fill(&mut kernel, &wire, &sockets, 0);
    let traffic = Traffic::default();
    // Of each set of tables: what it counts, and what its keeper told of that.
    let mut counted = Vec::new();
    let mut kernel = thread::scope(|scope| {
        let _stop = traffic.stop.at_the_end();
        traffic.begin(scope, &wire, &sockets);
        for number in 0..CHANGES {
            thread::sleep(Duration::from_millis(300));
            counted.push((Counters::of(&bpffs), told(&mut kernel)));
            drop(kernel);
            another_layout(&bpffs, if number % 2 == 0 { maps::HERE } else { maps::RULES });
            // A keeper that dies before the tables are filled changes nothing.
            drop(open(&bpffs, &wire));
            thread::sleep(Duration::from_millis(50));
            kernel = open(&bpffs, &wire);
            assert!(bpffs.root().join("test/next").exists());
            fill(&mut kernel, &wire, &sockets, number);
            assert!(!bpffs.root().join("test/next").exists(), "change {number} is settled");
        }
        thread::sleep(Duration::from_millis(300));
        kernel
    });
    counted.push((Counters::of(&bpffs), told(&mut kernel)));
    let failures = traffic.failures.into_inner().unwrap();
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (sent, denied) = (get(&traffic.sent), get(&traffic.denied));
    let (connections, answers) = (get(&traffic.connections), get(&traffic.answers));
    let lost: Vec<u64> = counted.iter().map(|(counters, told)| counters.denied() - told).collect();
    println!(
        "{CHANGES} changes: {connections} connections, {answers} answers of kept ones, {sent} packets allowed, {denied} denied, of which not told: {lost:?}"
    );
    assert_eq!(get(&traffic.broke_through), 0, "of {denied} denied");
    assert!(failures.is_empty(), "{} of {connections}: {failures:?}", failures.len());
    let least = if emulated() { 20 } else { 100 };
    assert!(connections > least && answers > least && sent > 2 * least && denied > 2 * least);
    let counted: u64 = counted.iter().map(|(counters, _)| counters.denied()).sum();
    // Each packet is counted once, by the programs that judged it. (A wire holds 256, and an emulated processor may let it run over.)
    let right = |seen: u64, sent: u64| if emulated() { seen <= sent } else { seen == sent };
    assert!(right(counted, denied), "{counted} of {denied} denied are counted");
    assert!(right(get(&traffic.received), sent), "{} of {sent} allowed came", get(&traffic.received));
    assert_eq!(lost.last(), Some(&0), "the new tables' counts are told from the first packet on");
    wire.left.inside(|| kernel.detach().unwrap());
}
