//! Steering, takeover and attachment, with real sockets on wires between namespaces; counters prove the way.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's failure is its report")]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::mem::offset_of;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use dataplane_ebpf::object::OBJECT;
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::here::Here;
use model::filter::FilterBudgets;
use model::report::Feature;
use rustix::thread::{CpuSet, sched_setaffinity};
use sallyport_node::handover::message::FilterState;
use sallyport_node::keeper::kernel::{Config, Kernel, KernelError, Linux, PinKind, detach_instance, pins};
use sallyport_node::keeper::plan::KernelPlan;
use support::corpus::{Counts, corpus, judge, plan};
use support::rules::{Rules, cases, deny, particular, single_cases};
use support::sockets::Sockets;
use support::{Bpffs, Wire, budgets};

fn listeners(ports: &[u16]) -> KernelPlan {
    denying(&[], ports)
}

fn denying(prefixes: &[&str], ports: &[u16]) -> KernelPlan {
    let rules = if prefixes.is_empty() { Vec::new() } else { vec![deny(9, prefixes)] };
    let listeners = ports.iter().map(|port| (None, *port)).collect();
    Rules { rules, listeners, ..Rules::default() }.plan()
}

fn connect(to: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(700))
}

fn feature(kernel: &Linux, name: &str) -> Feature {
    kernel
        .features()
        .into_iter()
        .find(|feature| feature.name == name)
        .unwrap_or_else(|| panic!("no feature {name}"))
}

#[test]
fn connections_reach_the_sockets_through_both_programs() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let (mut kernel, sockets, other) = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = Sockets::new();
        sockets.enter(&mut kernel, 0);
        kernel.set_threads(1).unwrap();
        kernel.apply(&listeners(&[443])).unwrap();
        (kernel, sockets, TcpListener::bind("0.0.0.0:8080").unwrap())
    });
    assert_eq!(
        feature(&kernel, "xdp:wire0"),
        Feature { name: "xdp:wire0".into(), on: true, detail: "native".into() }
    );
    assert!(feature(&kernel, "sk_lookup").on && kernel.steers());
    let before = Counts::read(&kernel);
    wire.right.inside(|| {
        for (address, listener) in [("10.99.0.1:443", &sockets.v4), ("[fd99::1]:443", &sockets.v6)] {
            let client = connect(address).unwrap();
            let (accepted, from) = listener.accept().unwrap();
            assert_eq!(accepted.local_addr().unwrap(), address.parse().unwrap());
            assert_eq!(from, client.local_addr().unwrap());
        }
        connect("10.99.0.1:8080").unwrap();
        assert_eq!(connect("10.99.0.1:444").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
    drop(other);
    let seen = before.since(&kernel);
    assert_eq!(seen[&Reason::Steered], 2, "{seen:?}");
    assert_eq!(seen[&Reason::NotSteered], 2, "{seen:?}");
    assert!(seen[&Reason::NoRule] >= 8, "all of it came through XDP: {seen:?}");

    // A denied source does not come through, and its rule is blamed.
    let denied = denying(&["10.99.0.2/32"], &[443]);
    kernel.apply(&denied).unwrap();
    wire.right.inside(|| {
        assert_eq!(connect("10.99.0.1:443").unwrap_err().kind(), ErrorKind::TimedOut);
        connect("[fd99::1]:443").unwrap();
    });
    let drops = kernel.take_drops().unwrap();
    let [drop] = &drops[..] else { panic!("{drops:?}") };
    assert_eq!((drop.reason.as_str(), drop.rule), ("denied", 9));

    // A removed listener is nobody's.
    kernel.apply(&listeners(&[])).unwrap();
    wire.right
        .inside(|| assert_eq!(connect("10.99.0.1:443").unwrap_err().kind(), ErrorKind::ConnectionRefused));
    kernel.detach().unwrap();
    assert!(pins(&bpffs.root(), "test").unwrap().is_empty());
}

#[test]
fn with_fewer_queues_than_threads_flows_spread() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let (kernel, sockets) = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = [(); 4].map(|()| Sockets::new());
        sockets.iter().enumerate().for_each(|(thread, sockets)| sockets.enter(&mut kernel, thread));
        kernel.set_threads(4).unwrap();
        kernel.apply(&listeners(&[443])).unwrap();
        (kernel, sockets)
    });
    wire.right.inside(|| {
        let clients: Vec<TcpStream> = (0..64).map(|_| connect("10.99.0.1:443").unwrap()).collect();
        let accepted: BTreeSet<usize> = (0..4)
            .filter(|thread| {
                sockets[*thread].v4.set_nonblocking(true).unwrap();
                sockets[*thread].v4.accept().is_ok()
            })
            .collect();
        assert_eq!(accepted.len(), 4, "{} clients", clients.len());
    });
    assert_eq!(kernel.packets(Reason::Steered).unwrap(), 64);
    let how = feature(&kernel, "sk_lookup").detail;
    assert!(how.contains("by a hash") && how.contains("wire0 has 1 receive queue and"), "{how}");
    assert!(how.contains("4 threads") && how.contains("`ethtool -L wire0 combined 4`"), "{how}");
}

