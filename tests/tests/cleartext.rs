//! Listeners in clear text: redirects, refusals, health, ACME's challenges, routes by h2c for trusted peers; with curl and
//! nghttp, over IPv4 and IPv6.
#![expect(clippy::expect_used, reason = "a test fails by panicking and says what it did")]

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::stage::{CLIENT4, CLIENT6, FOE4, FOE6, HOST, NODE4, NODE6, Stage, target4, target6};
use sallyport_tests::{eventually, grpc, h2client, objects};
use serde_json::{Value, json};

/// Redirects, tells of its health, has ACME's challenges answered.
const OPEN: u16 = 80;
/// Refuses, and tells of its health.
const CLOSED: u16 = 8080;
/// Lets the clients reach routes by h2c.
const MESH: u16 = 8081;
/// Does so for those whom the clients tell of by PROXY headers.
const BALANCED: u16 = 8082;

struct Place {
    stage: Stage,
    product: Product,
    api: Api,
    ca: String,
    origin: Origin,
}

/// What curl saw.
struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Place {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[origin.url()]);
        let ca = product.dir().join("front-ca.pem").display().to_string();
        fs::write(&ca, &stage.front_ca.pem).expect("the clients' CA");
        let listener = |name: &str, port: u16, http: Value| {
            objects::object("Listener", name, json!({ "port": port, "protocol": "HTTP", "http": http }))
        };
        product.applied(api.apply(&[
            listener("open", OPEN, json!({ "healthPath": "/healthz", "acmeOriginGroup": "group" })),
            listener("closed", CLOSED, json!({ "healthPath": "/healthz", "answer": "Refuse" })),
        ]));
        Self { stage, product, api, ca, origin }
    }

    fn curl(&self, node: IpAddr, arguments: &[&str]) -> Result<Seen, String> {
        let node = if node.is_ipv6() { format!("[{node}]") } else { node.to_string() };
        let resolve = [OPEN, CLOSED, MESH, 443].map(|port| format!("{HOST}:{port}:{node}"));
        let mut all = vec!["-sS", "-i", "--path-as-is", "--max-time", "10", "--cacert", &self.ca];
        resolve.iter().for_each(|one| all.extend(["--resolve", one]));
        all.extend(arguments);
        let (ok, out, err) = self.stage.clients.try_run("curl", &all);
        let (head, body) = out.rsplit_once("\r\n\r\n").unwrap_or((&out, ""));
        if ok {
            Ok(Seen { head: head.to_owned(), body: body.to_owned() })
        } else {
            Err(format!("{out}{err}"))
        }
    }

    fn get(&self, node: IpAddr, port: u16, path: &str) -> Seen {
        let seen = self.curl(node, &[&format!("http://{HOST}:{port}{path}")]);
        seen.expect("an answer")
    }

    fn count(&self, reason: &str) -> f64 {
        self.product.metric("sallyport_refusals_total", &format!("reason=\"{reason}\""))
    }
}

const NODES: [IpAddr; 2] = [IpAddr::V4(NODE4), IpAddr::V6(NODE6)];

