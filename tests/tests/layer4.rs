//! Connections below HTTP: who is at the other end when balancers stand between.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, and prints what it saw")]

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_node::worker::refusal::Reason;
use sallyport_tests::api::Api;
use sallyport_tests::client::{Connection, Dial};
use sallyport_tests::origin::Origin;
use sallyport_tests::pki::Pair;
use sallyport_tests::product::Product;
use sallyport_tests::space::Space;
use sallyport_tests::stage::{
    CLIENT4, CLIENT6, FOE4, FOE6, HOST, NODE4, NODE6, ORIGIN_NAME, ORIGINS4, Stage, target4, target6,
};
use sallyport_tests::{eventually, objects};
use serde_json::{Value, json};

/// The listener that believes the balancer.
const BALANCED: u16 = 8610;
/// HAProxy's ports: version 1, version 2, version 2 with every TLV it has; each for IPv4 and IPv6.
const HAPROXY: [(u16, &str); 3] = [
    (7001, "send-proxy"),
    (7002, "send-proxy-v2"),
    (7003, "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"),
];
/// A client behind HAProxy.
const SHY: &str = "127.0.0.9";

/// A process in a namespace; it ends with this value.
struct Running(Child);

impl Running {
    fn start(space: &Space, command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self(space.inside(|| command.spawn()).expect("a peer; ./test installs what the tests need"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    stage: Stage,
    product: Product,
    api: Api,
    _origin: Origin,
}

impl Place {
    /// The product with a listener that believes [`CLIENT4`] and [`CLIENT6`].
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[origin.url()]);
        let place = Self { stage, product, api, _origin: origin };
        place.balanced(&json!({}));
        place
    }

    fn balanced(&self, limits: &Value) {
        let spec = json!({
            "port": BALANCED, "certificates": ["front"], "limits": limits,
            "proxyProtocol": { "prefixes": [format!("{CLIENT4}/32"), format!("{CLIENT6}/128")] },
        });
        self.product.applied(self.api.apply(&[objects::object("Listener", "balanced", spec)]));
    }

    fn dial(&self, target: SocketAddr) -> Dial {
        let mut dial = self.stage.dial().patience(Duration::from_secs(5));
        dial.target = target;
        dial
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.stage.clients.inside(work)
    }

    /// A connection whose first bytes are these.
    fn behind(&self, from: IpAddr, first: &[u8]) -> std::io::Result<Connection> {
        let target = if from.is_ipv4() { target4(BALANCED) } else { target6(BALANCED) };
        self.inside(|| {
            let dial = self.dial(target).from(from);
            let mut tcp = dial.tcp()?;
            tcp.write_all(first)?;
            dial.secure(tcp)
        })
    }

    /// What the origin was told of the client.
    fn forwarded_for(&self, connection: &mut Connection) -> String {
        let text = self.inside(|| connection.get(HOST, "/echo")).expect("an answer").text();
        let field = text.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("x-forwarded-for").then(|| value.to_owned())
        });
        field.unwrap_or_else(|| panic!("no X-Forwarded-For in {text}"))
    }

    fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the access log has {what}"), Duration::from_secs(5), || {
            let log = self.product.access_log();
            log.iter().find(|line| wanted(line)).cloned().ok_or_else(|| format!("{log:?}"))
        })
    }

    fn count(&self, reason: Reason) -> f64 {
        self.product.metric("sallyport_refusals_total", &format!("reason=\"{}\"", reason.name()))
    }

    fn counted(&self, reason: Reason, atleast: f64) {
        eventually(reason.name(), Duration::from_secs(5), || match self.count(reason) {
            count if count >= atleast => Ok(()),
            count => Err(format!("counted {count} times, not {atleast}")),
        });
    }

    /// HAProxy beside the clients, passing connections on to [`BALANCED`].
    fn haproxy(&self) -> Running {
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{}-haproxy", self.stage.name()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let mut text =
            "defaults\n  mode tcp\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\n\
                        \x20 unique-id-format %{+X}o%ci:%cp\n"
                .to_owned();
        for (port, how) in HAPROXY {
            text += &format!(
                "listen v4-{port}\n  bind 127.0.0.1:{port}\n  server node {NODE4}:{BALANCED} source {CLIENT4} {how}\n\
                 listen v6-{port}\n  bind [::1]:{port} v6only\n  server node [{NODE6}]:{BALANCED} source [{CLIENT6}]:0 {how}\n"
            );
        }
        let file = dir.join("haproxy.cfg");
        fs::write(&file, text).expect("configuration");
        let running =
            Running::start(&self.stage.clients, Command::new("haproxy").arg("-db").arg("-f").arg(&file));
        eventually("HAProxy accepts", Duration::from_secs(10), || {
            let connected = self.inside(|| TcpStream::connect(("::1", HAPROXY[2].0)));
            connected.map(drop).map_err(|error| error.to_string())
        });
        running
    }
}

