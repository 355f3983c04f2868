//! Clients that others wrote, each in the versions of HTTP it has, at origins that others wrote.

mod origins;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::digest;
use origins::{ORIGINS, Origin};
use sallyport_tests::objects;
use sallyport_tests::space::command;
use sallyport_tests::stage::ORIGINS4;
use serde_json::json;

use crate::place::{Place, finish, peer, tool};
use crate::report::Report;

/// One client: what the table calls it, the version of HTTP it is told to speak, and which checks it has.
struct Client {
    name: &'static str,
    version: &'static str,
    checks: &'static [&'static str],
}

const ALL: &[&str] =
    &["get", "head", "post", "stream", "download", "packed", "events", "cookies", "reuse", "trailers"];
/// Of clients that hide trailers from their users.
const NO_TRAILERS: &[&str] =
    &["get", "head", "post", "stream", "download", "packed", "events", "cookies", "reuse"];
/// Of a client that hides its connections too.
const JAVA: &[&str] = &["get", "head", "post", "stream", "download", "packed", "events", "cookies"];
/// nghttp shows frames when all is over.
const NGHTTP: &[&str] =
    &["get", "head", "post", "stream", "download", "packed", "cookies", "reuse", "trailers"];
/// No server's configuration makes Apache send any.
const WITHOUT_TRAILERS: [&str; 1] = ["apache"];

const CLIENTS: [Client; 12] = [
    Client { name: "curl", version: "1.1", checks: ALL },
    Client { name: "curl", version: "2", checks: ALL },
    Client { name: "nghttp", version: "2", checks: NGHTTP },
    Client { name: "Chromium", version: "2", checks: NO_TRAILERS },
    Client { name: "Go", version: "1.1", checks: ALL },
    Client { name: "Go", version: "2", checks: ALL },
    Client { name: "Java", version: "1.1", checks: JAVA },
    Client { name: "Java", version: "2", checks: JAVA },
    Client { name: "Node", version: "1.1", checks: ALL },
    Client { name: "Node", version: "2", checks: ALL },
    Client { name: "Python", version: "1.1", checks: NO_TRAILERS },
    Client { name: "Python", version: "2", checks: NO_TRAILERS },
];

/// `origin check` -> `ok` or what was wrong, as one client said it.
type Said = BTreeMap<(String, String), String>;

/// The command of a client, with the program that it runs under first.
fn words(client: &Client, dir: &Path) -> (PathBuf, Vec<String>) {
    let script = |name: &str| peer(&format!("clients/{name}")).display().to_string();
    let system = |name: &str| PathBuf::from("/usr/bin").join(name);
    match client.name {
        "curl" | "nghttp" => (system("python3"), vec![script("commands.py"), client.name.to_owned()]),
        "Chromium" => (PathBuf::from("node"), vec![script("chromium.mjs")]),
        "Node" => (PathBuf::from("node"), vec![script("client.mjs")]),
        "Go" => (dir.join("client"), Vec::new()),
        "Java" => {
            (PathBuf::from("java"), vec!["-cp".to_owned(), dir.display().to_string(), "Client".to_owned()])
        }
        _ => (tool("suites/bin/python"), vec![script("client.py")]),
    }
}

fn version(client: &Client) -> String {
    let first = |program: &str, arguments: &[&str]| {
        let text = command(program, arguments);
        text.lines().next().unwrap_or_default().to_owned()
    };
    let second = |text: String| text.split_whitespace().nth(1).unwrap_or_default().to_owned();
    match (client.name, client.version) {
        ("curl", _) => second(first("curl", &["--version"])),
        ("nghttp", _) => first("nghttp", &["--version"]).replace("nghttp nghttp2/", ""),
        ("Chromium", _) => second(first("chromium", &["--version"])),
        ("Go", _) => go_version(),
        ("Java", _) => second(first("java", &["--version"])),
        ("Node", _) => first("node", &["--version"]),
        (_, "2") => {
            let python = tool("suites/bin/python").display().to_string();
            format!("httpx {}", first(&python, &["-c", "import httpx; print(httpx.__version__)"]))
        }
        _ => second(first(&tool("suites/bin/python").display().to_string(), &["--version"])),
    }
}

fn go() -> String {
    std::env::var("SALLYPORT_GO").unwrap_or_else(|_| "go".to_owned())
}

fn go_version() -> String {
    command(&go(), &["env", "GOVERSION"]).trim().replace("go", "")
}

/// Builds one file of Go, which needs nothing but Go.
fn go_build(source: &Path, out: &Path) -> PathBuf {
    let built = Command::new(go())
        .args(["build", "-o"])
        .args([out, source])
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GO111MODULE", "off")])
        .status();
    assert!(built.expect("go").success(), "{} does not build", source.display());
    out.to_owned()
}

/// What all clients are told behind their own words and the version.
struct Told {
    ca: String,
    download: String,
    packed: String,
}

