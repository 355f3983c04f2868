//! No ambiguity: a corpus of requests and responses that two parsers could read differently, through the real product,
//! between raw clients and real origins. A request is refused, or every origin saw exactly one, and the same one.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking and says what it did"
)]

mod corpus;
mod h2;
mod peers;
mod report;
mod responses;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest;
use corpus::{Case, Want, with_host};
use peers::{PEERS, Peer, Seen};
use sallyport_tests::api::Api;
use sallyport_tests::client::{Dial, ended};
use sallyport_tests::conformance;
use sallyport_tests::objects;
use sallyport_tests::product::Product;
use sallyport_tests::stage::{ORIGINS4, Stage, target4};
use serde_json::{Value, json};

/// A listener that waits briefly for what never comes.
const PORT: u16 = 8601;

struct Place {
    stage: Stage,
    product: Product,
    dir: PathBuf,
}

impl Place {
    fn new() -> Self {
        let stage = Stage::new("smuggle");
        let dir = PathBuf::from("/var/tmp/sallyport-test-smuggle-origins");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("directory");
        let mut product = stage.product();
        let api: Api = product.ready();
        let limits = json!({ "headerMs": 1500, "stallMs": 1500, "requestsPerConnection": 0 });
        let mut all = vec![
            objects::certificate("front", &stage.front()),
            objects::object(
                "Listener",
                "strict",
                json!({ "port": PORT, "certificates": ["front"], "limits": limits }),
            ),
        ];
        for (name, port) in PEERS.iter().copied().chain([("raw", responses::PORT)]) {
            all.push(group(name, port));
            all.push(objects::route(name, &[&host(name)], "front", name));
        }
        product.applied(api.apply(&all));
        Self { stage, product, dir }
    }

