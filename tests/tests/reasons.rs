//! Every reason of the worker's closed list, provoked from outside and seen in its counter. A reason that nothing here
//! provokes fails the test, so a new one needs a line. (The kernel's list: `dataplane-user/tests/kernel_steering.rs`.)
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it saw"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::Signal;
use sallyport_node::worker::refusal::Reason;
use sallyport_tests::api::Api;
use sallyport_tests::client::{Connection, Dial};
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::stage::{FOE4, HOST, ORIGIN_NAME, ORIGINS4, Stage, target4};
use sallyport_tests::{eventually, h2client, objects};
use serde_json::{Value, json};

/// A listener with limits that a test reaches soon.
const STRICT: u16 = 8601;
/// One connection in all.
const ONE: u16 = 8602;
/// One connection from an address.
const ONE_EACH: u16 = 8603;
/// A listener that is removed, and whose connections may not last.
const BRIEF: u16 = 8604;
/// A listener whose clients all come through a balancer.
const BALANCED: u16 = 8605;
/// Clear text: ACME's challenges are answered, h2c is for others, all else is refused.
const CLEAR: u16 = 8606;
/// A host whose route allows a protocol of the test's own and no WebSocket.
const TUNNEL: &str = "tunnel.walk.test";
/// Asks for it.
const ECHO: &str = "Connection: Upgrade\r\nUpgrade: echo\r\n";

struct Place {
    stage: Stage,
    product: Product,
    api: Api,
    origin: Origin,
}

type Provoke = fn(&Place);

