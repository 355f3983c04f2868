//! Snapshots from a console to a node: applied, refused, stored. The real executable on plain sockets, as any user.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helper fails the test")]

mod node_support;

use std::net::TcpListener;

use model::link::{ConsoleMessage, NodeMessage};
use model::snapshot::SnapshotId;
use node_support::node::freeze;
use node_support::traffic::{Client, expect_hello, get, origin};
use node_support::{Console, Node, free_port, id, name, shop, snapshot, wait};

#[test]
fn enrols_applies_serves_and_changes_without_a_dropped_connection() {
    let console = Console::start();
    let node = Node::start(&console);
    let (port, origin) = (free_port(), origin());
    console.publish(&shop(&console, 1, port, origin));
    console.expect_applied(1);
    expect_hello(&console, port);
    assert_eq!(console.enrolled(), 1);

    // A second listener, then the first one goes: what is open on a listener that stays is never touched.
    let mut client = Client::connect(&console, port).unwrap();
    client.get().unwrap();
    let second = free_port();
    let mut both = shop(&console, 2, port, origin);
    let mut more = both.listeners[0].clone();
    (more.name, more.port) = (name("second"), u64::from(second).try_into().unwrap());
    both.listeners.push(more);
    both.routes[0].listeners.push(name("second"));
    console.publish(&both);
    console.expect_applied(2);
    expect_hello(&console, second);
    client.get().unwrap();

    console.publish(&shop(&console, 3, port, origin));
    console.expect_applied(3);
    client.get().unwrap();
    wait("the second listener closes", || get(&console, second).is_err().then_some(()));
    node.wait_status("revision 3", |status| (status.applied == Some(id(3))).then_some(()));
    let begins = node.log().matches("swap begin").count();
    assert_eq!((begins, node.log().matches("swap end").count()), (3, 3));
}

#[test]
fn refuses_with_the_reason_and_keeps_what_is_in_force() {
    let console = Console::start();
    let node = Node::start(&console);
    let (port, origin) = (free_port(), origin());
    console.publish(&shop(&console, 5, port, origin));
    console.expect_applied(5);

    let other = Console::start();
    console.send(ConsoleMessage::Snapshot(Box::new(other.sign(&snapshot(6)))));
    assert!(console.expect_refused(6).contains("signature"), "bad signature");
    expect_hello(&console, port);

    let newer = snapshot(7).to_canonical_json().unwrap().replace("\"format\":1", "\"format\":2");
    console.send(ConsoleMessage::Snapshot(Box::new(console.sign_text(newer))));
    assert!(console.expect_refused(7).contains("format 2"), "newer format");
    expect_hello(&console, port);

    console.send(ConsoleMessage::Snapshot(Box::new(console.sign(&snapshot(4)))));
    assert!(console.expect_refused(4).contains("not newer"), "older revision");

    let mut stranger = snapshot(8);
    stranger.node = name("other");
    console.send(ConsoleMessage::Snapshot(Box::new(console.sign(&stranger))));
    assert!(console.expect_refused(8).contains("for node other"), "wrong node");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().port();
    console.send(ConsoleMessage::Snapshot(Box::new(console.sign(&shop(&console, 9, busy, origin)))));
    let reason = console.expect_refused(9);
    assert!(reason.contains(&format!("port {busy} is in use by")), "{reason}");
    assert!(reason.contains(&format!("process {}", std::process::id())), "{reason}");

    let mut strange = shop(&console, 10, free_port(), origin);
    strange.certificates[0].key = model::digest::Digest::of(b"unknown");
    console.send(ConsoleMessage::Snapshot(Box::new(console.sign(&strange))));
    assert!(console.expect_refused(10).contains("private key"), "unknown key");

    expect_hello(&console, port);
    let status = node.status().unwrap();
    assert_eq!(status.applied, Some(id(5)));
    assert!(status.refused.is_some());

    // The same again is acknowledged again, a higher epoch begins anew.
    console.forget();
    console.send(ConsoleMessage::Snapshot(Box::new(console.sign(&shop(&console, 5, port, origin)))));
    console.expect_applied(5);
    let mut restored = shop(&console, 1, port, origin);
    restored.id = SnapshotId { epoch: 2, revision: 1 };
    console.publish(&restored);
    console.expect_applied(1);
    expect_hello(&console, port);
}

