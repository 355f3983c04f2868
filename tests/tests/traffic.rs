//! Every kind of traffic, with clients and origins that others wrote.
#![expect(clippy::expect_used, reason = "a test fails by panicking and says what it did")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sallyport_tests::api::Api;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::space::Space;
use sallyport_tests::stage::{HOST, NODE4, ORIGIN_NAME, ORIGINS4, Stage};
use sallyport_tests::{eventually, objects};
use serde_json::{Value, json};

/// Scripts of the peers, beside this file.
fn peer(name: &str) -> String {
    format!("{}/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has the peers' packages.
fn python() -> String {
    std::env::var("SALLYPORT_PEERS")
        .expect("SALLYPORT_PEERS names a Python; ./test installs it and sets this")
}

/// A process in a namespace; it ends with this value.
struct Running(Child);

impl Running {
    fn start(space: &Space, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        Self(space.inside(|| command.spawn()).expect("a peer"))
    }

    fn lines(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("its output"))
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
    ca: String,
    _origin: Running,
}

impl Place {
    /// The product before this origin.
    fn new(name: &str, origin: &str) -> Self {
        let stage = Stage::new(name);
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{name}-peers"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let pair = stage.origin_ca.issue(&[ORIGIN_NAME]);
        let pem = dir.join("pair.pem").display().to_string();
        fs::write(&pem, pair.chain + &pair.key).expect("the origin's pair");
        let ca = dir.join("front-ca.pem").display().to_string();
        fs::write(&ca, &stage.front_ca.pem).expect("the clients' CA");
        let address = ORIGINS4.to_string();
        let arguments = [&*peer(origin), &address, "8443", &pem];
        let mut origin = Running::start(&stage.origins, &python(), &arguments);
        let mut line = String::new();
        origin.lines().read_line(&mut line).expect("the origin's first line");
        assert_eq!(line, "listening\n");
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        Self { stage, product, api, ca, _origin: origin }
    }

    fn client(&self, program: &str, script: &str, more: &[&str]) -> (bool, String, String) {
        let (script, address) = (peer(script), NODE4.to_string());
        let arguments = [&[&*script, &*address, HOST, &*self.ca], more].concat();
        self.stage.clients.try_run(program, &arguments)
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let resolve = format!("*:443:{NODE4}");
        let mut all = vec!["-sS", "--max-time", "60", "--cacert", &self.ca, "--resolve", &resolve];
        all.extend(arguments);
        let (ok, out, err) = self.stage.clients.try_run("curl", &all);
        assert!(ok, "{arguments:?}: {out}{err}");
        out
    }

    /// The most memory the worker has ever used, KiB.
    fn peak(&self) -> u64 {
        let worker = self.product.pids(Role::Worker)[0];
        let text = fs::read_to_string(format!("/proc/{worker}/status")).expect("the worker's status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn route(&self, change: impl FnOnce(&mut Value)) {
        let mut route = objects::route("shop", &[HOST], "front", "group");
        change(&mut route);
        self.product.applied(self.api.apply(&[route]));
    }

    fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the access log has {what}"), Duration::from_secs(5), || {
            let log = self.product.access_log();
            log.iter().find(|line| wanted(line)).cloned().ok_or_else(|| format!("{log:?}"))
        })
    }
}

#[test]
fn websocket_over_both_versions_of_http() {
    let place = Place::new("wsboth", "ws_origin.py");
    let (ok, out, err) = place.client(&python(), "ws_client.py", &["all"]);
    assert!(ok && out == "all right\n", "websockets: {out}{err}");
    let line = place.logged("the tunnel", |line| line["status"] == 101);
    assert!(line["received"].as_u64() > Some(6 << 20) && line["sent"].as_u64() > Some(6 << 20), "{line}");
    assert_eq!((&line["reason"], &line["path"]), (&Value::Null, &json!("/chat")), "{line}");

    let (ok, out, err) = place.client("node", "ws_h2.mjs", &[]);
    assert!(ok && out == "all right\n", "node's HTTP/2: {out}{err}");
    let line = place.logged("a tunnel over HTTP/2", |line| line["protocol"] == "HTTP/2");
    assert_eq!(
        (&line["status"], &line["method"], &line["reason"]),
        (&json!(200), &json!("GET"), &Value::Null)
    );
}