impl Place {
    fn new() -> Self {
        let stage = Stage::new("reasons");
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[origin.url()]);
        let place = Self { stage, product, api, origin };
        place.product.applied(place.api.apply(&place.objects()));
        place
    }

    #[expect(clippy::too_many_lines, reason = "a list")]
    fn objects(&self) -> Vec<Value> {
        let listener = |name: &str, port: u16, limits: Value| {
            objects::object(
                "Listener",
                name,
                json!({ "port": port, "certificates": ["front"], "limits": limits }),
            )
        };
        let strict = json!({
            "handshakeMs": 600, "headerMs": 600, "stallMs": 900, "bodyBytes": 1000, "targetBytes": 200,
            "headerBytes": 4000, "headerCount": 20,
            "tunnelIdleMs": 600,
        });
        let group = |name: &str, url: String, expected: &str| {
            let mut group = objects::origin_group(name, &[url], "origins", expected);
            group["spec"]["connectTimeoutMs"] = json!(700);
            group
        };
        let mut balanced = listener("balanced", BALANCED, json!({}));
        balanced["spec"]["proxyProtocol"] = json!({ "prefixes": ["0.0.0.0/0"] });
        let mut all = vec![
            balanced,
            listener("strict", STRICT, strict),
            listener("one", ONE, json!({ "connections": 1 })),
            listener("one-each", ONE_EACH, json!({ "connectionsPerAddress": 1 })),
            listener("brief", BRIEF, json!({ "drainMs": 300 })),
            objects::object(
                "Listener",
                "clear",
                json!({ "port": CLEAR, "protocol": "HTTP", "http": {
                    "answer": "Refuse", "acmeOriginGroup": "group", "h2cPrefixes": ["192.0.2.0/24"], "clearText": "allow",
                } }),
            ),
            objects::certificate("exact", &self.stage.front_ca.issue(&["exact.walk.test"])),
            objects::route("exact", &["exact.walk.test"], "exact", "group"),
        ];
        for (name, group) in [
            ("unreachable", group("unreachable", format!("https://{ORIGINS4}:9"), ORIGIN_NAME)),
            ("unresolved", group("unresolved", "https://nowhere.invalid".to_owned(), ORIGIN_NAME)),
            ("unverified", group("unverified", self.origin.url(), "somebody-else.walk.test")),
            // Nobody has this address: packets to it lead nowhere.
            ("silent", group("silent", "https://10.99.1.200:8443".to_owned(), ORIGIN_NAME)),
        ] {
            all.push(group);
            all.push(objects::route(name, &[&format!("{name}.walk.test")], "front", name));
        }
        let mut disabled = group("disabled", self.origin.url(), ORIGIN_NAME);
        disabled["spec"]["origins"][0]["enabled"] = json!(false);
        let mut busy = group("busy", self.origin.url(), ORIGIN_NAME);
        busy["spec"]["limits"] = json!({ "connections": 1, "pending": 0 });
        let mut budget = group("budget", format!("https://{ORIGINS4}:9"), ORIGIN_NAME);
        budget["spec"]["origins"] =
            json!([{ "url": format!("https://{ORIGINS4}:9") }, { "url": format!("https://{ORIGINS4}:10") }]);
        budget["spec"]["retryPercent"] = json!(0);
        for (name, group) in [("disabled", disabled), ("busy", busy), ("budget", budget)] {
            all.push(group);
            all.push(objects::route(name, &[&format!("{name}.walk.test")], "front", name));
        }
        let mut late = objects::route("late", &["late.walk.test"], "front", "group");
        late["spec"]["responseTimeoutMs"] = json!(700);
        all.push(late);
        let mut tunnel = objects::route("tunnel", &[TUNNEL], "front", "group");
        tunnel["spec"]["upgrades"] = json!(["echo"]);
        all.push(tunnel);
        all
    }

    fn dial(&self, port: u16, name: &str) -> Dial {
        let mut dial = self.stage.dial();
        dial.target = target4(port);
        dial.name = name.to_owned();
        dial
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.stage.clients.inside(work)
    }

    /// Sends a request's bytes on a connection of its own and reads whatever comes until the end, or for two seconds.
    fn raw(&self, port: u16, bytes: &[u8]) {
        self.inside(|| {
            let mut connection =
                self.dial(port, HOST).patience(Duration::from_secs(3)).open().expect("handshake");
            connection.send(bytes).expect("send");
            let _ = connection.answer();
        });
    }

    /// A request for `path` of `host` that is right in itself.
    fn get(&self, port: u16, host: &str, path: &str) {
        self.inside(|| {
            let _ = self.dial(port, host).patience(Duration::from_secs(20)).get(host, path);
        });
    }

    /// A request of the host that allows `echo`, and what follows it.
    fn tunnel(&self, port: u16, path: &str, fields: &str, after: &mut dyn FnMut(&mut Connection)) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {TUNNEL}\r\n{fields}\r\n");
        let mut connection = self.inside(|| {
            let mut connection =
                self.dial(port, TUNNEL).patience(Duration::from_secs(3)).open().expect("handshake");
            connection.send(head.as_bytes()).expect("send");
            let _ = connection.head();
            connection
        });
        after(&mut connection);
    }

    fn tcp(&self, port: u16, bytes: &[u8], wait: Duration) {
        self.inside(|| {
            let mut stream = self.dial(port, HOST).tcp().expect("connect");
            stream.write_all(bytes).expect("write");
            stream.set_read_timeout(Some(wait)).expect("time-out");
            let _ = stream.read(&mut [0; 1000]);
        });
    }

    /// Two connections at once; the second is one too many.
    fn two(&self, port: u16) {
        self.inside(|| {
            let first = self.dial(port, HOST).open().expect("the first");
            let second = self.dial(port, HOST).patience(Duration::from_secs(3)).get(HOST, "/");
            assert!(second.is_err(), "the second was served");
            drop(first);
        });
    }

    fn count(&self, reason: Reason) -> f64 {
        self.product.metric("sallyport_refusals_total", &format!("reason=\"{}\"", reason.name()))
    }
}

fn head(line: &str, fields: &str) -> Vec<u8> {
    format!("{line}\r\nHost: {HOST}\r\n{fields}\r\n").into_bytes()
}

