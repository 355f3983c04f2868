//! Upgrades under load: the new program takes over, the old one finishes, and nobody notices.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it saw"
)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sallyport_tests::client::Dial;
use sallyport_tests::h2client::Renewed;
use sallyport_tests::load::{Load, Transfer};
use sallyport_tests::origin::Origin;
use sallyport_tests::product::{Product, Role, bin_dir};
use sallyport_tests::stage::{HOST, Stage, target4};
use sallyport_tests::websocket::Socket;
use sallyport_tests::{eventually, objects};
use serde_json::json;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// What a WebSocket is told whose worker goes (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;

/// 48 connections of HTTP/1.1 and two of HTTP/2 with eight streams each.
const CLIENTS: (usize, usize, usize) = (48, 2, 8);

struct Run<'a> {
    stage: &'a Stage,
    product: &'a Product,
    dial: Dial,
    load: Load,
    streams: Renewed,
}

/// What lives longer than a worker.
struct Long {
    socket: Socket,
    download: Transfer,
    upload: Transfer,
}

impl Long {
    fn ended(&self) -> bool {
        self.socket.ended() || self.download.ended() || self.upload.ended()
    }

    /// All of it ends when the clients and the origin want it to.
    fn finish(self, origin: &Origin) {
        origin.finish();
        let (download, upload) = (self.download.finish().unwrap(), self.upload.finish().unwrap());
        let socket = self.socket.close().unwrap();
        assert!(download > 0 && upload > 0 && socket.echoes > 0, "{download} {upload} {socket:?}");
        println!("long ones: {download} bytes down, {upload} up, {} messages", socket.echoes);
    }
}

impl<'a> Run<'a> {
    fn start(stage: &'a Stage, product: &'a Product, target: SocketAddr) -> Self {
        let mut dial = stage.dial();
        dial.target = target;
        let load = Load::start(&stage.clients, &dial, CLIENTS.0, 200);
        let tls = stage.front_ca.client(&["h2"]);
        let streams = Renewed::start(&stage.clients, target, &tls, CLIENTS.1, CLIENTS.2);
        Self { stage, product, dial, load, streams }
    }

    fn long(&self) -> Long {
        let space = &self.stage.clients;
        Long {
            socket: Socket::open(space, &self.dial),
            download: Transfer::download(space, &self.dial),
            upload: Transfer::upload(space, &self.dial),
        }
    }

    /// `sallyport-node upgrade`: success, standard output, standard error.
    fn upgrade(&self, more: &[&str]) -> (bool, String, String) {
        let run_dir = self.product.dir().join("state/run").display().to_string();
        let program = self.product.program("sallyport-node").display().to_string();
        let arguments = [&["upgrade", "--run-dir", &run_dir], more].concat();
        self.stage.node.try_run(&program, &arguments)
    }

    fn serving(&self) -> u64 {
        self.product.node_status().unwrap()["worker"].as_u64().unwrap()
    }

    fn keeper(&self) -> u64 {
        self.product.node_status().unwrap()["keeper"].as_u64().unwrap()
    }

    /// How often a keeper has gone on as its next release.
    fn successions(&self) -> usize {
        self.product.log().matches("\"keeper goes on\"").count()
    }

    /// An upgrade of the keeper that succeeds: the same process is another program, the same worker serves on.
    fn succeeded(&self, more: &[&str]) {
        let (keeper, worker, successions) = (self.keeper(), self.serving(), self.successions());
        let answers = self.load.answers();
        let (ok, out, err) = self.upgrade(&[&["--only", "keeper"], more].concat());
        assert!(ok, "{out}{err}\n{}", self.product.log_tail());
        print!("{out}");
        assert_eq!(self.successions(), successions + 1);
        assert_eq!((self.keeper(), self.serving()), (keeper, worker), "the same processes");
        self.goes_on(answers, &format!("keeper upgrade {more:?}"));
    }

    /// An upgrade that succeeds: another worker serves, new requests are answered by it; and the keeper is its next release.
    fn upgraded(&self, more: &[&str]) {
        let (before, keeper, successions) = (self.serving(), self.keeper(), self.successions());
        let answers = self.load.answers();
        let (ok, out, err) = self.upgrade(more);
        assert!(ok, "{out}{err}\n{}", self.product.log_tail());
        print!("{out}");
        eventually("another worker serves", Duration::from_secs(5), || {
            let now = self.product.node_status()?["worker"].as_u64();
            if now.is_some_and(|now| now != before) { Ok(()) } else { Err(format!("{now:?}")) }
        });
        let expected = successions + usize::from(!more.contains(&"worker"));
        assert_eq!((self.successions(), self.keeper()), (expected, keeper));
        self.goes_on(answers, &format!("upgrade {more:?}"));
    }

