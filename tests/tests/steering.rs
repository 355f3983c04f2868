//! Listeners on address ranges and any port, through the whole product: who has a connection, whose ports are left alone, and
//! that nothing is bound for them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use sallyport_tests::api::Api;
use sallyport_tests::client::Dial;
use sallyport_tests::eventually;
use sallyport_tests::frames;
use sallyport_tests::objects::{self, object};
use sallyport_tests::product::{Product, Role};
use sallyport_tests::space::Space;
use sallyport_tests::stage::{CLIENT4, CLIENT6, FOE4, FOE6, NODE4, NODE6, Stage};
use serde_json::{Value, json};

const WHICH: &str = "which.walk.test";
const SOON: Duration = Duration::from_secs(10);

/// Some other service of the node: it greets whoever connects.
struct Service {
    thread: Option<JoinHandle<()>>,
    space: Arc<Space>,
    port: u16,
}

const GREETING: &[u8] = b"SSH-2.0-somebody\r\n";

impl Service {
    fn start(space: &Arc<Space>, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let socket = space.inside(|| TcpListener::bind(address).unwrap());
        // The first connection with a word ends it.
        let serve = move || {
            for stream in socket.incoming() {
                let mut stream = stream.unwrap();
                let _gone_is_fine = stream.write_all(GREETING);
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                if stream.read(&mut [0; 1]).is_ok_and(|read| read == 1) {
                    return;
                }
            }
        };
        Self { thread: Some(std::thread::spawn(serve)), space: Arc::clone(space), port: address.port() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let word = || {
            let mut stream = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, self.port))?;
            stream.write_all(b"x")
        };
        if self.space.inside(word).is_ok() {
            let _ended = self.thread.take().map(JoinHandle::join);
        }
    }
}

struct Steering {
    stage: Stage,
    product: Product,
    api: Api,
}

impl Steering {
    fn new(name: &str, flags: &[&str]) -> Self {
        let stage = Stage::new(name);
        for (command, range, via) in
            [("route", "10.77.0.0/16", NODE4.to_string()), ("-6 route", "fd77::/16", NODE6.to_string())]
        {
            stage.clients.ip(&format!("{command} add {range} via {via}"));
        }
        for (command, ranges) in [
            ("route", ["10.77.7.0/24", "10.77.8.0/24", "10.77.9.0/24"]),
            ("-6 route", ["fd77:7::/64", "fd77:8::/64", "fd77:9::/64"]),
        ] {
            for range in ranges {
                stage.node.ip(&format!("{command} add local {range} dev lo"));
            }
        }
        let mut product = Product::start(&stage.node, stage.name(), None, flags);
        let api = product.ready();
        let mut objects = vec![objects::certificate("front", &stage.front())];
        objects.extend(answering("https"));
        product.applied(api.apply(&objects));
        let steering = Self { stage, product, api };
        steering.is_at(("10.99.1.1:443", "https"), CLIENT4.into());
        steering.is_at(("[fd99:1::1]:443", "https"), CLIENT6.into());
        steering
    }

    fn apply(&self, objects: &[Value]) {
        self.product.applied(self.api.apply(objects));
    }

    fn dial(&self, to: &str, from: IpAddr) -> Dial {
        let target = to.parse().unwrap();
        Dial::new(target, WHICH, &self.stage.front_ca.client(&["http/1.1"]))
            .from(from)
            .patience(Duration::from_secs(3))
    }

    /// The name of the listener that has a connection.
    fn which(&self, to: &str, from: IpAddr) -> io::Result<String> {
        self.stage.clients.inside(|| self.dial(to, from).get(WHICH, "/")).map(|answer| answer.text())
    }

