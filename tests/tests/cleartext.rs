//! Listeners in clear text: redirects, refusals, health, ACME's challenges; with curl, over IPv4 and IPv6.
#![expect(clippy::expect_used, reason = "a test fails by panicking and says what it did")]

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::stage::{HOST, NODE4, NODE6, Stage};
use sallyport_tests::{eventually, objects};
use serde_json::{Value, json};

/// Redirects, tells of its health, has ACME's challenges answered.
const OPEN: u16 = 80;
/// Refuses, and tells of its health.
const CLOSED: u16 = 8080;

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
        let resolve = [OPEN, CLOSED, 443].map(|port| format!("{HOST}:{port}:{node}"));
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
