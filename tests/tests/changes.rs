//! 200 configuration changes under load: each is seen by a new connection before it counts, none fails a request.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it did")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use sallyport_tests::api::Api;
use sallyport_tests::client::{Answer, Dial};
use sallyport_tests::h2client::Streams;
use sallyport_tests::kept::Kept;
use sallyport_tests::load::{Load, Transfer};
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::random::Random;
use sallyport_tests::stage::{HOST, ORIGIN_NAME, Stage, target4};
use sallyport_tests::{eventually, objects};
use serde_json::json;

const CLIENTS: usize = 64;
/// Clients that call by gRPC, beside them.
const CALLERS: usize = 8;

/// What is changed. The first four are on the very objects under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Certificate,
    Route,
    OriginGroup,
    ListenerLimits,
    OtherListener,
    OtherRoute,
    DenyRule,
}

/// 200 in all, 104 of them under load.
const MIX: [(Change, usize); 7] = [
    (Change::Certificate, 40),
    (Change::Route, 24),
    (Change::OriginGroup, 24),
    (Change::ListenerLimits, 16),
    (Change::OtherListener, 32),
    (Change::OtherRoute, 32),
    (Change::DenyRule, 32),
];

struct Soak<'a> {
    stage: &'a Stage,
    product: &'a Product,
    api: &'a Api,
    one: &'a Origin,
    two: &'a Origin,
    /// Which way each toggle stands.
    on: [bool; 7],
}

