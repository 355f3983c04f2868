//! Flows and captures, from the packet to the command line: what was sent is what is told, and what is sampled adds up to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use sallyport_tests::api::Api;
use sallyport_tests::eventually;
use sallyport_tests::frames::{self, Flood};
use sallyport_tests::objects;
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::space::command;
use sallyport_tests::stage::{CLIENT4, FOE4, FOE6, NODE4, NODE6, ORIGINS4, Stage};
use serde_json::{Value, json};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// By then whoever was asked to watch does.
const SETTLED: Duration = Duration::from_secs(3);

struct Watched {
    product: Product,
    api: Api,
    _origin: Origin,
    stage: Stage,
    rule: String,
}

impl Watched {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        let deny = objects::packet_filter("foes", "Deny", &[FOE4.to_string(), FOE6.to_string()]);
        let rule = format!("foes/{}", deny["spec"]["rules"][0]["name"].as_str().unwrap());
        product.applied(api.apply(&[deny]));
        Self { product, api, _origin: origin, stage, rule }
    }

    fn frame4(&self, from: Ipv4Addr, port: u16, target: u16) -> Vec<u8> {
        let syn = frames::syn(SocketAddrV4::new(from, port), SocketAddrV4::new(NODE4, target), 1);
        self.stage.link().frame(IPV4, &frames::ipv4(from, NODE4, 0, 6, &syn))
    }

    /// The filter verifies no checksum.
    fn frame6(&self, port: u16, target: u16) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        packet.extend(FOE6.octets());
        packet.extend(NODE6.octets());
        packet.extend(port.to_be_bytes());
        packet.extend(target.to_be_bytes());
        packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x72, 0x10, 0, 0, 0, 0]);
        self.stage.link().frame(IPV6, &packet)
    }

    fn send(&self, frames: &[Vec<u8>]) {
        frames::send(&self.stage.clients, "c0", frames);
    }

    /// The lines of `sallyport flows --json`, while `meanwhile` happens.
    fn lines(&self, options: &[&str], meanwhile: impl FnOnce()) -> Vec<Value> {
        thread::scope(|scope| {
            let told = scope.spawn(|| self.product.cli(&[&["flows", "--json"], options].concat()));
            thread::sleep(SETTLED);
            meanwhile();
            let (fine, lines, complaint) = told.join().unwrap();
            assert!(fine, "{complaint}");
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        })
    }
}

fn of(lines: &[Value], kind: &str) -> Vec<Value> {
    lines.iter().filter(|line| line["type"] == kind).cloned().collect()
}

#[test]
fn what_was_sent_is_what_is_told() {
    let watched = Watched::new("flows");
    let rule = watched.rule.as_str();
    let broken = watched.stage.link().frame(IPV4, &[0x45, 0, 0, 10]);
    let lines = watched.lines(&["--verdict", "drop", "--seconds", "7"], || {
        let sent = [
            watched.frame4(FOE4, 1001, 443),
            watched.frame4(FOE4, 1002, 8080),
            watched.frame6(1003, 443),
            broken.clone(),
            watched.frame4(CLIENT4, 1004, 443),
        ];
        watched.send(&sent);
    });
    let flows = of(&lines, "flow");
    let told: Vec<Value> = flows
        .iter()
        .map(|flow| {
            json!([
                flow["reason"],
                flow["rule"],
                flow["source"],
                flow["sourcePort"],
                flow["destination"],
                flow["destinationPort"],
                flow["protocol"],
                flow["bytes"],
                flow["oneIn"],
                flow["interface"]
            ])
        })
        .collect();
    let foe4 = |port: u16, target: u16| {
        json!(["denied", rule, FOE4.to_string(), port, NODE4.to_string(), target, "tcp", 54, 1, "c0"])
    };
    let foe6 = json!(["denied", rule, FOE6.to_string(), 1003, NODE6.to_string(), 443, "tcp", 74, 1, "c0"]);
    let unread = json!(["malformed-ipv4", null, null, null, null, null, null, broken.len(), 1, "c0"]);
    assert_eq!(told, [foe4(1001, 443), foe4(1002, 8080), foe6, unread], "{lines:#?}");
    let head: String = broken.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(flows[3]["head"], head);
    let [counts] = &of(&lines, "counts")[..] else { panic!("{lines:#?}") };
    assert_eq!(counts["matched"], json!({ "drops": 4, "passes": 0 }));
    assert_eq!((&counts["lost"], &counts["missed"]), (&json!(0), &json!(0)));
}