/// Whoever takes the filter off opens the gate for a moment, which is put right and told.
#[test]
fn a_filter_that_was_taken_off_is_put_back_and_leaves_a_trace() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let mut kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    let link = bpffs.root().join("test/links/xdp-wire0");
    let state = |attached, gaps| vec![FilterState { interface: "wire0".to_owned(), attached, gaps }];
    let mut look = || {
        wire.left.inside(|| kernel.look());
        (feature(&kernel, "xdp:wire0"), kernel.filters())
    };
    assert_eq!(look().0.detail, "native");
    assert_eq!(look().1, state(true, 0));
    for (times, gaps) in [(1, "1 time since"), (2, "2 times since")] {
        // The link goes with its last reference.
        std::fs::remove_file(&link).unwrap();
        // The kernel takes the program off the interface a moment after its last reference went: until then it is a stranger's.
        let back = (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Some(look()).filter(|(told, _)| told.on)
        });
        let (told, filters) = back.expect("the filter is put back");
        assert!(link.exists(), "{told:?}");
        assert_eq!(filters, state(true, times));
        assert!(
            told.detail.starts_with("native; found missing and put back ") && told.detail.contains(gaps),
            "{told:?}"
        );
        let ms = told.detail.split("at most ").nth(1).and_then(|rest| rest.strip_suffix(" ms")).unwrap();
        assert!(ms.parse::<u64>().unwrap() >= 20, "{told:?}");
        assert_eq!(look(), (told, filters));
    }
}

/// How many of `count` connections from a processor each thread got.
fn from_processor(processor: usize, to: &str, count: usize, sockets: &[Sockets]) -> Vec<usize> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).unwrap();
    let clients: Vec<TcpStream> = (0..count).map(|_| connect(to).unwrap()).collect();
    let accepted = |listener: &TcpListener| {
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    };
    let threads = sockets.iter().map(|sockets| accepted(&sockets.v4) + accepted(&sockets.v6)).collect();
    drop(clients);
    threads
}