#[test]
fn a_websocket_lives_as_long_as_it_is_allowed() {
    let place = Place::new("wslives", "ws_origin.py");
    let (script, address) = (peer("ws_client.py"), NODE4.to_string());
    let arguments = [&*script, &*address, HOST, &*place.ca, "hold"];
    let mut client = Running::start(&place.stage.clients, &python(), &arguments);
    let mut lines = client.lines().lines().map(|line| line.expect("a line"));
    lines.next().expect("a first message");
    // Changes that still allow it, to its own route too.
    for at in 0..10 {
        place.route(|route| route["spec"]["responseTimeoutMs"] = json!(10_000 + at));
        lines.next().expect("it goes on");
    }
    place.route(|route| route["spec"]["upgrades"] = json!([]));
    let last = lines.last().expect("a last line");
    assert!(last.starts_with("ended after "), "{last}");
    let line = place.logged("why it ended", |line| line["status"] == 101);
    assert_eq!(line["reason"], "upgrade-refused", "{line}");
    let (ok, _, err) = place.client(&python(), "ws_client.py", &["all"]);
    assert!(!ok && err.contains("403"), "{err}");
}

#[test]
fn interim_responses_expectations_and_forms_of_requests() {
    let place = Place::new("kinds", "http_origin.py");
    for version in ["--http1.1", "--http2"] {
        let out = place.curl(&[version, "-i", "https://shop.walk.test/hints"]);
        let hint = out.find(" 103").expect("the hint");
        assert!(out.to_lowercase().find("link: </style.css>; rel=preload") > Some(hint), "{out}");
        assert!(out.find(" 200") > Some(hint) && out.ends_with("hinted"), "{out}");

        // Without 100 from the origin curl would wait for twenty seconds.
        let put = [
            "-T",
            &*place.ca,
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "20",
            "-w",
            "%{time_total}",
        ];
        let out = place.curl(&[&[version], &put[..], &["https://shop.walk.test/put"]].concat());
        let length = fs::metadata(&place.ca).expect("the CA's file").len();
        let (said, took) = out.trim().split_once('\n').expect("two lines");
        assert!(said.starts_with(&format!("PUT /put {length} ")), "{out}");
        assert!(took.parse::<f64>().expect("seconds") < 10.0, "{out}");
        let out = place.curl(&[&[version], &put[..], &["https://shop.walk.test/early"]].concat());
        assert!(out.starts_with("not you"), "{out}");

        let out = place.curl(&[version, "-I", "https://shop.walk.test/head"]);
        assert!(out.contains(" 200") && out.to_lowercase().contains("content-length: "), "{out}");
        let out = place.curl(&[version, "-X", "OPTIONS", "--request-target", "*", "https://shop.walk.test/"]);
        assert!(out.starts_with("OPTIONS * 0 "), "{out}");
        let cookies = ["-H", "Cookie: a=1; b=2", "-H", "TE: trailers", "-H", "Connection: TE"];
        let cookies = if version == "--http2" { &cookies[..4] } else { &cookies[..] };
        let out = place.curl(&[&[version], cookies, &["https://shop.walk.test/"]].concat());
        assert!(out.ends_with("te=trailers cookie=a=1; b=2\n"), "{out}");
    }
    // Trailers both ways, from HTTP/2.
    let listener = json!({ "port": 443, "defaultCertificate": "front" });
    place.product.applied(place.api.apply(&[objects::object("Listener", "https", listener)]));
    let (authority, target) = (format!(":authority: {HOST}"), format!("https://{NODE4}/trailers"));
    let arguments = ["-nv", "-y", "-H", &authority, "-d", &place.ca, "--trailer", "x-up: 7", &target];
    let out = place.stage.clients.run("nghttp", &arguments);
    assert!(out.contains("x-down: 7"), "{out}");

    // An answer before the upload, over HTTP/2: whole, and then the stream is closed without an error (RFC 9113, 8.1).
    let target = format!("https://{NODE4}/early");
    let arguments = ["-v", "-y", "-H", &authority, "-d", &place.ca, "--expect-continue", &target];
    let out = place.stage.clients.run("nghttp", &arguments);
    assert!(out.contains(":status: 401") && out.contains("not you"), "{out}");
    // A client that has said all it had to say still gets its answer.
    let said = place.stage.clients.inside(|| {
        let mut connection = place.stage.dial().open().expect("handshake");
        let request = format!(
            "POST /half HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
        );
        connection.send(request.as_bytes()).expect("send");
        connection.end().expect("end");
        connection.answer().expect("an answer")
    });
    assert!(said.text().starts_with("POST /half 3 "), "{}", said.text());
}