#[test]
fn a_narrow_filter_tells_its_own_and_a_reader_stays_while_the_worker_is_another_one() {
    let watched = Watched::new("flownarrow");
    let rule = watched.rule.as_str();
    // A filter is the kernel's: what it is not about is not even counted.
    let narrow =
        ["--rule", rule, "--source", &FOE4.to_string(), "--port", "443", "--limit", "1", "--seconds", "9"];
    let lines = watched.lines(&narrow, || {
        watched.send(&[watched.frame4(FOE4, 1, 80), watched.frame6(2, 443), watched.frame4(FOE4, 3, 443)]);
    });
    assert_eq!(of(&lines, "flow")[0]["sourcePort"], 3, "{lines:#?}");
    let (fine, _, complaint) =
        watched.product.cli(&["flows", "--port", "x", "--source", "10.0.0.1/8", "--rule", "no/such"]);
    assert!(!fine);
    for sentence in ["a port is a number", "10.0.0.0/8", "there is no rule \"no/such\""] {
        assert!(complaint.contains(sentence), "{complaint}");
    }

    // A reader stays while the worker is another one.
    let lines = watched.lines(&["--rule", rule, "--limit", "1", "--seconds", "30"], || {
        let former = watched.product.pids(Role::Worker);
        former.iter().for_each(|pid| watched.product.signal(*pid, Signal::KILL));
        eventually("another worker", Duration::from_secs(10), || {
            let now = watched.product.pids(Role::Worker);
            if !now.is_empty() && now.iter().all(|pid| !former.contains(pid)) {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        });
        thread::sleep(SETTLED);
        watched.send(&[watched.frame4(FOE4, 77, 443)]);
    });
    assert_eq!(of(&lines, "flow")[0]["sourcePort"], 77, "{lines:#?}");
}

/// Which reasons there are is the node's to know: who asks for another is told so, and nobody else notices.
#[test]
fn a_reason_that_the_node_does_not_know_ends_no_other_watch() {
    let watched = Watched::new("flowunknown");
    let unknown = ["flows", "--json", "--reason", "no-such", "--seconds", "6"];
    let lines = watched.lines(&["--verdict", "drop", "--seconds", "14"], || {
        let refused = thread::scope(|scope| {
            let asked = scope.spawn(|| watched.product.cli(&unknown));
            thread::sleep(SETTLED);
            watched.send(&[watched.frame4(FOE4, 11, 443)]);
            asked.join().unwrap()
        });
        let told: Vec<Value> = refused.1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!refused.0 && refused.2.contains("no node told of packets"), "{refused:?}");
        let [problem] = &told[..] else { panic!("{refused:?}") };
        assert_eq!(problem["type"], "problem");
        assert_eq!(problem["message"], "this node knows no reason \"no-such\"");
        watched.send(&[watched.frame4(FOE4, 12, 443)]);
    });
    let ports: Vec<&Value> =
        lines.iter().filter(|line| line["type"] == "flow").map(|flow| &flow["sourcePort"]).collect();
    assert_eq!(ports, [11, 12], "{lines:#?}");
    let [counts] = &of(&lines, "counts")[..] else { panic!("{lines:#?}") };
    assert_eq!(counts["matched"]["drops"], 2, "its figures were not begun anew: {counts}");
    let log = watched.product.log();
    let said = log.lines().filter(|line| line.contains("no-such")).count();
    assert_eq!(said, 1, "said once, not with each lease");
}

