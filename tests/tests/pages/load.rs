//! Packets at a rate that is kept, of which is known when how many were sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::setpriority_process;
use sallyport_tests::frames;
use sallyport_tests::space::Space;
use sallyport_tests::stage::{NODE4, NODE6};
use socket2::{Domain, Protocol, Socket, Type};

/// Packets that one tick sends at most: a veth's ring has 256 places, and what a busy machine did not send in time is not to
/// come at once.
const BURST: u64 = 128;
const TICK: Duration = Duration::from_micros(500);
/// How often it is written down how many were sent.
pub(crate) const NOTED: Duration = Duration::from_millis(5);
/// If nobody ends it: longer than all pages take where each is there just in time.
const AT_MOST: Duration = Duration::from_secs(300);

/// What a stream sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    Syn,
    Ack,
    Udp,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Senders {
    /// So many, in turn.
    Few(u32),
    /// Another one for each packet.
    Spray,
}

/// A kind of packets that the node treats alike, sent over IPv4 and IPv6 each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) carried: Carried,
    pub(crate) port: u16,
    pub(crate) senders: Senders,
    /// Packets a second of each family.
    pub(crate) rate: u64,
    /// The first three bytes of IPv4's sources, or two of a spray's; and the third group of IPv6's.
    pub(crate) net4: [u8; 3],
    pub(crate) net6: u16,
}

impl Stream {
    /// Where its senders are, IPv4 and IPv6.
    pub(crate) fn prefixes(&self) -> [String; 2] {
        let [a, b, c] = self.net4;
        let four = match self.senders {
            Senders::Few(_) => format!("{a}.{b}.{c}.0/24"),
            Senders::Spray => format!("{a}.0.0.0/8"),
        };
        [four, format!("2001:db8:{:x}::/48", self.net6)]
    }

    /// The sender of this packet of a family (0: IPv4). Of a spray over IPv6 each is in a /64 of its own.
    pub(crate) fn source(&self, family: usize, number: u64) -> IpAddr {
        let number = match self.senders {
            Senders::Few(count) => (number % u64::from(count)) as u32 + 1,
            Senders::Spray => number as u32 + 1,
        };
        let [a, b, c] = self.net4;
        match (family, self.senders) {
            (0, Senders::Few(_)) => Ipv4Addr::new(a, b, c, number as u8).into(),
            (0, Senders::Spray) => Ipv4Addr::from(u32::from(a) << 24 | number).into(),
            (_, _) => {
                Ipv6Addr::new(0x2001, 0xdb8, self.net6, number as u16, (number >> 16) as u16, 0, 0, 1).into()
            }
        }
    }

    /// How many bytes its frames have.
    pub(crate) fn length(&self, family: usize) -> u64 {
        let packet = [20, 40][family];
        14 + packet + if self.carried == Carried::Udp { 8 } else { 20 }
    }

    /// A packet whose source address and port are written over. Checksums beyond IPv4's are wrong, which the filter does not look
    /// at: the node's stack answers none of what passes.
    fn packet(&self, family: usize) -> Vec<u8> {
        let [high, low] = self.port.to_be_bytes();
        let tcp =
            |flags| vec![0, 0, high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x72, 0x10, 0x12, 0x34, 0, 0];
        let (protocol, payload) = match self.carried {
            Carried::Syn => (6, tcp(0x02)),
            Carried::Ack => (6, tcp(0x10)),
            Carried::Udp => (17, vec![0, 0, high, low, 0, 8, 0x12, 0x34]),
        };
        match family {
            // Its header's checksum is the kernel's to write over, raw(7).
            0 => frames::ipv4(Ipv4Addr::UNSPECIFIED, NODE4, 0, protocol, &payload),
            _ => frames::ipv6(Ipv6Addr::UNSPECIFIED, NODE6, protocol, &payload),
        }
    }
}

/// How many packets of each stream, IPv4 and IPv6.
pub(crate) type Counts = Vec<[u64; 2]>;