    fn dial(&self, name: &str, alpn: &str) -> Dial {
        let tls = self.stage.front_ca.client(&[alpn]);
        Dial::new(target4(PORT), &host(name), &tls).patience(Duration::from_secs(5))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn group(name: &str, port: u16) -> Value {
    let url = format!("http://{ORIGINS4}:{port}");
    objects::object("OriginGroup", name, json!({ "origins": [{ "url": url }], "clearText": "allow" }))
}

fn host(name: &str) -> String {
    format!("{name}.walk.test")
}

/// Whether an answer, plain or HTML, says that it is Sallyport's and why: no origin says this of itself.
fn says(text: &str, reason: &str) -> bool {
    text.contains(&format!("reason: {reason}\n")) || text.contains(&format!("Reason: <code>{reason}</code>"))
}

/// Sends an HTTP/1.1 case and a marker in one go; what is wrong with the answers.
fn send_h1(place: &Place, peer: &str, case: &Case) -> Result<(), String> {
    let (host, dial) = (host(peer), place.dial(peer, "http/1.1"));
    let text = |error: std::io::Error| error.to_string();
    let marker = format!("/m/{}", case.name);
    let mut bytes = with_host(&case.pieces.concat(), &host);
    bytes.extend(format!("GET {marker} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    let mut connection = dial.open().map_err(text)?;
    connection.send(&bytes).map_err(text)?;
    let first = connection.answer().map_err(|error| format!("no answer: {error}"))?;
    let second = connection.answer();
    match &case.want {
        Want::Refuse(reason) | Want::Cut(reason) => {
            if !(400..600).contains(&first.status) || !says(&first.text(), reason) {
                return Err(format!("not refused for {reason}: {} {:?}", first.status, first.text()));
            }
            match second {
                Ok(answer) => {
                    Err(format!("refused and answered again: {} {:?}", answer.status, answer.text()))
                }
                Err(error) if ended(&error) => Ok(()),
                Err(error) => Err(format!("refused, but not closed: {error}")),
            }
        }
        Want::One { target, close, .. } => {
            if first.status != 200 || first.text().trim_end() != target {
                return Err(format!("{} {:?} in place of {target}", first.status, first.text()));
            }
            match (second, close) {
                (Ok(answer), false) if answer.status == 200 && answer.text().trim_end() == marker => Ok(()),
                (Err(error), true) if ended(&error) => Ok(()),
                (second, _) => Err(format!("after it: {second:?}")),
            }
        }
        Want::Get { .. } => Err("`get` is for responses".to_owned()),
    }
}

fn send_h2(place: &Place, peer: &str, case: &Case) -> Result<(), String> {
    let (dial, marker) = (place.dial(peer, "h2"), format!("/m/{}", case.name));
    let [first, second] = h2::run(&dial, case, &host(peer), &marker).map_err(|error| error.to_string())?;
    let served = second.text.as_deref().map(str::trim_end) == Some(&marker);
    match &case.want {
        // `reset`: by the stream's or the connection's end, before there is a request in our sense.
        Want::Refuse(reason) | Want::Cut(reason) => {
            let said = first.text.as_deref().is_some_and(|text| says(text, reason));
            match (said || first.broken && reason == "reset", served || second.broken) {
                (true, true) => Ok(()),
                _ => Err(format!("not refused for {reason}: {first:?}, then {second:?}")),
            }
        }
        Want::One { target, .. } => match first.text.as_deref().map(str::trim_end) {
            Some(text) if text == target && served => Ok(()),
            _ => Err(format!("{first:?}, then {second:?}")),
        },
        Want::Get { .. } => Err("`get` is for responses".to_owned()),
    }
}

/// What is wrong with what the origin saw of a case.
fn judge(case: &Case, host: &str, seen: &[Seen], h2: bool) -> Result<(), String> {
    let of = |prefix: &str| -> Vec<&Seen> {
        let wanted = format!("/{prefix}/{}", case.name);
        seen.iter().filter(|one| one.target.split('?').next() == Some(&wanted)).collect()
    };
    let (own, markers, smuggled) = (of("c"), of("m"), of("x"));
    if !smuggled.is_empty() {
        return Err(format!("SMUGGLED {smuggled:?}"));
    }
    if let Some(one) = own.iter().chain(&markers).find(|one| one.smuggled != "-" && !one.smuggled.is_empty())
    {
        return Err(format!("a smuggled field in {one:?}"));
    }
    match &case.want {
        Want::Refuse(_) if !own.is_empty() => Err(format!("refused, but seen: {own:?}")),
        Want::Cut(_) if own.iter().any(|one| one.whole) => Err(format!("cut, but whole: {own:?}")),
        Want::Refuse(_) | Want::Cut(_) if markers.len() > usize::from(h2) => {
            Err(format!("markers {markers:?}"))
        }
        Want::Refuse(_) | Want::Cut(_) => Ok(()),
        Want::One { method, target, body, close } => {
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, body);
            let right = |one: &Seen| {
                let same = (&one.method, &one.target) == (method, target)
                    && one.host.trim_end_matches(":8601") == host
                    && one.length == body.len() as u64;
                // No body: nginx and HAProxy hash nothing in ways of their own.
                same && one.whole && (body.is_empty() || one.sha1 == peers::hex(hash.as_ref()))
            };
            match own.as_slice() {
                [one] if right(one) => {}
                _ => return Err(format!("not this one request: {own:?}")),
            }
            if markers.len() == usize::from(!close) { Ok(()) } else { Err(format!("markers {markers:?}")) }
        }
        Want::Get { .. } => Err("`get` is for responses".to_owned()),
    }
}

/// What came of the cases through one origin.
struct Run {
    name: String,
    /// What the table calls it.
    title: String,
    corpus: &'static str,
    refused: usize,
    carried: usize,
    /// Deviations that the corpus knows, each with its case.
    known: Vec<String>,
    failed: BTreeSet<String>,
    /// What deviated, in words.
    wrong: Vec<String>,
}

impl Run {
    fn new(title: &str, name: &str, corpus: &'static str) -> Self {
        let (name, title) = (name.to_owned(), title.to_owned());
        let (known, failed, wrong) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self { name, title, corpus, refused: 0, carried: 0, known, failed, wrong }
    }

    fn check(&mut self, case: &Case, result: Result<(), String>) {
        if let Err(why) = result {
            self.failed.insert(case.name.clone());
            self.wrong.push(format!("{} {}: {why}", self.name, case.name));
        }
    }

    /// Counts the cases that went as they should.
    fn count(&mut self, cases: &[Case]) {
        for case in cases.iter().filter(|case| !self.failed.contains(&case.name)) {
            if let Some(how) = &case.known {
                self.known.push(format!("`{}` ({}): {how}", case.name, case.section));
            } else if case.refused() {
                self.refused += 1;
            } else {
                self.carried += 1;
            }
        }
    }
}

/// All cases through one origin.
fn run(place: &Place, peer: &Peer, h1: &[Case], h2: &[Case]) -> Run {
    let mut run = Run::new(&peer.version, peer.name, "requests");
    place.stage.clients.inside(|| {
        h1.iter().for_each(|case| run.check(case, send_h1(place, peer.name, case)));
        h2.iter().for_each(|case| run.check(case, send_h2(place, peer.name, case)));
    });
    // The last lines are written behind the answers.
    std::thread::sleep(Duration::from_secs(1));
    let seen = peer.seen();
    for (case, h2) in h1.iter().map(|case| (case, false)).chain(h2.iter().map(|case| (case, true))) {
        run.check(case, judge(case, &host(peer.name), &seen, h2));
    }
    // Bodies that look like requests say `/x/y`: that is nobody's, and stray.
    let known = |one: &Seen| ["/c/", "/m/"].iter().any(|start| one.target.starts_with(start));
    run.wrong
        .extend(seen.iter().filter(|one| !known(one)).map(|one| format!("{} stray: {one:?}", peer.name)));
    run.count(h1);
    run.count(h2);
    run
}

#[test]
fn every_request_is_refused_or_seen_once_and_the_same() {
    let h1 = corpus::read(include_str!("requests.txt"));
    let h2 = corpus::read(include_str!("h2.txt"));
    let replies = corpus::read(include_str!("responses.txt"));
    let place = Place::new();
    let peers: Vec<Peer> =
        PEERS.iter().map(|(name, port)| Peer::start(&place.stage.origins, &place.dir, name, *port)).collect();
    let mut runs: Vec<Run> = std::thread::scope(|scope| {
        let runs: Vec<_> = peers.iter().map(|peer| scope.spawn(|| run(&place, peer, &h1, &h2))).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    runs.push(responses::run(&place, &replies));
    let table = report::table(&runs, &[("HTTP/1.1", &h1), ("HTTP/2", &h2), ("responses", &replies)]);
    println!("{table}");
    assert!(place.product.metric("sallyport_refusals_total", "") > 0.0, "refusals are counted");
    let wrong: Vec<String> = runs.into_iter().flat_map(|run| run.wrong).collect();
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
    conformance::publish("smuggle", &table);
}
