//! Sockets that outlive keeper and worker both, held by a process of ours or by a service manager, which is the test itself.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use node_support::node::{freeze, kill};
use node_support::traffic::{Client, expect_hello, get, origin};
use node_support::{Console, Node, free_port, shop, wait};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketType,
};

/// A node is started with descriptors left open for it, which a node that another test starts just then would have too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn publish(console: &Console) -> u16 {
    let port = free_port();
    console.publish(&shop(console, 1, port, origin()));
    console.expect_applied(1);
    expect_hello(console, port);
    port
}

/// Both are gone at once, and nothing was accepted shortly before.
fn kill_both(node: &mut Node) {
    let worker = node.worker(None);
    freeze(worker);
    node.kill_keeper();
    kill(worker);
    wait("the worker is gone", || (!Path::new(&format!("/proc/{worker}/exe")).exists()).then_some(()));
}

fn waiting(port: u16) -> Vec<TcpStream> {
    (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect()
}

fn all_served(console: &Console, waiting: Vec<TcpStream>) {
    for connection in waiting {
        let (status, _) = Client::over(console, connection).unwrap().get().unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK");
    }
}

/// The process that holds both of the listener's sockets.
fn holder(node: &Node, not: Option<u32>) -> u32 {
    let keeper = node.keeper.as_ref().unwrap().id();
    node.wait_status("a holder", |status| {
        let feature =
            status.features.iter().find(|feature| feature.name == "descriptor store" && feature.on)?;
        let words: Vec<&str> = feature.detail.split(' ').collect();
        let ["process", pid, "holds", "2", ..] = words.as_slice() else { return None };
        let pid = pid.parse().ok()?;
        (Some(pid) != not && status.keeper == keeper).then_some(pid)
    })
}

#[test]
fn what_waits_while_both_are_dead_is_served_by_the_next() {
    let _alone = alone();
    let console = Console::start();
    let mut node = Node::start(&console);
    let port = publish(&console);
    let first = holder(&node, None);
    for _ in 0..2 {
        assert_eq!(holder(&node, None), first, "the same goes on");
        kill_both(&mut node);
        let waiting = waiting(port);
        node.run();
        all_served(&console, waiting);
        expect_hello(&console, port);
    }
    // One that dies is followed by another, which holds the same.
    kill(holder(&node, None));
    let second = holder(&node, Some(first));
    kill_both(&mut node);
    let waiting = waiting(port);
    node.run();
    all_served(&console, waiting);
    assert_eq!(holder(&node, None), second);
    // It has no rights, and nothing that came to it before.
    let status = std::fs::read_to_string(format!("/proc/{second}/status")).unwrap();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        let set = status.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim();
        assert!(set.trim_matches('0').is_empty() || !rustix::process::geteuid().is_root(), "{set}");
    }
    let (status, _) = node.stop();
    assert!(status.success());
    wait("it ends with the node", || (!Path::new(&format!("/proc/{second}/exe")).exists()).then_some(()));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody holds what a stopped node had");
}

/// As much of systemd as keeps descriptors.
struct Manager {
    socket: OwnedFd,
    path: String,
    kept: BTreeMap<String, OwnedFd>,
    said: Vec<String>,
}

impl Manager {
    fn new(directory: &Path) -> Self {
        let path = directory.join("notify").display().to_string();
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path.as_str()).unwrap()).unwrap();
        Self { socket, path, kept: BTreeMap::new(), said: Vec::new() }
    }

    /// Reads what has come.
    fn hear(&mut self) {
        loop {
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [std::io::IoSliceMut::new(&mut bytes)];
            let Ok(received) = rustix::net::recvmsg(&self.socket, parts, &mut control, RecvFlags::DONTWAIT)
            else {
                return;
            };
            let rights = control.drain().filter_map(|message| {
                if let RecvAncillaryMessage::ScmRights(rights) = message { Some(rights) } else { None }
            });
            let descriptors: Vec<OwnedFd> = rights.flatten().collect();
            let text = String::from_utf8(bytes[..received.bytes].to_vec()).unwrap();
            let name = text.split_once("FDNAME=").map(|(_, name)| name.to_owned());
            match name {
                Some(name) if text.starts_with("FDSTORE=1\n") => {
                    self.kept.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
                }
                Some(name) if text.starts_with("FDSTOREREMOVE=1\n") => drop(self.kept.remove(&name)),
                _ => self.said.push(text),
            }
        }
    }

    fn await_kept(&mut self, count: usize) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.kept.len() != count {
            assert!(Instant::now() < until, "{:?}", self.kept);
            std::thread::sleep(Duration::from_millis(20));
            self.hear();
        }
    }

    fn await_said(&mut self, what: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.said.iter().any(|said| said == what) {
            assert!(Instant::now() < until, "{:?}", self.said);
            std::thread::sleep(Duration::from_millis(20));
            self.hear();
        }
        self.said.clear();
    }

    /// What starts the node as systemd would: with what was kept from descriptor 3 on.
    fn wrapper(&self) -> Vec<String> {
        let mut places = String::new();
        for (number, descriptor) in self.kept.values().enumerate() {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
            let ours = descriptor.as_raw_fd();
            places += &format!(" {}<&{ours} {ours}<&-", number + 3);
        }
        let names: Vec<&str> = self.kept.keys().map(String::as_str).collect();
        let (path, count, names) = (&self.path, self.kept.len(), names.join(":"));
        let listen = format!("LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}");
        let script = format!("export NOTIFY_SOCKET={path} {listen}; exec \"$@\"{places}");
        ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec()
    }
}

#[test]
fn a_service_manager_keeps_the_sockets_over_deaths_and_restarts() {
    let _alone = alone();
    let console = Console::start();
    let mut node = Node::prepare(&console);
    let mut manager = Manager::new(node.scratch.path());
    node.arguments.push("--no-kernel".to_owned());
    node.wrapper = manager.wrapper();
    node.run();
    manager.await_said("READY=1");
    let port = publish(&console);
    manager.await_kept(2);
    let name = format!("listen-1-0-4-7f000001-{port}");
    assert!(manager.kept.contains_key(&name), "{name} is not in {:?}", manager.kept);
    node.wait_status("the status says it", |status| {
        let said = |feature: &model::report::Feature| {
            feature.detail == "the service manager holds 2 listening sockets"
        };
        status.features.iter().any(said).then_some(())
    });

    kill_both(&mut node);
    let queue = waiting(port);
    node.wrapper = manager.wrapper();
    node.run();
    all_served(&console, queue);
    manager.await_said("READY=1");

    // systemctl restart: what comes between the two is served by the second.
    let (status, _) = node.stop();
    assert!(status.success());
    manager.await_said("STOPPING=1");
    assert_eq!(manager.kept.len(), 2);
    let queue = waiting(port);
    node.wrapper = manager.wrapper();
    node.run();
    all_served(&console, queue);
    manager.await_said("READY=1");

    // A place that is no listener's any more is kept by nobody.
    let other = free_port();
    console.publish(&shop(&console, 2, other, origin()));
    console.expect_applied(2);
    wait("the new listener", || get(&console, other).ok());
    std::thread::sleep(Duration::from_millis(200));
    manager.hear();
    assert_eq!(manager.kept.len(), 2, "{:?}", manager.kept);
    assert!(manager.kept.keys().all(|name| name.ends_with(&format!("-{other}"))), "{:?}", manager.kept);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    node.stop();
}
