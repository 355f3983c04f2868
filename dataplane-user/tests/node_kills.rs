//! Deaths and restarts, with the real executable on plain sockets, as any user.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use node_support::node::{freeze, kill, signal};
use node_support::traffic::{Client, expect_hello, get, origin};
use node_support::{Console, Node, free_port, id, shop, wait};
use rustix::process::Signal;

/// A node that serves `shop.test`, and its port.
fn serving() -> (Console, Node, u16) {
    let console = Console::start();
    let node = Node::start(&console);
    let port = free_port();
    console.publish(&shop(&console, 1, port, origin()));
    console.expect_applied(1);
    expect_hello(&console, port);
    (console, node, port)
}

#[test]
fn a_dead_workers_sockets_live_on_with_what_waits_in_their_queues() {
    let (console, node, port) = serving();
    for _ in 0..3 {
        let worker = node.worker(None);
        // A stopped worker accepts nothing: these connections wait in the sockets' queues when it dies.
        freeze(worker);
        let waiting: Vec<TcpStream> =
            (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        kill(worker);
        for connection in waiting {
            let (status, _) = Client::over(&console, connection).unwrap().get().unwrap();
            assert_eq!(status, "HTTP/1.1 200 OK");
        }
        node.worker(Some(worker));
    }
}

#[test]
fn a_dead_keeper_is_not_noticed_by_clients_and_the_next_one_goes_on_with_the_worker() {
    let (console, mut node, port) = serving();
    let worker = node.worker(None);
    let mut client = Client::connect(&console, port).unwrap();
    client.get().unwrap();
    for revision in 2..5 {
        node.kill_keeper();
        expect_hello(&console, port);
        node.run();
        assert_eq!(node.worker(None), worker, "the same worker");
        client.get().unwrap();
        // The new keeper can do everything the old one could.
        console.publish(&shop(&console, revision, port, origin()));
        console.expect_applied(revision);
        client.get().unwrap();
    }
    kill(worker);
    wait("another worker on the same sockets", || get(&console, port).ok());
    assert_ne!(node.worker(Some(worker)), worker);
}

#[test]
fn a_snapshot_that_comes_while_the_keeper_is_dead_is_applied_when_it_is_back() {
    let (console, mut node, port) = serving();
    node.worker(None);
    node.kill_keeper();
    let second = free_port();
    console.publish(&shop(&console, 2, second, origin()));
    std::thread::sleep(Duration::from_millis(300));
    expect_hello(&console, port);
    node.run();
    console.expect_applied(2);
    expect_hello(&console, second);
}

#[test]
fn when_both_die_the_stored_snapshot_comes_back() {
    let (console, mut node, port) = serving();
    let worker = node.worker(None);
    node.kill_keeper();
    kill(worker);
    node.run();
    wait("the stored snapshot", || get(&console, port).ok());
    assert_eq!(node.status().unwrap().applied, Some(id(1)));
}

#[test]
fn a_hung_worker_does_not_keep_a_restarted_keeper_waiting_for_ever() {
    let (console, mut node, port) = serving();
    let worker = node.worker(None);
    node.kill_keeper();
    freeze(worker);
    node.run();
    let other = node.worker(Some(worker));
    // The hung worker's sockets are still there and take their share until it is dead or wakes up and is drained.
    signal(worker, Signal::CONT);
    wait("the former worker leaves", || {
        (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(())
    });
    assert_eq!(node.worker(None), other);
    expect_hello(&console, port);
}

#[test]
fn sigterm_lets_requests_finish_and_takes_no_new_ones() {
    let (console, mut node, port) = serving();
    let mut idle = Client::connect(&console, port).unwrap();
    idle.get().unwrap();
    let (status, took) = node.stop();
    assert!(status.success());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(node.status().is_none(), "status.json is gone");
}

#[test]
fn sighup_puts_a_new_worker_beside_the_old_one_and_no_request_fails() {
    let (console, node, port) = serving();
    let worker = node.worker(None);
    let keeper = node.keeper.as_ref().unwrap().id();
    let mut before = Client::connect(&console, port).unwrap();
    before.get().unwrap();
    signal(keeper, Signal::HUP);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        expect_hello(&console, port);
    }
    assert_ne!(node.worker(Some(worker)), worker);
}

#[test]
fn the_console_may_come_and_go() {
    let (mut console, node, port) = serving();
    for revision in 2..6 {
        console.pause();
        expect_hello(&console, port);
        console.publish(&shop(&console, revision, port, origin()));
        console.resume();
        console.expect_applied(revision);
        node.wait_status("linked", |status| status.console.connected.then_some(()));
    }
    assert_eq!(console.enrolled(), 1);
}

#[test]
fn a_worker_that_keeps_dying_is_started_again_and_again() {
    let (console, node, port) = serving();
    let mut last = None;
    for _ in 0..5 {
        let worker = node.worker(last);
        kill(worker);
        last = Some(worker);
    }
    node.worker(last);
    expect_hello(&console, port);
}

/// Whether the process is there and is not just waiting to be collected.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn sigterm_to_a_keeper_that_still_waits_for_its_worker_leaves_no_worker_behind() {
    // One that comes late is drained, one that never comes is killed.
    for comes in [true, false] {
        let (_console, mut node, port) = serving();
        let worker = node.worker(None);
        node.kill_keeper();
        freeze(worker);
        let known = node.log().len();
        node.run();
        wait("the next keeper waits", || node.log()[known..].contains("waiting for it").then_some(()));
        signal(node.keeper.as_ref().unwrap().id(), Signal::TERM);
        if comes {
            std::thread::sleep(Duration::from_millis(300));
            signal(worker, Signal::CONT);
        }
        let begin = Instant::now();
        assert!(node.keeper.take().unwrap().wait().unwrap().success());
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        wait("the worker is gone", || (!lives(worker)).then_some(()));
        // Who held the sockets hears from the keeper's end that they are not wanted any more.
        wait("the port is closed", || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
    }
}

#[test]
fn a_console_that_is_slow_with_a_key_does_not_hold_up_the_keeper() {
    let console = Console::start();
    console.slow_keys(Duration::from_secs(8));
    let mut node = Node::start(&console);
    node.wait_status("linked", |status| status.console.connected.then_some(()));
    console.publish(&shop(&console, 1, free_port(), origin()));
    wait("the key is asked for", || (console.keys_asked() > 0).then_some(()));
    let (status, took) = node.stop();
    assert!(status.success() && took < Duration::from_secs(3), "{took:?}");
    assert!(!node.log().contains("cannot be killed") && !node.log().contains("signal: 9"), "{}", node.log());
    // And one that is not too slow is waited for.
    console.slow_keys(Duration::from_secs(2));
    node.run();
    console.expect_applied(1);
}

#[test]
fn an_access_log_that_was_moved_away_is_made_again() {
    let console = Console::start();
    let mut node = Node::prepare(&console);
    let (log, old) = (node.scratch.path().join("access"), node.scratch.path().join("access.1"));
    node.arguments.extend(["--no-kernel".to_owned(), "--access-log".to_owned(), log.display().to_string()]);
    node.run();
    let port = free_port();
    console.publish(&shop(&console, 1, port, origin()));
    console.expect_applied(1);
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let logged = |what: &str| {
        expect_hello(&console, port);
        wait(what, || (lines(&log) > 0).then_some(()));
    };
    logged("a line");
    let worker = node.worker(None);
    std::fs::rename(&log, &old).unwrap();
    wait("a new file", || log.exists().then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    let before = lines(&old);
    logged("a line in the new file");
    assert_eq!(lines(&old), before, "nothing more in the old one");
    // Moved away while there is no keeper.
    node.kill_keeper();
    std::fs::rename(&log, &old).unwrap();
    node.run();
    wait("a new file", || log.exists().then_some(()));
    node.wait_status("the worker is back", |status| {
        (Some(status.keeper) == node.keeper.as_ref().map(std::process::Child::id)
            && status.worker == Some(worker))
        .then_some(())
    });
    logged("a line in the third file");
}