/// With as many receive queues as threads a connection is accepted where it was received: veth hands a packet over on the
/// processor that sent it, so the client's processor is the one that receives. Over two interfaces, IPv4 and IPv6. One interface
/// with fewer queues, and flows are spread instead.
#[test]
fn connections_go_to_the_thread_of_the_processor_that_received_them() {
    let (bpffs, wire) = (Bpffs::new(), Wire::with_queues(4));
    wire.add("wire2", "wire3", 98, Some(4));
    let processors = std::thread::available_parallelism().unwrap().get().min(4);
    assert!(processors > 1, "one processor shows nothing");
    let (mut kernel, sockets) = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0", "wire2"])).unwrap();
        let sockets: Vec<Sockets> = (0..processors).map(|_| Sockets::new()).collect();
        sockets.iter().enumerate().for_each(|(thread, sockets)| sockets.enter(&mut kernel, thread));
        kernel.set_threads(processors).unwrap();
        kernel.apply(&listeners(&[443])).unwrap();
        (kernel, sockets)
    });
    let how = |kernel: &Linux| feature(kernel, "sk_lookup").detail;
    assert_eq!(how(&kernel), "the kernel hands connections to the worker thread of their CPU");
    for to in ["10.99.0.1:443", "[fd99::1]:443", "10.98.0.1:443", "[fd98::1]:443"] {
        for processor in 0..processors {
            let threads = wire.right.inside(|| from_processor(processor, to, 32, &sockets));
            println!("{to} from processor {processor}: {threads:?}");
            let expected: Vec<usize> =
                (0..processors).map(|thread| 32 * usize::from(thread == processor)).collect();
            assert_eq!(threads, expected, "{to} from processor {processor}");
        }
    }
    wire.add("wire4", "wire5", 97, Some(1));
    wire.add("wire6", "wire7", 96, None);
    for (few, to) in [("wire4", "10.97.0.1:443"), ("wire6", "10.96.0.1:443"), ("wire6", "[fd96::1]:443")] {
        drop(kernel);
        kernel = wire.left.inside(|| {
            let mut kernel = Linux::open(bpffs.config(&["wire0", "wire2", few])).unwrap();
            kernel.set_threads(processors).unwrap();
            kernel
        });
        let threads = wire.right.inside(|| from_processor(0, to, 64, &sockets));
        println!("with {few}, which uses one queue, to {to} from processor 0: {threads:?}");
        assert!(threads.iter().all(|count| *count > 0), "{few}: {threads:?}");
        assert!(how(&kernel).contains(&format!("for {few} has 1 receive queue and")), "{}", how(&kernel));
    }
    kernel.detach().unwrap();
}

#[test]
fn a_dead_keepers_programs_stay_and_are_taken_over() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let plan = denying(&["fd99::2/128"], &[443]);
    let sockets = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = Sockets::new();
        sockets.enter(&mut kernel, 0);
        kernel.set_threads(1).unwrap();
        kernel.apply(&plan).unwrap();
        sockets
    });
    let works = || {
        wire.right.inside(|| {
            connect("10.99.0.1:443").unwrap();
            assert_eq!(connect("[fd99::1]:443").unwrap_err().kind(), ErrorKind::TimedOut);
        });
    };
    works();
    let links = |kind: fn(&PinKind) -> bool| {
        pins(&bpffs.root(), "test")
            .unwrap()
            .into_iter()
            .filter(|pin| kind(&pin.kind))
            .map(|pin| pin.id)
            .collect::<Vec<_>>()
    };
    let both: fn(&PinKind) -> bool =
        |kind| matches!(kind, PinKind::Filter { attached: true, .. } | PinKind::Steering { attached: true });
    let before = links(both);
    assert_eq!(before.len(), 2);
    let mut kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    assert_eq!(links(both), before, "the links were kept");
    works();
    let generations = kernel.generations();
    kernel.apply(&plan).unwrap();
    assert_eq!(kernel.generations(), generations, "what is in force was read back");
    works();
    drop(sockets);
    wire.right
        .inside(|| assert_eq!(connect("10.99.0.1:443").unwrap_err().kind(), ErrorKind::ConnectionRefused));
    assert!(kernel.packets(Reason::NoSocket).unwrap() > 0);
}

