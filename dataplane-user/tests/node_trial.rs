//! A revision on trial: the node goes back by itself, whatever happens to its processes meanwhile, unless it hears that it was
//! confirmed. The real executable on plain sockets, as any user.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use model::link::{ConsoleMessage, NodeMessage};
use model::snapshot::{Snapshot, SnapshotId};
use node_support::node::{freeze, kill};
use node_support::traffic::{Client, expect_hello, get, origin};
use node_support::{Console, Node, free_port, id, name, shop, wait};

/// A trial of this length ends fifteen seconds later.
const TRIAL_MS: u32 = 1000;
const OVER: Duration = Duration::from_secs(16);

/// A node that serves revision 1 at a port, and has on trial that it serves a second one.
struct Tried {
    console: Console,
    node: Node,
    origin: u16,
    ports: [u16; 2],
    began: Instant,
}

impl Tried {
    fn new() -> Self {
        let console = Console::start();
        let (node, ports, origin) = (Node::start(&console), [free_port(), free_port()], origin());
        console.publish(&shop(&console, 1, ports[0], origin));
        console.expect_applied(1);
        let tried = Self { console, node, origin, ports, began: Instant::now() };
        tried.console.publish(&tried.second(2, Some(TRIAL_MS)));
        tried.console.expect_applied(2);
        expect_hello(&tried.console, tried.ports[1]);
        tried.node.wait_status("a trial", |status| {
            let trial = status.trial.as_ref()?;
            (trial.back == Some(id(1)) && trial.seconds_left <= 20).then_some(())
        });
        tried
    }

    /// With the second port.
    fn second(&self, revision: u64, trial_ms: Option<u32>) -> Snapshot {
        let mut both = shop(&self.console, revision, self.ports[0], self.origin);
        let mut more = both.listeners[0].clone();
        (more.name, more.port) = (name("second"), u64::from(self.ports[1]).try_into().unwrap());
        both.listeners.push(more);
        both.routes[0].listeners.push(name("second"));
        both.trial_ms = trial_ms;
        both
    }

    fn sleep_until(&self, over: Duration) {
        sleep((self.began + over).saturating_duration_since(Instant::now()));
    }

    /// Waits until the node has gone back, and whether it says so.
    fn expect_back(&self) {
        self.node.wait_status("the node goes back", |status| {
            let said = status.refused.as_ref().is_some_and(|refused| {
                refused.id == Some(id(2)) && refused.reason.contains("went back to revision 1")
            });
            (status.applied == Some(id(1)) && status.trial.is_none() && said).then_some(())
        });
        // Not even the kernel takes connections there.
        wait("the second listener closes", || {
            std::net::TcpStream::connect(("127.0.0.1", self.ports[1])).is_err().then_some(())
        });
        wait("the first listener answers", || get(&self.console, self.ports[0]).ok());
    }

    fn send(&self, snapshot: &Snapshot) {
        self.console.forget();
        self.console.send(ConsoleMessage::Snapshot(Box::new(self.console.sign(snapshot))));
    }
}

/// What a hello says is applied.
fn hello(message: &NodeMessage) -> Option<Option<SnapshotId>> {
    let NodeMessage::Hello { applied, .. } = message else { return None };
    Some(*applied)
}

#[test]
fn it_goes_back_without_a_dropped_connection_and_comes_again_only_confirmed() {
    let tried = Tried::new();
    let worker = tried.node.worker(None);
    let mut client = Client::connect(&tried.console, tried.ports[0]).unwrap();
    client.get().unwrap();
    // Told again, it lasts no longer.
    sleep(Duration::from_secs(5));
    tried.send(&tried.second(2, Some(60_000)));
    tried.console.expect_applied(2);
    tried.sleep_until(OVER - Duration::from_secs(2));
    expect_hello(&tried.console, tried.ports[1]);
    tried.expect_back();
    assert!(tried.began.elapsed() < OVER + Duration::from_secs(4), "{:?}", tried.began.elapsed());
    client.get().unwrap();
    assert_eq!(tried.node.worker(None), worker, "the same worker");
    assert!(tried.console.expect_refused(2).contains("nobody confirmed revision 2 in time"));
    let hello = |message: &NodeMessage| hello(message).filter(|applied| *applied == Some(id(1)));
    tried.console.expect("hello with revision 1", hello);

    // Its snapshot on trial, which somebody may have kept, is of no use any more.
    tried.send(&tried.second(2, Some(60_000)));
    assert!(tried.console.expect_refused(2).contains("takes that revision once it is confirmed"));
    // The console says that it was confirmed while nobody could hear it.
    tried.send(&tried.second(2, None));
    tried.console.expect_applied(2);
    expect_hello(&tried.console, tried.ports[1]);
    client.get().unwrap();
    tried.send(&tried.second(2, Some(60_000)));
    tried.console.expect_applied(2);
    assert!(tried.node.status().unwrap().trial.is_none(), "what was confirmed stays so");
}

