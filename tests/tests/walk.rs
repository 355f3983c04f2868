//! The walking hop, end to end: curl, openssl and nghttp through the real product to real nginx origins, and the
//! kernel's own counters as witnesses.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and says what it did"
)]

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dataplane_ebpf::reason::Reason;
use sallyport_tests::eventually;
use sallyport_tests::h2client::Streams;
use sallyport_tests::objects;
use sallyport_tests::probe::{self, Passed};
use sallyport_tests::product::{Product, Role};
use sallyport_tests::stage::{
    CLIENT4, CLIENT6, FOE4, FOE6, HOST, NODE4, ORIGIN_NAME, ORIGINS4, ORIGINS6, Stage, target4, target6,
};

/// nginx in the origins' namespace: `https://` on 8443 (IPv4 and IPv6) and 8444.
struct Nginx {
    child: Child,
    dir: PathBuf,
}

impl Nginx {
    fn start(stage: &Stage) -> Self {
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{}-nginx", stage.name()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let pair = stage.origin_ca.issue(&[ORIGIN_NAME]);
        fs::write(dir.join("pair.pem"), pair.chain + &pair.key).unwrap();
        let server = |name: &str, port: u16| {
            format!(
                "server {{ listen {ORIGINS4}:{port} ssl; listen [{ORIGINS6}]:{port} ssl; http2 off;
                   ssl_certificate pair.pem; ssl_certificate_key pair.pem; client_max_body_size 0;
                   location / {{ return 200 'hello from {name}\\n'; }}
                   location /headers {{ return 200 'host=$host for=$http_x_forwarded_for proto=$http_x_forwarded_proto sni=$ssl_server_name\\n'; }}
                   location /file {{ root .; }} }}"
            )
        };
        let text = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log error.log info; user root;
             events {{ worker_connections 512; }}
             http {{ access_log access.log; default_type text/plain; {} {} }}",
            server("nginx-one", 8443),
            server("nginx-two", 8444)
        );
        fs::write(dir.join("nginx.conf"), text).unwrap();
        fs::create_dir_all(dir.join("file")).unwrap();
        fs::write(
            dir.join("file/large"),
            (0..8 << 20).map(sallyport_tests::origin::pattern).collect::<Vec<u8>>(),
        )
        .unwrap();
        let program = std::env::var("SALLYPORT_NGINX")
            .expect("SALLYPORT_NGINX names nginx; ./test installs it and sets this");
        let child = stage.origins.inside(|| {
            Command::new(program)
                .args(["-p", &dir.display().to_string(), "-c", "nginx.conf", "-e", "error.log"])
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        });
        Self { child, dir }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).output();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Everything that most of these tests begin with.
struct Walk {
    stage: Stage,
    product: Product,
    api: sallyport_tests::api::Api,
    _nginx: Nginx,
    ca_file: String,
}

impl Walk {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let nginx = Nginx::start(&stage);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[format!("https://{ORIGINS4}:8443")]);
        let ca_file = product.dir().join("front-ca.pem").display().to_string();
        fs::write(&ca_file, &stage.front_ca.pem).unwrap();
        let walk = Self { stage, product, api, _nginx: nginx, ca_file };
        eventually("a first request is served", Duration::from_secs(10), || {
            let (ok, out, err) = walk.curl(&["https://shop.walk.test/"]);
            if ok && out == "hello from nginx-one\n" { Ok(()) } else { Err(format!("{out} {err}")) }
        });
        walk
    }

    fn curl(&self, arguments: &[&str]) -> (bool, String, String) {
        let resolve = format!("*:443:{NODE4}");
        let mut all = vec!["-sS", "--max-time", "10", "--cacert", &self.ca_file, "--resolve", &resolve];
        all.extend(arguments);
        self.stage.clients.try_run("curl", &all)
    }

    fn reason(&self, reason: Reason) -> u64 {
        probe::reason(self.product.instance(), reason.number())
    }
}