/// A flood is told by samples that stand for it, and counted exactly; and what passes is not hidden by it.
#[test]
fn samples_add_up_to_the_flood() {
    let watched = Watched::new("flowflood");
    let mut sent = 0;
    let lines = watched.lines(&["--source", "10.99.1.0/24", "--limit", "100000", "--seconds", "12"], || {
        let target = SocketAddrV4::new(NODE4, 443);
        let flood = Flood::start(&watched.stage.clients, FOE4, target, 4000, Duration::from_secs(20));
        thread::sleep(Duration::from_secs(3));
        watched.send(&[watched.frame4(CLIENT4, 5, 9)]);
        thread::sleep(Duration::from_secs(1));
        sent = flood.stop().0;
    });
    let flows = of(&lines, "flow");
    let [counts] = &of(&lines, "counts")[..] else { panic!("{lines:#?}") };
    let drops = counts["matched"]["drops"].as_u64().unwrap();
    println!("sent {sent}, counted {drops}, told by {} samples, {} lost", flows.len(), counts["lost"]);
    assert!(drops <= sent && drops * 100 >= sent * 99, "{drops} of {sent}");
    let stood: u64 = flows
        .iter()
        .filter(|flow| flow["verdict"] == "drop")
        .map(|flow| flow["oneIn"].as_u64().unwrap())
        .sum();
    assert!(stood * 100 > drops * 85 && stood * 100 < drops * 115, "{stood} by samples of {drops}");
    assert!(flows.len() < 6000, "{} of {sent} told", flows.len());
    // The summary does not forget the flood that is over: the rate has fallen since.
    let rates =
        flows.iter().filter(|flow| flow["verdict"] == "drop").filter_map(|flow| flow["oneIn"].as_u64());
    let (least, most) = (rates.clone().min().unwrap(), rates.max().unwrap());
    assert!(most > 1, "{most}");
    let told = |name: &str| counts[name]["drops"].as_u64().unwrap();
    assert!(told("oneIn") >= most && told("finest") <= least, "{counts}: {least} to {most}");
    let passed = |flow: &Value| flow["verdict"] == "pass" && flow["sourcePort"] == 5 && flow["oneIn"] == 1;
    assert!(flows.iter().any(passed), "what passed was hidden");
}

#[test]
fn a_capture_has_the_next_packets_of_a_rule_and_says_who_asked() {
    let watched = Watched::new("flowpcap");
    let file = watched.product.dir().join("foes.pcap");
    let path = file.display().to_string();
    let sent: Vec<Vec<u8>> = (0..12).map(|port| watched.frame4(FOE4, 2000 + port, 443)).collect();
    let options = [
        "capture",
        "--rule",
        &watched.rule,
        "--packets",
        "5",
        "--snap",
        "40",
        "--seconds",
        "30",
        "-o",
        &path,
    ];
    let (fine, said, complaint) = thread::scope(|scope| {
        let taken = scope.spawn(|| watched.product.cli(&options));
        thread::sleep(SETTLED);
        watched.send(&[watched.frame4(CLIENT4, 1, 9)]);
        watched.send(&sent);
        taken.join().unwrap()
    });
    assert!(fine, "{complaint}");
    assert!(said.starts_with("5 packets"), "{said}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600, "packets may hold personal data");
    // Read by somebody else.
    let script = "import struct, sys
data = open(sys.argv[1], 'rb').read()
magic, major, minor, _, _, snap, link = struct.unpack_from('<IHHIIII', data)
print(hex(magic), major, minor, snap, link)
at = 24
while at < len(data):
    seconds, rest, captured, length = struct.unpack_from('<IIII', data, at)
    assert seconds > 1700000000 and rest < 10**9
    print(length, data[at + 16:at + 16 + captured].hex())
    at += 16 + captured";
    let read = command("/usr/bin/python3", &["-c", script, &path]);
    let mut expected = "0xa1b23c4d 2 4 40 1\n".to_owned();
    for frame in &sent[..5] {
        let head: String = frame[..40].iter().map(|byte| format!("{byte:02x}")).collect();
        expected.push_str(&format!("{} {head}\n", frame.len()));
    }
    assert_eq!(read, expected);
    for wrong in [
        &["capture", "-o", &path][..],
        &["capture", "--rule", &watched.rule, "--packets", "1001", "-o", &path],
    ] {
        assert!(!watched.product.cli(wrong).0, "{wrong:?}");
    }
}

/// The kernel's ring has room for a sixth of them: what it loses in a flood is none of those that were asked for.
#[test]
fn a_capture_larger_than_the_ring_has_as_many_as_were_asked_for() {
    const BYTES: usize = 1_400;
    let watched = Watched::new("flowring");
    let path = watched.product.dir().join("many.pcap").display().to_string();
    let mut frame = watched.frame4(FOE4, 2000, 443);
    frame.resize(BYTES, 7);
    let frame: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('c0', 0))
frame = bytes.fromhex(sys.argv[1])
for _ in range(3000): s.send(frame)";
    let rest = ["--packets", "1000", "--snap", "1500", "--seconds", "60", "-o", &path];
    let options = [&["capture", "--rule", &watched.rule], &rest[..]].concat();
    let (fine, said, complaint) = thread::scope(|scope| {
        let taken = scope.spawn(|| watched.product.cli(&options));
        thread::sleep(SETTLED);
        while !taken.is_finished() {
            watched.stage.clients.run("/usr/bin/python3", &["-c", script, &frame]);
        }
        taken.join().unwrap()
    });
    assert!(fine && said.starts_with("1000 packets"), "{said} {complaint}");
    assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, 24 + 1000 * (16 + BYTES));
    let capture = watched.api.get("/api/v1/captures")["items"][0].clone();
    println!("{capture}");
    assert!(capture["taken"] == 1000 && capture["lost"].as_u64() > Some(0), "{capture}");
}