#[test]
fn confirmed_in_time_it_stays_over_a_restart_too() {
    let mut tried = Tried::new();
    tried.send(&tried.second(2, None));
    tried.console.expect_applied(2);
    tried.node.wait_status("no trial", |status| status.trial.is_none().then_some(()));
    assert!(tried.node.log().contains("confirmed"));
    tried.node.kill_keeper();
    tried.node.run();
    tried.sleep_until(OVER + Duration::from_secs(3));
    expect_hello(&tried.console, tried.ports[1]);
    assert_eq!(tried.node.status().unwrap().applied, Some(id(2)));
}

/// What the node meets again says that it was confirmed, though the node has that revision.
#[test]
fn a_console_that_is_met_again_tells_of_the_confirmation() {
    let mut tried = Tried::new();
    tried.console.pause();
    tried.node.wait_status("no link", |status| (!status.console.connected).then_some(()));
    tried.console.forget();
    tried.console.publish(&tried.second(2, None));
    tried.console.resume();
    assert_eq!(tried.console.expect("hello", hello), Some(id(1)), "the console is to send revision 2 again");
    tried.console.expect_applied(2);
    tried.node.wait_status("no trial", |status| status.trial.is_none().then_some(()));
}

#[test]
fn a_keeper_that_was_dead_at_the_end_goes_back_at_once_with_the_worker_that_outlived_it() {
    let mut tried = Tried::new();
    let worker = tried.node.worker(None);
    let mut client = Client::connect(&tried.console, tried.ports[0]).unwrap();
    tried.console.forget();
    tried.node.kill_keeper();
    tried.sleep_until(OVER + Duration::from_secs(1));
    expect_hello(&tried.console, tried.ports[1]);
    tried.node.run();
    tried.expect_back();
    client.get().unwrap();
    assert_eq!(tried.node.worker(None), worker, "the same worker");
    assert!(tried.console.expect_refused(2).contains("nobody confirmed"));
}

#[test]
fn keeper_and_worker_of_the_next_release_go_back_too() {
    let tried = Tried::new();
    let (keeper, worker) = (tried.node.keeper.as_ref().unwrap().id(), tried.node.worker(None));
    let upgraded = tried.node.command("upgrade").output().unwrap();
    assert!(upgraded.status.success(), "{upgraded:?}");
    let next = tried.node.worker(Some(worker));
    tried.node.wait_status("a trial", |status| status.trial.as_ref().map(|_| ()));
    assert!(tried.node.log().contains("keeper goes on"));
    tried.sleep_until(OVER - Duration::from_secs(2));
    expect_hello(&tried.console, tried.ports[1]);
    tried.expect_back();
    assert_eq!((tried.node.status().unwrap().keeper, tried.node.worker(None)), (keeper, next));
}

/// The next worker takes its time, and the trial's end comes first.
#[test]
fn what_is_confirmed_while_a_worker_is_to_take_over_stays() {
    let tried = Tried::new();
    let worker = tried.node.worker(None);
    let mut upgrade = tried.node.command("upgrade");
    upgrade.args(["--only", "worker"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut upgrade = upgrade.spawn().unwrap();
    let next = tried.node.wait_status("the next worker", |status| {
        status.workers.iter().map(|worker| worker.pid).find(|pid| *pid != worker)
    });
    freeze(next);
    tried.send(&tried.second(2, None));
    tried.console.expect_applied(2);
    tried.node.wait_status("no trial", |status| status.trial.is_none().then_some(()));
    tried.sleep_until(OVER + Duration::from_secs(2));
    expect_hello(&tried.console, tried.ports[1]);
    let status = tried.node.status().unwrap();
    assert_eq!((status.applied, status.refused.is_none()), (Some(id(2)), true));
    assert_eq!(tried.node.worker(None), worker, "the upgrade still waits");
    kill(next);
    upgrade.wait().unwrap();
}

#[test]
fn a_node_that_was_stopped_at_the_end_begins_with_what_was_confirmed() {
    let mut tried = Tried::new();
    tried.node.stop();
    // In the middle it is on trial still.
    tried.node.run();
    tried.node.wait_status("a trial", |status| status.trial.as_ref().map(|_| ()));
    wait("the second listener", || get(&tried.console, tried.ports[1]).ok());
    tried.node.stop();
    tried.sleep_until(OVER + Duration::from_secs(1));
    tried.console.forget();
    tried.node.run();
    tried.expect_back();
    assert!(
        tried.console.expect_refused(2).contains("nobody confirmed"),
        "a worker that was not there tells too"
    );
}

#[test]
fn a_worker_that_hangs_or_dies_then_changes_nothing() {
    let tried = Tried::new();
    kill(tried.node.worker(None));
    wait("another worker", || get(&tried.console, tried.ports[1]).ok());
    tried.sleep_until(OVER - Duration::from_secs(2));
    let worker = tried.node.worker(None);
    freeze(worker);
    tried
        .node
        .wait_status("the keeper goes back alone", |status| (status.applied == Some(id(1))).then_some(()));
    tried.node.worker(Some(worker));
    tried.expect_back();
}
