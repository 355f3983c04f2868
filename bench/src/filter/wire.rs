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

/// The node's namespace.
const NODE: &str = "sallyport-bench-node";
/// The peer's namespace.
const PEER: &str = "sallyport-bench-peer";
/// The interface that is measured.
pub(crate) const INTERFACE: &str = "sbn0";
const FAR_END: &str = "sbg0";
/// A BPF file system of our own, so that no pin outlives the run.
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
    _guard: Guard,
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

/// Removes what is left under our names, at the end and before the beginning.
struct Guard;

impl Guard {
    fn clean() {
        for name in [NODE, PEER] {
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

impl Wire {
    /// Sets everything up; what a killed run left is removed first.
    pub(crate) fn new() -> Result<Self> {
        Guard::clean();
        let guard = Guard;
        fs::create_dir_all(BPFFS)?;
        run("mount", &["-t", "bpf", "bpf", BPFFS])?;
        for name in [NODE, PEER] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        ip(&format!(
            "link add {FAR_END} netns {PEER} numrxqueues 1 numtxqueues 1 type veth peer name {INTERFACE} netns {NODE} numrxqueues 1 numtxqueues 1"
        ))?;
        let hardware = NODE_HARDWARE.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("-n {NODE} link set {INTERFACE} address {hardware}"))?;
        inside(PEER, || Ok(fs::write(format!("/proc/sys/net/ipv6/conf/{FAR_END}/disable_ipv6"), "1")?))?;
        inside(NODE, || {
            // Packets come from everywhere, and no way leads back.
            for conf in ["all", "default", INTERFACE] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0")?;
            }
            Ok(())
        })?;
        ip(&format!("-n {NODE} address add {NODE4}/24 dev {INTERFACE}"))?;
        ip(&format!("-n {NODE} address add {NODE6}/64 dev {INTERFACE} nodad"))?;
        ip(&format!("-n {PEER} link set {FAR_END} up"))?;
        ip(&format!("-n {NODE} link set {INTERFACE} up"))?;
        for family in ["-4", "-6"] {
            ip(&format!("-n {NODE} {family} route add default dev {INTERFACE}"))?;
        }
        let bound = |family| [Socket::Read, Socket::Full].map(|socket| bind(family, socket));
        let sockets = inside(NODE, || {
            let [[four, full4], [six, full6]] = [bound(Family::V4), bound(Family::V6)];
            Ok([[four?, full4?], [six?, full6?]])
        })?;
        Ok(Self { index: inside(NODE, || index(INTERFACE))?, sockets, _guard: guard })
    }

    /// The socket that is read.
    pub(crate) fn socket(&self, family: Family) -> &UdpSocket {
        let [[four, _], [six, _]] = &self.sockets;
        if family == Family::V4 { four } else { six }
    }

    /// Where programs and tables of the node are pinned.
    pub(crate) fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("sallyport")
    }

    /// Runs something on a thread in the node's namespace.
    pub(crate) fn node<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(NODE, work)
    }

    /// Has nft take this text in the node's namespace.
    pub(crate) fn nft(&self, file: &Path) -> Result<()> {
        run("ip", &["netns", "exec", NODE, "nft", "-f", &file.display().to_string()])
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
