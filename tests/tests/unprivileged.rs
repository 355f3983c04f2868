//! The same product as an ordinary user: plain sockets, and a status that says what is off.

use std::time::Duration;

use sallyport_tests::eventually;
use sallyport_tests::product::{Product, Role};
use sallyport_tests::stage::{HOST, Stage, target4};

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn without_privilege_the_hop_is_the_same() {
    let stage = Stage::new("plain");
    let origin = stage.origin("one", 8443);
    let mut product = Product::start(&stage.node, stage.name(), Some(NOBODY), &[]);
    let api = product.ready();
    stage.configure(&product, &api, &[origin.url()]);
    let mut dial = stage.dial();
    dial.target = target4(8443);
    let answer = eventually("a request is served", Duration::from_secs(10), || {
        stage.clients.inside(|| dial.get(HOST, "/")).map_err(|error| error.to_string())
    });
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello from one\n"));

    eventually("the status says what is off", Duration::from_secs(10), || {
        let status = api.get("/api/v1/status").to_string();
        if status.contains("sk_lookup") && status.contains("isolat") { Ok(()) } else { Err(status) }
    });
    let (ok, out, err) = product.cli(&["status"]);
    assert!(ok && out.contains("sk_lookup"), "{out}{err}");
    for (pid, role) in product.processes() {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caps = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
        assert!(caps.chars().all(|digit| digit == '0'), "{role:?} has {caps}");
    }
    let left = product.stop();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn with_privilege_the_worker_has_none() {
    let stage = Stage::new("caps");
    let mut product = stage.product();
    product.ready();
    let field = |pid: u32, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let worker = product.pids(Role::Worker)[0];
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(worker, name).trim_matches('0'), "", "worker {name}");
    }
    assert_eq!(field(worker, "NoNewPrivs:"), "1");
    assert_eq!(field(worker, "Seccomp:"), "2", "a filter");
    assert!(!field(worker, "Uid:").split_whitespace().any(|id| id == "0"), "the worker is not root");
    let console = product.pids(Role::Console)[0];
    assert!(!field(console, "Uid:").split_whitespace().any(|id| id == "0"), "the console is not root");
    assert_eq!(field(console, "CapEff:").trim_matches('0'), "");
    // BPF, NET_ADMIN, NET_RAW, PERFMON, NET_BIND_SERVICE, SETUID, SETGID, SETPCAP, KILL, SYS_PTRACE and no other.
    let keeper = product.pids(Role::Keeper)[0];
    let allowed: u64 = [39, 12, 13, 38, 10, 7, 6, 8, 5, 19].iter().map(|bit| 1_u64 << bit).sum();
    let has = u64::from_str_radix(&field(keeper, "CapEff:"), 16).unwrap();
    assert_eq!(has & !allowed, 0, "the keeper has more than it needs: {has:x}");
}