    /// An upgrade that fails with these words: the same worker serves on.
    fn refused(&self, more: &[&str], words: &str) {
        let before = self.serving();
        let answers = self.load.answers();
        let (ok, out, err) = self.upgrade(more);
        assert!(!ok && err.contains(words), "{words}: {out}{err}");
        assert_eq!(err.trim().lines().count(), 1, "{err}");
        assert_eq!(self.serving(), before);
        self.goes_on(answers, words);
    }

    fn goes_on(&self, answers: u64, what: &str) {
        std::thread::sleep(Duration::from_millis(700));
        let failures = self.load.failures();
        assert!(failures.is_empty(), "after {what}: {} failures, {:?}", failures.len(), failures.first());
        assert!(!self.streams.ended(), "HTTP/2 after {what}");
        assert!(self.load.answers() > answers, "nobody is served after {what}");
    }

    fn stop(self) {
        let (answers, connections) = (self.load.answers(), self.load.connections());
        let failures = self.load.stop();
        let streams = self.streams.finish();
        println!("{answers} answers on {connections} connections; HTTP/2: {streams:?}");
        assert!(failures.is_empty(), "{} failures, {:?}", failures.len(), failures.first());
        let (streamed, renewed) = streams.unwrap();
        assert!(answers > 1000 && streamed > 200 && renewed > 2, "{answers} {streamed} {renewed}");
    }
}

/// Programs that are none, and one that dies on the way, while another upgrade is refused.
fn bad_ones(run: &Run<'_>) {
    run.refused(
        &["--binary", "/bin/true"],
        "the new program ended before it had said whether it can take over",
    );
    run.refused(&["--binary", "/bin/true", "--only", "keeper"], "from this keeper (exit status: 0)");
    run.refused(
        &["--binary", "/bin/true", "--only", "worker"],
        "the new worker ended before it was ready (exit status: 0)",
    );
    run.refused(&["--binary", "/etc/passwd"], "the new program cannot be started");
    run.refused(&["--binary", "/etc"], "/etc is no regular file");
    run.refused(&["--binary", "/nowhere/at/all"], "/nowhere/at/all cannot be opened: No such file");

    let before = run.product.pids(Role::Worker);
    let answers = run.load.answers();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run.upgrade(&[]));
        let until = Instant::now() + Duration::from_secs(10);
        let next = loop {
            let all = run.product.pids(Role::Worker);
            if let Some(next) = all.into_iter().find(|pid| !before.contains(pid)) {
                break next;
            }
            assert!(Instant::now() < until, "no new worker");
        };
        // Before it has loaded anything: it cannot be ready.
        run.product.signal(next, Signal::STOP);
        let (ok, _, err) = run.upgrade(&[]);
        assert!(!ok && err.contains("another upgrade is in progress"), "{err}");
        run.product.signal(next, Signal::KILL);
        let (ok, _, err) = first.join().unwrap();
        assert!(!ok && err.contains("the new worker ended before it was ready (signal: 9"), "{err}");
    });
    assert_eq!(run.product.pids(Role::Worker), before);
    run.goes_on(answers, "the new worker's death");
}

/// A new keeper that understood everything in its trial dies as soon as it has taken over: the next one finds the workers.
fn new_keeper_dies(run: &Run<'_>) {
    let doomed = run.product.program("doomed");
    std::fs::copy(bin_dir().join("examples/unfit"), &doomed).expect("cargo build --example unfit");
    let (serving, keeper, answers) = (run.serving(), run.keeper(), run.load.answers());
    let (ok, out, err) = run.upgrade(&["--only", "keeper", "--binary", &doomed.display().to_string()]);
    assert!(!ok && err.contains("the keeper went away before it had answered"), "{out}{err}");
    eventually("the next keeper has the worker", Duration::from_secs(10), || {
        let status = run.product.node_status()?;
        let (next, worker) = (status["keeper"].as_u64(), status["worker"].as_u64());
        let well = next != Some(keeper) && worker == Some(serving);
        if well { Ok(()) } else { Err(format!("{next:?} {worker:?}")) }
    });
    run.goes_on(answers, "the new keeper's death");
}