/// How each reason is provoked.
#[expect(clippy::too_many_lines, reason = "a table, a line or two a reason")]
fn provocations() -> BTreeMap<Reason, Provoke> {
    let list: &[(Reason, Provoke)] = &[
        (Reason::NoListener, no_listener),
        (Reason::Denied, denied),
        (Reason::TooManyConnections, |place| place.two(ONE)),
        (Reason::TooManyFromAddress, |place| place.two(ONE_EACH)),
        (Reason::IdleEvicted, idle_evicted),
        (Reason::OverloadedConnection, |place| overload(place, Duration::from_millis(900))),
        (Reason::Overloaded, |place| overload(place, Duration::from_millis(2300))),
        (Reason::HandshakeTimeout, |place| place.tcp(STRICT, b"", Duration::from_secs(2))),
        (Reason::BadProxyHeader, |place| {
            place.tcp(BALANCED, b"GET / HTTP/1.0\r\n\r\n", Duration::from_secs(2))
        }),
        (Reason::HandshakeFailed, |place| place.tcp(443, b"GET / HTTP/1.0\r\n\r\n", Duration::from_secs(2))),
        (Reason::NoCertificate, |place| {
            place.inside(|| {
                assert!(place.dial(443, "nobody.example").open().is_err(), "served without a certificate")
            });
        }),
        (Reason::BrokenTls, |place| {
            place.inside(|| {
                let mut connection = place.dial(443, HOST).open().expect("handshake");
                assert!((0..10_000).any(|_| connection.rekey().is_err()), "ten thousand key updates");
            });
        }),
        (Reason::ClientGone, |place| {
            place.inside(|| {
                let mut connection = place.dial(443, HOST).open().expect("handshake");
                connection.send(&head("POST /upload HTTP/1.1", "Content-Length: 100\r\n")).expect("send");
                std::thread::sleep(Duration::from_millis(200));
            });
        }),
        (Reason::HeaderTimeout, |place| place.raw(STRICT, b"GET / HTTP/1.1\r\nHost: ")),
        (Reason::HeaderTooLarge, |place| {
            place.raw(STRICT, &head("GET / HTTP/1.1", &"X-Many: 1\r\n".repeat(40)));
        }),
        (Reason::TargetTooLong, |place| {
            place.raw(STRICT, &head(&format!("GET /{} HTTP/1.1", "a".repeat(300)), ""));
        }),
        (Reason::BodyTooLarge, |place| {
            place.raw(STRICT, &head("POST /upload HTTP/1.1", "Content-Length: 2000\r\n"))
        }),
        (Reason::BodyTimeout, |place| {
            place.raw(
                STRICT,
                &[&head("POST /upload HTTP/1.1", "Content-Length: 100\r\n")[..], b"only this"].concat(),
            );
        }),
        (Reason::MalformedRequest, |place| place.raw(443, &head("GET / HTTP/1.1", "Bad Name: 1\r\n"))),
        (Reason::AmbiguousFraming, |place| {
            let fields = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
            place.raw(443, &[&head("POST / HTTP/1.1", fields)[..], b"0\r\n\r\n"].concat());
        }),
        (Reason::BadHost, |place| place.raw(443, &head("GET / HTTP/1.1", "Host: other.walk.test\r\n"))),
        (Reason::BadPath, |place| place.raw(443, &head("GET /a%00b HTTP/1.1", ""))),
        (Reason::UnsupportedVersion, |place| place.raw(443, &head("GET / HTTP/1.7", ""))),
        (Reason::UnsupportedCoding, |place| {
            place.raw(443, &head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"));
        }),
        (Reason::ConnectRefused, |place| place.raw(443, &head("CONNECT shop.walk.test:443 HTTP/1.1", ""))),
        (Reason::UpgradeRefused, |place| {
            place.tunnel(443, "/", "Connection: Upgrade\r\nUpgrade: websocket\r\n", &mut |_| {});
        }),
        (Reason::PrematureUpgrade, |place| {
            place.tunnel(443, "/tunnel", &format!("{ECHO}\r\nbytes"), &mut |_| {});
        }),
        (Reason::BadUpgrade, |place| place.tunnel(443, "/tunnel/other", ECHO, &mut |_| {})),
        (Reason::TunnelIdle, |place| {
            place.tunnel(STRICT, "/tunnel", ECHO, &mut |_| std::thread::sleep(Duration::from_secs(1)));
        }),
        (Reason::DrainExpired, |place| {
            place.tunnel(BRIEF, "/tunnel", ECHO, &mut |_| {
                place.api.delete("listeners/brief");
                std::thread::sleep(Duration::from_secs(1));
            });
        }),
        (Reason::ExpectationFailed, |place| {
            place.raw(443, &head("POST / HTTP/1.1", "Content-Length: 1\r\nExpect: a-miracle\r\n"));
        }),
        (Reason::Misdirected, |place| {
            place.raw(443, b"GET / HTTP/1.1\r\nHost: exact.walk.test\r\n\r\n");
        }),
        (Reason::ClearTextRefused, |place| {
            place.tcp(CLEAR, &head("GET / HTTP/1.1", ""), Duration::from_secs(2))
        }),
        (Reason::H2cRefused, |place| {
            place.tcp(CLEAR, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Duration::from_secs(2))
        }),
        (Reason::ChallengeRefused, |place| {
            let request = head("GET /.well-known/acme-challenge/no.token HTTP/1.1", "");
            place.tcp(CLEAR, &request, Duration::from_secs(2));
        }),
        (Reason::NoRoute, |place| place.get(443, "nothing-here.walk.test", "/")),
        (Reason::OriginUnreachable, |place| place.get(443, "unreachable.walk.test", "/")),
        (Reason::NoOrigin, |place| place.get(443, "disabled.walk.test", "/")),
        (Reason::OriginBusy, origin_busy),
        (Reason::RetryBudget, retry_budget),
        (Reason::OriginUnresolved, |place| place.get(443, "unresolved.walk.test", "/")),
        (Reason::OriginUnverified, |place| place.get(443, "unverified.walk.test", "/")),
        (Reason::OriginConnectTimeout, silent_origin),
        (Reason::OriginTimeout, |place| place.get(443, "late.walk.test", "/late")),
        (Reason::OriginGone, |place| place.get(443, HOST, "/cut")),
        (Reason::MalformedResponse, |place| place.get(443, HOST, "/garbage")),
        (Reason::OriginStalled, |place| place.get(STRICT, HOST, "/stalled")),
        (Reason::Http2Abuse, |place| http2(place, resets)),
        (Reason::BadGrpcTimeout, |place| http2(place, |requests| call(requests, "1 second", "13"))),
        (Reason::GrpcDeadline, |place| http2(place, |requests| call(requests, "300m", "4"))),
    ];
    list.iter().copied().collect()
}

/// The worker's steered sockets have loopback ports of their own, which no listener has: somebody on the machine finds one.
fn no_listener(place: &Place) {
    let text = place.stage.node.run("ss", &["-Hltnp"]);
    let known = [9443, 9444, 9464];
    let addresses = text.lines().filter(|line| line.contains("sallyport-node")).filter_map(|line| {
        let address = line.split_whitespace().nth(3)?.parse::<SocketAddr>().ok()?;
        (address.ip().is_loopback() && !known.contains(&address.port())).then_some(address)
    });
    let addresses: Vec<SocketAddr> = addresses.collect();
    assert!(!addresses.is_empty(), "no socket of the worker's own in:\n{text}");
    for address in addresses {
        place.stage.node.inside(|| {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.set_read_timeout(Some(Duration::from_secs(1))).expect("time-out");
            let _ = stream.read(&mut [0; 10]);
        });
    }
}

/// A live connection that a new snapshot denies.
fn denied(place: &Place) {
    let mut kept: Connection = place.inside(|| {
        let mut connection = place.dial(443, HOST).from(FOE4.into()).open().expect("handshake");
        connection.get(HOST, "/").expect("an answer before the rule");
        connection
    });
    let rule = objects::packet_filter("foes", "Deny", &[FOE4.to_string()]);
    place.product.applied(place.api.apply(&[rule]));
    eventually("the live connection is closed with its reason", Duration::from_secs(5), || {
        if place.count(Reason::Denied) > 0.0 { Ok(()) } else { Err("not counted".to_owned()) }
    });
    assert!(kept.get(HOST, "/").is_err(), "still served");
    place.api.delete("packet-filters/foes");
}

/// The one connection there may be waits for more than a second: whichever thread the next ones come to, one is soon served.
fn idle_evicted(place: &Place) {
    place.inside(|| {
        let first = place.dial(ONE, HOST).open().expect("the first");
        std::thread::sleep(Duration::from_millis(1200));
        eventually("an idle connection makes room", Duration::from_secs(5), || {
            let answer = place.dial(ONE, HOST).patience(Duration::from_secs(3)).get(HOST, "/");
            answer.map(drop).map_err(|error| error.to_string())
        });
        drop(first);
    });
}

/// One exchange is under way, and no other may wait.
fn origin_busy(place: &Place) {
    const BUSY: &str = "busy.walk.test";
    place.inside(|| {
        let mut first = place.dial(443, BUSY).patience(Duration::from_secs(5)).open().expect("handshake");
        first.send(format!("GET /late HTTP/1.1\r\nHost: {BUSY}\r\n\r\n").as_bytes()).expect("send");
        std::thread::sleep(Duration::from_millis(200));
        let _ = place.dial(443, BUSY).patience(Duration::from_secs(5)).get(BUSY, "/");
    });
}

/// A thread's group may try a second origin ten times without having put by for it: all on one connection, so on one thread.
fn retry_budget(place: &Place) {
    const BUDGET: &str = "budget.walk.test";
    place.inside(|| {
        let mut connection = place.dial(443, BUDGET).open().expect("handshake");
        for _ in 0..12 {
            let _ = connection.get(BUDGET, "/");
        }
    });
}

/// A worker that has to pause again and again is late: it refuses connections, and requests where it is very late.
fn overload(place: &Place, pause: Duration) {
    let open = || place.dial(443, HOST).patience(Duration::from_secs(20)).open().expect("handshake");
    let mut kept = place.inside(open);
    assert_eq!(kept.get(HOST, "/").expect("an answer before").status, 200);
    let workers = place.product.pids(Role::Worker);
    let tell = |signal| workers.iter().for_each(|worker| place.product.signal(*worker, signal));
    let mut knocking = None;
    for last in [false, false, false, false, false, true] {
        tell(Signal::STOP);
        std::thread::sleep(pause);
        if last {
            // Both are the first thing it sees when it goes on.
            kept.send(&head("GET / HTTP/1.1", "")).expect("send");
            knocking = Some(place.inside(|| place.dial(443, HOST).tcp().expect("connect")));
        }
        tell(Signal::CONT);
        // Long enough to look at the clock once, and not to be in time for the next look.
        std::thread::sleep(Duration::from_millis(60));
    }
    let answer = kept.answer().expect("an answer on the connection there was");
    println!("after pauses of {pause:?}: {} {:?}", answer.status, answer.field("retry-after"));
    assert!(answer.status != 503 || answer.field("retry-after") == Some("2"), "{answer:?}");
    drop(knocking);
    eventually("served as before", Duration::from_secs(5), || {
        match place.inside(|| place.dial(443, HOST).get(HOST, "/")) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.status.to_string()),
            Err(error) => Err(error.to_string()),
        }
    });
}