/// Where nothing accepts the kernel asks nothing, which costs every UDP packet time; the instance stays its namespace's.
#[test]
fn steering_rests_while_no_listener_accepts() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let link = bpffs.root().join("test/links/sk_lookup");
    let open = || wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    let mut kernel = open();
    let sockets = wire.left.inside(|| {
        let sockets = Sockets::new();
        sockets.enter(&mut kernel, 0);
        kernel.set_threads(1).unwrap();
        sockets
    });
    let note_another = || {
        let notes = bpffs.root().join("test/namespace");
        std::fs::remove_dir_all(&notes).unwrap();
        std::fs::create_dir_all(notes.join("1")).unwrap();
    };
    let answered = |answered: bool| {
        for address in ["10.99.0.1:443", "[fd99::1]:443"] {
            let connected = wire.right.inside(|| connect(address).map(drop).map_err(|error| error.kind()));
            assert_eq!(connected, if answered { Ok(()) } else { Err(ErrorKind::ConnectionRefused) });
        }
    };
    for _ in 0..2 {
        wire.left.inside(|| kernel.apply(&denying(&["192.0.2.1/32"], &[])).unwrap());
        let resting = feature(&kernel, "sk_lookup");
        assert!(resting.on && resting.detail.contains("rests") && kernel.steers(), "{resting:?}");
        // Whoever looks after links leaves it so.
        wire.left.inside(|| kernel.look());
        assert!(!link.exists());
        answered(false);
        wire.left.inside(|| kernel.apply(&listeners(&[443])).unwrap());
        assert!(link.exists() && feature(&kernel, "sk_lookup").detail.contains("hands connections"));
        answered(true);
        // What an earlier process steered is steered on, before anything is applied; what stands counts for more than a note.
        note_another();
        drop(kernel);
        kernel = open();
        answered(true);
    }
    // An interface that came here with its filter is no sign of a node elsewhere.
    wire.left.inside(|| kernel.apply(&denying(&["192.0.2.1/32"], &[])).unwrap());
    assert!(!link.exists());
    drop(kernel);
    let elsewhere = wire.right.inside(|| Linux::open(bpffs.config(&[])).map(drop));
    assert!(matches!(elsewhere, Err(KernelError::OtherNamespace { .. })), "{elsewhere:?}");
    note_another();
    kernel = open();
    // Also where the sockets come last, after a change of layout.
    wire.left.inside(|| kernel.apply(&listeners(&[443])).unwrap());
    std::fs::remove_file(bpffs.root().join("test/current/maps/HERE")).unwrap();
    drop(kernel);
    kernel = open();
    assert!(feature(&kernel, "xdp:wire0").detail.contains("waiting") && link.exists());
    wire.left.inside(|| kernel.apply(&denying(&["192.0.2.1/32"], &[])).unwrap());
    wire.left.inside(|| sockets.enter(&mut kernel, 0));
    wire.left.inside(|| kernel.set_threads(1).unwrap());
    assert!(feature(&kernel, "sk_lookup").detail.contains("rests") && !link.exists());
}

#[test]
fn another_layout_is_replaced_only_when_the_new_tables_are_full() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let plan = denying(&["fd99::2/128"], &[443]);
    let sockets = wire.left.inside(|| {
        let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
        let sockets = Sockets::new();
        sockets.enter(&mut kernel, 0);
        kernel.set_threads(1).unwrap();
        kernel.apply(&plan).unwrap();
        sockets
    });
    // As an older release would have left it: a counter map of another size.
    let counters = bpffs.root().join("test/current/maps/HERE");
    std::fs::remove_file(&counters).unwrap();
    PerCpuArray::<MapData, u32>::create(8, 0).unwrap().pin(&counters).unwrap();
    let denied = || {
        wire.right.inside(|| assert_eq!(connect("[fd99::1]:443").unwrap_err().kind(), ErrorKind::TimedOut))
    };

    // A keeper that dies before it applied anything changes nothing.
    drop(wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap()));
    denied();
    let mut kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    assert!(kernel.steers() && feature(&kernel, "xdp:wire0").detail.contains("waiting"));
    let filters = wire.left.inside(|| kernel.filters());
    assert!(
        matches!(&filters[..], [FilterState { attached: true, .. }]),
        "the old program filters: {filters:?}"
    );
    denied();
    assert_eq!(kernel.packets(Reason::Denied).unwrap(), 0, "the old program counts in the old map");
    wire.left.inside(|| {
        kernel.apply(&plan).unwrap();
        sockets.enter(&mut kernel, 0);
        kernel.set_threads(1).unwrap();
    });
    denied();
    assert!(kernel.packets(Reason::Denied).unwrap() > 0);
    wire.right.inside(|| drop(connect("10.99.0.1:443").unwrap()));
    assert_eq!(kernel.packets(Reason::Steered).unwrap(), 1);
    assert!(!bpffs.root().join("test/next").exists());
    drop(kernel);
    let kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    assert!(feature(&kernel, "xdp:wire0").on && kernel.filters()[0].attached);
    assert!(kernel.packets(Reason::Denied).unwrap() > 0, "and now it is taken over");
}