/// A load on a thread of its own.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    /// When, in milliseconds since 1970, so many were sent.
    notes: Arc<Mutex<Vec<(u64, Counts)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(space: &Arc<Space>, streams: &[Stream]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let notes = Arc::new(Mutex::new(vec![(now_ms(), vec![[0; 2]; streams.len()])]));
        let (space, streams) = (space.clone(), streams.to_vec());
        let (stopped, noted) = (stop.clone(), notes.clone());
        let thread = thread::spawn(move || {
            space.enter();
            // Whoever sends so much has machines of his own: the rate is kept as well as it can be, whoever else is on this one.
            setpriority_process(None, -5).unwrap();
            send(&streams, &stopped, &noted);
        });
        Self { stop, notes, thread: Some(thread) }
    }

    /// What was sent until then.
    pub(crate) fn sent_at(&self, at_ms: u64) -> Counts {
        let notes = self.notes.lock().unwrap();
        let later = notes.partition_point(|(noted, _)| *noted <= at_ms);
        notes[later.saturating_sub(1)].1.clone()
    }

    /// Ends it: what was sent in all, and how many packets a second.
    pub(crate) fn finish(&mut self) -> (Counts, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let notes = self.notes.lock().unwrap();
        let (begin, end) = (&notes[0], &notes[notes.len() - 1]);
        let all: u64 = end.1.iter().flatten().sum();
        (end.1.clone(), all as f64 * 1000.0 / (end.0 - begin.0) as f64)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever panics already has more to say than this.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A socket for whole packets of a family.
fn raw(family: usize) -> Socket {
    let domain = [Domain::IPV4, Domain::IPV6][family];
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap();
    match family {
        0 => socket.set_header_included_v4(true),
        _ => socket.set_header_included_v6(true),
    }
    .unwrap();
    socket
}

fn send(streams: &[Stream], stop: &AtomicBool, notes: &Mutex<Vec<(u64, Counts)>>) {
    let sockets = [0, 1].map(raw);
    let targets = [IpAddr::V4(NODE4), IpAddr::V6(NODE6)].map(|node| SocketAddr::new(node, 0).into());
    let mut packets: Vec<[Vec<u8>; 2]> =
        streams.iter().map(|stream| [0, 1].map(|family| stream.packet(family))).collect();
    let mut sent: Counts = vec![[0; 2]; streams.len()];
    let at_once = BURST * 1_000_000 / streams.iter().map(|stream| 2 * stream.rate).sum::<u64>();
    let (begin, mut noted, mut clock) = (Instant::now(), Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) && begin.elapsed() < AT_MOST {
        // A clock that goes no faster than packets can be sent: the streams keep their shares, whatever the machine has to do.
        clock = (begin.elapsed().as_micros() as u64).min(clock + at_once);
        // One of each in turn.
        let mut behind = true;
        while behind {
            behind = false;
            for ((stream, packets), sent) in streams.iter().zip(&mut packets).zip(&mut sent) {
                for family in 0..2 {
                    let number = sent[family];
                    if number < clock * stream.rate / 1_000_000 {
                        write_source(&mut packets[family], stream.source(family, number), number);
                        sockets[family].send_to(&packets[family], &targets[family]).unwrap();
                        sent[family] += 1;
                        behind = true;
                    }
                }
            }
        }
        if noted.elapsed() >= NOTED {
            notes.lock().unwrap().push((now_ms(), sent.clone()));
            noted = Instant::now();
        }
        thread::sleep(TICK);
    }
    notes.lock().unwrap().push((now_ms(), sent));
}

/// Who this packet is from: an address, and some port.
fn write_source(packet: &mut [u8], source: IpAddr, number: u64) {
    let port = (1024 + (number % 60_000) as u16).to_be_bytes();
    match source {
        IpAddr::V4(address) => {
            packet[12..16].copy_from_slice(&address.octets());
            packet[20..22].copy_from_slice(&port);
        }
        IpAddr::V6(address) => {
            packet[8..24].copy_from_slice(&address.octets());
            packet[40..42].copy_from_slice(&port);
        }
    }
}
