//! Three network namespaces: clients, the node, the origins.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::api::Api;
use crate::client::Dial;
use crate::objects;
use crate::origin::Origin;
use crate::pki::{Ca, Pair};
use crate::probe;
use crate::product::Product;
use crate::space::{Space, command};

/// The node, as clients see it.
pub const NODE4: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 1);
/// The same, IPv6.
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd99, 1, 0, 0, 0, 0, 0, 1);
/// A client.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 2);
/// The same, IPv6.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd99, 1, 0, 0, 0, 0, 0, 2);
/// A client that tests deny.
pub const FOE4: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 66);
/// The same, IPv6.
pub const FOE6: Ipv6Addr = Ipv6Addr::new(0xfd99, 1, 0, 0, 0, 0, 0, 0x66);
/// The origins' machine.
pub const ORIGINS4: Ipv4Addr = Ipv4Addr::new(10, 99, 3, 2);
/// The same, IPv6.
pub const ORIGINS6: Ipv6Addr = Ipv6Addr::new(0xfd99, 3, 0, 0, 0, 0, 0, 2);
/// The host that clients ask for.
pub const HOST: &str = "shop.walk.test";
/// The name in the origins' certificates.
pub const ORIGIN_NAME: &str = "origin.walk.test";

/// The namespaces with their links, and who certifies whom.
pub struct Stage {
    /// Where clients are.
    pub clients: Arc<Space>,
    /// Where the product runs.
    pub node: Arc<Space>,
    /// Where origins are.
    pub origins: Arc<Space>,
    /// Certifies what clients verify.
    pub front_ca: Ca,
    /// Certifies what the node verifies.
    pub origin_ca: Ca,
    name: String,
}