impl Told {
    /// Makes the files that origins serve.
    fn new(place: &Place) -> Self {
        let public = place.dir.join("public");
        fs::create_dir_all(&public).expect("a directory");
        // No short period, so that a piece that is lost, moved or repeated is seen.
        let download: Vec<u8> = (0..8 << 20).map(sallyport_tests::origin::pattern).collect();
        let packed = place.write("text", &"packed\n".repeat(1000));
        let packed = Command::new("gzip").args(["-9nc", &packed]).output().expect("gzip").stdout;
        for (name, bytes) in
            [("text", &b"hello\n"[..]), ("body", b"body\n"), ("download", &download), ("packed", &packed)]
        {
            fs::write(place.dir.join(name), bytes).expect("a file to serve");
            fs::write(public.join(name), bytes).expect("a file to serve");
        }
        Self { ca: place.ca(), download: sha256(&download), packed: sha256(&packed) }
    }
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a client at all origins. What it does not say, it did not do.
fn run(place: &Place, client: &Client, told: &Told) -> (Said, String) {
    let (program, mut own) = words(client, &place.dir);
    let names: Vec<&str> = ORIGINS.iter().map(|(name, _)| *name).collect();
    let trailers: Vec<&str> = names.iter().copied().filter(|name| !WITHOUT_TRAILERS.contains(name)).collect();
    own.extend([client.version, &told.ca, &told.download, &told.packed].map(str::to_owned));
    own.extend([names.join(","), trailers.join(",")]);
    let dir = place.dir.join(format!("{}-{}", client.name, client.version));
    fs::create_dir_all(&dir).expect("a directory");
    let mut command = place.client(&program, Duration::from_secs(120));
    command.args(own).current_dir(dir);
    let (_, text) = finish(&place.stage.clients, command);
    let said = text.lines().filter_map(|line| {
        let mut words = line.splitn(3, ' ');
        let (origin, check) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(((origin, check), words.next().unwrap_or_default().to_owned()))
    });
    (said.collect(), text)
}

/// The checks that a client must have made at an origin.
fn wanted(client: &Client, origin: &str) -> impl Iterator<Item = &'static str> {
    let trailers = !WITHOUT_TRAILERS.contains(&origin);
    client.checks.iter().copied().filter(move |check| trailers || *check != "trailers")
}

#[test]
fn clients_at_origins() {
    let place = Place::new("matrix");
    let told = Told::new(&place);
    let origins: Vec<Origin> =
        ORIGINS.iter().map(|(name, port)| Origin::start(&place, name, *port)).collect();
    let objects = ORIGINS.iter().flat_map(|(name, port)| {
        let spec =
            json!({ "origins": [{ "url": format!("http://{ORIGINS4}:{port}") }], "clearText": "allow" });
        let host = format!("{name}.walk.test");
        [objects::object("OriginGroup", name, spec), objects::route(name, &[&host], "front", name)]
    });
    place.configure(&objects.collect::<Vec<_>>());
    // Half of the clients' connections over each version of IP.
    place.hosts(&["nginx", "haproxy", "apache"], &["node", "go", "python"]);
    go_build(&peer("clients/client.go"), &place.dir.join("client"));
    let java = peer("clients/Client.java").display().to_string();
    command("javac", &["-d", &place.dir.display().to_string(), &java]);
    let results = Mutex::new(BTreeMap::new());
    let waiting = Mutex::new(CLIENTS.iter().enumerate().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((at, client)) = { waiting.lock().expect("a list").pop() } {
                    let begin = std::time::Instant::now();
                    let result = run(&place, client, &told);
                    println!("{} {} took {:?}", client.name, client.version, begin.elapsed());
                    results.lock().expect("results").insert(at, result);
                }
            });
        }
    });
    report(&origins, &results.into_inner().expect("results")).end("clients", 665);
}

/// A row for each client, a column for each origin.
fn report(origins: &[Origin], results: &BTreeMap<usize, (Said, String)>) -> Report {
    let mut report = Report { suite: "clients at origins".to_owned(), ..Report::default() };
    let mut head = "| client | HTTP |".to_owned();
    origins.iter().for_each(|origin| head += &format!(" {} {} |", origin.name, origin.version));
    let mut rows = format!("{head}\n|---|---|{}\n", "---|".repeat(origins.len()));
    for (at, client) in CLIENTS.iter().enumerate() {
        let (said, text) = &results[&at];
        let _ = write!(rows, "| {} {} | {} |", client.name, version(client), client.version);
        let mut silent = false;
        for origin in origins {
            let (mut passed, mut total) = (0, 0);
            for check in wanted(client, origin.name) {
                total += 1;
                match said.get(&(origin.name.to_owned(), check.to_owned())).map(String::as_str) {
                    Some("ok") => passed += 1,
                    other => {
                        silent |= other.is_none();
                        let why = other.unwrap_or("did not run");
                        report.failed.push(format!(
                            "{} {} at {} {check}: {why}",
                            client.name, client.version, origin.name
                        ));
                    }
                }
            }
            report.passed += passed;
            let _ = write!(rows, " {passed}/{total} |");
        }
        rows += "\n";
        if silent {
            println!("{} {} said:\n{text}", client.name, client.version);
        }
    }
    report.version = "as below".to_owned();
    report.ran =
        format!("{} clients at {} origins, checks passed of checks made", CLIENTS.len(), origins.len());
    report.more = rows;
    report
}