#[test]
fn curl_openssl_and_nghttp_are_served_through_xdp_and_sk_lookup() {
    let walk = Walk::new("walk");
    let (passed, steered) = (walk.reason(Reason::NoRule), walk.reason(Reason::Steered));

    for version in ["--http1.1", "--http2"] {
        for tls in ["--tlsv1.2", "--tlsv1.3"] {
            let arguments =
                [version, tls, "--tls-max", &tls[6..], "-w", "%{http_version}", "https://shop.walk.test/"];
            let (ok, out, err) = walk.curl(&arguments);
            let number = if version == "--http2" { "2" } else { "1.1" };
            assert!(ok, "{version} {tls}: {err}");
            assert_eq!(out, format!("hello from nginx-one\n{number}"), "{version} {tls}");
        }
    }

    let target = format!("{NODE4}:443");
    let (ok, out, err) = walk.stage.clients.try_run(
        "sh",
        &["-c", &format!("printf 'GET / HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -connect {target} -servername {HOST} -CAfile {} -verify_return_error -ign_eof 2>&1", walk.ca_file)],
    );
    assert!(
        ok && out.contains("hello from nginx-one") && out.contains("Verify return code: 0 (ok)"),
        "{out}{err}"
    );

    // nghttp resolves the name of its address: a hosts file of the clients' own would need a mount, so the node's default
    // certificate answers without SNI, and :authority names its host.
    let listener = serde_json::json!({ "port": 443, "defaultCertificate": "front" });
    walk.product.applied(walk.api.apply(&[objects::object("Listener", "https", listener)]));
    let authority = format!(":authority: {HOST}");
    let out =
        walk.stage.clients.run("nghttp", &["-nv", "-y", "-H", &authority, &format!("https://{target}/")]);
    assert!(out.contains(":status: 200"), "{out}");

    let connections = 6;
    assert!(walk.reason(Reason::NoRule) >= passed + 3 * connections, "XDP saw too few packets");
    assert!(walk.reason(Reason::Steered) >= steered + connections, "sk_lookup steered too few connections");
}

#[test]
fn ipv6_is_the_same_road() {
    let walk = Walk::new("walk6");
    let steered = walk.reason(Reason::Steered);
    let tls = walk.stage.front_ca.client(&["http/1.1"]);
    let dial = sallyport_tests::client::Dial::new(target6(443), HOST, &tls).from(CLIENT6.into());
    // To an IPv6 origin too.
    let group =
        objects::origin_group("group", &[format!("https://[{ORIGINS6}]:8444")], "origins", ORIGIN_NAME);
    walk.product.applied(walk.api.apply(&[group]));
    let answer = walk.stage.clients.inside(|| dial.get(HOST, "/")).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello from nginx-two\n"));
    assert!(walk.reason(Reason::Steered) > steered);
}

#[test]
fn what_reaches_the_origin_is_what_the_operator_decided() {
    let walk = Walk::new("walkhead");
    let (ok, out, err) = walk.curl(&["-H", "X-Forwarded-For: 192.0.2.9", "https://shop.walk.test/headers"]);
    assert!(ok, "{err}");
    assert_eq!(out, format!("host={HOST} for={CLIENT4} proto=https sni={ORIGIN_NAME}\n"));

    let (ok, out, err) =
        walk.curl(&["-o", "/dev/null", "-w", "%{size_download}", "https://shop.walk.test/file/large"]);
    assert!(ok && out == (8 << 20).to_string(), "{out} {err}");

    let log = eventually("the access log has the request", Duration::from_secs(5), || {
        let entry =
            walk.product.access_log().into_iter().find(|entry| entry.to_string().contains("/file/large"));
        entry.ok_or_else(|| "no such entry".to_owned())
    });
    let text = log.to_string();
    assert!(text.matches("TLSv1.3").count() == 2, "both legs' version: {text}");
    assert!(text.contains(ORIGIN_NAME) && text.contains(HOST), "both legs' names: {text}");
}

#[test]
fn deny_and_allow_lists_hold_in_the_kernel() {
    let walk = Walk::new("walkfilter");
    let dial4 = walk.stage.dial().patience(Duration::from_millis(700));
    let mut dial6 = dial4.clone();
    dial6.target = target6(443);
    let try_from = |from: IpAddr| {
        let dial = if from.is_ipv4() { &dial4 } else { &dial6 };
        walk.stage.clients.inside(|| dial.clone().from(from).get(HOST, "/")).map(|answer| answer.status)
    };
    let everyone: [IpAddr; 4] = [CLIENT4.into(), CLIENT6.into(), FOE4.into(), FOE6.into()];
    for from in everyone {
        assert_eq!(try_from(from).ok(), Some(200), "{from} before any rule");
    }

    let denied = walk.reason(Reason::Denied);
    let deny = objects::packet_filter("foes", "Deny", &[FOE4.to_string(), FOE6.to_string()]);
    walk.product.applied(walk.api.apply(&[deny]));
    let passed = [Passed::count(&walk.stage.node, &FOE4.to_string())];
    for (from, served) in everyone.into_iter().zip([true, true, false, false]) {
        assert_eq!(try_from(from).is_ok(), served, "{from} with a deny rule");
    }
    assert_eq!(passed[0].packets(), 0, "a denied source came past XDP");
    assert!(walk.reason(Reason::Denied) >= denied + 2);
    drop(passed);

    // A longer allow prefix inside a deny prefix; everybody else is outside the allow list.
    let allow = objects::object(
        "PacketFilter",
        "foes",
        serde_json::json!({ "rules": [
            { "name": "no", "action": "Deny", "prefixes": ["10.99.1.64/26"] },
            { "name": "yes", "action": "Allow", "prefixes": [FOE4.to_string(), FOE6.to_string()] },
        ]}),
    );
    walk.product.applied(walk.api.apply(&[allow]));
    for (from, served) in everyone.into_iter().zip([false, false, true, true]) {
        assert_eq!(try_from(from).is_ok(), served, "{from} with an allow rule");
    }
    assert!(walk.reason(Reason::NotAllowed) > 0);
    // The allow list judges packets to listeners only: the node still answers a ping.
    walk.stage.clients.run("ping", &["-c", "1", "-W", "2", &NODE4.to_string()]);

    walk.api.delete("packet-filters/foes");
    eventually("the filter is gone", Duration::from_secs(5), || {
        everyone
            .into_iter()
            .map(|from| try_from(from).map_err(|error| format!("{from}: {error}")))
            .collect::<Result<Vec<_>, _>>()
    });
}

