//! Autobahn's WebSocket suite (RFC 6455 and 7692): its client through the product to an echo server, and straight to
//! the same server. The product passes frames on and reads none, so what it must show is that nothing is worse for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_tests::space::Space;
use sallyport_tests::stage::{HOST, ORIGIN_NAME, ORIGINS4};
use serde_json::{Value, json};

use super::place::{Place, finish, peer, tool, tools};
use super::report::Report;

/// Large messages, and compression of many: they take minutes, so only `./test --long conformance` runs them.
const LONG: [&str; 3] = ["9.*", "12.*", "13.*"];
/// How many cases there are without and with them.
const CASES: [usize; 2] = [247, 517];
/// What the echo server does not do as Autobahn wants: it answers a close amid a fragmented message with 1002, not 1000.
const ECHO_FAILS: [&str; 1] = ["7.1.5"];
const ORIGIN_PORT: u16 = 8443;

/// What Autobahn says of a case, the best first.
const BEHAVIOURS: [&str; 8] = [
    "OK",
    "INFORMATIONAL",
    "NON-STRICT",
    "UNIMPLEMENTED",
    "WRONG CODE",
    "UNCLEAN",
    "FAILED BY CLIENT",
    "FAILED",
];

/// The echo server (PyPI websockets); it ends with this value.
struct Echo(Child);

impl Echo {
    fn start(place: &Place) -> Self {
        let pair = place.stage.origin_ca.issue(&[ORIGIN_NAME]);
        let pem = place.write("pair.pem", &(pair.chain + &pair.key));
        let mut command = Command::new(tool("peers/bin/python"));
        command.arg(peer("ws_origin.py")).args([&ORIGINS4.to_string(), &ORIGIN_PORT.to_string(), &pem]);
        // The suite misbehaves on purpose: what the server says of that is nobody's business.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = place.stage.origins.inside(|| command.spawn()).expect("the echo server");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("the echo server's first line");
        assert_eq!(line, "listening\n", "the echo server");
        Self(child)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Behaviour and behaviour at closing of each case.
type Outcome = BTreeMap<String, [String; 2]>;

/// Runs the suite from `space` against a host that a CA certified.
fn run(place: &Place, space: &Space, [name, host, ca]: [&str; 3], long: bool) -> Outcome {
    let port = if host == HOST { 443 } else { ORIGIN_PORT };
    let excluded: &[&str] = if long { &[] } else { &LONG };
    let within = Duration::from_secs(if long { 1800 } else { 240 });
    let specification = json!({
        "outdir": place.dir.join(name),
        // With `hostname`, Autobahn sends SNI and verifies the certificate.
        "servers": [{ "agent": name, "url": format!("wss://{host}:{port}/"), "hostname": host }],
        "cases": ["*"],
        "exclude-cases": excluded,
        "exclude-agent-cases": {},
    });
    let file = place.write(&format!("{name}.json"), &specification.to_string());
    let mut wstest = place.client(&python2("wstest"), within);
    wstest.args(["--mode", "fuzzingclient", "--spec", &file]).env("SSL_CERT_FILE", ca);
    let (_, said) = finish(space, wstest);
    let index = fs::read_to_string(place.dir.join(name).join("index.json"));
    let index = index.unwrap_or_else(|error| panic!("wstest wrote no report: {error}\n{said}"));
    let index: Value = serde_json::from_str(&index).expect("Autobahn's index");
    let cases = index[name].as_object().expect("the agent's cases");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |case: &Value| [text(&case["behavior"]), text(&case["behaviorClose"])];
    cases.iter().map(|(case, value)| (case.clone(), of(value))).collect()
}

/// Where a case allows that the echo of what came before a faulty frame is sent or not, Autobahn calls the one OK and the
/// other NON-STRICT. Which it is hangs on how bytes fall into packets, of which TCP promises nothing: both are right.
fn rank(behaviour: &str) -> usize {
    let behaviour = if behaviour == "NON-STRICT" { "OK" } else { behaviour };
    BEHAVIOURS.iter().position(|known| *known == behaviour).unwrap_or(BEHAVIOURS.len())
}

/// Whether a case went no worse through the product. A server that fails by itself would prove nothing.
fn judge(case: &str, direct: Option<&[String; 2]>, through: &[String; 2]) -> Result<(), String> {
    let direct = direct.ok_or("it did not run directly")?;
    let known = ECHO_FAILS.contains(&case);
    if !known && direct.iter().any(|direct| rank(direct) >= rank("UNIMPLEMENTED")) {
        return Err(format!("the echo server itself: {direct:?}"));
    }
    let worse = direct.iter().zip(through).any(|(direct, through)| rank(through) > rank(direct));
    if worse { Err(format!("{through:?}, and directly {direct:?}")) } else { Ok(()) }
}

/// Markdown: how often each behaviour was seen, both ways.
fn counts(direct: &Outcome, through: &Outcome) -> String {
    let mut out = "| behaviour | directly | through Sallyport |\n|---|---|---|\n".to_owned();
    for behaviour in BEHAVIOURS {
        let of = |outcome: &Outcome| outcome.values().filter(|[case, _]| case == behaviour).count();
        if of(direct) + of(through) > 0 {
            let _ = writeln!(out, "| {behaviour} | {} | {} |", of(direct), of(through));
        }
    }
    out
}

/// A program of Autobahn's environment.
fn python2(program: &str) -> PathBuf {
    let path = tools().join("autobahn/bin").join(program);
    assert!(
        path.exists(),
        "{} is not there: Autobahn's suite needs Python 2.7, which no current distribution has. Install one, for \
         example with `pyenv install 2.7.18`, name it with SALLYPORT_PYTHON2=/path/to/python2.7, and run \
         `./test conformance` again",
        path.display()
    );
    path
}

#[test]
fn autobahn() {
    let long = std::env::var("SALLYPORT_LONG").is_ok_and(|long| long == "1");
    let place = Place::new("autobahn");
    let _echo = Echo::start(&place);
    place.stage.configure(&place.product, &place.api, &[format!("https://{ORIGINS4}:{ORIGIN_PORT}")]);
    let origin_ca = place.write("origin-ca.pem", &place.stage.origin_ca.pem);
    let (stage, front_ca) = (&place.stage, place.ca());
    println!("Autobahn runs twice, side by side: directly and through the product");
    let (direct, through) = std::thread::scope(|scope| {
        let direct = scope.spawn(|| run(&place, &stage.origins, ["direct", ORIGIN_NAME, &origin_ca], long));
        let through = scope.spawn(|| run(&place, &stage.clients, ["through", HOST, &front_ca], long));
        (direct.join().expect("directly"), through.join().expect("through the product"))
    });
    let version = Command::new(python2("pip")).args(["show", "autobahntestsuite"]).output().expect("pip");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let left_out = if long { "every case".to_owned() } else { format!("all but {}", LONG.join(", ")) };
    let mut report = Report {
        suite: "Autobahn's WebSocket suite".to_owned(),
        version: version.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("?").to_owned(),
        ran: format!("{left_out}; over TLS and HTTP/1.1 to PyPI's websockets"),
        more: counts(&direct, &through),
        ..Report::default()
    };
    for (case, through) in &through {
        match judge(case, direct.get(case), through) {
            Ok(()) => report.passed += 1,
            Err(why) => report.failed.push(format!("{case}: {why}")),
        }
    }
    report.end("autobahn", CASES[usize::from(long)]);
}