#[test]
fn a_rotated_key_is_trusted_from_then_on_and_after_a_restart() {
    let console = Console::start();
    let mut node = Node::start(&console);
    let (port, origin) = (free_port(), origin());
    console.publish(&shop(&console, 1, port, origin));
    console.expect_applied(1);
    let (message, _new, key) = console.rotation();
    console.send(message);
    let rotated = |message: &NodeMessage| {
        matches!(message, NodeMessage::KeyRotated { key: new } if *new == key).then_some(())
    };
    console.expect("key rotated", rotated);
    console.send(ConsoleMessage::Snapshot(Box::new(console.sign(&snapshot(2)))));
    assert!(console.expect_refused(2).contains("signature"), "the old key");
    node.stop();
    node.run();
    wait("the stored snapshot", || get(&console, port).ok());
}

#[test]
fn a_stored_snapshot_serves_without_the_console() {
    let mut console = Console::start();
    let mut node = Node::start(&console);
    let (port, origin) = (free_port(), origin());
    console.publish(&shop(&console, 1, port, origin));
    console.expect_applied(1);
    console.pause();
    expect_hello(&console, port);
    let (status, _) = node.stop();
    assert!(status.success());
    assert!(get(&console, port).is_err());
    node.run();
    wait("the stored snapshot", || get(&console, port).ok());
    assert_eq!(node.status().unwrap().applied, Some(id(1)));
    console.resume();
    console.publish(&shop(&console, 2, port, origin));
    console.expect_applied(2);
    assert_eq!(console.enrolled(), 1, "the certificate is stored too");
}

#[test]
fn the_operators_drain_closes_listeners_until_it_ends() {
    let console = Console::start();
    let node = Node::start(&console);
    let (port, origin) = (free_port(), origin());
    console.publish(&shop(&console, 1, port, origin));
    console.expect_applied(1);
    console.send(ConsoleMessage::Drain { on: true });
    wait("the listener closes", || get(&console, port).is_err().then_some(()));
    node.wait_status("drained", |status| status.drained.then_some(()));
    console.send(ConsoleMessage::Drain { on: false });
    wait("the listener opens", || get(&console, port).ok());
}

#[test]
fn two_keepers_do_not_share_a_state_directory() {
    let console = Console::start();
    let node = Node::start(&console);
    node.worker(None);
    let second =
        node.command("run").args(["--no-kernel", "--metrics-listen", "127.0.0.1:0"]).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    let keeper = node.keeper.as_ref().unwrap().id();
    assert!(text.contains(&format!("another sallyport-node (process {keeper}) already runs")), "{text}");

    let status = node.command("status").output().unwrap();
    assert!(status.status.success());
    assert!(String::from_utf8_lossy(&status.stdout).contains("node      edge"));
    let detach = node.command("detach").output().unwrap();
    assert!(!detach.status.success());
    assert!(String::from_utf8_lossy(&detach.stderr).contains("a node runs"));
}

