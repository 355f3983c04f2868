//! `kill -9`, seeded, of worker, keeper and console under load and a flood: no denied packet passes, no revision is
//! lost, and nobody is reset but those whose own worker died.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sallyport_tests::api::Api;
use sallyport_tests::frames::Flood;
use sallyport_tests::kept::Kept;
use sallyport_tests::load::{Failure, Load};
use sallyport_tests::probe::Passed;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::random::Random;
use sallyport_tests::stage::{FOE4, NODE4, ORIGIN_NAME, Stage};
use sallyport_tests::{eventually, objects};
use serde_json::Value;

/// So many prefixes that a swap takes a while: a kill can fall inside it.
const PREFIXES: u32 = 50_000;

struct Plan {
    each: usize,
    inside: usize,
}

fn plan() -> Plan {
    let long = std::env::var("SALLYPORT_LONG").is_ok_and(|value| value == "1");
    if long { Plan { each: 34, inside: 10 } } else { Plan { each: 10, inside: 3 } }
}

/// The deny rule that must hold always, with a filler that differs by `turn`, so that every apply swaps much.
fn filter(turn: u32) -> Value {
    let filler = (0..PREFIXES).map(|number| Ipv4Addr::from(0x6440_0000 + number * 2 + turn % 2).to_string());
    let prefixes: Vec<String> = std::iter::once(FOE4.to_string()).chain(filler).collect();
    objects::packet_filter("foes", "Deny", &prefixes)
}

/// Lines of the log from `from` on: how many begin and end with these words.
fn open_brackets(log: &str, from: usize, word: &str) -> i64 {
    let text = log.get(from..).unwrap_or_default();
    let count = |end: &str| text.matches(&format!("{word} {end}")).count() as i64;
    count("begin") - count("end")
}

/// Applies one change after the other, as operators would, until told to stop. What was acknowledged must never be lost.
fn author(api: &Api, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        if let Ok(revision) = api.try_apply(&[filter(turn)]) {
            acknowledged.fetch_max(revision, Ordering::Relaxed);
        } else {
            // The console is being restarted: nothing was acknowledged.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

struct Run<'a> {
    product: &'a Product,
    random: Random,
    kept: [Kept; 4],
    worker_deaths: Vec<Instant>,
}

impl Run<'_> {
    fn pid(&self, role: Role) -> u32 {
        eventually("the process is there", Duration::from_secs(20), || {
            let pids = self.product.pids(role);
            pids.first().copied().ok_or_else(|| format!("no {role:?}"))
        })
    }

    /// Kills one process; when `inside` is given, right after its log says that such a thing began. Whether the death
    /// fell inside it.
    fn kill(&mut self, role: Role, inside: Option<&str>) -> bool {
        let pid = self.pid(role);
        let before = self.product.log().len();
        let begun = self.kept.each_ref().map(Kept::begun);
        let fell = match inside {
            None => {
                std::thread::sleep(Duration::from_millis(self.random.below(400) as u64));
                false
            }
            Some(word) => {
                let until = Instant::now() + Duration::from_secs(10);
                while open_brackets(&self.product.log(), before, word) <= 0 && Instant::now() < until {
                    std::thread::sleep(Duration::from_micros(300));
                }
                true
            }
        };
        self.product.signal(pid, Signal::KILL);
        let log = self.product.log();
        let inside = fell && inside.is_some_and(|word| open_brackets(&log, before, word) > 0);
        if role == Role::Worker {
            self.worker_deaths.push(Instant::now());
        }
        eventually("another process stands in", Duration::from_secs(20), || {
            let pids = self.product.pids(role);
            if pids.iter().any(|other| *other != pid) { Ok(()) } else { Err(format!("{role:?}: {pids:?}")) }
        });
        if role == Role::Keeper {
            // One fault at a time: until the next keeper has taken over, the worker is the only holder of its sockets.
            eventually("the next keeper has taken over", Duration::from_secs(20), || {
                let log = self.product.log();
                let since = log.get(before..).unwrap_or_default();
                let mut lines = since.lines().skip_while(|line| !line.contains("\"keeper starts\""));
                if lines.any(|line| line.contains("\"worker serves\"")) {
                    Ok(())
                } else {
                    Err(log.len().to_string())
                }
            });
        }
        self.conversations(role, begun);
        inside
    }

    /// What is expected of every kind of conversation: the worker's death ends it, and it can be had again at once; nobody
    /// notices that keeper or console died.
    fn conversations(&self, role: Role, begun: [u64; 4]) {
        for (kept, begun) in self.kept.iter().zip(begun) {
            let wanted = if role == Role::Worker { begun + 1 } else { begun };
            let echoes = kept.echoes();
            eventually("a conversation goes on", Duration::from_secs(20), || {
                let (now, failures) = (kept.begun(), kept.failures());
                let last = failures.last().map(|failure| &failure.what);
                match kept.echoes() > echoes && now >= wanted {
                    true => {
                        assert_eq!(now, wanted, "{} after {role:?} died: {last:?}", kept.kind);
                        Ok(())
                    }
                    false => Err(format!("{}: begun {now} times, not {wanted}; {last:?}", kept.kind)),
                }
            });
        }
    }
}

