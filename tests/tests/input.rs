//! Bad input through API and command line: one sentence each, the same in both, nothing is lost and traffic goes on.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking and says what it did"
)]

use std::fs;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::eventually;
use sallyport_tests::objects::{certificate, object, origin_group, packet_filter, route};
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::stage::{HOST, ORIGIN_NAME, Stage};
use serde_json::{Value, json};

struct Place {
    stage: Stage,
    product: Product,
    api: Api,
    _origin: Origin,
}

impl Place {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let origin = stage.origin("one", 8443);
        let mut product = stage.product();
        let api = product.ready();
        stage.configure(&product, &api, &[origin.url()]);
        let place = Self { stage, product, api, _origin: origin };
        place.served();
        place
    }

    /// Traffic goes on.
    fn served(&self) {
        eventually("traffic goes on", Duration::from_secs(10), || {
            let answer = self.stage.clients.inside(|| self.stage.dial().get(HOST, "/"));
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// The same objects through API and command line: refused by both, with the same sentence about the same field.
    fn refused(&self, what: &str, objects: &[Value], code: &str, place: &str) {
        let revisions = self.api.revisions();
        let (status, answer) = self.api.try_apply(objects).expect_err(what);
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
        let problems = answer["problems"].as_array().cloned().unwrap_or_default();
        let problem = problems
            .iter()
            .find(|problem| problem["code"] == code)
            .unwrap_or_else(|| panic!("{what}: {answer}"));
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        assert!(format!("{} {}", text("object"), text("field")).contains(place), "{what}: {problem}");
        assert!(text("message").len() > 10, "{what}: {problem}");

        let file = self.product.dir().join("bad.yaml");
        let documents: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        fs::write(&file, documents).unwrap();
        let (ok, out, err) = self.product.cli(&["apply", "--yes", "-f", file.to_str().unwrap()]);
        assert!(!ok, "{what}: the command line accepts it");
        assert!(
            format!("{out}{err}").contains(&text("message")),
            "{what}: {err} instead of {}",
            text("message")
        );
        assert_eq!(self.api.revisions(), revisions, "{what}: a revision came of it");
    }
}

#[test]
fn wrong_objects_are_refused_alike() {
    let place = Place::new("input");
    let ca = &place.stage.front_ca;
    let (pair, other) = (ca.issue(&["bad.walk.test"]), ca.issue(&["bad.walk.test"]));
    let mut mixed = certificate("bad", &pair);
    mixed["spec"]["privateKey"] = json!(other.key);
    let mut half = certificate("bad", &pair);
    half["spec"]["chain"] = json!("-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
    let mut typo = route("bad", &["bad.walk.test"], "front", "group");
    typo["spec"]["orignGroup"] = json!("group");

    place.refused("malformed PEM", &[half], "invalid", "Certificate/bad");
    place.refused("key of another certificate", &[mixed], "key-mismatch", "Certificate/bad");
    place.refused(
        "expired",
        &[certificate("bad", &ca.issue_expired(&["bad.walk.test"]))],
        "expired",
        "Certificate/bad",
    );
    place.refused(
        "the same host and path again",
        &[route("bad", &[HOST], "front", "group")],
        "duplicate",
        "Route/",
    );
    place.refused(
        "unknown origin group",
        &[route("bad", &["bad.walk.test"], "front", "nobody")],
        "unknown-reference",
        "Route/bad spec.originGroup",
    );
    place.refused(
        "host bits",
        &[packet_filter("bad", "Deny", &["192.0.2.1/24".to_owned()])],
        "invalid",
        "PacketFilter/bad",
    );
    place.refused("unknown field", &[typo], "unknown-field", "orignGroup");
    place.refused(
        "not a port",
        &[object("Listener", "bad", json!({ "port": 70000 }))],
        "invalid",
        "spec.port",
    );
    place.refused("unknown kind", &[object("Rout", "bad", json!({}))], "unknown-kind", "");
    place.refused(
        "not a URL",
        &[origin_group("bad", &["ftp://x".to_owned()], "origins", ORIGIN_NAME)],
        "invalid",
        "OriginGroup/bad",
    );
    place.served();
}

#[test]
fn not_json_and_not_our_token() {
    let place = Place::new("inputtoken");
    let (status, answer) = place.api.call_text("POST", "/api/v1/apply", Some("{ not json")).unwrap();
    assert!(status == 400 || status == 422, "{status} {answer}");
    assert!(answer["problems"][0]["message"].is_string(), "{answer}");
    for token in ["", "wrong", "sp_0000000000000000"] {
        let (status, answer) =
            place.api.clone().with_token(token).call("GET", "/api/v1/status", None).unwrap();
        assert_eq!(status, 401, "{token:?}: {answer}");
        assert!(answer["problems"][0]["message"].is_string(), "{answer}");
    }
    let server = ["--server", "https://127.0.0.1:9443", "--token", "wrong"];
    let (ok, _, err) = place.product.cli(&[&["status"][..], &server].concat());
    assert!(!ok && err.to_lowercase().contains("token"), "{err}");
    place.served();
}

#[test]
fn a_port_in_use_is_named_and_the_rest_goes_on() {
    let place = Place::new("inputport");
    let script = "import socket,time
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('0.0.0.0',8700)); s.listen(); time.sleep(60)";
    let mut holder = place
        .stage
        .node
        .inside(|| std::process::Command::new("/usr/bin/python3").args(["-c", script]).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    let _ = place.api.try_apply(&[object(
        "Listener",
        "busy",
        json!({ "port": 8700, "certificates": ["front"] }),
    )]);
    let pid = holder.id().to_string();
    eventually("the status names the port's holder", Duration::from_secs(10), || {
        let status =
            place.api.get("/api/v1/status").to_string() + &place.api.get("/api/v1/nodes").to_string();
        if status.contains("8700") && status.contains(&pid) { Ok(()) } else { Err(status) }
    });
    let _ = holder.kill();
    let _ = holder.wait();
    place.served();
}

#[test]
fn a_corrupt_database_is_said_and_the_node_serves_on() {
    let mut place = Place::new("inputdb");
    let (database, revisions) =
        (place.product.dir().join("state/console/console.sqlite"), place.api.revisions());
    let console = place.product.pids(Role::Console)[0];
    place.product.signal(place.product.pids(Role::Up)[0], rustix::process::Signal::STOP);
    place.product.signal(console, rustix::process::Signal::KILL);
    let names = ["console.sqlite", "console.sqlite-wal", "console.sqlite-shm"];
    let good = names.map(|name| (name, fs::read(database.with_file_name(name)).ok()));
    for name in names {
        let _ = fs::remove_file(database.with_file_name(name));
    }
    fs::write(&database, vec![0x55; 8192]).unwrap();
    // What the console's user cannot write would be another fault.
    fs::set_permissions(&database, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    place.product.signal(place.product.pids(Role::Up)[0], rustix::process::Signal::CONT);
    eventually("the log says what is wrong with the database", Duration::from_secs(15), || {
        let log = place.product.log();
        let line = log.lines().rev().find(|line| line.contains("database is damaged"));
        line.map(str::to_owned).ok_or_else(|| place.product.log_tail())
    });
    place.served();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(database.parent().unwrap()).unwrap());
    for (name, bytes) in good {
        let path = database.with_file_name(name);
        let _ = fs::remove_file(&path);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
            std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
        }
    }
    let api = place.product.ready();
    assert_eq!(api.revisions(), revisions, "the restored database has all revisions");
    place.served();
}

#[test]
fn a_full_disk_refuses_the_change_and_nothing_else() {
    let stage = Stage::new("inputdisk");
    let origin = stage.origin("one", 8443);
    let mut product = Product::start_on_small_disk(&stage.node, "inputdisk");
    let api = product.ready();
    stage.configure(&product, &api, &[origin.url()]);
    let place = Place { stage, product, api, _origin: origin };
    place.served();
    let filler = place.product.dir().join("state/filler");
    let mut file = fs::File::create(&filler).unwrap();
    let piece = vec![0; 64 * 1024];
    while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    let revisions = place.api.revisions();
    let large: Vec<String> =
        (0..40_000_u32).map(|number| std::net::Ipv4Addr::from(0x6440_0000 + number).to_string()).collect();
    let (status, answer) =
        place.api.try_apply(&[packet_filter("large", "Deny", &large)]).expect_err("a full disk");
    assert!(status >= 500 && answer["problems"][0]["message"].is_string(), "{status} {answer}");
    assert_eq!(place.api.revisions(), revisions);
    place.served();
    drop(file);
    fs::remove_file(&filler).unwrap();
    place.api.apply(&[packet_filter("large", "Deny", &large)]);
    place.served();
}
