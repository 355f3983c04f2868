//! Packets that no socket would send: raw frames, and a flood of SYNs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::space::Space;

/// Sends Ethernet frames on `interface`. Through Python: an `AF_PACKET` address takes `unsafe` in Rust.
pub fn send(space: &Space, interface: &str, frames: &[Vec<u8>]) {
    let hex: Vec<String> =
        frames.iter().map(|frame| frame.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let script = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]: s.send(bytes.fromhex(frame))";
    let mut arguments = vec!["-c", script, interface];
    arguments.extend(hex.iter().map(String::as_str));
    space.run("/usr/bin/python3", &arguments);
}

/// The Ethernet addresses of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The receiver.
    pub to: [u8; 6],
    /// The sender.
    pub from: [u8; 6],
}

impl Link {
    /// A SYN of either family.
    pub fn syn(&self, source: SocketAddr, target: SocketAddr) -> Vec<u8> {
        let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x72, 0x10, 0, 0, 0, 0];
        self.packet(source.ip(), target.ip(), 6, &[&ports[..], &rest].concat())
    }

    /// A UDP packet of either family without a payload.
    pub fn datagram(&self, source: SocketAddr, target: SocketAddr) -> Vec<u8> {
        let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
        self.packet(source.ip(), target.ip(), 17, &[&ports[..], &[0, 8, 0, 0]].concat())
    }

    /// A packet of either family, without a checksum beyond IPv4's: the filter looks at none.
    fn packet(&self, source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                self.frame(0x0800, &ipv4(source, target, 0, protocol, payload))
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                self.frame(0x86dd, &ipv6(source, target, protocol, payload))
            }
            _ => panic!("{source} and {target} are of two families"),
        }
    }

    /// A frame of this type.
    pub fn frame(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        [&self.to[..], &self.from, &kind.to_be_bytes(), payload].concat()
    }
}

/// An IPv4 packet with a right checksum.
pub fn ipv4(source: Ipv4Addr, target: Ipv4Addr, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet");
    let mut head = vec![0x45, 0];
    head.extend(length.to_be_bytes());
    head.extend([0x12, 0x34]);
    head.extend(fragment.to_be_bytes());
    head.extend([64, protocol, 0, 0]);
    head.extend(source.octets());
    head.extend(target.octets());
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    head.extend(payload);
    head
}

/// An IPv6 packet without extension headers.
pub fn ipv6(source: Ipv6Addr, target: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short packet");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(payload);
    packet
}

/// A SYN with a right checksum.
pub fn syn(source: SocketAddrV4, target: SocketAddrV4, sequence: u32) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(target.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 0x02, 0x72, 0x10, 0, 0, 0, 0]);
    let pseudo = [&source.ip().octets()[..], &target.ip().octets(), &[0, 6, 0, 20], &tcp].concat();
    let sum = checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    tcp
}

fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// SYNs from one source to one target, until told to stop.
pub struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    begin: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// At least `rate` a second; bounded by `at_most`.
    pub fn start(
        space: &Arc<Space>,
        source: Ipv4Addr,
        target: SocketAddrV4,
        rate: u64,
        at_most: Duration,
    ) -> Self {
        let (sent, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counter, ended, space) = (sent.clone(), stop.clone(), space.clone());
        let begin = Instant::now();
        let thread = std::thread::spawn(move || {
            space.enter();
            let socket = Socket::new(Domain::IPV4, Type::from(3), Some(Protocol::TCP)).expect("a raw socket");
            socket.bind(&SocketAddrV4::new(source, 0).into()).expect("the denied address");
            let mut number = 0_u32;
            while !ended.load(Ordering::Relaxed) && begin.elapsed() < at_most {
                // By the clock, not by sleeps: on a busy machine it catches up.
                let due = begin.elapsed().as_millis() as u64 * rate / 1000 + 1;
                while counter.load(Ordering::Relaxed) < due {
                    number = number.wrapping_add(1);
                    let from = SocketAddrV4::new(source, 1024 + (number % 60000) as u16);
                    let packet = syn(from, target, number);
                    if socket.send_to(&packet, &SocketAddrV4::new(*target.ip(), 0).into()).is_ok() {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { sent, stop, begin, thread: Some(thread) }
    }

    /// Ends it: packets sent and packets a second.
    pub fn stop(mut self) -> (u64, f64) {
        let elapsed = self.begin.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flood");
        }
        let sent = self.sent.load(Ordering::Relaxed);
        (sent, sent as f64 / elapsed.as_secs_f64())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