/// A version 2 header of a client in IPv4 or IPv6.
fn version2(client: SocketAddr) -> Vec<u8> {
    let (family, address) = match client.ip() {
        IpAddr::V4(v4) => (0x11, v4.octets().to_vec()),
        IpAddr::V6(v6) => (0x21, v6.octets().to_vec()),
    };
    // The destination does not count: it is the client's address again.
    let ports = [client.port().to_be_bytes(), client.port().to_be_bytes()].concat();
    let block = [&*address, &*address, &*ports].concat();
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family], &length, &block].concat()
}

#[test]
fn haproxy_tells_of_its_clients() {
    let place = Place::new("l4-haproxy");
    let _haproxy = place.haproxy();
    for (port, how) in HAPROXY {
        for (client, target) in [
            (SHY, SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)),
            ("::1", ([0, 0, 0, 0, 0, 0, 0, 1], port).into()),
        ] {
            let dial = place.dial(target).from(client.parse().expect("address"));
            let mut connection =
                place.inside(|| dial.open()).unwrap_or_else(|error| panic!("{how} {client}: {error}"));
            assert_eq!(place.forwarded_for(&mut connection), client, "{how}");
            let seen = connection.local();
            let line = place.logged(how, |line| line["client"] == seen.to_string());
            let balancer = if seen.is_ipv4() { format!("{CLIENT4}:") } else { format!("[{CLIENT6}]:") };
            assert!(line["via"].as_str().is_some_and(|via| via.starts_with(&balancer)), "{line}");
        }
    }
    assert_eq!(place.count(Reason::BadProxyHeader), 0.0);

    // Denied is who the header names: what is open and what comes; the balancer's other clients are not.
    let open = |client: &str| {
        let dial = place.dial(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), HAPROXY[1].0));
        place.inside(|| dial.from(client.parse().expect("address")).open())
    };
    let (mut shy, mut other) =
        (open(SHY).expect("not denied yet"), open("127.0.0.10").expect("never denied"));
    assert_eq!(place.forwarded_for(&mut shy), SHY);
    let rule = objects::packet_filter("shy", "Deny", &[SHY.to_owned()]);
    place.product.applied(place.api.apply(&[rule]));
    place.counted(Reason::Denied, 1.0);
    assert!(place.inside(|| shy.get(HOST, "/")).is_err(), "still served");
    assert!(open(SHY).is_err(), "let in");
    place.counted(Reason::Denied, 2.0);
    assert_eq!(place.forwarded_for(&mut other), "127.0.0.10");
}