impl Stage {
    /// Sets it up; whatever a former run left under the name goes first.
    pub fn new(name: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "network namespaces need root: run ./test as root");
        probe::need_bpffs();
        clean(name);
        let space = |part: &str| Arc::new(Space::new(&format!("{name}-{part}")));
        let (clients, node, origins) = (space("client"), space("node"), space("origin"));
        join(&clients, &node, "c0", ["10.99.1.2/24", "fd99:1::2/64"], ["10.99.1.1/24", "fd99:1::1/64"]);
        join(&origins, &node, "o0", ["10.99.3.2/24", "fd99:3::2/64"], ["10.99.3.1/24", "fd99:3::1/64"]);
        clients.ip("address add 10.99.1.66/24 dev c0");
        clients.ip("address add fd99:1::66/64 dev c0 nodad");
        // XDP goes to the interfaces of the default routes: this is the one.
        node.ip("route add default via 10.99.1.2");
        node.ip("-6 route add default via fd99:1::2");
        let (front_ca, origin_ca) = (Ca::new("front"), Ca::new("origins"));
        Self { clients, node, origins, front_ca, origin_ca, name: name.to_owned() }
    }

    /// Its name, which is also the product's instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The product with root's rights.
    pub fn product(&self) -> Product {
        Product::start(&self.node, &self.name, None, &[])
    }

    /// An origin on a port, with a certificate that the node verifies.
    pub fn origin(&self, name: &str, port: u16) -> Origin {
        let tls = self.origin_ca.issue(&[ORIGIN_NAME]).server();
        Origin::start(&self.origins, SocketAddr::new(ORIGINS4.into(), port), name, &tls)
    }

    /// The certificate for [`HOST`] and everything beside it.
    pub fn front(&self) -> Pair {
        self.front_ca.issue(&["*.walk.test"])
    }

    /// Trust bundle, certificate `front`, origin group `group`, route `shop`.
    pub fn basics(&self, urls: &[String]) -> Vec<Value> {
        vec![
            objects::trust_bundle("origins", &self.origin_ca.pem),
            objects::certificate("front", &self.front()),
            objects::origin_group("group", urls, "origins", ORIGIN_NAME),
            objects::route("shop", &[HOST], "front", "group"),
        ]
    }

    /// Applies [`Stage::basics`] and waits until a client is served.
    pub fn configure(&self, product: &Product, api: &Api, urls: &[String]) -> u64 {
        let revision = api.apply(&self.basics(urls));
        product.applied(revision);
        revision
    }

    /// A client's way to the node's HTTPS port.
    pub fn dial(&self) -> Dial {
        Dial::new(target4(443), HOST, &self.front_ca.client(&["http/1.1"]))
    }

    /// The same for HTTP/2.
    pub fn dial2(&self) -> Dial {
        Dial::new(target4(443), HOST, &self.front_ca.client(&["h2"]))
    }

    /// A client's way through the node to an origin that itself is what the client trusts.
    pub fn dial_through(&self) -> Dial {
        Dial::new(target4(443), ORIGIN_NAME, &self.origin_ca.client(&["http/1.1"]))
    }

    /// Lets clients receive what XDP answers at the node: a veth carries that only where its other end has XDP too, so theirs
    /// gets a program that passes everything. (With GRO alone the kernel, 6.18, leaves answers in the ring until other packets
    /// come: `veth_xdp_flush`.)
    pub fn take_answers(&self) {
        let pin = format!("/sys/fs/bpf/{}{}", crate::space::PREFIX, self.name);
        let _ = fs::remove_file(&pin);
        // What bpf(2) is asked for: a program (5) of type XDP (6), `r0 = XDP_PASS; exit`, and a pin (6) of it.
        let script = "import ctypes, os, platform, struct, sys
number = {'x86_64': 321, 'aarch64': 280}[platform.machine()]
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = ctypes.CDLL(None, use_errno=True).syscall(number, command, buffer, 128)
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
code = ctypes.create_string_buffer(struct.pack('<BBhiBBhi', 0xb7, 0, 0, 2, 0x95, 0, 0, 0))
license, path = ctypes.create_string_buffer(b'GPL'), ctypes.create_string_buffer(sys.argv[1].encode())
program = bpf(5, struct.pack('IIQQ', 6, 2, ctypes.addressof(code), ctypes.addressof(license)))
bpf(6, struct.pack('QII', ctypes.addressof(path), program, 0))";
        self.clients.run("/usr/bin/python3", &["-c", script, &pin]);
        let (set, _, complaint) = self.clients.try_run("ip", &["link", "set", "c0", "xdp", "pinned", &pin]);
        // The interface has the program, or nobody.
        fs::remove_file(&pin).expect("the pin");
        assert!(set, "{complaint}");
    }

    /// The link from clients to the node, for raw frames.
    pub fn link(&self) -> crate::frames::Link {
        crate::frames::Link { to: hardware(&self.node, "c0"), from: hardware(&self.clients, "c0") }
    }
}

/// The node's IPv4 address with a port.
pub fn target4(port: u16) -> SocketAddr {
    SocketAddrV4::new(NODE4, port).into()
}

/// The node's IPv6 address with a port.
pub fn target6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(NODE6), port)
}

/// A veth pair, called the same at both ends.
fn join(left: &Space, right: &Space, name: &str, left_addresses: [&str; 2], right_addresses: [&str; 2]) {
    let arguments =
        format!("link add {name} netns {} type veth peer name {name} netns {}", left.name(), right.name());
    command("ip", &arguments.split_whitespace().collect::<Vec<_>>());
    for (space, [v4, v6]) in [(left, left_addresses), (right, right_addresses)] {
        space.ip(&format!("address add {v4} dev {name}"));
        space.ip(&format!("address add {v6} dev {name} nodad"));
        space.ip(&format!("link set {name} up"));
    }
}

/// An interface's Ethernet address.
pub fn hardware(space: &Space, interface: &str) -> [u8; 6] {
    let text = space.run("ip", &["-j", "link", "show", interface]);
    let value: Value = serde_json::from_str(&text).expect("ip's JSON");
    let bytes: Vec<u8> = value[0]["address"]
        .as_str()
        .expect("address")
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("byte"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// Ends processes that a killed run left, found by their program's path, and removes its pins.
fn clean(name: &str) {
    let bin = format!("/var/tmp/sallyport-test-{name}/bin/");
    let entries = fs::read_dir("/proc").expect("/proc");
    for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()) {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if program.to_string_lossy().starts_with(&bin) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
    let _ = fs::remove_dir_all(probe::pins(name));
}