#[test]
fn what_cannot_be_attached_is_said_and_the_rest_goes_on() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let other = Config { instance: "other".into(), ..bpffs.config(&["wire0"]) };
    let foreign = wire.left.inside(|| Linux::open(other).unwrap());
    let kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0", "nowhere0", "lo"])).unwrap());
    let taken = feature(&kernel, "xdp:wire0");
    assert!(
        !taken.on && taken.detail.contains("sallyport_xdp") && taken.detail.contains("ip link set dev wire0"),
        "{taken:?}"
    );
    let missing = feature(&kernel, "xdp:nowhere0");
    assert!(!missing.on && missing.detail.starts_with("there is no interface nowhere0"), "{missing:?}");
    let generic = feature(&kernel, "xdp:lo");
    assert!(generic.on && generic.detail.starts_with("generic"), "{generic:?}");
    assert!(feature(&kernel, "sk_lookup").on, "several programs may steer one namespace");
    drop((foreign, kernel));

    // The same instance in another namespace would take the first one's programs away.
    let elsewhere = wire.right.inside(|| Linux::open(bpffs.config(&[])).map(drop));
    assert!(matches!(elsewhere, Err(KernelError::OtherNamespace { .. })), "{elsewhere:?}");
    detach_instance(&bpffs.root(), "other").unwrap();
    let kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    assert_eq!(feature(&kernel, "xdp:wire0").detail, "native");

    let nowhere =
        Config { pin_root: std::env::temp_dir().join("sallyport"), ..Config::new("test", Vec::new()) };
    let error = Linux::open(nowhere).map(drop).unwrap_err();
    assert!(
        matches!(error, KernelError::NoBpffs { .. }) && error.to_string().contains("mount -t bpf bpf"),
        "{error}"
    );
}

/// What decisions 1 leaves the keeper is enough for a whole life, and without `CAP_BPF` the error says what is missing.
#[test]
fn the_keepers_capabilities_are_enough() {
    use caps::{CapSet, Capability};
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let keep =
        [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_PERFMON];
    wire.left.inside(|| {
        caps::set(None, CapSet::Effective, &keep.into_iter().collect()).unwrap();
        for _ in ["first", "taken over"] {
            let mut kernel = Linux::open(bpffs.config(&["wire0"])).unwrap();
            assert!(kernel.features().iter().all(|feature| feature.on), "{:?}", kernel.features());
            let sockets = Sockets::new();
            sockets.enter(&mut kernel, 0);
            kernel.set_threads(1).unwrap();
            kernel.apply(&plan()).unwrap();
            kernel.take_drops().unwrap();
        }
        let foreign = Config { instance: "other".into(), ..bpffs.config(&["wire0"]) };
        let features = Linux::open(foreign).unwrap().features();
        assert!(features[0].detail.contains("already has the XDP program with id"), "{features:?}");
        detach_instance(&bpffs.root(), "other").unwrap();
        detach_instance(&bpffs.root(), "test").unwrap();
        caps::clear(None, CapSet::Effective).unwrap();
        let error = Linux::open(bpffs.config(&["wire0"])).map(drop).unwrap_err();
        assert!(matches!(error, KernelError::NotPermitted), "{error:?}");
    });
}

/// An interface made anew under its old name gets the filter again.
#[test]
fn a_link_of_an_interface_that_is_gone_is_replaced() {
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    drop(wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap()));
    wire.left.ip("link del wire0");
    wire.left.ip("link add wire0 type veth peer name wire2");
    let kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    assert!(feature(&kernel, "xdp:wire0").on);
}