#[test]
fn redirects_health_and_challenges_and_nothing_else() {
    let place = Place::new("clear");
    for node in NODES {
        let seen = place.get(node, OPEN, "/a/../%7eb?x=%2f&y");
        assert_eq!(seen.status(), "308", "{}", seen.head);
        assert_eq!(seen.field("Location"), Some(&*format!("https://{HOST}/a/../%7eb?x=%2f&y")));
        // HTTP/1.0, and an address for a host.
        let literal = if node.is_ipv6() { format!("[{node}]") } else { node.to_string() };
        let seen = place.curl(node, &["--http1.0", &format!("http://{literal}/x")]).expect("an answer");
        assert_eq!((seen.status(), seen.field("Location")), ("308", Some(&*format!("https://{literal}/x"))));
        // Followed, method and body come along.
        let seen = place.curl(node, &["-L", "-d", "hello", &format!("http://{HOST}/upload?q")]);
        let seen = seen.expect("an answer behind the redirect");
        assert!(seen.head.contains("200 OK") || seen.head.contains("HTTP/2 200"), "{}", seen.head);
        assert!(seen.body.starts_with("5 "), "{}", seen.body);

        let seen = place.get(node, OPEN, "/.well-known/acme-challenge/to-k_En");
        assert_eq!((seen.status(), seen.body.contains("one")), ("200", true), "{} {}", seen.head, seen.body);
        let seen = place.get(node, OPEN, "/.well-known/acme-challenge/a.b");
        assert_eq!((seen.status(), seen.body.contains("challenge-refused")), ("404", true));
        for port in [OPEN, CLOSED] {
            let seen = place.get(node, port, "/healthz");
            assert_eq!((seen.status(), seen.body.as_str()), ("200", "ok\n"));
        }
        for path in ["/", "/.well-known/acme-challenge/to-k_En"] {
            let seen = place.get(node, CLOSED, path);
            assert_eq!((seen.status(), seen.body.contains("clear-text-refused")), ("403", true));
        }
    }
    // One request of each family went to the origin by HTTPS, and one by ACME's path: no other.
    assert_eq!(place.origin.requests(), 4);
    assert!(place.count("clear-text-refused") >= 4.0 && place.count("challenge-refused") >= 2.0);
    let line = eventually("the access log has the challenge", Duration::from_secs(5), || {
        let log = place.product.access_log();
        let ours =
            |line: &&Value| line["listener"] == "open" && line["status"] == 200 && line["origin"].is_object();
        log.iter().find(ours).cloned().ok_or_else(|| format!("{log:?}"))
    });
    assert_eq!(line["clientTls"]["version"], "none", "{line}");
    assert_eq!(line["origin"]["tls"]["version"], "TLSv1.3", "{line}");

    // A port that speaks clear text speaks no TLS, and no route is reached on it by any name.
    assert!(place.curl(NODES[0], &["-k", &format!("https://{HOST}:{CLOSED}/")]).is_err());
    let wrong = objects::object(
        "Route",
        "shop",
        json!({ "hostnames": [HOST], "certificate": "front", "originGroup": "group", "listeners": ["https", "open"] }),
    );
    let (status, problems) = place.api.try_apply(&[wrong]).expect_err("a route in clear text");
    assert!(status >= 400 && problems.to_string().contains("carries no routes"), "{problems}");
}

#[test]
fn a_drained_node_says_so_where_it_is_asked() {
    let place = Place::new("cleardrain");
    let node = place.api.get("/api/v1/nodes")["items"][0]["name"].as_str().expect("a name").to_owned();
    let health = |expected: &str| {
        eventually(&format!("health says {expected}"), Duration::from_secs(10), || {
            for (address, port) in [(NODES[0], OPEN), (NODES[1], CLOSED)] {
                let seen = place.curl(address, &[&format!("http://{HOST}:{port}/healthz")])?;
                if seen.status() != expected {
                    return Err(seen.head);
                }
            }
            Ok(())
        });
    };
    let https = || place.curl(NODES[0], &[&format!("https://{HOST}/")]);
    let refused = || {
        eventually("no connection for routes is accepted", Duration::from_secs(10), || {
            if https().is_err() { Ok(()) } else { Err("served".to_owned()) }
        });
    };
    health("200");
    assert!(https().is_ok());
    let (ok, _, err) = place.product.cli(&["node", "drain", &node]);
    assert!(ok, "{err}");
    // The worker hears of it from the console and tells the keeper, which closes the port: health is first by a moment.
    health("503");
    refused();
    // Another keeper and another worker find it drained.
    for role in [Role::Keeper, Role::Worker] {
        place.product.signal(place.product.pids(role)[0], rustix::process::Signal::KILL);
        std::thread::sleep(Duration::from_millis(500));
        health("503");
        refused();
    }
    let (ok, _, err) = place.product.cli(&["node", "resume", &node]);
    assert!(ok, "{err}");
    health("200");
    eventually("routes again", Duration::from_secs(10), || https().map(drop));
}

/// The clients, which are trusted, and others beside them.
const PEERS: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(CLIENT4), IpAddr::V4(FOE4)), (IpAddr::V6(CLIENT6), IpAddr::V6(FOE6))];

impl Place {
    /// A listener with h2c for some, and the route on it.
    fn mesh(&self, name: &str, port: u16, prefixes: &[&str], more: Value) {
        let mut spec = json!({ "port": port, "protocol": "HTTP", "http": {
            "answer": "Refuse", "healthPath": "/healthz", "h2cPrefixes": prefixes, "clearText": "allow",
        } });
        spec.as_object_mut().expect("a spec").extend(more.as_object().cloned().unwrap_or_default());
        self.product
            .applied(self.api.apply(&[objects::object("Listener", name, spec), on(&["https", name])]));
    }