#[test]
fn an_old_status_says_whether_the_keeper_is_there() {
    let console = Console::start();
    let mut node = Node::start(&console);
    node.worker(None);
    let silence = |node: &Node| {
        let output = node.command("status").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let keeper = node.keeper.as_ref().unwrap().id();
    freeze(keeper);
    let mut status = node.status().unwrap();
    status.at_ms -= 20_000;
    std::fs::write(node.run_dir().join("status.json"), serde_json::to_vec(&status).unwrap()).unwrap();
    let said = silence(&node);
    let there = format!("the keeper (process {keeper}) is there and has not answered for 2");
    assert!(said.contains(&there) && !said.contains("any more"), "{said}");
    node.kill_keeper();
    assert!(silence(&node).contains("the keeper does not run any more"));
}

#[test]
fn a_token_that_comes_later_enrols_the_node_that_runs() {
    let console = Console::start();
    let mut node = Node::prepare(&console);
    node.arguments.push("--no-kernel".to_owned());
    let (token, aside) = (node.scratch.path().join("token"), node.scratch.path().join("aside"));
    std::fs::rename(&token, &aside).unwrap();
    node.run();
    wait("it says what it waits for", || {
        node.log().contains("this node is not enrolled: put a token").then_some(())
    });
    std::fs::rename(&aside, &token).unwrap();
    console.publish(&snapshot(1));
    console.expect_applied(1);
    assert_eq!(node.log().matches("this node is not enrolled").count(), 1, "said once");
}

#[test]
fn a_node_ends_in_an_orderly_way_with_the_process_that_started_it() {
    let console = Console::start();
    let mut node = Node::prepare(&console);
    node.arguments.push("--no-kernel".to_owned());
    let script = "sh -c 'exec \"$@\" --parent $PPID' sh \"$@\"; true";
    node.wrapper = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    node.run();
    node.worker(None);
    node.kill_keeper();
    wait("the node stops", || node.log().contains("keeper stopped").then_some(()));
}

#[test]
fn a_token_that_others_can_read_or_that_is_damaged_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let console = Console::start();
    let mut node = Node::prepare(&console);
    let token = node.scratch.path().join("token");
    let run = |node: &mut Node| {
        let output = node.command("run").args(&node.arguments).arg("--no-kernel").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(run(&mut node).contains("readable by others"));
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&token, &console.token()[..40]).unwrap();
    assert!(run(&mut node).contains("damaged"));
    std::fs::write(&token, "hello").unwrap();
    assert!(run(&mut node).contains("starts with sallyport1."));
}

/// What the node's own port answers: status and text.
fn ask(address: &str, path: &str, token: Option<&str>) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n{token}\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some((answer.get(9..12)?.parse().ok()?, answer))
}

#[test]
fn metrics_away_from_loopback_need_the_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let console = Console::start();
    let mut node = Node::prepare(&console);
    let port = free_port();
    let at = node.arguments.iter().position(|word| word == "127.0.0.1:0").unwrap();
    node.arguments[at] = format!("[::]:{port}");
    node.arguments.push("--no-kernel".to_owned());
    let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    node.run();
    wait("health", || ask(&v6, "/healthz", None).filter(|(status, _)| *status == 200));
    let (status, text) = ask(&v6, "/metrics", None).unwrap();
    assert!(status == 403 && text.contains("--metrics-token-file"), "{text}");
    node.wait_status("the status says so", |status| {
        let said = |feature: &&model::report::Feature| feature.name == "metrics" && !feature.on;
        status
            .features
            .iter()
            .find(said)
            .filter(|feature| feature.detail.contains("--metrics-token-file"))
            .cloned()
    });
    node.stop();

    let token = "0123456789abcdef0123456789abcdef";
    let file = node.scratch.path().join("metrics.token");
    node.arguments.extend(["--metrics-token-file".to_owned(), file.display().to_string()]);
    let run = |node: &Node, text: &str, mode| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = node.command("run").args(&node.arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&node, token, 0o644).contains("readable by others"));
    assert!(run(&node, "short", 0o600).contains("openssl rand -hex 32"));
    std::fs::write(&file, format!("{token}\n")).unwrap();
    node.run();
    wait("health", || ask(&v6, "/healthz", None).filter(|(status, _)| *status == 200));
    for address in [&v4, &v6] {
        for (path, token, wanted) in [
            ("/metrics", None, 401),
            ("/metrics", Some("0123456789abcdef0123456789abcdeF"), 401),
            ("/metrics", Some(token), 200),
            ("/healthz", None, 200),
        ] {
            let answer = ask(address, path, token);
            // Where IPv6 sockets do not take IPv4 there is nobody to ask.
            let Some((status, text)) = answer else { continue };
            assert_eq!(status, wanted, "{address} {path} {text}");
        }
    }
    let (_, text) = ask(&v6, "/metrics", Some(token)).unwrap();
    let denied = text.lines().find_map(|line| line.strip_prefix("sallyport_metrics_denied_total ")).unwrap();
    assert!(denied.parse::<u32>().unwrap() >= 2, "{denied}");
    assert!(!node.log().contains(token), "the token is in no log");
    node.stop();
}
