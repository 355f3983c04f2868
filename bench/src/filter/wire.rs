//! Two network namespaces with a veth between them, and who pays for what arrives.
//!
//! The receiving end polls in a kernel thread of its own ("threaded NAPI"), pinned to a core where it goes before everything else: whatever
//! the kernel does with a packet, from the driver to the socket, it does in that thread, and the scheduler counts it to the
//! nanosecond.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, LinkNameSpaceType, Pid, move_into_link_name_space, sched_setaffinity};

use crate::generator::Family;
use crate::{Result, sys};

/// The node's namespace.
const NODE: &str = "sallyport-bench-node";
/// The generator's namespace.
const GENERATOR: &str = "sallyport-bench-load";
/// The interface that is measured.
pub(crate) const INTERFACE: &str = "sbn0";
const FAR_END: &str = "sbg0";
/// A BPF file system of our own, so that no pin outlives the run.
const BPFFS: &str = "/run/sallyport-bench-bpf";

/// The node's addresses, and the port where passed packets end.
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(10, 99, 7, 1);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd99, 7, 0, 0, 0, 0, 0, 1);
pub(crate) const PORT: u16 = 9;
pub(crate) const NODE_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The core of the generator and of everything else that is not measured.
pub(crate) const GENERATOR_CORE: usize = 0;
const RECEIVER_CORE: usize = 1;

/// The namespaces; they go with this value, and with them every rule and socket inside.
pub(crate) struct Wire {
    pub(crate) generator_index: u32,
    pub(crate) node_index: u32,
    /// Receive what passes; never read, so that every packet takes the whole way and then finds no room.
    _sinks: Vec<UdpSocket>,
    _guard: Guard,
}

/// Removes what is left under our names, at the end and before the beginning.
struct Guard;

impl Guard {
    fn clean() {
        for name in [NODE, GENERATOR] {
            let _not_there = Command::new("ip").args(["netns", "del", name]).output();
        }
        let _not_there = Command::new("umount").args(["-l", BPFFS]).output();
        let _not_there = fs::remove_dir(BPFFS);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        Self::clean();
    }
}

/// What one moment's counters say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// CPU time of the receiving thread.
    pub(crate) spent: Duration,
    /// Packets that the interface received, whatever became of them.
    pub(crate) received: u64,
    /// Packets that reached the socket's queue.
    pub(crate) passed: u64,
}

impl Counts {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            spent: self.spent.saturating_sub(before.spent),
            received: self.received - before.received,
            passed: self.passed - before.passed,
        }
    }
}