    /// Asks by h2c from an address, behind these bytes: a status and the body, or what the connection ended with.
    fn h2c(&self, from: IpAddr, port: u16, first: &[u8]) -> Result<(u16, String), h2::Error> {
        self.stage.clients.inside(|| {
            let mut dial = self.stage.dial().from(from).patience(Duration::from_secs(5));
            dial.target = if from.is_ipv4() { target4(port) } else { target6(port) };
            let mut tcp = dial.tcp().expect("a connection");
            tcp.write_all(first).expect("first bytes");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (mut requests, driver) = h2client::clear_text(tcp).await.expect("written");
                match get(&mut requests, "/echo").await {
                    Ok(answer) => Ok(answer),
                    // The connection knows better what it ended with.
                    Err(error) => Err(driver.await.expect("a driver").err().unwrap_or(error)),
                }
            })
        })
    }

    /// A gRPC call by h2c from an address.
    fn grpc(&self, from: IpAddr, port: u16) -> std::io::Result<()> {
        self.stage.clients.inside(|| {
            let mut dial = self.stage.dial().from(from).patience(Duration::from_secs(5));
            dial.target = if from.is_ipv4() { target4(port) } else { target6(port) };
            let tcp = dial.tcp()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(grpc::call_in_clear_text(tcp))
        })
    }

    fn turned_away(&self, from: IpAddr, port: u16, first: &[u8]) {
        let before = (self.origin.requests(), self.count("h2c-refused"));
        let ended = self.h2c(from, port, first).expect_err("served by h2c");
        assert_eq!(ended.reason(), Some(h2::Reason::HTTP_1_1_REQUIRED), "{from}: {ended}");
        eventually("it is counted", Duration::from_secs(5), || {
            let now = self.count("h2c-refused");
            if now == before.1 + 1.0 { Ok(()) } else { Err(format!("{now}")) }
        });
        assert_eq!(self.origin.requests(), before.0);
    }
}

/// The route, on these listeners.
fn on(listeners: &[&str]) -> Value {
    let spec = json!({ "hostnames": [HOST], "certificate": "front", "originGroup": "group", "listeners": listeners });
    objects::object("Route", "shop", spec)
}