#[test]
fn sni_chooses_exact_then_wildcard_then_default() {
    let walk = Walk::new("walksni");
    let exact = walk.stage.front_ca.issue(&["exact.walk.test"]);
    let fallback = walk.stage.front_ca.issue(&["fallback.test"]);
    let revision = walk.api.apply(&[
        objects::certificate("exact", &exact),
        objects::certificate("fallback", &fallback),
        objects::route("exact", &["exact.walk.test"], "exact", "group"),
    ]);
    walk.product.applied(revision);
    let shown = |name: &str| {
        let mut dial = walk.stage.dial();
        dial.name = name.to_owned();
        walk.stage.clients.inside(|| dial.open()).map(|connection| connection.certificate())
    };
    assert_eq!(shown("exact.walk.test").unwrap(), exact.der);
    assert_ne!(shown("other.walk.test").unwrap(), exact.der);
    assert!(shown("fallback.test").is_err(), "no certificate, no default: refused");

    let listener = serde_json::json!({ "port": 443, "defaultCertificate": "fallback" });
    walk.product.applied(walk.api.apply(&[objects::object("Listener", "https", listener)]));
    assert_eq!(shown("fallback.test").unwrap(), fallback.der);

    // Host and SNI that lead to different certificates.
    let misdirected = walk.stage.clients.inside(|| {
        let mut connection = walk.stage.dial().open().unwrap();
        connection.get("exact.walk.test", "/").unwrap()
    });
    assert_eq!(misdirected.status, 421);
}

#[test]
fn another_origin_stands_in() {
    let walk = Walk::new("walkfail");
    let urls = [format!("https://{ORIGINS4}:9"), format!("https://{ORIGINS4}:8444")];
    walk.product.applied(walk.api.apply(&[objects::origin_group("group", &urls, "origins", ORIGIN_NAME)]));
    for _ in 0..10 {
        let (ok, out, err) = walk.curl(&["https://shop.walk.test/"]);
        assert!(ok && out == "hello from nginx-two\n", "{out} {err}");
    }
    // Nobody left: a refusal page with its reason.
    walk.product.applied(walk.api.apply(&[objects::origin_group(
        "group",
        &urls[..1],
        "origins",
        ORIGIN_NAME,
    )]));
    let (_, out, _) = walk.curl(&["-w", " %{http_code}", "https://shop.walk.test/"]);
    assert!(out.contains("origin-unreachable") && out.ends_with(" 502"), "{out}");
}

#[test]
fn an_orderly_stop_detaches_and_a_crash_keeps_the_pins() {
    let mut walk = Walk::new("walkstop");
    assert!(probe::has_pins(walk.product.instance()));
    let (keeper, worker_before) = (walk.product.pids(Role::Keeper)[0], walk.product.pids(Role::Worker)[0]);
    walk.product.signal(keeper, rustix::process::Signal::KILL);
    assert!(probe::has_pins(walk.product.instance()), "a crash keeps the pins");
    let (ok, out, err) = walk.curl(&["https://shop.walk.test/"]);
    assert!(ok && out == "hello from nginx-one\n", "right after the keeper's death: {err}");
    eventually("another keeper has taken over", Duration::from_secs(10), || {
        let status = walk.product.node_status()?;
        let (now, worker) = (status["keeper"].as_u64(), status["worker"].as_u64());
        let taken =
            now.is_some_and(|pid| pid != u64::from(keeper)) && worker == Some(u64::from(worker_before));
        if taken { Ok(()) } else { Err(status.to_string()) }
    });
    let begin = Instant::now();
    let left = walk.product.stop();
    assert!(left.is_empty(), "still there after {:?}: {left:?}", begin.elapsed());
    assert!(!probe::has_pins(walk.product.instance()), "an orderly stop removes the pins");
    let links = walk.stage.node.run("ip", &["link", "show", "c0"]);
    assert!(!links.contains("xdp"), "{links}");
}