impl Wire {
    /// Sets everything up; what a killed run left is removed first.
    pub(crate) fn new() -> Result<Self> {
        Guard::clean();
        let guard = Guard;
        fs::create_dir_all(BPFFS)?;
        run("mount", &["-t", "bpf", "bpf", BPFFS])?;
        for name in [NODE, GENERATOR] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        ip(&format!(
            "link add {FAR_END} netns {GENERATOR} numrxqueues 1 numtxqueues 1 type veth peer name {INTERFACE} netns {NODE} numrxqueues 1 numtxqueues 1"
        ))?;
        let hardware = NODE_HARDWARE.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("-n {NODE} link set {INTERFACE} address {hardware}"))?;
        inside(GENERATOR, || Ok(fs::write(format!("/proc/sys/net/ipv6/conf/{FAR_END}/disable_ipv6"), "1")?))?;
        inside(NODE, || {
            // Packets come from everywhere, and no way leads back.
            for conf in ["all", "default", INTERFACE] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0")?;
            }
            Ok(sys::gro_on(INTERFACE)?)
        })?;
        ip(&format!("-n {NODE} address add {NODE4}/24 dev {INTERFACE}"))?;
        ip(&format!("-n {NODE} address add {NODE6}/64 dev {INTERFACE} nodad"))?;
        ip(&format!("-n {GENERATOR} link set {FAR_END} up"))?;
        ip(&format!("-n {NODE} link set {INTERFACE} up"))?;
        for family in ["-4", "-6"] {
            ip(&format!("-n {NODE} {family} route add default dev {INTERFACE}"))?;
        }
        let threaded = format!("echo 1 > /sys/class/net/{INTERFACE}/threaded");
        run("ip", &["netns", "exec", NODE, "sh", "-c", &threaded])?;
        let sinks =
            inside(NODE, || Ok(vec![UdpSocket::bind((NODE4, PORT))?, UdpSocket::bind((NODE6, PORT))?]))?;
        let index = |name, interface| inside(name, || index(interface));
        Ok(Self {
            generator_index: index(GENERATOR, FAR_END)?,
            node_index: index(NODE, INTERFACE)?,
            _sinks: sinks,
            _guard: guard,
        })
    }

    /// Where programs and tables of the node are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("sallyport")
    }

    /// Runs something on a thread in the node's namespace.
    pub(crate) fn node<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(NODE, work)
    }

    /// The same where the generator is.
    pub(crate) fn generator<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(GENERATOR, work)
    }

    /// Has nft take this text in the node's namespace.
    pub(crate) fn nft(&self, file: &Path) -> Result<()> {
        run("ip", &["netns", "exec", NODE, "nft", "-f", &file.display().to_string()])
    }

    /// The receiving thread, pinned to its core: a new program on the interface may have made it anew.
    pub(crate) fn receiver(&self) -> Result<u32> {
        let wanted = format!("napi/{INTERFACE}-");
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.starts_with(&wanted) {
                let mut set = CpuSet::new();
                set.set(RECEIVER_CORE);
                let pid_of = Pid::from_raw(pid.cast_signed());
                sched_setaffinity(pid_of, &set)?;
                prefer(pid_of)?;
                return Ok(pid);
            }
        }
        Err(format!("no kernel thread {wanted}*: the kernel does not poll a veth in a thread").into())
    }

    /// The counters now.
    pub(crate) fn counts(&self, receiver: u32, family: Family) -> Result<Counts> {
        // What is on the wire arrives first, and only a thread that sleeps has all its time counted.
        std::thread::sleep(Duration::from_millis(20));
        let text = fs::read_to_string(format!("/proc/{receiver}/schedstat"))?;
        let nanos = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
        let (received, passed) = inside(NODE, || Ok((received()?, passed(family)?)))?;
        Ok(Counts { spent: Duration::from_nanos(nanos), received, passed })
    }
}

/// Lets a process (without one, this one) go before others: what else runs must not cut a measurement into pieces.
pub(crate) fn prefer(process: Option<Pid>) -> Result<()> {
    Ok(rustix::process::setpriority_process(process, -20)?)
}

fn received() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix(INTERFACE)).ok_or("no such interface")?;
    Ok(line.split_whitespace().nth(2).ok_or("no count of packets")?.parse()?)
}

/// Delivered to the socket, or turned away because it is full.
fn passed(family: Family) -> Result<u64> {
    let mut sum = 0;
    match family {
        Family::V4 => {
            let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
            let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
            let (names, values) = lines.next().zip(lines.next()).ok_or("no counters of UDP")?;
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                if matches!(name, "InDatagrams" | "RcvbufErrors") {
                    sum += value.parse::<u64>()?;
                }
            }
        }
        Family::V6 => {
            for line in fs::read_to_string("/proc/thread-self/net/snmp6")?.lines() {
                if let Some((name, value)) = line.split_once(char::is_whitespace)
                    && matches!(name, "Udp6InDatagrams" | "Udp6RcvbufErrors")
                {
                    sum += value.trim().parse::<u64>()?;
                }
            }
        }
    }
    Ok(sum)
}

fn index(interface: &str) -> Result<u32> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(rustix::net::netdevice::name_to_index(socket.as_fd(), interface)?)
}

fn inside<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = fs::File::open(format!("/run/netns/{name}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {}: {} (namespaces, BPF and nftables need root)",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).chars().take(2000).collect::<String>()
        )
        .into()),
    }
}
