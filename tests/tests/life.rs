//! The life of the kernel programs: interfaces that come, go and change their names, drivers without native XDP, programs of
//! other people, no BPF file system, and what `sallyport-node detach` leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::maps;
use sallyport_node::keeper::kernel::{Config, Linux, detach_instance};
use sallyport_tests::api::Api;
use sallyport_tests::client::Dial;
use sallyport_tests::eventually;
use sallyport_tests::objects;
use sallyport_tests::origin::Origin;
use sallyport_tests::probe;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::space::command;
use sallyport_tests::stage::{CLIENT4, FOE4, FOE6, HOST, NODE4, NODE6, ORIGINS4, Stage, target6};

/// A node that denies a foe, over IPv4 and IPv6.
struct Life {
    product: Product,
    api: Api,
    _origin: Origin,
    stage: Stage,
}

impl Life {
    fn new(name: &str) -> Self {
        Self::start(name, Stage::product)
    }

    fn start(name: &str, product: impl FnOnce(&Stage) -> Product) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = product(&stage);
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        let deny = objects::packet_filter("foes", "Deny", &[FOE4.to_string(), FOE6.to_string()]);
        product.applied(api.apply(&[deny]));
        Self { product, api, _origin: origin, stage }
    }

    /// A node that both are served or refused by as its filter says.
    fn filters(name: &str) -> Self {
        let life = Self::new(name);
        life.feature("xdp:c0", true, "native");
        life.serves_friends();
        life.drops_foes();
        life
    }

    fn get(&self, dial: Dial, from: impl Into<IpAddr>) -> std::io::Result<u16> {
        let dial = dial.patience(Duration::from_millis(700)).from(from.into());
        self.stage.clients.inside(|| dial.get(HOST, "/")).map(|answer| answer.status)
    }

    fn serves_friends(&self) {
        eventually("a client is served", Duration::from_secs(10), || {
            self.get(self.stage.dial(), CLIENT4).map_err(|error| error.to_string()).map(drop)
        });
    }

    /// The kernel drops what the foe sends, and counts it; both families. On an interface that was just made a first try may
    /// end before anything is sent.
    fn drops_foes(&self) {
        let mut dial6 = self.stage.dial();
        dial6.target = target6(443);
        for (dial, from) in [(self.stage.dial(), IpAddr::from(FOE4)), (dial6, FOE6.into())] {
            let before = self.denied();
            eventually("the kernel counts what it drops", Duration::from_secs(10), || {
                let answer = self.get(dial.clone(), from);
                assert!(answer.is_err(), "{from} is served");
                if self.denied() > before { Ok(()) } else { Err(format!("{from}: {answer:?}")) }
            });
        }
    }

    /// Nobody leads connections to the listener, and whoever asks is told so, and what to do.
    fn refuses_and_says_so(&self) {
        assert!(self.get(self.stage.dial(), CLIENT4).is_err(), "there is no steering");
        let why = "steering is off, so every connection is refused";
        eventually("the node is not ready", Duration::from_secs(5), || {
            let answer = self.product.told("/readyz");
            let said = answer.starts_with("HTTP/1.1 503 ") && answer.contains(why);
            if said { Ok(()) } else { Err(answer) }
        });
        let (_, words, _) = self.node(&["status"]);
        assert!(words.contains(&format!("on no address (steered) - {why}")), "{words}");
        eventually("the console says what to do", Duration::from_secs(12), || {
            let (_, words, _) = self.product.cli(&["status"]);
            let need = words.lines().find(|line| line.contains("does not accept on node"));
            let told = need.is_some_and(|need| need.contains(why) && need.contains("restart the node"));
            if told && !words.contains("without --no-kernel") { Ok(()) } else { Err(words) }
        });
    }

    fn denied(&self) -> u64 {
        probe::reason(self.product.instance(), Reason::Denied.number())
    }

    /// Waits until the node says of a feature that it is on or off, and in which words.
    fn feature(&self, name: &str, on: bool, words: &str) -> String {
        eventually(&format!("{name} is {on}: {words}"), Duration::from_secs(12), || {
            let status = self.product.node_status()?;
            let features = status["features"].as_array().cloned().unwrap_or_default();
            let found = features.iter().find(|feature| feature["name"] == name);
            let found = found.ok_or_else(|| format!("{features:?}"))?;
            let detail = found["detail"].as_str().unwrap_or_default();
            if found["on"] == on && detail.contains(words) {
                Ok(detail.to_owned())
            } else {
                Err(found.to_string())
            }
        })
    }

    /// Waits until the node's metrics have the value for the interface of clients.
    fn metric(&self, name: &str, value: f64) {
        eventually(&format!("{name} is {value}"), Duration::from_secs(5), || {
            // A series that is absent adds up to 0 as well.
            let metrics = self.product.metrics();
            let series = format!("{name}{{interface=\"c0\"}} {value}");
            let found = metrics.lines().find(|line| line.starts_with(name));
            if metrics.lines().any(|line| line == series) { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    /// The veth between clients and the node, made anew with its addresses and routes.
    fn connect(&self) {
        let (clients, node) = (&self.stage.clients, &self.stage.node);
        command(
            "ip",
            &[
                "link",
                "add",
                "c0",
                "netns",
                clients.name(),
                "type",
                "veth",
                "peer",
                "name",
                "c0",
                "netns",
                node.name(),
            ],
        );
        for address in [format!("{CLIENT4}/24"), format!("{FOE4}/24")] {
            clients.ip(&format!("address add {address} dev c0"));
        }
        for address in ["fd99:1::2/64".to_owned(), format!("{FOE6}/64")] {
            clients.ip(&format!("address add {address} dev c0 nodad"));
        }
        node.ip(&format!("address add {NODE4}/24 dev c0"));
        node.ip(&format!("address add {NODE6}/64 dev c0 nodad"));
        clients.ip("link set c0 up");
        node.ip("link set c0 up");
        node.ip(&format!("route add default via {CLIENT4}"));
        node.ip("-6 route add default via fd99:1::2");
    }

    fn node(&self, arguments: &[&str]) -> (bool, String, String) {
        let run = self.product.dir().join("state/run").display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--run-dir", &run]);
        self.stage.node.try_run(&self.product.program("sallyport-node").display().to_string(), &all)
    }

    /// The ids of the links that the instance has pinned, by pin.
    /// The id of the link behind a pin. While the keeper makes another one there is none for a moment.
    fn link(&self, pin: &str) -> Result<String, String> {
        let path = probe::pins(self.product.instance()).join("links").join(pin);
        let output =
            Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(path).output().unwrap();
        let link: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        link["id"].as_u64().map(|id| id.to_string()).ok_or_else(|| link.to_string())
    }
}

#[test]
fn an_interface_made_anew_gets_the_filter_back() {
    let life = Life::filters("lifeanew");
    for (gaps, round) in [(1, "first"), (2, "second")] {
        life.stage.node.ip("link del c0");
        let gone = life.feature("xdp:c0", false, "there is no interface c0");
        assert!(gone.contains("gets the filter within a second after it is there"), "{round}: {gone}");
        life.connect();
        life.feature("xdp:c0", true, "native");
        life.metric("sallyport_filter_gaps_total", f64::from(gaps));
        life.serves_friends();
        life.drops_foes();
    }
    let log = life.product.log();
    assert!(log.contains("a kernel program is off") && log.contains("a kernel program is on"), "{log}");
}

/// The kernel tells the keeper, which else looks once a second: eight times that would be four seconds together.
#[test]
fn a_new_interface_is_filtered_at_once() {
    let life = Life::filters("lifesoon");
    let mut all = Duration::ZERO;
    for _ in 0..8 {
        life.stage.node.ip("link delete c0");
        // The keeper rests a moment after each look.
        std::thread::sleep(Duration::from_millis(100));
        life.stage.node.ip("link add c0 type veth peer name c1");
        let begun = Instant::now();
        eventually("the filter is on the new interface", Duration::from_secs(5), || {
            let (_, shown, _) = life.stage.node.try_run("ip", &["link", "show", "dev", "c0"]);
            if shown.contains("xdp") { Ok(()) } else { Err(shown) }
        });
        all += begun.elapsed();
    }
    println!("a new interface has the filter after {:?} on average", all / 8);
    assert!(all < Duration::from_millis(1500), "{all:?} for eight interfaces");
    life.stage.node.ip("link delete c0");
    life.connect();
    life.serves_friends();
    life.drops_foes();
}

#[test]
fn a_renamed_interface_keeps_the_filter() {
    let life = Life::filters("liferename");
    let before = life.link("xdp-c0").unwrap();
    // The kernel renames interfaces that are up since 6.1; addresses and routes stay.
    life.stage.node.ip("link set c0 name wan0");
    life.feature("xdp:wan0", true, "native");
    assert_eq!(life.link("xdp-wan0").unwrap(), before, "the link is the one there was: no packet came past");
    life.serves_friends();
    life.drops_foes();

    // With --interface the name is the operator's, and he is told.
    let named = Life::start("liferenamed", |stage| {
        Product::start(&stage.node, stage.name(), None, &["--interface", "c0"])
    });
    named.feature("xdp:c0", true, "native");
    named.stage.node.ip("link set c0 name wan0");
    named.feature("xdp:c0", true, "c0 is called wan0 now and keeps the filter: say --interface wan0");
    named.drops_foes();
    // Also after a crash of the keeper, which is told the same name again.
    let keeper = named.product.pids(Role::Keeper)[0];
    named.product.signal(keeper, rustix::process::Signal::KILL);
    eventually("another keeper", Duration::from_secs(10), || {
        let now = named.product.node_status()?["keeper"].as_u64();
        if now.is_some_and(|pid| pid != u64::from(keeper)) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    named.feature("xdp:c0", true, "c0 is called wan0 now");
    named.serves_friends();
    named.drops_foes();
    named.stage.node.ip("link set wan0 name c0");
    eventually("the name is right again", Duration::from_secs(5), || {
        let detail = named.feature("xdp:c0", true, "native");
        if detail == "native" { Ok(()) } else { Err(detail) }
    });
}

/// A bridge has no native XDP: the interface that comes later is such a one.
#[test]
fn an_interface_added_later_is_filtered_generically_where_its_driver_cannot() {
    let life = Life::filters("lifelater");
    let (clients, node) = (&life.stage.clients, &life.stage.node);
    command(
        "ip",
        &[
            "link",
            "add",
            "c1",
            "netns",
            clients.name(),
            "type",
            "veth",
            "peer",
            "name",
            "p1",
            "netns",
            node.name(),
        ],
    );
    node.ip("link add b0 type bridge");
    node.ip("link set p1 master b0");
    node.ip("address add 10.99.7.1/24 dev b0");
    for interface in ["p1", "b0"] {
        node.ip(&format!("link set {interface} up"));
    }
    let (friend, foe) = (Ipv4Addr::new(10, 99, 7, 2), Ipv4Addr::new(10, 99, 7, 66));
    for address in [friend, foe] {
        clients.ip(&format!("address add {address}/24 dev c1"));
    }
    clients.ip("link set c1 up");
    node.ip("route add default via 10.99.7.2 metric 500");
    life.feature("xdp:b0", true, "generic: the driver has no native XDP, so dropping costs more");
    life.feature("xdp:c0", true, "native");

    let deny = objects::packet_filter("later", "Deny", &[foe.to_string()]);
    life.product.applied(life.api.apply(&[deny]));
    let mut dial = life.stage.dial();
    dial.target = SocketAddr::from(([10, 99, 7, 1], 443));
    let status = eventually("the bridge forwards", Duration::from_secs(10), || {
        life.get(dial.clone(), friend).map_err(|error| error.to_string())
    });
    assert_eq!(status, 200);
    let before = life.denied();
    assert!(life.get(dial.clone(), foe).is_err(), "the foe is served over the bridge");
    assert!(life.denied() > before);

    // A default route that is gone opens nothing, and the keeper's restart neither.
    node.ip("route del default via 10.99.7.2 metric 500");
    let keeper = life.product.pids(Role::Keeper)[0];
    life.product.signal(keeper, rustix::process::Signal::KILL);
    eventually("another keeper", Duration::from_secs(10), || {
        let now = life.product.node_status()?["keeper"].as_u64();
        if now.is_some_and(|pid| pid != u64::from(keeper)) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    life.feature("xdp:b0", true, "generic");
    assert!(life.get(dial, foe).is_err(), "the foe is served over the bridge");
}

/// Its packets begin with the IP header: read as Ethernet they would all be something else and pass.
#[test]
fn an_interface_without_ethernet_headers_is_not_said_to_be_filtered() {
    let life = Life::filters("lifetun");
    let node = &life.stage.node;
    node.ip("tuntap add dev t0 mode tun");
    node.ip("address add 10.99.8.1/24 dev t0");
    node.ip("link set t0 up");
    node.ip("route add default dev t0 metric 500");
    let detail = life.feature("xdp:t0", false, "no Ethernet header (link type 65534");
    assert!(detail.contains("judges connections to its listeners when it accepts them"), "{detail}");
    assert!(!node.run("ip", &["link", "show", "t0"]).contains("xdp"), "something is attached");
    life.feature("xdp:c0", true, "native");
    life.drops_foes();
    life.serves_friends();
}

/// An XDP program that is not the node's: another instance's, put on `c0` as `ip` does it.
struct Stranger<'a> {
    stage: &'a Stage,
    instance: String,
}

impl<'a> Stranger<'a> {
    fn new(stage: &'a Stage) -> Self {
        let instance = format!("{}x", stage.name());
        let config = Config::new(&instance, Vec::new());
        stage.node.inside(|| Linux::open(config).map(drop)).unwrap();
        Self { stage, instance }
    }

    fn set(&self, more: &[&str]) -> (bool, String) {
        let pinned = probe::pins(&self.instance).join("current/programs").join(maps::FILTER);
        let pinned = pinned.display().to_string();
        let mut all = more.to_vec();
        all.extend(["link", "set", "dev", "c0", "xdpdrv", "pinned", &pinned]);
        let (ok, _, complaint) = self.stage.node.try_run("ip", &all);
        (ok, complaint)
    }

    /// The id of what is on `c0` then.
    fn attach(&self) -> String {
        assert_eq!(self.set(&[]), (true, String::new()));
        self.on()
    }

    fn on(&self) -> String {
        let link = self.stage.node.run("ip", &["-j", "-d", "link", "show", "c0"]);
        let link: serde_json::Value = serde_json::from_str(&link).unwrap();
        link[0]["xdp"]["prog"]["id"].to_string()
    }

    fn off(&self) {
        self.stage.node.ip("link set dev c0 xdp off");
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let _ = detach_instance(Path::new(Config::PIN_ROOT), &self.instance);
    }
}

#[test]
fn another_program_is_left_alone_and_named() {
    let life = Life::start("lifeforeign", |stage| {
        // The stage's own namespaces, before there is a node.
        let stranger = Stranger::new(stage);
        stranger.attach();
        stage.product()
    });
    let stranger = Stranger::new(&life.stage);
    let theirs = stranger.on();
    // While it starts, the keeper may ask for the name.
    let detail = life.feature("xdp:c0", false, "c0 already has the XDP program");
    assert!(detail.contains(&format!("id {theirs}")), "{detail}");
    life.metric("sallyport_filter_attached", 0.0);
    assert!(detail.contains("left alone") && detail.contains("`ip link set dev c0 xdp off`"), "{detail}");
    assert_eq!(stranger.on(), theirs, "it is still theirs");
    life.serves_friends();

    // As it was told, the filter takes its place.
    stranger.off();
    life.feature("xdp:c0", true, "native");
    life.metric("sallyport_filter_attached", 1.0);
    life.metric("sallyport_filter_gaps_total", 0.0);
    life.drops_foes();

    // Nobody replaces ours, not by force either.
    let (replaced, complaint) = stranger.set(&["-force"]);
    assert!(!replaced, "the filter was replaced: {complaint}");
    life.drops_foes();

    // Where somebody takes it off and puts his own there first, his is left alone too.
    let keeper = life.product.pids(Role::Keeper)[0];
    life.product.signal(keeper, rustix::process::Signal::STOP);
    command("bpftool", &["link", "detach", "id", &life.link("xdp-c0").unwrap()]);
    let theirs = stranger.attach();
    life.product.signal(keeper, rustix::process::Signal::CONT);
    let detail = life.feature("xdp:c0", false, &format!("`bpftool prog show id {theirs}` names it"));
    assert!(detail.contains("left alone"), "{detail}");
    assert_eq!(stranger.on(), theirs);
    life.serves_friends();
    life.metric("sallyport_filter_attached", 0.0);
    stranger.off();
    // However long his stood there, that was one gap.
    life.feature("xdp:c0", true, "native; found missing and put back 1 time since the keeper started");
    life.metric("sallyport_filter_attached", 1.0);
    life.metric("sallyport_filter_gaps_total", 1.0);
    life.drops_foes();
}

#[test]
fn a_link_that_somebody_detached_is_made_again() {
    let life = Life::filters("lifelink");
    let gap = "native; found missing and put back 1 time since the keeper started";
    for (pin, feature) in [("xdp-c0", gap), ("sk_lookup", "the kernel hands connections")] {
        let former = life.link(pin).unwrap();
        command("bpftool", &["link", "detach", "id", &former]);
        eventually("another link", Duration::from_secs(5), || {
            let now = life.link(pin)?;
            if now == former { Err(now) } else { Ok(()) }
        });
        let name = if pin == "sk_lookup" { pin } else { "xdp:c0" };
        life.feature(name, true, feature);
        life.serves_friends();
        life.drops_foes();
    }
    life.metric("sallyport_filter_attached", 1.0);
    life.metric("sallyport_filter_gaps_total", 1.0);
    let log = life.product.log();
    let told = log.lines().find(|line| line.contains("the packet filter was not on the interface"));
    assert!(
        told.is_some_and(|line| line.contains("c0") && line.contains("unfiltered_ms_at_most")),
        "{told:?}"
    );
}

/// The worker answers for metrics as long as it lives; what the keeper told is no news for ever.
#[test]
fn metrics_tell_nothing_of_a_filter_that_no_keeper_looks_at() {
    let life = Life::filters("lifesilent");
    life.metric("sallyport_filter_attached", 1.0);
    let keeper = life.product.pids(Role::Keeper)[0];
    life.product.signal(keeper, rustix::process::Signal::STOP);
    eventually("the filter's series are left out", Duration::from_secs(10), || {
        let metrics = life.product.metrics();
        let told = metrics.lines().find(|line| line.contains("sallyport_filter_")).map(str::to_owned);
        told.map_or(Ok(()), Err)
    });
    life.serves_friends();
    life.product.signal(keeper, rustix::process::Signal::CONT);
    life.metric("sallyport_filter_attached", 1.0);
    life.metric("sallyport_filter_gaps_total", 0.0);
    life.drops_foes();
}

/// In a mount namespace of its own the node sees a /sys without a BPF file system.
#[test]
fn a_bpf_file_system_is_mounted_where_there_is_none() {
    let hide = ["unshare", "--mount", "sh", "-c", "umount -l /sys/fs/bpf && exec \"$0\" \"$@\""];
    let life = Life::start("lifemount", |stage| Product::start_behind(&stage.node, stage.name(), &hide));
    life.feature("xdp:c0", true, "native");
    life.feature("sk_lookup", true, "");
    life.serves_friends();
    assert!(life.get(life.stage.dial(), FOE4).is_err(), "the filter drops");
    assert!(!life.product.node_status().unwrap()["pins"].as_array().unwrap().is_empty());
    assert!(!probe::has_pins(life.product.instance()), "the pins are in the node's own file system");
    assert!(life.product.log().contains("mounted the BPF file system"));
}

/// The same without the right to mount one.
#[test]
fn without_a_bpf_file_system_the_node_serves_and_says_so() {
    let hide = "umount -l /sys/fs/bpf && exec setpriv --bounding-set=-sys_admin \"$0\" \"$@\"";
    let hide = ["unshare", "--mount", "sh", "-c", hide];
    let life = Life::start("lifebpffs", |stage| Product::start_behind(&stage.node, stage.name(), &hide));
    for feature in ["xdp", "sk_lookup"] {
        let detail = life.feature(feature, false, "/sys/fs/bpf is on no BPF file system");
        assert!(detail.contains("it may not: that needs CAP_SYS_ADMIN"), "{detail}");
        assert!(detail.contains("as root, run `mount -t bpf bpf /sys/fs/bpf` and restart"), "{detail}");
    }
    life.serves_friends();
    assert!(!probe::has_pins(life.product.instance()));
    assert!(life.product.node_status().unwrap()["pins"].as_array().unwrap().is_empty());
}

/// Kernels before 5.11 charged maps to this limit; the oldest we run on charges them to the control group.
#[test]
fn a_limit_of_locked_memory_does_not_matter() {
    let limit = ["prlimit", "--memlock=0:0"];
    let life = Life::start("lifememlock", |stage| Product::start_behind(&stage.node, stage.name(), &limit));
    let keeper = life.product.pids(Role::Keeper)[0];
    let limits = std::fs::read_to_string(format!("/proc/{keeper}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("0"), "{line}");
    life.feature("xdp:c0", true, "native");
    life.drops_foes();
}

#[test]
fn detach_removes_everything_and_says_what() {
    let mut life = Life::filters("lifedetach");
    let pins: Vec<String> = eventually("status lists the pins", Duration::from_secs(10), || {
        let status = life.product.node_status()?;
        let pins = status["pins"].as_array().cloned().unwrap_or_default();
        let pins: Vec<String> = pins.iter().filter_map(|pin| pin.as_str().map(str::to_owned)).collect();
        if pins.iter().any(|pin| pin.ends_with("links/xdp-c0")) { Ok(pins) } else { Err(format!("{pins:?}")) }
    });
    let instance = life.product.instance().to_owned();
    let (ok, words, _) = life.node(&["status"]);
    assert!(ok && pins.iter().all(|pin| words.contains(pin)), "{words}");

    // Not while the node runs, unless it must be.
    let (ok, _, err) = life.node(&["detach", "--instance", &instance]);
    assert!(!ok && err.contains("a node runs") && err.contains("--force"), "{err}");
    life.drops_foes();
    assert!(life.product.told("/readyz").starts_with("HTTP/1.1 200 "));
    let (ok, out, err) = life.node(&["detach", "--force", "--instance", &instance]);
    assert!(ok && err.contains("has no packet filter and no steering now"), "{out}{err}");
    assert_nothing_left(&life, &out, &pins);
    // It stays removed: whoever forces it means it.
    life.feature("xdp:c0", false, "was removed while the node runs: restart the node");
    life.feature("sk_lookup", false, "restart the node");
    assert!(!probe::has_pins(&instance));
    life.refuses_and_says_so();

    // After a crash of everything too.
    let again = Instant::now();
    life.product.stop();
    life.product.up();
    life.product.ready();
    life.serves_friends();
    life.drops_foes();
    for role in [Role::Up, Role::Keeper, Role::Worker, Role::Console, Role::Holder] {
        life.product
            .pids(role)
            .into_iter()
            .for_each(|pid| life.product.signal(pid, rustix::process::Signal::KILL));
    }
    eventually("all processes are gone", Duration::from_secs(10), || {
        let left = life.product.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} after {:?}", again.elapsed())) }
    });
    assert!(probe::has_pins(&instance), "a crash keeps the pins");
    let (ok, out, err) = life.node(&["detach", "--instance", &instance]);
    assert!(ok && err.is_empty(), "{out}{err}");
    assert_nothing_left(&life, &out, &pins);
    let (ok, out, _) = life.node(&["detach", "--instance", &instance]);
    assert!(ok && out.starts_with("nothing was there"), "{out}");
}

/// Every pin is named as removed, and neither links nor programs nor routes are there.
fn assert_nothing_left(life: &Life, said: &str, pins: &[String]) {
    for pin in pins {
        assert!(said.contains(pin.as_str()), "{pin} is not among what was removed:\n{said}");
    }
    assert!(said.contains("packet filter on c0") && said.contains("steering (sk_lookup)"), "{said}");
    assert!(!probe::has_pins(life.product.instance()));
    let node = &life.stage.node;
    assert!(!node.run("ip", &["-d", "link", "show"]).contains("xdp"), "XDP is still there");
    let attached = node.run("bpftool", &["-j", "net", "show"]);
    assert!(!attached.contains("sk_lookup"), "{attached}");
    for family in ["-4", "-6"] {
        let rules = node.run("ip", &[family, "rule", "show"]);
        let own = rules.lines().filter(|line| {
            !["local", "main", "default"].iter().any(|table| line.trim_end().ends_with(table))
        });
        assert_eq!(own.count(), 0, "{rules}");
    }
}