#[test]
fn headers_count_from_balancers_and_from_nobody_else() {
    let place = Place::new("l4-headers");
    for (from, client) in [
        (IpAddr::V4(CLIENT4), "192.0.2.7:4711"),
        (IpAddr::V4(CLIENT4), "[2001:db8::7]:4712"),
        (IpAddr::V6(CLIENT6), "192.0.2.7:4713"),
        (IpAddr::V6(CLIENT6), "[2001:db8::7]:4714"),
    ] {
        let client: SocketAddr = client.parse().expect("address");
        let mut connection = place.behind(from, &version2(client)).expect("a handshake behind a header");
        assert_eq!(place.forwarded_for(&mut connection), client.ip().to_string());
        place.logged("the client", |line| line["client"] == client.to_string());
    }
    // Limits are the client's, not the balancer's: per thread, so of many connections some are too many.
    place.balanced(&json!({ "connectionsPerAddress": 1 }));
    let mut others = Vec::new();
    for last in 1..=16 {
        let header = version2(SocketAddr::new(IpAddr::from([192, 0, 2, last]), 4000));
        others.push(place.behind(CLIENT4.into(), &header).expect("clients of their own"));
    }
    assert_eq!(place.count(Reason::TooManyFromAddress), 0.0);
    let same = version2("192.0.2.99:4000".parse().expect("address"));
    let held: Vec<_> = (0..16).filter_map(|_| place.behind(CLIENT4.into(), &same).ok()).collect();
    assert!(!held.is_empty() && held.len() < 16, "{} connections from one client", held.len());
    place.counted(Reason::TooManyFromAddress, 1.0);
    drop((others, held));

    // A balancer must send one; its own connections are its own.
    for first in [&b""[..], b"PROXY TCP4 192.0.2.7\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"] {
        assert!(place.behind(CLIENT4.into(), first).is_err(), "served without a header");
    }
    place.counted(Reason::BadProxyHeader, 3.0);
    for own in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut connection = place.behind(CLIENT6.into(), own).expect("a balancer's own connection");
        assert_eq!(place.forwarded_for(&mut connection), CLIENT6.to_string());
    }
    // Nobody else may, and nobody else must.
    let before = place.count(Reason::HandshakeFailed);
    for stranger in [IpAddr::V4(FOE4), IpAddr::V6(FOE6)] {
        let header = version2("192.0.2.7:4711".parse().expect("address"));
        assert!(place.behind(stranger, &header).is_err(), "{stranger} was believed");
        let mut plain = place.behind(stranger, b"").expect("a stranger without a header");
        assert_eq!(place.forwarded_for(&mut plain), stranger.to_string());
    }
    place.counted(Reason::HandshakeFailed, before + 2.0);
}

/// The host that nginx serves itself, with a certificate of its own.
const PASSED: &str = "passed.walk.test";
/// Another one.
const OTHER: &str = "other.walk.test";
/// nginx's port for connections that begin with a PROXY header, and HAProxy's.
const TOLD: u16 = 8447;
const ACCEPT_PROXY: u16 = 8448;
/// Its port, of two origins of which the first is nowhere.
const NGINX: u16 = 8446;

impl Place {
    /// nginx among the origins.
    fn nginx(&self) -> (Running, Pair) {
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{}-nginx", self.stage.name()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let pair = self.stage.front_ca.issue(&[PASSED, OTHER]);
        fs::write(dir.join("pair.pem"), format!("{}{}", pair.chain, pair.key)).expect("the pair");
        let told = self.stage.origin_ca.issue(&[ORIGIN_NAME]);
        fs::write(dir.join("told.pem"), format!("{}{}", told.chain, told.key)).expect("the pair");
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log info; user root;
             events {{ worker_connections 512; }}
             http {{ access_log off; default_type text/plain; keepalive_requests 100000;
               ssl_certificate pair.pem; ssl_certificate_key pair.pem;
               server {{ listen {ORIGINS4}:{NGINX} ssl; http2 on;
                 location / {{ return 200 'nginx itself, sni $ssl_server_name, $server_protocol\\n'; }} }}
               server {{ listen {ORIGINS4}:{TOLD} ssl proxy_protocol; http2 on;
                 ssl_certificate told.pem; ssl_certificate_key told.pem;
                 location / {{ return 200 '$proxy_protocol_addr to $proxy_protocol_server_addr, $server_protocol\\n'; }} }} }}"
        );
        fs::write(dir.join("nginx.conf"), text).expect("configuration");
        let program = std::env::var("SALLYPORT_NGINX")
            .expect("SALLYPORT_NGINX names nginx; ./test installs it and sets this");
        let dir = dir.display().to_string();
        let mut start = Command::new(program);
        start.args(["-p", &dir, "-c", "nginx.conf", "-e", "error.log"]);
        let running = Running::start(&self.stage.origins, &mut start);
        eventually("nginx accepts", Duration::from_secs(10), || {
            let connected = self.stage.origins.inside(|| TcpStream::connect((ORIGINS4, NGINX)));
            connected.map(drop).map_err(|error| error.to_string())
        });
        (running, pair)
    }

    /// Passes these hosts on to a group whose first origin is not there.
    fn pass(&self, hosts: &[&str]) {
        let urls = [format!("https://{ORIGINS4}:9"), format!("https://{ORIGINS4}:{NGINX}")];
        let spec = json!({ "hostnames": hosts, "tls": "Passthrough", "originGroup": "passed" });
        let objects = [
            objects::origin_group("passed", &urls, "origins", ORIGIN_NAME),
            objects::object("Route", "passed", spec),
        ];
        self.product.applied(self.api.apply(&objects));
    }

    fn curl(&self, address: IpAddr, arguments: &[&str]) -> String {
        let ca = self.product.dir().join("front-ca.pem");
        fs::write(&ca, &self.stage.front_ca.pem).expect("the clients' CA");
        let (ca, resolve) = (ca.display().to_string(), format!("*:443:{address}"));
        let mut all = vec!["-sS", "--max-time", "10", "--cacert", &*ca, "--resolve", &*resolve];
        all.extend(arguments);
        let (ok, out, err) = self.stage.clients.try_run("curl", &all);
        assert!(ok, "{arguments:?}: {out}{err}");
        out
    }
}