    fn is_at(&self, (to, listener): (&str, &str), from: IpAddr) {
        eventually(&format!("{to} is {listener}'s"), SOON, || match self.which(to, from) {
            Ok(answer) if answer == listener => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn are_at(&self, all: &[(&str, &str)]) {
        for (to, listener) in all {
            let from = if to.starts_with('[') { IpAddr::from(CLIENT6) } else { CLIENT4.into() };
            self.is_at((to, listener), from);
        }
    }

    /// Whether somebody else's service answers.
    fn is_greeted(&self, to: &str, from: IpAddr) -> io::Result<bool> {
        self.stage.clients.inside(|| {
            let mut greeting = vec![0; GREETING.len()];
            self.dial(to, from).tcp()?.read_exact(&mut greeting)?;
            Ok(greeting == GREETING)
        })
    }

    fn is_the_services(&self, to: &str, from: IpAddr) {
        eventually("a service that starts later has its port", SOON, || match self.is_greeted(to, from) {
            Ok(true) => Ok(()),
            other => Err(format!("{to}: {other:?}")),
        });
    }

    /// The sockets that listen, as `ss` shows them.
    fn sockets(&self) -> String {
        self.stage.node.run("ss", &["-ltnH"])
    }

    /// It has its port, of IPv4 where its socket takes that too, and when it ends, the listener has.
    fn a_service_starts_later(&self) {
        let [four, six] = ["10.77.8.1:5432", "[fd77:8::1]:5432"];
        for (at, of_both) in [("0.0.0.0:5432", false), ("[::]:5432", true)] {
            self.are_at(&[(four, "any"), (six, "any")]);
            let later = Service::start(&self.stage.node, at);
            self.is_the_services(four, CLIENT4.into());
            match of_both {
                true => self.is_the_services(six, CLIENT6.into()),
                false => self.are_at(&[(six, "any")]),
            }
            drop(later);
        }
        self.are_at(&[(four, "any"), (six, "any")]);
    }

    /// While no worker serves, because none can be started, the keeper goes on following who listens and which addresses are the
    /// host's; clients of the listener wait for the next worker.
    fn no_worker_serves(&self) {
        let all: [(&str, IpAddr); 2] =
            [("10.77.8.1:5433", CLIENT4.into()), ("[fd77:8::1]:5433", CLIENT6.into())];
        self.are_at(&all.map(|(to, _)| (to, "any")));
        let program = self.product.program("sallyport-node");
        let allow = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        allow(0o644);
        for pid in self.product.pids(Role::Worker) {
            self.product.signal(pid, Signal::KILL);
        }
        let nobody = || match self.product.pids(Role::Worker) {
            workers if workers.is_empty() => Ok(()),
            workers => Err(format!("{workers:?}")),
        };
        eventually("no worker is there", SOON, nobody);
        for _start in 0..2 {
            let service = Service::start(&self.stage.node, "[::]:5433");
            all.iter().for_each(|(to, from)| self.is_the_services(to, *from));
            drop(service);
            for (to, from) in all {
                // Where nobody listened, and nothing was steered, it would be refused.
                eventually("the listener has its port again", SOON, || {
                    self.stage
                        .clients
                        .inside(|| self.dial(to, from).tcp())
                        .map(drop)
                        .map_err(|e| e.to_string())
                });
            }
        }
        let moved: [IpAddr; 2] = ["10.99.1.200".parse().unwrap(), "fd99:1::200".parse().unwrap()];
        moved.iter().for_each(|address| self.stage.node.ip(&format!("addr add {address} dev lo")));
        std::thread::sleep(Duration::from_millis(2500));
        let (link, nodes) = (self.stage.link(), [IpAddr::from(NODE4), NODE6.into()]);
        let syn = |(from, node)| link.syn(SocketAddr::new(from, 7), SocketAddr::new(node, 443));
        let syns: Vec<_> = moved.into_iter().zip(nodes).map(syn).collect();
        frames::send(&self.stage.clients, "c0", &syns);
        assert_eq!(nobody(), Ok(()));
        allow(0o755);
        self.are_at(&all.map(|(to, _)| (to, "any")));
        eventually("the next worker counts who sent from the host's own addresses", SOON, || {
            match self.product.metric("sallyport_kernel_drops_total", "reason=\"own-address\"") {
                2.0 => Ok(()),
                other => Err(other.to_string()),
            }
        });
        moved.iter().for_each(|address| self.stage.node.ip(&format!("addr del {address} dev lo")));
    }

    /// `sallyport-node upgrade`: another worker, and the keeper becomes another program in place.
    fn upgraded(&self) {
        let (program, run_dir) =
            (self.product.program("sallyport-node"), self.product.dir().join("state/run"));
        let arguments = ["upgrade", "--run-dir", run_dir.to_str().unwrap()];
        // A keeper that has just come back does not listen at once.
        eventually("an upgrade", SOON, || {
            let (ok, out, err) = self.stage.node.try_run(program.to_str().unwrap(), &arguments);
            if ok { Ok(()) } else { Err(format!("{out} {err}")) }
        });
    }

    fn refusal(&self, about: &str) -> String {
        eventually(&format!("the node refuses {about}"), SOON, || {
            let status = self.product.node_status()?;
            let reason = status["refused"]["reason"].as_str().unwrap_or_default().to_owned();
            if reason.contains(about) { Ok(reason) } else { Err(status["refused"].to_string()) }
        })
    }

    fn left_out(&self, listener: &str) -> Vec<String> {
        let status = self.product.node_status().unwrap();
        let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
        let of = listeners.into_iter().find(|one| one["listener"] == listener).unwrap();
        let at = |left: &Value| left["at"].as_str().unwrap().to_owned();
        of["leftOut"].as_array().map(|left| left.iter().map(at).collect()).unwrap_or_default()
    }
}

/// A route that says which listener it is on.
fn answering(listener: &str) -> Vec<Value> {
    let filters = json!({ "directResponse": { "statusCode": 200, "body": listener } });
    let spec =
        json!({ "hostnames": [WHICH], "certificate": "front", "listeners": [listener], "filters": filters });
    vec![object("Route", &format!("on-{listener}"), spec)]
}

fn listener(name: &str, addresses: &[&str], port: impl Into<Value>) -> Vec<Value> {
    let spec = json!({ "addresses": addresses, "port": port.into() });
    [vec![object("Listener", name, spec)], answering(name)].concat()
}

#[test]
fn ranges_and_any_port_are_served_and_nothing_is_bound_for_them() {
    let steering = Steering::new("steering", &[]);
    let ssh = [
        Service::start(&steering.stage.node, "0.0.0.0:22"),
        Service::start(&steering.stage.node, "[::]:2222"),
    ];
    let before = steering.sockets();
    steering.apply(&listener("range", &["10.77.7.0/24", "fd77:7::/64"], 8443));
    steering.apply(&listener("any", &["10.77.8.0/24", "fd77:8::/64"], "any"));
    let all = [
        ("10.77.7.1:8443", "range"),
        ("10.77.7.254:8443", "range"),
        ("[fd77:7::ffff]:8443", "range"),
        // Every address has it, a longer prefix comes first.
        ("10.77.7.1:443", "https"),
        ("10.77.8.1:443", "any"),
        ("10.77.8.77:1", "any"),
        ("[fd77:8::1]:443", "any"),
        ("[fd77:8::1:2:3]:65535", "any"),
        ("10.99.1.1:443", "https"),
    ];
    steering.are_at(&all);
    assert!(steering.which("10.77.7.1:8444", CLIENT4.into()).is_err());
    // What others listen on stays theirs, and is said. The one on [::] takes IPv4 too.
    assert!(steering.is_greeted("10.77.8.1:22", CLIENT4.into()).unwrap());
    assert!(steering.is_greeted("10.77.8.1:2222", CLIENT4.into()).unwrap());
    assert!(steering.is_greeted("[fd77:8::1]:2222", CLIENT6.into()).unwrap());
    steering.are_at(&[("[fd77:8::1]:22", "any")]);
    let left = steering.left_out("any");
    assert_eq!(left, ["0.0.0.0:22", "[::]:2222"]);

    // A listener more, on an address and port of its own: nothing is bound, and it works.
    steering.apply(&listener("late", &["10.77.9.1", "fd77:9::1", "10.77.8.77"], 9443));
    steering.are_at(&[("10.77.9.1:9443", "late"), ("[fd77:9::1]:9443", "late"), ("10.77.8.77:9443", "late")]);
    steering.are_at(&[("10.77.8.76:9443", "any"), ("10.77.8.77:9444", "any")]);
    assert_eq!(steering.sockets(), before);

    steering.a_service_starts_later();
    steering.no_worker_serves();

    // A worker that dies, and a keeper: what is steered stays so.
    for role in [Role::Worker, Role::Keeper] {
        for pid in steering.product.pids(role) {
            steering.product.signal(pid, Signal::KILL);
        }
        steering.are_at(&all);
    }

    // The keeper's next release goes on with them, and with what it leaves to others.
    steering.upgraded();
    steering.are_at(&all);
    assert!(steering.is_greeted("10.77.8.1:22", CLIENT4.into()).unwrap());
    assert!(steering.is_greeted("[fd77:8::1]:2222", CLIENT6.into()).unwrap());

    // Without them their places are nobody's again.
    for path in ["routes/on-any", "listeners/any", "routes/on-range", "listeners/range"] {
        steering.api.delete(path);
    }
    eventually("their places are nobody's", SOON, || {
        let from = [
            ("10.77.7.1:8443", IpAddr::from(CLIENT4)),
            ("10.77.8.1:444", CLIENT4.into()),
            ("[fd77:7::1]:8443", CLIENT6.into()),
            ("[fd77:8::1]:444", CLIENT6.into()),
        ];
        let answers = from.map(|(to, from)| steering.which(to, from));
        if answers.iter().all(Result::is_err) { Ok(()) } else { Err(format!("{answers:?}")) }
    });
    steering.are_at(&[("10.77.8.1:443", "https"), ("10.77.9.1:9443", "late")]);
    drop(ssh);
}

#[test]
fn allow_rules_are_asked_on_ranges_too_and_shut_nobody_out_of_what_others_listen_on() {
    let steering = Steering::new("steering-allow", &[]);
    let _ssh = Service::start(&steering.stage.node, "0.0.0.0:22");
    steering.apply(&listener("any", &["10.77.8.0/24", "fd77:8::/64"], "any"));
    let known = [CLIENT4.to_string(), CLIENT6.to_string()];
    steering.apply(&[objects::packet_filter("known", "Allow", &known)]);
    steering.are_at(&[("10.77.8.1:8443", "any"), ("[fd77:8::1]:8443", "any"), ("10.99.1.1:443", "https")]);
    let refused = || steering.product.metric("sallyport_refusals_total", "reason=\"denied\"");
    let before = refused();
    for (to, from) in [("10.77.8.1:8443", IpAddr::from(FOE4)), ("[fd77:8::1]:8443", FOE6.into())] {
        assert!(steering.which(to, from).is_err(), "{to}");
    }
    eventually("both are counted", SOON, || match refused() - before {
        2.0 => Ok(()),
        other => Err(other.to_string()),
    });
    assert!(steering.is_greeted("10.77.8.1:22", FOE4.into()).unwrap());
}

#[test]
fn what_cannot_be_is_refused_and_the_last_good_state_stays() {
    let steering = Steering::new("steering-no", &[]);
    let _ssh = Service::start(&steering.stage.node, "0.0.0.0:2022");
    for (name, addresses, port, about) in [
        ("far4", "10.78.0.0/24", json!(443), "`ip route add local 10.78.0.0/24 dev lo`"),
        ("far6", "fd78::/64", json!("any"), "`ip -6 route add local fd78::/64 dev lo`"),
        ("near", "10.77.7.0/23", json!(443), "has bits set"),
        ("busy", "10.77.7.0/24", json!(2022), "port 2022 is in use by steering"),
    ] {
        match steering.api.try_apply(&listener(name, &[addresses], port)) {
            Ok(_) => println!("{}", steering.refusal(about)),
            Err((_, problems)) => assert!(problems.to_string().contains(about), "{problems}"),
        }
        steering.is_at(("10.99.1.1:443", "https"), CLIENT4.into());
        for path in [format!("routes/on-{name}"), format!("listeners/{name}")] {
            let _not_there = steering.api.call("DELETE", &format!("/api/v1/{path}"), None);
        }
    }
    steering.apply(&listener("range", &["10.77.7.0/24"], 8443));
    steering.is_at(("10.77.7.9:8443", "range"), CLIENT4.into());

    // Doing what the refusal says is enough: nobody publishes anything.
    let wanted = listener("near", &["10.78.0.0/24", "fd78::/64"], 8443);
    let revision = steering.api.apply(&wanted);
    println!("{}", steering.refusal("`ip route add local 10.78.0.0/24 dev lo`"));
    steering.stage.node.ip("route add local 10.78.0.0/24 dev lo");
    steering.stage.node.ip("-6 route add local fd78::/64 dev lo");
    eventually("what was refused is applied", Duration::from_secs(60), || {
        let status = steering.product.node_status()?;
        if status["applied"]["revision"] == revision { Ok(()) } else { Err(status["refused"].to_string()) }
    });
}

#[test]
fn plain_sockets_have_no_ranges_and_say_so() {
    let steering = Steering::new("steering-plain", &["--no-kernel"]);
    for (name, addresses, port) in
        [("range", "10.77.7.0/24", json!(8443)), ("any", "10.77.7.1", json!("any"))]
    {
        steering.api.apply(&listener(name, &[addresses], port));
        let reason = steering.refusal(&format!("listener {name} cannot be opened"));
        assert!(reason.contains("needs sk_lookup steering"), "{reason}");
        steering.is_at(("10.99.1.1:443", "https"), CLIENT4.into());
        steering.api.delete(&format!("routes/on-{name}"));
        steering.api.delete(&format!("listeners/{name}"));
    }
    steering.apply(&listener("one", &["10.77.7.1", "fd77:7::1"], 8443));
    steering.are_at(&[("10.77.7.1:8443", "one"), ("[fd77:7::1]:8443", "one")]);
}