/// As many captures as go on at once at a node are given up; one after them has its packets at once.
#[test]
fn captures_that_were_given_up_end_at_console_and_node() {
    let watched = Watched::new("flowgiveup");
    let file = |name: &str| watched.product.dir().join(name).display().to_string();
    let running = || {
        let captures = watched.api.get("/api/v1/captures");
        captures["items"].as_array().unwrap().iter().filter(|capture| capture["running"] == true).count()
    };
    let capture = |path: &str| {
        let options = ["capture", "--rule", &watched.rule, "--packets", "1", "--seconds", "300", "-o", path];
        options.map(str::to_owned)
    };
    fn all(options: &[String]) -> Vec<&str> {
        options.iter().map(String::as_str).collect()
    }
    let mut given_up: Vec<_> = (0..4)
        .map(|number| watched.product.begin_cli(&all(&capture(&file(&format!("{number}.pcap"))))))
        .collect();
    let count = |wanted: usize| match running() {
        now if now == wanted => Ok(()),
        now => Err(format!("{now} are running")),
    };
    eventually("four captures", Duration::from_secs(15), || count(4));
    thread::sleep(SETTLED);
    let refused = watched.product.cli(&all(&capture(&file("fifth.pcap"))));
    assert!(!refused.0 && refused.2.contains("going on"), "{refused:?}");
    // Not SIGINT: whoever started this test in the background may have it ignored.
    for (child, signal) in given_up.iter_mut().zip([Signal::TERM, Signal::TERM, Signal::KILL, Signal::KILL]) {
        watched.product.signal(child.id(), signal);
        child.wait().unwrap();
    }
    eventually("none goes on", Duration::from_secs(5), || count(0));
    let options = capture(&file("after.pcap"));
    let (fine, said, complaint) = thread::scope(|scope| {
        let taken = scope.spawn(|| watched.product.cli(&all(&options)));
        thread::sleep(SETTLED);
        watched.send(&[watched.frame4(FOE4, 2000, 443)]);
        taken.join().unwrap()
    });
    assert!(fine && said.starts_with("1 packets"), "{said} {complaint}");
}

/// Somebody else stops a capture of the command line: it has what came until then, and the node takes nothing more.
#[test]
fn a_capture_that_is_stopped_elsewhere_has_what_came_until_then() {
    let watched = Watched::new("flowstop");
    let capture = |name: &str, packets: u16| {
        let file = watched.product.dir().join(name).display().to_string();
        let options = ["capture", "--rule", &watched.rule, "--packets", "5", "--seconds", "300", "-o", &file];
        thread::scope(|scope| {
            let taken = scope.spawn(|| watched.product.cli(&options));
            thread::sleep(SETTLED);
            let frames: Vec<_> = (0..packets).map(|port| watched.frame4(FOE4, 3000 + port, 443)).collect();
            watched.send(&frames);
            let newest = || watched.api.get("/api/v1/captures")["items"][0].clone();
            eventually("the packets are there", Duration::from_secs(10), || match newest() {
                capture if capture["running"] == true && capture["taken"] == packets => Ok(()),
                capture => Err(capture.to_string()),
            });
            let stop = format!("/api/v1/captures/{}/stop", newest()["id"]);
            let (status, stopped) = watched.api.call("POST", &stop, None).unwrap();
            assert_eq!((status, &stopped["running"]), (200, &json!(false)), "{stopped}");
            assert!(stopped["stopped"].is_string(), "{stopped}");
            taken.join().unwrap()
        })
    };
    let (fine, said, complaint) = capture("two.pcap", 2);
    assert!(fine && said.starts_with("2 packets"), "{said} {complaint}");
    let (fine, _, complaint) = capture("none.pcap", 0);
    assert!(!fine && complaint.contains("stopped it before such a packet was dropped"), "{complaint}");
}