/// Every reason of the closed list, each seen in its counter. A reason that nothing provokes has no place in the list.
#[test]
fn every_reason_is_provoked() {
    let mut provoked = BTreeSet::new();
    let (bpffs, wire) = (Bpffs::new(), Wire::new());
    let mut kernel = wire.left.inside(|| Linux::open(bpffs.config(&["wire0"])).unwrap());
    let full = plan();
    kernel.apply(&full).unwrap();
    {
        let silent = Bpffs::new();
        let (mut kernel, port) = silent.open_wired();
        kernel.apply(&full).unwrap();
        provoked.extend(corpus().iter().map(|(_, frame, _)| judge(&kernel, &full, port, frame)));
        let particular = particular().plan();
        kernel.apply(&particular).unwrap();
        let all = cases().into_iter().chain(single_cases());
        provoked.extend(all.map(|(_, frame, ..)| judge(&kernel, &particular, port, &frame)));
        provoked.extend(budgets::provoked(&silent, &mut kernel, port));
    }
    provoked.extend(steering_reasons(&bpffs, &wire, &mut kernel));
    provoked.insert(a_filter_without_tables());
    let missing: Vec<&Reason> = Reason::ALL.iter().filter(|reason| !provoked.contains(reason)).collect();
    assert!(missing.is_empty(), "nothing provokes {missing:?}");
}

fn steering_reasons(bpffs: &Bpffs, wire: &Wire, kernel: &mut Linux) -> BTreeSet<Reason> {
    let before = Counts::read(kernel);
    let connections =
        FilterBudgets { new_connections_per_source: budgets::slow(64, 1), ..FilterBudgets::default() };
    budgets::put(bpffs, kernel, connections);
    wire.right.inside(|| (0..3).for_each(|_| assert!(connect("10.99.0.1:443").is_err(), "no socket")));
    kernel.apply(&listeners(&[443])).unwrap();
    let sockets = wire.left.inside(Sockets::new);
    wire.right.inside(|| {
        assert!(connect("10.99.0.1:443").is_err(), "no socket");
        assert!(connect("10.99.0.1:22").is_err(), "not steered");
        // An IPv6-only socket where IPv4's belongs.
        kernel.set_sockets(0, sockets.v6.as_fd(), sockets.v6.as_fd()).unwrap();
        assert!(connect("10.99.0.1:443").is_err(), "not assigned");
        sockets.enter(kernel, 0);
        connect("10.99.0.1:443").unwrap();
    });
    let seen: BTreeSet<Reason> = before.since(kernel).into_keys().collect();
    let steering = [
        Reason::NewConnectionBudget,
        Reason::Steered,
        Reason::NotSteered,
        Reason::NoSocket,
        Reason::NotAssigned,
    ];
    assert!(steering.iter().all(|reason| seen.contains(reason)), "{seen:?}");
    seen
}

/// The object as it is loaded before anything fills it.
fn a_filter_without_tables() -> Reason {
    use aya::TestRun;
    use aya::programs::{TestRunOptions, Xdp};
    let mut object: Ebpf = EbpfLoader::new().load(OBJECT).unwrap();
    let filter: &mut Xdp = object.program_mut("sallyport_xdp").unwrap().try_into().unwrap();
    filter.load().unwrap();
    let frame = support::frames::syn("10.0.0.2", "10.0.0.1", 443);
    let result = filter.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() }).unwrap();
    assert_eq!(result.return_value, support::corpus::XDP_DROP);
    let here: PerCpuArray<&MapData, [u64; size_of::<Here>() / 8]> =
        object.map("HERE").unwrap().try_into().unwrap();
    let place = offset_of!(Here, reasons) / 8 + Reason::NoTable.number() as usize;
    assert_eq!(here.get(&0, 0).unwrap().iter().map(|words| words[place]).sum::<u64>(), 1);
    Reason::NoTable
}
