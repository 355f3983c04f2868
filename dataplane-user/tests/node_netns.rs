//! What needs root: the kernel's part, in network namespaces of its own, and a full disk. Fails without root.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::process::Command;
use std::time::{Duration, Instant};

use model::snapshot::Snapshot;
use node_support::node::{freeze, kill, signal};
use node_support::{Console, Node, Scratch, id, shop, snapshot, wait};
use rustix::process::Signal;
use sallyport_node::keeper::status::Status;

/// Two namespaces joined by a cable: `node` (10.77.0.1) and `client` (10.77.0.2). The console, which the test itself is,
/// is reached through a third address on a second cable.
struct Net {
    node: String,
    client: String,
    outside: String,
}

#[track_caller]
fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {line}: {} (these tests need root)",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Net {
    /// `index` keeps tests that run at once apart.
    fn new(index: u8) -> Self {
        let tag = format!("{}-{index}", std::process::id() % 10000);
        let net = Self {
            node: format!("spt-n{tag}"),
            client: format!("spt-c{tag}"),
            outside: format!("spt{tag}o"),
        };
        let (node, client) = (&net.node, &net.client);
        let bpffs = "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf";
        assert!(Command::new("sh").args(["-c", bpffs]).status().unwrap().success(), "these tests need root");
        ip(&format!("netns add {node}"));
        ip(&format!("netns add {client}"));
        ip(&format!("link add up0 netns {node} type veth peer name up0 netns {client}"));
        ip(&format!("link add {} type veth peer name mgmt0 netns {node}", net.outside));
        ip(&format!("addr add 10.77.{index}.1/30 dev {}", net.outside));
        ip(&format!("link set {} up", net.outside));
        for (namespace, last) in [(node, 1), (client, 2)] {
            ip(&format!("-n {namespace} addr add 10.88.0.{last}/24 dev up0"));
            ip(&format!("-n {namespace} addr add fd88::{last}/64 dev up0 nodad"));
            ip(&format!("-n {namespace} link set up0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {node} addr add 10.77.{index}.2/30 dev mgmt0"));
        ip(&format!("-n {node} link set mgmt0 up"));
        net
    }

    /// A command in the client's namespace; its standard output when it succeeds.
    fn client(&self, line: &[&str]) -> Option<String> {
        let output = Command::new("ip").args(["netns", "exec", &self.client]).args(line).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn get(&self, address: &str, port: u16) -> Option<String> {
        let resolve = format!("shop.test:{port}:{address}");
        let url = format!("https://shop.test:{port}/");
        self.client(&["curl", "-sk", "-m", "2", "--resolve", &resolve, &url])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.outside]).status();
        for namespace in [&self.node, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// An origin inside the node's namespace, as long as it lives.
struct Origin(std::process::Child);

impl Origin {
    fn start(net: &Net, port: u16) -> Self {
        let answer = "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n  protocol_version='HTTP/1.1'\n  \
                      def log_message(s,*a):pass\n  def do_GET(s):\n    s.send_response(200);s.send_header('Content-Length','5');s.end_headers();s.wfile.write(b'hello')\n";
        let script = format!("{answer}h.ThreadingHTTPServer(('127.0.0.1',{port}),H).serve_forever()");
        Self(Command::new("ip").args(["netns", "exec", &net.node, "python3", "-c", &script]).spawn().unwrap())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not `ip netns exec`, which mounts another /sys, without bpffs.
fn wrapper(net: &Net) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", net.node)]
}

/// A node with the kernel's help in `net`, linked to a console outside.
fn steered(net: &Net, index: u8) -> (Console, Node) {
    let console = Console::start_on(&format!("10.77.{index}.1"));
    let mut node = Node::prepare(&console);
    node.wrapper = wrapper(net);
    let instance = format!("test-{}", net.node);
    node.arguments.extend(["--interface", "up0", "--instance", &instance].map(str::to_owned));
    node.run();
    (console, node)
}

/// The same with a listener at every address on 443, whose origin lives as long as the fourth value.
fn serving(net: &Net, index: u8) -> (Console, Node, Snapshot, Origin) {
    let (console, node) = steered(net, index);
    let origin = Origin::start(net, 9000);
    let mut wanted = shop(&console, 1, 443, 9000);
    wanted.listeners[0].addresses.clear();
    console.publish(&wanted);
    console.expect_applied(1);
    (console, node, wanted, origin)
}

#[test]
fn steered_denied_killed_and_stopped() {
    let net = Net::new(1);
    let (console, mut node, wanted, _origin) = serving(&net, 1);
    let features =
        node.wait_status("features", |status| (!status.pins.is_empty()).then(|| status.features.clone()));
    for feature in ["sk_lookup", "xdp:up0", "isolation", "seccomp", "landlock"] {
        assert!(features.iter().any(|known| known.name == feature && known.on), "{feature}: {features:?}");
    }
    for address in ["10.88.0.1", "[fd88::1]"] {
        assert_eq!(net.get(address, 443).as_deref(), Some("hello"), "{address}");
    }

    // A worker's death keeps the sockets, a keeper's death the worker and the pins.
    let worker = node.worker(None);
    kill(worker);
    wait("served again", || net.get("10.88.0.1", 443));
    let worker = node.worker(Some(worker));
    node.kill_keeper();
    assert!(net.get("10.88.0.1", 443).is_some());
    node.run();
    assert_eq!(node.wait_status("a keeper", |status| status.worker.filter(|_| status.at_ms > 0)), worker);

    // Denied from the moment it is acknowledged, also while the keeper is dead; allowed again afterwards.
    let mut denied = wanted.clone();
    denied.id = id(2);
    denied.filter.push(model::snapshot::FilterRule::new(
        7,
        "block/client",
        model::snapshot::FilterAction::Deny,
        vec!["10.88.0.2".parse().unwrap()],
    ));
    console.publish(&denied);
    console.expect_applied(2);
    assert!(net.get("10.88.0.1", 443).is_none());
    assert!(net.get("[fd88::1]", 443).is_some());
    node.kill_keeper();
    assert!(net.get("10.88.0.1", 443).is_none());
    node.run();
    let mut allowed = wanted;
    allowed.id = id(3);
    console.publish(&allowed);
    console.expect_applied(3);
    assert!(net.get("10.88.0.1", 443).is_some());

    let (status, _) = node.stop();
    assert!(status.success());
    assert!(net.get("10.88.0.1", 443).is_none());
    let pins = format!("/sys/fs/bpf/sallyport/test-{}", net.node);
    assert!(!std::path::Path::new(&pins).exists(), "{pins} is gone");
}

/// The first of two nodes with one instance has no interface and no listener, so nothing of it is in the second's way but its lock,
/// which it keeps while it becomes its next release and loses when it dies.
#[test]
fn a_second_node_of_the_same_instance_does_not_start() {
    let net = Net::new(6);
    let console = Console::start_on("10.77.6.1");
    let mut node = Node::prepare(&console);
    let instance = format!("test-{}", net.node);
    node.wrapper = wrapper(&net);
    node.arguments.extend(["--instance", &instance].map(str::to_owned));
    node.run();
    console.publish(&snapshot(1));
    console.expect_applied(1);
    let rests = |node: &Node| {
        let rests = |status: &Status| {
            let steering = status.features.iter().find(|feature| feature.name == "sk_lookup")?;
            (status.worker.is_some() && steering.detail.contains("rests")).then_some(status.keeper)
        };
        node.wait_status("steering rests", rests)
    };
    let pins = format!("/sys/fs/bpf/sallyport/{instance}");
    let elsewhere = Scratch::new();
    // With directories of its own.
    let other = |command: &str, arguments: &[&str]| {
        let mut words = Command::new("timeout");
        words.arg("10").args(wrapper(&net)).arg(env!("CARGO_BIN_EXE_sallyport-node"));
        words.arg(command).arg("--state-dir").arg(elsewhere.path().join("state"));
        words.arg("--run-dir").arg(elsewhere.path().join("run")).args(["--instance", &instance]);
        let output = words.args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let refused = |keeper: u32| {
        let expected = format!(
            "sallyport-node: the instance {instance} is that of a node that runs (process {keeper}), whose programs and tables are \
             in {pins}: stop that node, or give this one a name of its own with --instance"
        );
        let (code, words) = other("run", &["--metrics-listen", "127.0.0.1:0"]);
        assert!(code == Some(1) && words.contains(&expected), "{code:?}: {words}");
        let (code, words) = other("detach", &[]);
        let expected = format!("a node runs as the instance {instance} (process {keeper}); stop it");
        assert!(code == Some(1) && words.contains(&expected), "{code:?}: {words}");
        assert!(std::path::Path::new(&pins).join("current/maps").exists());
    };
    let keeper = rests(&node);
    refused(keeper);

    let upgraded = node.command("upgrade").args(["--only", "keeper"]).output().unwrap();
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    assert_eq!(rests(&node), keeper);
    refused(keeper);

    node.kill_keeper();
    node.run();
    let next = node.keeper.as_ref().unwrap().id();
    wait("the next keeper", || (rests(&node) == next).then_some(()));
    refused(next);
    node.stop();
    assert!(!std::path::Path::new(&pins).exists(), "{pins} is gone");
}

/// What a keeper does before its predecessor's worker has come back must not take the listeners out of the tables.
#[test]
fn a_keeper_that_waits_for_its_worker_leaves_what_is_steered() {
    let net = Net::new(4);
    let (_console, mut node, _, _origin) = serving(&net, 4);
    let worker = node.worker(None);
    let holder = node.wait_status("a holder", |status| {
        let feature =
            status.features.iter().find(|feature| feature.name == "descriptor store" && feature.on)?;
        feature.detail.split(' ').nth(1)?.parse().ok()
    });
    node.kill_keeper();
    // After its parent's death: the kernel sends SIGHUP to processes that stand still when theirs dies.
    freeze(worker);
    // Nobody else gives the next keeper the sockets.
    kill(holder);
    node.run();
    wait("the next keeper waits for it", || node.log().contains("waiting for it").then_some(()));
    let begun = Instant::now();
    // Its first looks fall in this time, and the kernel answers for the worker that stands still. It is given up after three seconds.
    while begun.elapsed() < Duration::from_millis(1200) {
        for address in ["10.88.0.1", "fd88::1"] {
            let script = format!("exec 3<>/dev/tcp/{address}/443");
            assert!(
                net.client(&["timeout", "1", "bash", "-c", &script]).is_some(),
                "{address} refuses after {:?}",
                begun.elapsed()
            );
        }
    }
    signal(worker, Signal::CONT);
    assert_eq!(node.wait_status("the same worker", |status| status.worker), worker);
    wait("served", || net.get("10.88.0.1", 443));
    node.stop();
}

#[test]
fn when_both_die_the_next_keeper_swaps_the_entries() {
    let net = Net::new(2);
    let (_console, mut node, _, _origin) = serving(&net, 2);
    assert!(net.get("10.88.0.1", 443).is_some());
    let worker = node.worker(None);
    node.kill_keeper();
    kill(worker);
    assert!(net.get("10.88.0.1", 443).is_none());
    node.run();
    wait("served by new sockets", || net.get("10.88.0.1", 443));
    node.stop();
}

#[test]
fn who_is_denied_stays_denied_where_the_stored_snapshot_cannot_be_served() {
    let net = Net::new(5);
    let (console, mut node) = steered(&net, 5);
    let mut wanted = shop(&console, 1, 443, 9000);
    wanted.listeners[0].addresses.clear();
    wanted.filter.push(model::snapshot::FilterRule::new(
        7,
        "block/client",
        model::snapshot::FilterAction::Deny,
        vec!["10.88.0.2".parse().unwrap(), "fd88::2".parse().unwrap()],
    ));
    console.publish(&wanted);
    console.expect_applied(1);
    let answers =
        || ["10.88.0.1", "fd88::1"].map(|address| net.client(&["ping", "-c1", "-W1", address]).is_some());
    assert_eq!(answers(), [false; 2]);
    let (_, _) = node.stop();
    wait("an orderly stop leaves nothing behind", || (answers() == [true; 2]).then_some(()));
    // Nobody gives the keys back.
    drop(console);
    let keys = node.state_dir().join("node/keys");
    let mut gone = 0;
    for key in std::fs::read_dir(&keys).unwrap() {
        std::fs::remove_file(key.unwrap().path()).unwrap();
        gone += 1;
    }
    assert!(gone > 0, "no key was stored");
    node.run();
    let refused = node.wait_status("the snapshot is not in force", |status| status.refused.clone());
    assert_eq!(refused.id, Some(id(1)));
    assert_eq!(answers(), [false; 2], "{}", refused.reason);
    node.stop();
}

#[test]
fn a_port_of_another_process_is_only_taken_when_asked() {
    let net = Net::new(3);
    let (console, mut node) = steered(&net, 3);
    let _origin = Origin::start(&net, 9000);
    let mut holder = Command::new("ip");
    holder.args(["netns", "exec", &net.node, "python3", "-m", "http.server", "443"]);
    let _holder = Origin(
        holder.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap(),
    );
    wait("the port is held", || net.client(&["curl", "-s", "-m", "1", "http://10.88.0.1:443/"]));
    let mut wanted = shop(&console, 1, 443, 9000);
    wanted.listeners[0].addresses.clear();
    console.publish(&wanted);
    let reason = console.expect_refused(1);
    assert!(reason.contains("port 443 is in use by python3 (process "), "{reason}");
    assert!(reason.contains("takeOver: true"), "{reason}");
    (wanted.id, wanted.listeners[0].take_over) = (id(2), true);
    console.publish(&wanted);
    console.expect_applied(2);
    assert_eq!(net.get("10.88.0.1", 443).as_deref(), Some("hello"));
    // An address that is not local is no listener's.
    (wanted.id, wanted.listeners[0].addresses) = (id(3), vec!["192.0.2.1".parse().unwrap()]);
    console.publish(&wanted);
    let reason = console.expect_refused(3);
    assert!(reason.contains("ip route add local 192.0.2.1 dev lo"), "{reason}");
    node.stop();
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let console = Console::start();
    let mut node = Node::prepare(&console);
    node.arguments.push("--no-kernel".to_owned());
    let state = node.state_dir();
    std::fs::create_dir_all(&state).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&state).status().unwrap();
    assert!(mounted.success(), "these tests need root");
    let unmount = || {
        let _ = Command::new("umount").arg("-l").arg(&state).status();
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        node.run();
        console.publish(&snapshot(1));
        console.expect_applied(1);
        let mut large = snapshot(2);
        // Right in every way, and longer than the disk has room for.
        let prefixes =
            (0..30_000_u32).map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x0a00_0000 + 2 * n)));
        let prefixes = prefixes.map(|text| text.parse().unwrap()).collect();
        let deny = model::snapshot::FilterAction::Deny;
        large.filter.push(model::snapshot::FilterRule::new(7, "block/many", deny, prefixes));
        console.publish(&large);
        let reason = console.expect_refused(2);
        assert!(reason.contains("is full: nothing was changed; make room"), "{reason}");
        console.publish(&snapshot(3));
        console.expect_applied(3);
        node.stop();
        node.run();
        node.wait_status("the stored snapshot", |status| (status.applied == Some(id(3))).then_some(()));
        node.stop();
        std::thread::sleep(Duration::from_millis(100));
    }));
    unmount();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
