//! Upgrades to programs that hang, are deaf or die, with the real executable on plain sockets.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use node_support::node::{freeze, kill};
use node_support::traffic::{expect_hello, get, origin};
use node_support::{Console, Node, free_port, shop, wait};

fn serving() -> (Console, Node, u16) {
    let console = Console::start();
    let node = Node::start(&console);
    let port = free_port();
    console.publish(&shop(&console, 1, port, origin()));
    console.expect_applied(1);
    expect_hello(&console, port);
    (console, node, port)
}

/// The program of `examples/unfit.rs` under a name that says what is wrong with it.
fn unfit(node: &Node, name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let built = own.parent().and_then(Path::parent).unwrap().join("examples/unfit");
    let copy = node.scratch.path().join(name);
    std::fs::copy(&built, &copy).unwrap();
    copy
}

/// Of the worker alone: these programs are no keepers, or what is asked is about the worker.
fn upgrade(node: &Node, binary: &Path) -> Child {
    let mut command = node.command("upgrade");
    command.args(["--only", "worker", "--binary"]).arg(binary).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn refused(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(words), "{words}: {text}");
}

/// The worker that an upgrade started beside `serving`.
fn next_worker(node: &Node, serving: u32) -> u32 {
    node.wait_status("the next worker", |status| {
        status.workers.iter().map(|worker| worker.pid).find(|pid| *pid != serving)
    })
}

#[test]
fn a_worker_that_never_says_that_it_accepts_does_not_take_over() {
    let (console, node, port) = serving();
    let worker = node.worker(None);
    let upgrade = upgrade(&node, &unfit(&node, "deaf"));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        expect_hello(&console, port);
    }
    refused(
        &upgrade.wait_with_output().unwrap(),
        "the new worker cannot accept connections: it has not said so",
    );
    assert_eq!(node.worker(None), worker, "the same worker serves");
    wait("the deaf one is gone", || (node.status()?.workers.len() == 1).then_some(()));
    expect_hello(&console, port);
}

#[test]
fn when_the_serving_worker_dies_while_the_next_one_hangs_one_that_is_known_to_work_stands_in() {
    let (console, node, port) = serving();
    let worker = node.worker(None);
    let upgrade = upgrade(&node, Path::new(env!("CARGO_BIN_EXE_sallyport-node")));
    let next = next_worker(&node, worker);
    freeze(next);
    kill(worker);
    let begin = Instant::now();
    wait("somebody serves", || get(&console, port).ok());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    refused(&upgrade.wait_with_output().unwrap(), "the worker that served died meanwhile");
    let serves = node.worker(Some(worker));
    assert_ne!(serves, next);
    wait("the one that hangs is gone", || (!Path::new(&format!("/proc/{next}")).exists()).then_some(()));
    expect_hello(&console, port);
}

#[test]
fn a_program_on_a_file_system_that_hangs_holds_up_nobody() {
    assert!(rustix::process::geteuid().is_root(), "fanotify needs root: run ./test as root");
    let (console, node, port) = serving();
    let worker = node.worker(None);
    let program = node.scratch.path().join("sallyport-node");
    std::fs::copy(env!("CARGO_BIN_EXE_sallyport-node"), &program).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/hang_exec.py");
    let mut hang = Command::new("python3");
    let mut hang =
        hang.arg(script).arg(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(hang.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "hangs\n");

    let upgrade = upgrade(&node, &program);
    // The keeper goes on with everything else, which a new revision shows.
    std::thread::sleep(Duration::from_millis(500));
    let begin = node.status().unwrap().at_ms;
    node.wait_status("the keeper writes its status", |status| (status.at_ms > begin + 3000).then_some(()));
    expect_hello(&console, port);
    refused(
        &upgrade.wait_with_output().unwrap(),
        "the new program cannot be started: its file cannot be read in time",
    );
    console.publish(&shop(&console, 2, port, origin()));
    console.expect_applied(2);
    // What starts after all, much later, is ended.
    drop(hang.stdin.take());
    assert!(hang.wait().unwrap().success());
    std::thread::sleep(Duration::from_millis(1500));
    let status = node.status().unwrap();
    let workers: Vec<u32> = status.workers.iter().map(|worker| worker.pid).collect();
    assert_eq!(workers, [worker]);
    let keeper = node.keeper.as_ref().unwrap().id();
    let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    // The worker, and the process that holds the sockets.
    let holder = status.features.iter().find(|feature| feature.name == "descriptor store").unwrap();
    let known =
        |pid: &str| pid == worker.to_string() || holder.detail.starts_with(&format!("process {pid} "));
    assert!(children.split_whitespace().all(known), "{children}: {}", holder.detail);
    expect_hello(&console, port);
}