#[test]
fn nginx_shows_its_own_certificate_beside_terminated_hosts() {
    let place = Place::new("l4-passed");
    let (_nginx, pair) = place.nginx();
    place.pass(&["*.walk.test"]);
    let passed = format!("https://{PASSED}/");
    for address in [IpAddr::V4(NODE4), IpAddr::V6(NODE6)] {
        for (tls, http) in [("1.2", "1.1"), ("1.3", "2")] {
            let (exact, most, http_flag) = (format!("--tlsv{tls}"), tls.to_owned(), format!("--http{http}"));
            let said = place.curl(address, &[&exact, "--tls-max", &most, &http_flag, &passed]);
            let version = if http == "2" { "2.0" } else { http };
            assert_eq!(said, format!("nginx itself, sni {PASSED}, HTTP/{version}\n"), "{address} {tls}");
        }
        let said = place.curl(address, &[&format!("https://{HOST}/")]);
        assert_eq!(said, "hello from one\n", "the more exact host is terminated");
    }
    let address = format!("{NODE4}:443");
    let ask = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 openssl s_client -connect {address} -servername {PASSED} -quiet -ign_eof"
    );
    let said = place.stage.clients.run("sh", &["-c", &ask]);
    assert!(said.contains(&format!("nginx itself, sni {PASSED}, HTTP/1.0")), "{said}");

    // Its certificate, and its answer behind the client's end.
    let mut dial = place.dial(target4(443));
    dial.name = PASSED.to_owned();
    let mut connection = place.inside(|| dial.open()).expect("the origin's handshake");
    assert!(connection.certificate() == pair.der, "another certificate");
    let request = format!("GET / HTTP/1.1\r\nHost: {PASSED}\r\nConnection: close\r\n\r\n");
    place.inside(|| connection.send(request.as_bytes())).expect("send");
    assert_eq!(place.inside(|| connection.answer()).expect("an answer").status, 200);
    drop(connection);
    let line = place.logged("it", |line| line["protocol"] == "TLS" && line["host"] == PASSED);
    assert_eq!((&line["route"], &line["clientTls"]["sni"]), (&json!("passed"), &json!(PASSED)));
    assert!(line["received"].as_u64() > Some(300) && line["sent"].as_u64() > Some(300), "{line}");
    place.logged("a second attempt", |line| line["origin"]["attempts"] == 2);
    assert_eq!(place.count(Reason::OriginUnreachable), 0.0, "the second origin stood in for the first");
    let counted = place.product.metric("sallyport_passthrough_connections_total", "route=\"passed\"");
    assert!(counted >= 5.0, "{counted}");

    // By its name in a request it cannot be had.
    let answer = place.inside(|| place.dial(target4(443)).get(PASSED, "/")).expect("a refusal");
    assert_eq!(answer.status, 421);
}

#[test]
fn a_snapshot_ends_what_it_no_longer_passes_and_nothing_else() {
    let place = Place::new("l4-ended");
    let _nginx = place.nginx();
    place.pass(&[PASSED, OTHER]);
    let open = |host: &str| {
        let mut dial = place.dial(target4(443));
        dial.name = host.to_owned();
        place.inside(|| dial.open()).expect("the origin's handshake")
    };
    let (mut kept, mut gone) = (open(PASSED), open(OTHER));
    let get = |connection: &mut Connection, host: &str| place.inside(|| connection.get(host, "/"));
    assert_eq!(get(&mut gone, OTHER).expect("an answer").status, 200);
    for turn in 0..5 {
        let hosts = if turn % 2 == 0 { vec![PASSED] } else { vec![PASSED, "third.walk.test"] };
        place.pass(&hosts);
        assert_eq!(get(&mut kept, PASSED).expect("still passed").status, 200, "{turn}");
    }
    place.counted(Reason::NoRoute, 1.0);
    assert!(get(&mut gone, OTHER).is_err(), "still passed");
    place.logged("its reason", |line| line["host"] == OTHER && line["reason"] == "no-route");
    place.api.delete("routes/passed");
    place.counted(Reason::NoRoute, 2.0);
    assert!(get(&mut kept, PASSED).is_err(), "still passed");
}