async fn get(
    requests: &mut h2::client::SendRequest<bytes::Bytes>,
    path: &str,
) -> Result<(u16, String), h2::Error> {
    let request = http::Request::get(format!("http://{HOST}{path}")).body(()).expect("request");
    let response = requests.send_request(request, true)?.0.await?;
    let (head, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((head.status.as_u16(), String::from_utf8_lossy(&all).to_ascii_lowercase()))
}

#[test]
fn routes_by_h2c_for_trusted_peers_only() {
    let place = Place::new("clearh2c");
    place.mesh("mesh", MESH, &["10.99.1.2", "fd99:1::2"], json!({}));
    for (node, (ours, other)) in NODES.into_iter().zip(PEERS) {
        let url = format!("http://{HOST}:{MESH}");
        let from = ours.to_string();
        let by_h2c = |path: &str, more: &[&str]| {
            let asked = format!("{url}{path}");
            let mut all = vec!["--http2-prior-knowledge", "--interface", &from, &asked];
            all.extend(more);
            place.curl(node, &all)
        };
        let seen = by_h2c("/upload", &["-d", "hello"]).expect("an answer by h2c");
        assert!(seen.head.starts_with("HTTP/2 200"), "{}", seen.head);
        assert!(seen.body.starts_with("5 "), "{}", seen.body);
        // The origin hears how the client came; a client cannot say otherwise.
        let seen = by_h2c("/echo", &["-H", "X-Forwarded-Proto: https"]).expect("an answer by h2c");
        let echoed = seen.body.to_ascii_lowercase();
        assert!(echoed.contains("x-forwarded-proto: http\n") && !echoed.contains("proto: https"), "{echoed}");
        assert_eq!(by_h2c("/healthz", &[]).expect("health").body, "ok\n");
        place.grpc(ours, MESH).expect("a call with messages both ways");
        // The same peer by HTTP/1.1, and with an upgrade that nobody does any more.
        let seen = place.curl(node, &["--http1.1", "--interface", &from, &url]).expect("an answer");
        assert_eq!((seen.status(), seen.body.contains("clear-text-refused")), ("403", true));
        let seen = place.curl(node, &["--http2", "--interface", &from, &url]).expect("an answer");
        assert!(seen.head.starts_with("HTTP/1.1 403 "), "{}", seen.head);

        let (served, foe) = (place.origin.requests(), other.to_string());
        place.turned_away(other, MESH, b"");
        let seen = place.curl(node, &["--http2-prior-knowledge", "--interface", &foe, &url]);
        assert!(seen.as_ref().is_ok_and(|seen| seen.status() == "403") || seen.is_err());
        let seen = place.curl(node, &["--interface", &foe, &format!("{url}/healthz")]).expect("an answer");
        assert_eq!((seen.status(), seen.body.as_str()), ("200", "ok\n"), "by HTTP/1.1 as before");
        assert_eq!(place.origin.requests(), served);
    }
    // Another implementation, many requests on a connection; it cannot be told from which address, and IPv6 has several.
    let (at, authority) = (format!("http://{NODE4}:{MESH}/"), format!(":authority: {HOST}"));
    let (ok, out, err) = place.stage.clients.try_run("nghttp", &["-nv", "-m", "20", "-H", &authority, &at]);
    assert!(ok && out.matches(":status: 200").count() == 20, "{out}{err}");
    // Nothing of it without saying so.
    let http = json!({ "h2cPrefixes": ["10.99.1.2"] });
    let silent =
        objects::object("Listener", "mesh", json!({ "port": MESH, "protocol": "HTTP", "http": http }));
    let (status, problems) = place.api.try_apply(&[silent]).expect_err("clear text without consent");
    assert!(status >= 400 && problems.to_string().contains("say `clearText: allow`"), "{problems}");
    logged(&place);
}

/// The access log has a request by h2c, and says that it came in clear text.
fn logged(place: &Place) {
    let line = eventually("the access log has a request", Duration::from_secs(5), || {
        let log = place.product.access_log();
        let ours = |line: &&Value| line["listener"] == "mesh" && line["path"] == "/echo";
        log.iter().find(ours).cloned().ok_or_else(|| format!("{log:?}"))
    });
    assert_eq!((&line["clientTls"]["version"], &line["route"]), (&json!("none"), &json!("shop")), "{line}");
    assert_eq!((&line["protocol"], &line["status"]), (&json!("HTTP/2"), &json!(200)), "{line}");
}

#[test]
fn h2c_is_for_the_client_that_a_balancer_tells_of() {
    let place = Place::new("clearproxy");
    let balancers = json!({ "proxyProtocol": { "prefixes": ["10.99.1.2", "fd99:1::2"] } });
    place.mesh("balanced", BALANCED, &["192.0.2.0/24", "2001:db8:7::/48", "10.99.1.66"], balancers);
    for (header, client) in [
        ("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n", "192.0.2.7"),
        ("PROXY TCP6 2001:db8:7::9 2001:db8::1 4711 80\r\n", "2001:db8:7::9"),
    ] {
        for (from, _) in PEERS {
            let (status, body) = place.h2c(from, BALANCED, header.as_bytes()).expect("an answer");
            assert!(
                status == 200 && body.contains(&format!("x-forwarded-for: {client}\n")),
                "{status} {body}"
            );
        }
    }
    for header in [
        "PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n",
        "PROXY TCP6 2001:db8:8::9 2001:db8::1 4711 80\r\n",
        // The balancer itself, which is not named.
        "PROXY UNKNOWN\r\n",
    ] {
        PEERS.iter().for_each(|(from, _)| place.turned_away(*from, BALANCED, header.as_bytes()));
    }
    // Who is no balancer is who it is, and says nothing of others.
    assert_eq!(place.h2c(FOE4.into(), BALANCED, b"").expect("an answer").0, 200);
    place.turned_away(FOE6.into(), BALANCED, b"");
}

#[test]
fn a_peer_that_is_trusted_no_longer_is_told_so() {
    let place = Place::new("clearmesh");
    let trust =
        |prefixes: &[&str]| place.mesh("mesh", MESH, prefixes, json!({ "limits": { "drainMs": 5000 } }));
    trust(&["10.99.1.2", "fd99:1::2"]);
    for (from, still) in [(IpAddr::V4(CLIENT4), "fd99:1::2"), (IpAddr::V6(CLIENT6), "10.99.1.66")] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("runtime");
        let mut dial = place.stage.dial().from(from);
        dial.target = if from.is_ipv4() { target4(MESH) } else { target6(MESH) };
        let tcp = place.stage.clients.inside(|| dial.tcp().expect("a connection"));
        let (mut requests, driver) = runtime.block_on(h2client::clear_text(tcp)).expect("written");
        assert_eq!(runtime.block_on(get(&mut requests, "/")).expect("an answer").0, 200);
        trust(&[still]);
        // GOAWAY without an error: it ends in order, and comes no more.
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), driver).await });
        ended.expect("told to go away").expect("a driver").expect("in order");
        assert!(runtime.block_on(get(&mut requests, "/")).is_err());
        place.turned_away(from, MESH, b"");
    }
}