#[test]
fn the_last_good_snapshot_survives_a_restart_without_the_console() {
    let mut walk = Walk::new("walklast");
    walk.product.stop();
    // The node alone, on what it has stored.
    let state = walk.product.dir().join("state");
    let arguments = ["run", "--state-dir", state.to_str().unwrap(), "--instance", walk.product.instance()];
    let run = state.join("run").display().to_string();
    let node = walk.product.program("sallyport-node");
    let log = fs::File::create(walk.product.dir().join("alone")).unwrap();
    let mut child = walk.stage.node.inside(|| {
        Command::new(node)
            .args(arguments)
            .args(["--run-dir", &run])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    });
    eventually("the node serves alone", Duration::from_secs(10), || {
        let (ok, out, err) = walk.curl(&["https://shop.walk.test/"]);
        if ok && out == "hello from nginx-one\n" { Ok(()) } else { Err(format!("{out} {err}")) }
    });
    walk.product.signal(child.id(), rustix::process::Signal::TERM);
    child.wait().unwrap();
}

#[test]
fn a_drained_node_tells_its_connections_and_comes_back() {
    let stage = Stage::new("walkdrain");
    let origin = stage.origin("one", 8443);
    let mut product = stage.product();
    let api = product.ready();
    let mut wanted = stage.basics(&[origin.url()]);
    let limits = serde_json::json!({ "port": 443, "limits": { "drainMs": 2000 } });
    wanted.push(objects::object("Listener", "https", limits));
    let revision = api.apply(&wanted);
    product.applied(revision);
    let served =
        || stage.clients.inside(|| stage.dial().get(HOST, "/")).is_ok_and(|answer| answer.status == 200);
    eventually("traffic", Duration::from_secs(10), || if served() { Ok(()) } else { Err("none".to_owned()) });
    let node = api.get("/api/v1/nodes")["items"][0]["name"].as_str().unwrap().to_owned();
    let (mut idle, mut long) =
        stage.clients.inside(|| (stage.dial().open().unwrap(), stage.dial().open().unwrap()));
    assert_eq!(idle.get(HOST, "/").unwrap().status, 200);
    long.send(format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(long.head().unwrap().0, 200);
    let h2 = Streams::start(&stage.clients, target4(443), &stage.front_ca.client(&["h2"]), 4);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!h2.ended());

    let begin = Instant::now();
    let (ok, _, err) = product.cli(&["node", "drain", &node]);
    assert!(ok, "{err}");
    // Told at once: the idle connection and the one of HTTP/2 end, the download goes on to the listener's deadline.
    assert!(idle.answer().is_err());
    eventually("HTTP/2 hears GOAWAY", Duration::from_secs(5), || {
        if h2.ended() { Ok(()) } else { Err("open".to_owned()) }
    });
    assert!(begin.elapsed() < Duration::from_millis(1800), "{:?}", begin.elapsed());
    while long.chunk().is_ok_and(|chunk| chunk.is_some()) {}
    let ended = begin.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(5)).contains(&ended), "{ended:?}");
    let drained = || {
        let state = api.get("/api/v1/nodes")["items"][0].clone();
        let done = state["drained"] == true && state["connections"] == 0 && !served();
        if done { Ok(()) } else { Err(state.to_string()) }
    };
    eventually("drained, and said so", Duration::from_secs(10), drained);
    assert!(product.cli(&["status"]).1.contains("drained"));
    // Another keeper takes over a drained worker: it stays drained.
    let keeper = product.pids(Role::Keeper)[0];
    product.signal(keeper, rustix::process::Signal::KILL);
    eventually("another keeper knows it", Duration::from_secs(10), || {
        let status = product.node_status()?;
        let taken = status["keeper"].as_u64().is_some_and(|pid| pid != u64::from(keeper));
        if taken && status["drained"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    eventually("still drained", Duration::from_secs(10), drained);

    let (ok, _, err) = product.cli(&["node", "resume", &node]);
    assert!(ok, "{err}");
    eventually("traffic again", Duration::from_secs(10), || {
        if served() { Ok(()) } else { Err("none".to_owned()) }
    });
    assert_eq!(api.revisions()[0], revision, "draining is no change of the configuration");
}