/// A keeper's successor finds the worker that serves and those that finish, and takes each for what it is.
fn keeper_dies(stage: &Stage, run: &Run<'_>) {
    let (serving, workers) = (run.serving(), run.product.pids(Role::Worker));
    assert!(workers.len() > 1, "no former worker is left: {workers:?}");
    for _ in 0..3 {
        let answers = run.load.answers();
        let keepers = run.product.pids(Role::Keeper);
        keepers.iter().for_each(|keeper| run.product.signal(*keeper, Signal::KILL));
        // Longer than workers look for a new keeper and it waits for them.
        std::thread::sleep(Duration::from_secs(4));
        assert_ne!(run.product.pids(Role::Keeper), keepers);
        assert_eq!(run.serving(), serving, "{}", run.product.log_tail());
        assert_eq!(run.product.pids(Role::Worker), workers);
        let answer = stage.clients.inside(|| run.dial.get(HOST, "/")).unwrap();
        assert_eq!(answer.status, 200);
        run.goes_on(answers, "the keeper's death");
    }
}

/// Everything but the way connections come in is the same in both modes.
fn upgrades(stage: &Stage, product: &mut Product, port: u16) {
    let origin = stage.origin("one", 8443);
    let ending = stage.origin("two", 8444);
    let api = product.ready();
    stage.configure(product, &api, &[origin.url()]);
    let mut route = objects::route("shop", &[HOST], "front", "group");
    route["spec"]["upgrades"] = json!(["websocket"]);
    product.applied(api.apply(&[route]));

    let run = Run::start(stage, product, target4(port));
    let long = run.long();
    std::thread::sleep(Duration::from_secs(1));

    run.upgraded(&[]);
    assert!(!long.ended(), "a long one ended with the first upgrade");
    bad_ones(&run);
    let same = run.product.program("sallyport-node").display().to_string();
    for more in [&[][..], &["--binary", &same], &[]] {
        run.succeeded(more);
    }
    new_keeper_dies(&run);
    assert!(!long.ended(), "a long one ended with an upgrade of the keeper");
    run.upgraded(&["--only", "worker", "--binary", &same]);
    // What comes now is the next worker's, and has three seconds when that one goes.
    let short = run.long();
    std::thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    run.upgraded(&["--deadline", "3"]);
    let socket = short.socket.finish().unwrap();
    assert_eq!(socket.code, GOING_AWAY, "{socket:?}");
    let down = short.download.finish().unwrap_err();
    assert_eq!(down.kind(), ErrorKind::UnexpectedEof, "the download was to end without a reset: {down}");
    let took = begin.elapsed();
    assert!(Duration::from_secs(1) < took && took < Duration::from_secs(6), "{took:?}");
    // How an upload that was cut off ends is seen by whoever writes next.
    let _ = short.upload.finish();
    assert!(!long.ended(), "a long one ended that has ten minutes");

    // A configuration reaches the worker that serves now.
    let mut route = objects::route("shop", &[HOST], "front", "group");
    route["spec"]["upgrades"] = json!(["websocket"]);
    let group =
        objects::origin_group("group", &[ending.url()], "origins", sallyport_tests::stage::ORIGIN_NAME);
    product.applied(api.apply(&[route, group]));
    eventually("the new configuration is in force", Duration::from_secs(5), || {
        let answer = stage.clients.inside(|| run.dial.get(HOST, "/")).map_err(|error| error.to_string())?;
        if answer.text() == "hello from two\n" { Ok(()) } else { Err(answer.text()) }
    });
    keeper_dies(stage, &run);
    assert!(!long.ended(), "a long one ended with the keeper");
    long.finish(&origin);
    eventually("former workers end when they have nothing to do", Duration::from_secs(70), || {
        let workers = product.pids(Role::Worker);
        if workers.len() == 1 { Ok(()) } else { Err(format!("{workers:?}")) }
    });
    run.stop();
    drop(ending);
    let left = product.stop();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn upgrades_with_steering_fail_nothing() {
    let stage = Stage::new("upgrade");
    let mut product = stage.product();
    upgrades(&stage, &mut product, 443);
}

#[test]
fn upgrades_without_privilege_fail_nothing() {
    let stage = Stage::new("upgplain");
    let mut product = Product::start(&stage.node, stage.name(), Some(NOBODY), &[]);
    upgrades(&stage, &mut product, 8443);
}