impl Place {
    /// HAProxy among the origins, which answers with the address that it was told.
    fn haproxy_origin(&self) -> Running {
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{}-accept", self.stage.name()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let told = self.stage.origin_ca.issue(&[ORIGIN_NAME]);
        let pem = dir.join("told.pem").display().to_string();
        fs::write(&pem, format!("{}{}", told.chain, told.key)).expect("the pair");
        let text = format!(
            "defaults\n  mode http\n  timeout client 30s\n  timeout connect 5s\n  timeout server 5s\n\
             frontend told\n  bind {ORIGINS4}:{ACCEPT_PROXY} accept-proxy ssl crt {pem}\n\
             \x20 http-request return status 200 content-type text/plain lf-string \"%[src] to %[dst],\\n\"\n"
        );
        let file = dir.join("haproxy.cfg");
        fs::write(&file, text).expect("configuration");
        let running =
            Running::start(&self.stage.origins, Command::new("haproxy").arg("-db").arg("-f").arg(&file));
        eventually("HAProxy accepts", Duration::from_secs(10), || {
            let connected = self.stage.origins.inside(|| TcpStream::connect((ORIGINS4, ACCEPT_PROXY)));
            connected.map(drop).map_err(|error| error.to_string())
        });
        running
    }
}

#[test]
fn nginx_and_haproxy_are_told_of_the_client() {
    const ORIGINS: [(&str, u16, &str); 4] = [
        ("nginx-v1", TOLD, "v1"),
        ("nginx-v2", TOLD, "v2"),
        ("haproxy-v1", ACCEPT_PROXY, "v1"),
        ("haproxy-v2", ACCEPT_PROXY, "v2"),
    ];
    let place = Place::new("l4-told");
    let (_nginx, _pair) = place.nginx();
    let _haproxy = place.haproxy_origin();
    let mut all = Vec::new();
    for (name, port, version) in ORIGINS {
        let url = format!("https://{ORIGINS4}:{port}");
        let mut group = objects::origin_group(name, &[url], "origins", ORIGIN_NAME);
        group["spec"]["proxyProtocol"] = json!(version);
        group["spec"]["probe"] = json!({ "method": "GET", "intervalMs": 1000 });
        all.push(group);
        all.push(objects::route(name, &[&format!("{name}.walk.test")], "front", name));
        let hosts = [format!("passed-{name}.walk.test")];
        let spec = json!({ "hostnames": hosts, "tls": "Passthrough", "originGroup": name });
        all.push(objects::object("Route", &format!("passed-{name}"), spec));
    }
    place.product.applied(place.api.apply(&all));
    for (name, _, _) in ORIGINS {
        for (client, node) in
            [(IpAddr::V4(CLIENT4), IpAddr::V4(NODE4)), (IpAddr::V6(FOE6), IpAddr::V6(NODE6))]
        {
            // What is passed through has the origin's certificate, which these clients do not know.
            for (host, judge) in
                [(format!("{name}.walk.test"), "-s"), (format!("passed-{name}.walk.test"), "-k")]
            {
                let url = format!("https://{host}/");
                let said = place.curl(node, &[judge, "--interface", &client.to_string(), &url, &url]);
                let expected = format!("{client} to {node},");
                assert_eq!(said.matches(&expected).count(), 2, "{host}: {said}");
            }
        }
    }
    // Probes are nobody's, and nginx and HAProxy take them for that.
    for (name, _, _) in ORIGINS {
        eventually(&format!("{name} is probed"), Duration::from_secs(10), || {
            match place.product.metric("sallyport_origin_healthy", &format!("group=\"{name}\"")) {
                1.0 => Ok(()),
                other => Err(other.to_string()),
            }
        });
        let failures = place.product.metric("sallyport_origin_failures_total", &format!("group=\"{name}\""));
        assert_eq!(failures, 0.0, "{name}");
    }
}
