//! What keeper and worker may do, with root's rights as the unit gives them.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::os::unix::fs::MetadataExt as _;

use node_support::traffic::{expect_hello, origin};
use node_support::{Console, Node, free_port, shop};

/// One of the sets in `/proc/PID/status`.
fn capabilities(pid: u32, set: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// The unit gives neither CAP_CHOWN nor CAP_DAC_OVERRIDE; here it is root without the first that starts the node.
#[test]
fn the_worker_comes_back_through_a_socket_that_is_not_everybodys() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: run ./test as root");
    let console = Console::start();
    let mut node = Node::prepare(&console);
    node.wrapper = ["setpriv", "--bounding-set=-chown"].map(str::to_owned).to_vec();
    node.arguments.push("--no-kernel".to_owned());
    node.run();
    let port = free_port();
    console.publish(&shop(&console, 1, port, origin()));
    console.expect_applied(1);
    let worker = node.worker(None);
    let keeper = node.keeper.as_ref().unwrap().id();
    let socket = std::fs::metadata(node.run_dir().join("keeper.sock")).unwrap();
    let process = std::fs::metadata(format!("/proc/{worker}")).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o660);
    assert_eq!((socket.uid(), socket.gid()), (0, process.gid()), "the keeper's, and the worker's group's");
    assert_ne!(process.uid(), 0);
    // Not even what is made next has the worker's group.
    assert_eq!(std::fs::metadata(node.run_dir().join("status.json")).unwrap().gid(), 0);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(capabilities(worker, set), 0, "worker {set}");
    }
    // What its own next release gets, and no more: what it starts has nothing, as the worker shows.
    assert_eq!(capabilities(keeper, "CapBnd:"), capabilities(keeper, "CapEff:"));
    assert_ne!(capabilities(keeper, "CapEff:"), 0);

    node.kill_keeper();
    node.run();
    let keeper = node.keeper.as_ref().unwrap().id();
    node.wait_status("the same worker", |status| {
        (status.keeper == keeper && status.worker == Some(worker)).then_some(())
    });
    expect_hello(&console, port);
    console.publish(&shop(&console, 2, port, origin()));
    console.expect_applied(2);
    node.stop();
}
