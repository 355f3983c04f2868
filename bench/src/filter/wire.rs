//! A network namespace with the interface that is measured, and the sockets where passed packets end.
//!
//! Its peer is in a namespace of its own and sends nothing: packets are made as received by the interface, and whatever the
//! kernel does with one, from the driver's XDP program to the socket, it does in the thread that makes them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Result;
use crate::generator::Family;

/// What our namespaces' names begin with; the label follows.
const NAME: &str = "sallyport-bench";
/// The interface that is measured.
pub(crate) const INTERFACE: &str = "sbn0";
const FAR_END: &str = "sbg0";
/// A BPF file system of each wire's own, so that no pin outlives the run; the label follows.
const BPFFS: &str = "/run/sallyport-bench-bpf";

/// The node's addresses.
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(10, 99, 7, 1);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd99, 7, 0, 0, 0, 0, 0, 1);
pub(crate) const NODE_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The core on which everything is measured.
pub(crate) const CORE: usize = 1;
/// Room for what waits at a socket that is read, in bytes.
const WAITING: usize = 64 << 20;

/// The namespaces; they go with this value, and with them every rule and socket inside.
pub(crate) struct Wire {
    pub(crate) index: u32,
    /// By family, then by [`Socket`].
    sockets: [[UdpSocket; 2]; 2],
    guard: Guard,
}

/// Where passed packets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Socket {
    /// Somebody reads it.
    Read,
    /// Nobody does: every packet takes the whole way and then finds no room.
    Full,
}

impl Socket {
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Read => 9,
            Self::Full => 10,
        }
    }
}

/// The names on the machine that are one wire's. What is left under them is removed at the end, and before the beginning.
struct Guard {
    node: String,
    peer: String,
    bpffs: String,
}

impl Guard {
    fn of(label: &str) -> Self {
        let guard = Self {
            node: format!("{NAME}-node-{label}"),
            peer: format!("{NAME}-peer-{label}"),
            bpffs: format!("{BPFFS}-{label}"),
        };
        guard.clean();
        guard
    }

    fn clean(&self) {
        for name in [&self.node, &self.peer] {
            let _not_there = Command::new("ip").args(["netns", "del", name]).output();
        }
        let _not_there = Command::new("umount").args(["-l", &self.bpffs]).output();
        let _not_there = fs::remove_dir(&self.bpffs);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.clean();
    }
}

impl Wire {
    /// Sets everything up; what a killed run left is removed first. `label` tells it from others that stand beside it.
    pub(crate) fn new(label: &str) -> Result<Self> {
        let guard = Guard::of(label);
        let Guard { node, peer, bpffs } = &guard;
        fs::create_dir_all(bpffs)?;
        run("mount", &["-t", "bpf", "bpf", bpffs])?;
        for name in [node, peer] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        ip(&format!(
            "link add {FAR_END} netns {peer} numrxqueues 1 numtxqueues 1 type veth peer name {INTERFACE} netns {node} numrxqueues 1 numtxqueues 1"
        ))?;
        let hardware = NODE_HARDWARE.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("-n {node} link set {INTERFACE} address {hardware}"))?;
        inside(peer, || Ok(fs::write(format!("/proc/sys/net/ipv6/conf/{FAR_END}/disable_ipv6"), "1")?))?;
        inside(node, || {
            // Packets come from everywhere, and no way leads back.
            for conf in ["all", "default", INTERFACE] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0")?;
            }
            Ok(())
        })?;
        ip(&format!("-n {node} address add {NODE4}/24 dev {INTERFACE}"))?;
        ip(&format!("-n {node} address add {NODE6}/64 dev {INTERFACE} nodad"))?;
        ip(&format!("-n {peer} link set {FAR_END} up"))?;
        ip(&format!("-n {node} link set {INTERFACE} up"))?;
        for family in ["-4", "-6"] {
            ip(&format!("-n {node} {family} route add default dev {INTERFACE}"))?;
        }
        let bound = |family| [Socket::Read, Socket::Full].map(|socket| bind(family, socket));
        let sockets = inside(node, || {
            let [[four, full4], [six, full6]] = [bound(Family::V4), bound(Family::V6)];
            Ok([[four?, full4?], [six?, full6?]])
        })?;
        Ok(Self { index: inside(node, || index(INTERFACE))?, sockets, guard })
    }

    /// The socket that is read.
    pub(crate) fn socket(&self, family: Family) -> &UdpSocket {
        let [[four, _], [six, _]] = &self.sockets;
        if family == Family::V4 { four } else { six }
    }

    /// Where programs and tables of the node are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        Path::new(&self.guard.bpffs).join("sallyport")
    }

    /// Runs something on a thread in the node's namespace.
    pub(crate) fn node<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(&self.guard.node, work)
    }

    /// Has nft take this text in the node's namespace.
    pub(crate) fn nft(&self, file: &Path) -> Result<()> {
        run("ip", &["netns", "exec", &self.guard.node, "nft", "-f", &file.display().to_string()])
    }
}

/// Lets this thread go before others: what else runs must not cut a measurement into pieces.
pub(crate) fn prefer() -> Result<()> {
    Ok(rustix::process::setpriority_process(None, -20)?)
}

fn bind(family: Family, socket: Socket) -> Result<UdpSocket> {
    let bound = match family {
        Family::V4 => UdpSocket::bind((NODE4, socket.port()))?,
        Family::V6 => UdpSocket::bind((NODE6, socket.port()))?,
    };
    if socket == Socket::Read {
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&bound, WAITING)?;
    }
    Ok(bound)
}

/// Packets that were read from sockets or turned away because those are full, in this thread's network namespace.
pub(crate) fn passed(family: Family) -> Result<u64> {
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
