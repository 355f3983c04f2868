//! A flood of SYNs from sources that nobody is: each comes once, at a rate that is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames;
use crate::space::Space;

/// Packets that one tick sends at most. What a busy machine did not send in time is sent later and not
/// at once: a veth's ring has 256 places.
const BURST: u64 = 64;
/// The payload's protocol.
const TCP: u8 = 6;
/// Where sources of IPv4 begin: 11.0.0.0/8 is routed nowhere in the tests.
pub const SOURCES4: &str = "11.0.0.0/8";
/// The same of IPv6: the /64s of the prefix for documentation.
pub const SOURCES6: &str = "2001:db8::/32";

/// The source of this number, in the target's family: another address of 11.0.0.0/8, or another /64 of 2001:db8::/32.
pub fn source(target: IpAddr, number: u32) -> IpAddr {
    let [_, b, c, d] = number.to_be_bytes();
    match target {
        IpAddr::V4(_) => Ipv4Addr::new(11, b, c, d).into(),
        IpAddr::V6(_) => {
            let number = u128::from(number);
            Ipv6Addr::from(0x2001_0db8 << 96 | number << 64 | 1).into()
        }
    }
}

/// A flood on a thread of its own, which ends by itself; or with this, of which the namespace is then free.
pub struct Spray {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, Duration)>>,
}

impl Spray {
    /// SYNs of the sources `first` to `first + count - 1`, one each, `rate` a second.
    pub fn start(space: &Arc<Space>, target: SocketAddr, first: u32, count: u32, rate: u64) -> Self {
        let (space, stop) = (space.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            space.enter();
            // Whoever floods has machines of his own. This one's cores are the node's, its origins' and its clients' first, and
            // the generator gets what they leave; what it makes the kernel do is done at once, whoever has the core.
            setpriority_process(None, 5).expect("a low priority");
            let socket = Socket::new(Domain::for_address(target), Type::RAW, Some(Protocol::from(255)));
            let socket = socket.expect("a raw socket");
            match target {
                SocketAddr::V4(_) => socket.set_header_included_v4(true),
                SocketAddr::V6(_) => socket.set_header_included_v6(true),
            }
            .expect("a socket for whole packets");
            let (begin, to) = (Instant::now(), SocketAddr::new(target.ip(), 0).into());
            let mut frame = Syn::to(target);
            let mut sent = 0;
            while sent < u64::from(count) && !stopped.load(Ordering::Relaxed) {
                let due = (begin.elapsed().as_micros() as u64 * rate / 1_000_000 + 1).min(u64::from(count));
                for _ in 0..due.saturating_sub(sent).min(BURST) {
                    let packet = frame.of(first + sent as u32);
                    socket.send_to(packet, &to).expect("a packet goes out");
                    sent += 1;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            (sent, begin.elapsed())
        });
        Self { stop, thread: Some(thread) }
    }

    /// Waits for its end: packets sent, and how many a second.
    pub fn finish(mut self) -> (u64, f64) {
        let thread = self.thread.take().expect("it is finished once");
        let (sent, took) = thread.join().expect("the flood");
        (sent, sent as f64 / took.as_secs_f64())
    }
}

impl Drop for Spray {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever panics already has more to say than this.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// A SYN whose source is written over for each packet, and its checksum with it: the flood is to cost its sender little.
struct Syn {
    packet: Vec<u8>,
    /// Where the source's bytes stand.
    address: usize,
    /// Where TCP begins.
    tcp: usize,
    target: IpAddr,
    /// The checksum's sum of everything that stays as it is.
    sum: u64,
}

impl Syn {
    fn to(target: SocketAddr) -> Self {
        let [high, low] = target.port().to_be_bytes();
        let segment = [0x40, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0x72, 0x10, 0, 0, 0, 0];
        let (packet, address) = match target.ip() {
            // Its header's checksum is the kernel's to write over, raw(7).
            IpAddr::V4(to) => (frames::ipv4(Ipv4Addr::UNSPECIFIED, to, 0, TCP, &segment), 12),
            IpAddr::V6(to) => (frames::ipv6(Ipv6Addr::UNSPECIFIED, to, TCP, &segment), 8),
        };
        let tcp = packet.len() - segment.len();
        // The addresses, one of which is still empty, and all of TCP; then what else the pseudo header has.
        let sum = words(&packet[address..]) + 20 + u64::from(TCP);
        Self { packet, address, tcp, target: target.ip(), sum }
    }

    /// The SYN of this source.
    fn of(&mut self, number: u32) -> &[u8] {
        let (v4, v6);
        let octets: &[u8] = match source(self.target, number) {
            IpAddr::V4(address) => {
                v4 = address.octets();
                &v4
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                &v6
            }
        };
        let sequence = number.to_be_bytes();
        let mut sum = self.sum + words(octets) + words(&sequence);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        self.packet[self.address..][..octets.len()].copy_from_slice(octets);
        self.packet[self.tcp + 4..][..4].copy_from_slice(&sequence);
        self.packet[self.tcp + 16..][..2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        &self.packet
    }
}

/// The sum of sixteen-bit words, of which there are whole ones only.
fn words(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    #[test]
    fn each_packet_is_a_right_syn_of_its_source() {
        let target = SocketAddrV4::new(Ipv4Addr::new(10, 99, 1, 1), 443);
        let mut syn = Syn::to(target.into());
        for number in [0, 1, 65_535, 999_999] {
            let IpAddr::V4(from) = source(IpAddr::V4(*target.ip()), number) else { panic!("{number}") };
            let slow = frames::syn(SocketAddrV4::new(from, 0x4000), target, number);
            assert_eq!(syn.of(number)[20..], slow);
        }
        let target: SocketAddr = "[fd99::1]:443".parse().unwrap();
        let mut syn = Syn::to(target);
        for number in [0, 1, 65_536, 999_999] {
            let packet = syn.of(number).to_vec();
            // A right checksum adds up to all ones, pseudo header and all.
            let mut sum = words(&packet[8..]) + 20 + u64::from(TCP);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(sum, 0xffff);
        }
        let prefixes: std::collections::BTreeSet<_> = (0..1000).map(|n| source(target.ip(), n)).collect();
        assert_eq!(prefixes.len(), 1000);
        assert_eq!(source(target.ip(), 65_536).to_string(), "2001:db8:1::1");
    }
}