/// Packets to the origin vanish.
fn silent_origin(place: &Place) {
    place
        .stage
        .node
        .run("ip", &["neigh", "replace", "10.99.1.200", "lladdr", "02:00:00:00:00:99", "dev", "c0"]);
    place.get(443, "silent.walk.test", "/");
}

/// Does something with an HTTP/2 connection.
fn http2<F: Future<Output = ()>>(place: &Place, work: impl FnOnce(SendRequest<Bytes>) -> F + Send) {
    let tls = place.stage.front_ca.client(&["h2"]);
    place.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (requests, _driver) = h2client::open(target4(443), tls).await.expect("a connection");
            work(requests).await;
        });
    });
}

/// Streams opened and reset at once, as fast as they go.
async fn resets(mut requests: SendRequest<Bytes>) {
    for _ in 0..20_000 {
        let Ok(ready) = requests.ready().await else { break };
        requests = ready;
        let request = http::Request::get(format!("https://{HOST}/")).body(()).expect("request");
        match requests.send_request(request, false) {
            Ok((_, mut stream)) => stream.send_reset(h2::Reason::CANCEL),
            Err(_) => break,
        }
        tokio::task::yield_now().await;
    }
}

/// A gRPC call that is not answered, with this time-out: the status it ends with.
async fn call(requests: SendRequest<Bytes>, timeout: &str, status: &str) {
    let request = http::Request::post(format!("https://{HOST}/late"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout);
    let mut requests = requests.ready().await.expect("room for a stream");
    let answer = requests.send_request(request.body(()).expect("request"), true).expect("sent").0;
    assert_eq!(answer.await.expect("an answer").headers()["grpc-status"], status);
}

#[test]
fn every_reason_is_provoked_and_counted() {
    let provocations = provocations();
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !provocations.contains_key(reason)).collect();
    assert!(missing.is_empty(), "nothing provokes {missing:?}");

    let place = Place::new();
    let mut silent = Vec::new();
    for reason in Reason::ALL {
        let before = place.count(*reason);
        provocations[reason](&place);
        let counted = (0..150).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            place.count(*reason) > before
        });
        println!("{:<24} {}", reason.name(), if counted { "counted" } else { "NOT counted" });
        if !counted {
            silent.push(reason.name());
        }
    }
    assert!(silent.is_empty(), "not counted: {silent:?}");
    // After all of that: served as before.
    let answer = place.inside(|| place.dial(443, HOST).get(HOST, "/")).expect("an answer");
    assert_eq!(answer.status, 200);
}