impl Soak<'_> {
    /// Makes one change and waits until a new connection sees it.
    fn change(&mut self, change: Change) {
        let at = MIX.iter().position(|(known, _)| *known == change).unwrap();
        let on = !self.on[at];
        self.on[at] = on;
        match change {
            Change::Certificate => {
                let pair = self.stage.front();
                self.api.apply(&[objects::certificate("front", &pair)]);
                self.seen("the new certificate", |soak| {
                    let shown =
                        soak.stage.clients.inside(|| soak.stage.dial().open()).map_err(text)?.certificate();
                    if shown == pair.der { Ok(()) } else { Err("the old one".to_owned()) }
                });
            }
            Change::Route => {
                // The very route under load goes to another group, and back.
                let group = if on { "other" } else { "group" };
                self.api.apply(&[objects::route("shop", &[HOST], "front", group)]);
                let wanted = if on || self.on[2] { self.two } else { self.one };
                self.answered_by(wanted, on);
            }
            Change::OriginGroup => {
                let wanted = if on { self.two } else { self.one };
                self.api.apply(&[objects::origin_group("group", &[wanted.url()], "origins", ORIGIN_NAME)]);
                self.answered_by(wanted, self.on[1]);
            }
            Change::ListenerLimits => {
                let count = if on { 40 } else { 80 };
                let spec = json!({ "port": 443, "limits": { "headerCount": count } });
                self.api.apply(&[objects::object("Listener", "https", spec)]);
                self.seen("the listener's new limit", |soak| {
                    let answer = soak.request(&soak.stage.dial(), 60)?;
                    let wanted = if on { 431 } else { 200 };
                    if answer.status == wanted { Ok(()) } else { Err(answer.status.to_string()) }
                });
            }
            Change::OtherListener => self.other_listener(on),
            Change::OtherRoute => self.other_route(on),
            Change::DenyRule => self.deny_rule(on),
        }
    }

    /// The load's route leads to `origin`; where the route goes to the other group, the answer is always `two`.
    fn answered_by(&self, origin: &Origin, through_other: bool) {
        let name = if through_other { &self.two.name } else { &origin.name };
        self.seen("the origin behind the route", |soak| {
            let answer = soak.request(&soak.stage.dial(), 0)?;
            if answer.text() == format!("hello from {name}\n") { Ok(()) } else { Err(answer.text()) }
        });
    }

    fn other_listener(&self, on: bool) {
        if on {
            self.api.apply(&[objects::object(
                "Listener",
                "other",
                json!({ "port": 8500, "certificates": ["front"] }),
            )]);
        } else {
            self.api.delete("listeners/other");
        }
        let mut dial = self.stage.dial();
        dial.target = target4(8500);
        self.seen("the other listener", |soak| {
            let served = soak.stage.clients.inside(|| dial.get(HOST, "/"));
            match (on, served) {
                (true, Ok(answer)) if answer.status == 200 => Ok(()),
                (false, Err(_)) => Ok(()),
                (_, other) => Err(format!("{:?}", other.map(|answer| answer.status))),
            }
        });
    }

    fn other_route(&self, on: bool) {
        const OTHER: &str = "other.walk.test";
        if on {
            self.api.apply(&[objects::route("other", &[OTHER], "front", "other")]);
        } else {
            self.api.delete("routes/other");
        }
        let mut dial = self.stage.dial();
        dial.name = OTHER.to_owned();
        self.seen("the other route", |soak| {
            // Without the route the wildcard certificate still serves the handshake.
            let answer = soak.stage.clients.inside(|| dial.get(OTHER, "/")).map_err(text)?;
            let wanted = if on { 200 } else { 404 };
            if answer.status == wanted { Ok(()) } else { Err(answer.status.to_string()) }
        });
    }

    fn deny_rule(&self, on: bool) {
        let foe = IpAddr::V4(Ipv4Addr::new(10, 99, 1, 66));
        if on {
            self.api.apply(&[objects::packet_filter("foes", "Deny", &[foe.to_string()])]);
        } else {
            self.api.delete("packet-filters/foes");
        }
        let dial = self.stage.dial().from(foe).patience(Duration::from_millis(250));
        self.seen("the deny rule", |soak| match (on, soak.stage.clients.inside(|| dial.tcp())) {
            (true, Err(_)) | (false, Ok(_)) => Ok(()),
            (_, other) => Err(format!("{other:?}")),
        });
    }

    fn request(&self, dial: &Dial, more_fields: usize) -> Result<Answer, String> {
        let fields: String = (0..more_fields).map(|number| format!("X-{number}: 1\r\n")).collect();
        self.stage.clients.inside(|| {
            let mut connection = dial.open().map_err(text)?;
            connection
                .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n").as_bytes())
                .map_err(text)?;
            connection.answer().map_err(text)
        })
    }

    fn seen(&self, what: &str, mut look: impl FnMut(&Self) -> Result<(), String>) {
        eventually(what, Duration::from_secs(10), || {
            look(self).map_err(|complaint| format!("{complaint}; {:?}", self.product.pids(Role::Worker)))
        });
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: what spans the changes, the changes, what must be true"
)]
fn two_hundred_changes_under_load_fail_nothing() {
    let stage = Stage::new("changes");
    let (one, two) = (stage.origin("one", 8443), stage.origin("two", 8444));
    let mut product = stage.product();
    let api = product.ready();
    stage.configure(&product, &api, &[one.url()]);
    let https = json!({ "port": 443, "certificates": ["front"], "limits": { "headerCount": 80 } });
    let revision = api.apply(&[
        objects::origin_group("other", &[two.url()], "origins", ORIGIN_NAME),
        objects::object("Listener", "https", https),
        objects::passthrough("passed", &[ORIGIN_NAME], "group"),
    ]);
    product.applied(revision);
    let workers = product.pids(Role::Worker);

    let load = Load::start(&stage.clients, &stage.dial(), CLIENTS, 200);
    let download = Transfer::download(&stage.clients, &stage.dial());
    let upload = Transfer::upload(&stage.clients, &stage.dial());
    let streams = Streams::start(&stage.clients, target4(443), &stage.front_ca.client(&["h2"]), 20);
    let calls = Load::calls(&stage.clients, &stage.dial2(), CALLERS, 200);
    let kept = [
        Kept::websocket(&stage.clients, &stage.dial()),
        Kept::websocket_over_http2(&stage.clients, &stage.dial2()),
        Kept::call(&stage.clients, &stage.dial2()),
        Kept::named("WebSocket, TLS passed through", &stage.clients, &stage.dial_through()),
    ];
    std::thread::sleep(Duration::from_secs(1));

    let mut changes: Vec<Change> = MIX.iter().flat_map(|(change, count)| vec![*change; *count]).collect();
    assert_eq!(changes.len(), 200);
    Random::seeded(0x5a11).shuffle(&mut changes);
    let mut soak = Soak { stage: &stage, product: &product, api: &api, one: &one, two: &two, on: [false; 7] };
    let begin = Instant::now();
    for (number, change) in changes.into_iter().enumerate() {
        soak.change(change);
        let failures = [load.failures(), calls.failures()].concat();
        let failures: Vec<_> = failures.into_iter().chain(kept.iter().flat_map(Kept::failures)).collect();
        assert!(failures.is_empty(), "after change {number} ({change:?}): {:?}", failures.first());
        assert!(
            !download.ended() && !upload.ended() && !streams.ended(),
            "a long transfer ended after {change:?}"
        );
    }
    let (took, answers, connections) = (begin.elapsed(), load.answers(), load.connections());
    let (called, channels) = (calls.answers(), calls.connections());
    let failures = [load.stop(), calls.stop()].concat();
    one.finish();
    two.finish();
    let transfers = (download.finish(), upload.finish(), streams.finish());
    println!(
        "200 changes in {took:?}; {answers} answers on {connections} connections; transfers {transfers:?}"
    );
    println!("{called} gRPC calls on {channels} connections");
    assert!(failures.is_empty(), "{failures:?}");
    for kept in kept {
        let (kind, begun, echoes) = (kept.kind, kept.begun(), kept.echoes());
        println!("{kind}: {echoes} messages came back on {begun} connection");
        let failures = kept.finish();
        assert!(failures.is_empty(), "{failures:?}");
        assert!(begun == 1 && echoes > 200, "{kind}: {echoes} messages on {begun} connections");
    }
    assert!(called > 1000, "hardly any calls: {called}");
    assert!(transfers.0.is_ok() && transfers.1.is_ok() && transfers.2.is_ok(), "{transfers:?}");
    assert!(answers > 2000 && connections >= CLIENTS as u64, "hardly any load: {answers} on {connections}");
    assert_eq!(product.pids(Role::Worker), workers, "the worker was replaced");
}