/// A client may only be reset on a connection that a worker had when it died.
fn excusable(failure: &Failure, deaths: &[Instant]) -> bool {
    failure.established
        && deaths
            .iter()
            .any(|death| failure.opened <= *death && failure.at + Duration::from_secs(1) >= *death)
}

/// All kills, one after the other, while an author changes the filter: how many of each role fell inside a swap or publish.
fn storm(
    run: &mut Run<'_>,
    roles: Vec<Role>,
    inside: usize,
    passed: &Passed<'_>,
    api: &Api,
    acknowledged: &AtomicU64,
) -> [usize; 3] {
    let stop = AtomicBool::new(false);
    // Every second kill waits for a swap or a publish; a third would leave no room for those that come too late.
    let mut fell = [0_usize; 3];
    std::thread::scope(|scope| {
        scope.spawn(|| author(api, &stop, acknowledged));
        // Ends the author also when an assertion below fails; a scope would wait for ever.
        let _end = OnDrop(&stop);
        for (number, role) in roles.into_iter().enumerate() {
            let index = match role {
                Role::Worker => 0,
                Role::Keeper => 1,
                Role::Console | Role::Up | Role::Holder => 2,
            };
            let word = if role == Role::Console { "publish" } else { "swap" };
            let wait = fell[index] < inside || number % 2 == 0;
            if run.kill(role, wait.then_some(word)) {
                fell[index] += 1;
            }
            assert_eq!(passed.packets(), 0, "a denied packet passed around kill {number} ({role:?})");
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    fell
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story: what is killed, and what must be true after each")]
fn kills_lose_nothing_and_let_nobody_pass() {
    let Plan { each, inside } = plan();
    let stage = Stage::new("kills");
    let origin = stage.origin("one", 8443);
    let mut product = stage.product();
    let api = product.ready();
    stage.configure(&product, &api, &[origin.url()]);
    product.applied(api.apply(&[filter(0), objects::passthrough("passed", &[ORIGIN_NAME], "group")]));

    let passed = Passed::count(&stage.node, &FOE4.to_string());
    let flood =
        Flood::start(&stage.clients, FOE4, SocketAddrV4::new(NODE4, 443), 1500, Duration::from_secs(3000));
    let load = Load::start(&stage.clients, &stage.dial(), 16, 50);
    let calls = Load::calls(&stage.clients, &stage.dial2(), 4, 50);
    let kept = [
        Kept::websocket(&stage.clients, &stage.dial()),
        Kept::websocket_over_http2(&stage.clients, &stage.dial2()),
        Kept::call(&stage.clients, &stage.dial2()),
        Kept::named("WebSocket, TLS passed through", &stage.clients, &stage.dial_through()),
    ];
    eventually("all conversations have begun", Duration::from_secs(10), || {
        if kept.iter().all(|kept| kept.begun() == 1) { Ok(()) } else { Err("not all".to_owned()) }
    });
    let acknowledged = AtomicU64::new(0);

    let mut roles: Vec<Role> =
        [Role::Worker, Role::Keeper, Role::Console].iter().flat_map(|role| vec![*role; each]).collect();
    let mut random = Random::seeded(0xdead);
    random.shuffle(&mut roles);
    let mut run = Run { product: &product, random, kept, worker_deaths: Vec::new() };
    let fell = storm(&mut run, roles, inside, &passed, &api, &acknowledged);

    let last = acknowledged.load(Ordering::Relaxed);
    let revisions = eventually("the console answers again", Duration::from_secs(20), || {
        let answered = api.call("GET", "/api/v1/status", None).map_err(|error| error.to_string())?;
        if answered.0 == 200 { Ok(api.revisions()) } else { Err(answered.0.to_string()) }
    });
    let lost: Vec<u64> = (1..=last).filter(|revision| !revisions.contains(revision)).collect();
    assert!(lost.is_empty(), "of {last} acknowledged revisions these are lost: {lost:?}");
    product.applied(last);
    let answers = load.answers();
    std::thread::sleep(Duration::from_secs(2));
    assert!(load.answers() > answers, "nobody is served at the end");
    let Run { kept, worker_deaths, .. } = run;
    let called = calls.answers();
    let conversations: Vec<u64> = kept.iter().map(Kept::echoes).collect();
    let mut failures = [load.stop(), calls.stop()].concat();
    failures.extend(kept.into_iter().flat_map(Kept::finish));
    let (sent, rate) = flood.stop();
    let inexcusable: Vec<&Failure> =
        failures.iter().filter(|failure| !excusable(failure, &worker_deaths)).collect();
    println!("{called} gRPC calls; messages that came back in each conversation: {conversations:?}");
    println!(
        "{} kills, inside a swap or publish: worker {}, keeper {}, console {}; {sent} SYNs, {rate:.0} a second, {} passed; \
         {answers} answers, {} resets by a worker's death, {} others; last revision {last}",
        3 * each,
        fell[0],
        fell[1],
        fell[2],
        passed.packets(),
        failures.len() - inexcusable.len(),
        inexcusable.len(),
    );
    assert!(inexcusable.is_empty(), "{inexcusable:?}");
    assert_eq!(passed.packets(), 0);
    assert!(rate >= 1000.0, "only {rate} SYNs a second");
    assert!(
        fell.iter().all(|count| *count >= inside),
        "inside a swap or publish: {fell:?}, wanted {inside} of each"
    );
    assert!(last > 0);
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