/// A request that is refused unread: whether to the console, curl's options and URL, the status.
type Refused = (bool, Vec<String>, &'static str);

/// What the proxy refuses, and the console.
fn refused(place: &Place, dir: &str) -> Vec<Refused> {
    let access = fs::read_to_string(place.product.dir().join("state/console/cli.json")).expect("cli.json");
    let access: Value = serde_json::from_str(&access).expect("JSON");
    let word = |name: &str| access[name].as_str().expect("text").to_owned();
    let (console, token, console_ca) = (word("url"), word("token"), format!("{dir}/console-ca.pem"));
    fs::write(&console_ca, word("ca")).expect("the console's CA");
    let mut shut = objects::route("shut", &["shut.walk.test"], "front", "group");
    shut["spec"].as_object_mut().expect("fields").remove("originGroup");
    shut["spec"]["filters"] = json!({ "directResponse": { "statusCode": 403 } });
    place.product.applied(place.api.apply(&[shut]));
    let proxy = |host: &str, status| {
        let resolve = format!("*:443:{NODE4}");
        let options = ["--cacert", &place.ca, "--resolve", &resolve, &format!("https://{host}.walk.test/")];
        (false, options.map(str::to_owned).to_vec(), status)
    };
    let console = |path: &str, more: &[&str], status| {
        let url = format!("{console}{path}");
        let options = [&["--cacert", &console_ca], more, &[&url]].concat();
        (true, options.into_iter().map(str::to_owned).collect(), status)
    };
    let token = ["-H", &format!("Authorization: Bearer {token}")];
    vec![
        proxy("nothing", "404"),
        // No word of which curl could know that it has all of them.
        proxy("shut", "403"),
        console("/api/v1/nowhere", &token, "404"),
        console("/healthz", &[], "405"),
        console("/api/v1/apply", &[], "401"),
        console("/login", &[], "403"),
        // curl says that it sends a form.
        console("/api/v1/apply", &token, "415"),
    ]
}

/// curl 7.88 forgets an answer over HTTP/2 whose stream is reset while it sends, whatever the code.
#[test]
fn refusals_are_not_lost_on_clients_that_are_still_sending() {
    const TRIES: usize = 30;
    let (place, dir) = (Place::new("unread", "http_origin.py"), "/var/tmp/sallyport-test-unread-peers");
    let [small, large] = ["small", "large"].map(|name| format!("{dir}/{name}"));
    fs::write(&small, "{}").expect("a small body");
    fs::write(&large, vec![b'7'; 200_000]).expect("a large body");
    let refused = refused(&place, dir);
    let curl = |(console, options, _): &Refused, how: &[&str]| {
        let space = if *console { &place.stage.node } else { &place.stage.clients };
        let said = ["-sS", "--max-time", "10", "-w", "%{http_code}", "-o", "/dev/null"];
        let options = options.iter().map(String::as_str);
        let arguments: Vec<_> = said.into_iter().chain(how.iter().copied()).chain(options).collect();
        let script = "exec curl \"$@\" < /dev/zero";
        space.try_run("sh", &[&["-c", script, "curl"][..], &arguments].concat())
    };
    let lost = |refused: &Refused, tries: usize, how: &[&str]| {
        let said = (0..tries).map(|_| curl(refused, how));
        let lost: Vec<_> = said.filter(|(ok, out, _)| !ok || out != refused.2).collect();
        assert!(lost.is_empty(), "{how:?} {refused:?}: {} of {tries}: {:?}", lost.len(), lost[0]);
    };
    for refused in &refused {
        for version in ["--http2", "--http1.1"] {
            for body in [&small, &large] {
                lost(refused, TRIES, &[version, "--data-binary", &format!("@{body}")]);
            }
        }
        // A body without end, and of nobody knows what kind.
        if refused.2 != "415" {
            lost(refused, 5, &["--http2", "-X", "POST", "-T", "-"]);
        }
    }
}

#[test]
fn events_come_at_once_and_large_bodies_cost_no_memory() {
    let place = Place::new("stream", "http_origin.py");
    let before = place.peak();
    for version in ["--http1.1", "--http2"] {
        let resolve = format!("*:443:{NODE4}");
        let arguments = [
            "-sSN",
            version,
            "--cacert",
            &place.ca,
            "--resolve",
            &resolve,
            "https://shop.walk.test/events?8",
        ];
        let mut curl = Running::start(&place.stage.clients, "curl", &arguments);
        let mut late = Vec::new();
        for line in curl.lines().lines() {
            let line = line.expect("a line");
            if let Some(sent) = line.strip_prefix("data: ") {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs_f64();
                late.push(now - sent.parse::<f64>().expect("when it was sent"));
            }
        }
        // Each leaves 400 ms after the one before: one that waited for company would be later than that.
        assert!(late.len() == 8 && late.iter().all(|late| *late < 0.35), "{version}: seconds late: {late:?}");
        println!("events over {version}: seconds late {late:.4?}");

        let size = 400_u64 << 20;
        let url = format!("https://shop.walk.test/download?{size}");
        let out = place.curl(&[version, "-o", "/dev/null", "-w", "%{size_download}", &url]);
        assert_eq!(out, size.to_string());
        let up = format!(
            "head -c {size} /dev/zero | curl -sS {version} --cacert {} --resolve '{resolve}' -T - https://shop.walk.test/upload",
            place.ca
        );
        let out = place.stage.clients.run("sh", &["-c", &up]);
        assert!(out.starts_with(&format!("PUT /upload {size} ")), "{out}");
    }
    let grown = place.peak() - before;
    println!("the worker's peak grew by {grown} KiB over four bodies of 400 MiB");
    assert!(grown < 24 * 1024, "the worker's memory grew by {grown} KiB");
}

#[test]
fn refused_clients_see_the_operators_page_and_nothing_of_the_inside() {
    let place = Place::new("pages", "http_origin.py");
    let html = "<!doctype html><title>{{status}} {{title}}</title><p>{{reason}}<p>{{requestId}}";
    let json_page = r#"{ "why": "{{reason}}", "code": {{status}}, "request": "{{requestId}}" }"#;
    let pages = json!([{ "body": html }, { "status": "5xx", "form": "json", "body": json_page }]);
    let mut dead =
        objects::origin_group("backstage", &[format!("https://{ORIGINS4}:9")], "origins", ORIGIN_NAME);
    dead["spec"]["connectTimeoutMs"] = json!(700);
    place.product.applied(place.api.apply(&[
        objects::object("Listener", "https", json!({ "port": 443, "errorPages": pages })),
        dead,
        objects::route("trapdoor", &["down.walk.test"], "front", "backstage"),
    ]));
    let ask = |version: &str, accept: &str, url: &str| {
        let accept = format!("Accept: {accept}");
        let hostile = ["-A", "<script>{{reason}}</script>", "-H", "X-Request-Id: <b>"];
        let out = place.curl(&[&["-i", version, "-H", &accept], &hostile[..], &[url]].concat());
        let (head, body) = out.split_once("\r\n\r\n").expect("a head and a body");
        let id = head
            .to_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: ").map(str::to_owned));
        let inside = [&*ORIGINS4.to_string(), "backstage", "trapdoor", ORIGIN_NAME, "script", "<b>"];
        assert!(
            inside.iter().all(|word| !out.contains(word)),
            "a word about the inside, or the client's own: {out}"
        );
        (body.to_owned(), id.expect("a request id"))
    };
    for version in ["--http1.1", "--http2"] {
        let (body, id) =
            ask(version, "text/html", "https://nothing.walk.test/%3Cscript%3E?%7B%7Bstatus%7D%7D");
        assert_eq!(body, format!("<!doctype html><title>404 Not Found</title><p>no-route<p>{id}"));
        place.logged("the page's id", |line| line["id"] == *id && line["reason"] == "no-route");
        let (body, id) = ask(version, "text/html", "https://down.walk.test/");
        assert_eq!(
            body,
            format!("<!doctype html><title>502 Bad Gateway</title><p>origin-unreachable<p>{id}")
        );
        let (body, id) = ask(version, "application/json", "https://down.walk.test/");
        let filled: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(filled, json!({ "why": "origin-unreachable", "code": 502, "request": id }));
        // No page of the operator's is for this one: ours.
        let (body, id) = ask(version, "application/json", "https://nothing.walk.test/");
        let ours: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((&ours["reason"], &ours["requestId"]), (&json!("no-route"), &json!(id)));
    }
}
