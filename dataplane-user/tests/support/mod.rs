//! What the kernel tests share: a BPF file system of their own, network namespaces of their own, frames.
//!
//! These tests need root and fail without it: a skipped test of a filter proves nothing.
#![allow(dead_code, reason = "every test file uses another part")]
#![allow(
    clippy::allow_attributes,
    reason = "an expectation would be unfulfilled in the file that uses all of it"
)]

pub(crate) mod budgets;
pub(crate) mod corpus;
pub(crate) mod frames;
pub(crate) mod fuzz;
pub(crate) mod impossible;
pub(crate) mod random;
pub(crate) mod rules;
pub(crate) mod sockets;
pub(crate) mod structure;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use aya::maps::MapData;
use dataplane_ebpf::wire::sample::SHIFT_MAX;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sallyport_node::keeper::kernel::{Config, Linux, detach_instance};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Samplings by which no packet is judged at once, for every one is looked at more closely; and by which nearly all are.
pub(crate) const WAYS: [u32; 2] = [0, SHIFT_MAX];

/// Whether the processor is emulated (`tests/matrix`): how long something takes says nothing there, and what is random is
/// repeated less.
pub(crate) fn emulated() -> bool {
    std::env::var_os("SALLYPORT_EMULATED").is_some()
}

/// Tells threads to stop, also where the test fails before: else it would wait for them, and not fail.
#[derive(Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn said(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says it when this is dropped.
    pub(crate) fn at_the_end(&self) -> impl Drop + '_ {
        struct Says<'a>(&'a AtomicBool);
        impl Drop for Says<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Says(&self.0)
    }
}

fn unique(what: &str) -> String {
    format!("kernel-{what}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}` failed (these tests need root): {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A BPF file system of its own; nothing pinned on it outlives the test, also when it fails.
pub(crate) struct Bpffs(PathBuf, Namespace);

impl Bpffs {
    pub(crate) fn new() -> Self {
        let dir = std::env::temp_dir().join(unique("bpffs"));
        fs::create_dir(&dir).unwrap();
        run(&format!("mount -t bpf bpf {}", dir.display()));
        Self(dir, Namespace::new())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("sallyport")
    }

    pub(crate) fn config(&self, interfaces: &[&str]) -> Config {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        Config { pin_root: self.root(), ..Config::new("test", interfaces) }
    }

    /// A map that [`Self::config`]'s instance has pinned here.
    pub(crate) fn pinned(&self, map: &str) -> MapData {
        MapData::from_pin(self.root().join("test/current/maps").join(map)).unwrap()
    }

    /// In a namespace of its own: on the machine's, strangers' packets would be counted too.
    pub(crate) fn open(&self) -> Linux {
        self.1.inside(|| Linux::open(self.config(&[])).unwrap())
    }

    /// As [`Self::open`], with the filter on a silent wire, whose index it gives: frames can be said to come from there.
    pub(crate) fn open_wired(&self) -> (Linux, Port<'_>) {
        if !self.1.has("wire0") {
            self.1.ip("link add wire0 type veth peer name wire1");
            self.1.inside(|| {
                // Router solicitations would be counted.
                for end in ["wire0", "wire1"] {
                    fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
                }
            });
            self.1.ip("link set wire0 up");
            self.1.ip("link set wire1 up");
        }
        let kernel = self.1.inside(|| Linux::open(self.config(&["wire0"])).unwrap());
        (kernel, self.port())
    }

    /// The silent wire's.
    pub(crate) fn port(&self) -> Port<'_> {
        self.1.port("wire0")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _failure_shows_below = detach_instance(&self.root(), "test");
        let unmounted = Command::new("umount").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _last_resort = Command::new("umount").arg("-l").arg(&self.0).status();
        }
        let _nothing_more_to_do = fs::remove_dir(&self.0);
    }
}

/// A network namespace of its own.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new() -> Self {
        let namespace = Self(unique("ns"));
        run(&format!("ip netns add {}", namespace.0));
        run(&format!("ip -n {} link set lo up", namespace.0));
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.0));
    }

    fn has(&self, interface: &str) -> bool {
        let show = Command::new("ip").args(["-n", &self.0, "link", "show", interface]).output();
        show.is_ok_and(|output| output.status.success())
    }

    pub(crate) fn port(&self, interface: &str) -> Port<'_> {
        let line = run(&format!("ip -n {} -o link show {interface}", self.0));
        Port { namespace: self, index: line.split(':').next().unwrap().parse().unwrap() }
    }

    fn path(&self) -> PathBuf {
        Path::new("/var/run/netns").join(&self.0)
    }

    /// Runs something on a thread inside; a failure there is the test's.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            worker.join().unwrap_or_else(|failure| std::panic::resume_unwind(failure))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _nothing_more_to_do = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// An interface of a namespace, from which frames can be said to come.
#[derive(Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) index: u32,
}

/// Two namespaces with a wire: `left` has 10.99.0.1 and fd99::1 on `wire0`, `right` has 10.99.0.2 and fd99::2 on `wire1`.
pub(crate) struct Wire {
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::with_queues(1)
    }

    /// Each end has so many queues to send and to receive.
    pub(crate) fn with_queues(queues: u8) -> Self {
        let wire = Self { left: Namespace::new(), right: Namespace::new() };
        wire.add("wire0", "wire1", 99, Some(queues));
        wire
    }

    /// Another wire, with the addresses 10.N.0.1 and fdN::1 on the left. Without a number of queues its driver makes one for
    /// each processor, and uses the first alone.
    pub(crate) fn add(&self, left: &str, right: &str, net: u8, queues: Option<u8>) {
        let many = |queues| format!(" numtxqueues {queues} numrxqueues {queues}");
        let many = queues.map(many).unwrap_or_default();
        let peer = format!("peer name {right}{many} netns {}", self.right.name());
        self.left.ip(&format!("link add {left}{many} type veth {peer}"));
        for (namespace, interface, number) in [(&self.left, left, 1), (&self.right, right, 2)] {
            namespace.ip(&format!("addr add 10.{net}.0.{number}/24 dev {interface}"));
            namespace.ip(&format!("addr add fd{net}::{number}/64 dev {interface} nodad"));
            namespace.ip(&format!("link set {interface} up"));
        }
    }
}
