//! `kill -9` of the console while it publishes: what was answered is there afterwards, nothing is half there.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only #[test] functions as tests"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Kills; each falls at another moment of a publish.
const ROUNDS: u64 = 8;
/// Of each change, two objects must always agree.
const NAMES: [&str; 2] = ["first", "second"];

struct State(PathBuf);

impl Drop for State {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

struct Console {
    child: Child,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn sallyport(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.arg("--state-dir").arg(state).stdin(Stdio::null());
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(state: &Path, ports: (u16, u16)) -> Console {
    let mut command = sallyport(state);
    command.args(["console", "--console-listen", &format!("127.0.0.1:{}", ports.0)]);
    command.args(["--node-listen", &format!("127.0.0.1:{}", ports.1)]);
    let console = Console { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !sallyport(state).args(["status", "--json"]).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "the console does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    console
}

fn apply(state: &Path, number: u64) -> Output {
    let file = state.join("change.yaml");
    let one = |name: &str| {
        format!(
            "---\napiVersion: sallyport.dev/v1alpha1\nkind: OriginGroup\nmetadata: {{name: {name}}}\nspec: {{origins: [{{url: \"https://n{number}.internal\"}}]}}\n"
        )
    };
    std::fs::write(&file, NAMES.map(one).concat()).unwrap();
    sallyport(state).args(["apply", "--no-wait", "-f"]).arg(&file).output().unwrap()
}

/// Which change is in force, the same in both objects.
fn in_force(state: &Path) -> u64 {
    let output = sallyport(state).arg("export").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u64> = text
        .split("https://n")
        .skip(1)
        .map(|rest| rest.split('.').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers.len(), NAMES.len(), "{text}");
    assert!(numbers.iter().all(|number| *number == numbers[0]), "half a change: {numbers:?}");
    numbers[0]
}

#[test]
fn no_answered_revision_is_lost_and_none_is_half_there() {
    let state = State(std::env::temp_dir().join(format!("sallyport-kill-{}", std::process::id())));
    std::fs::create_dir_all(&state.0).unwrap();
    let ports = (free_port(), free_port());
    let mut answered = 0;
    for round in 0..ROUNDS {
        let mut console = start(&state.0, ports);
        let delay = Duration::from_millis(20 + 23 * round);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            console.child.kill().unwrap();
            console.child.wait().unwrap();
        });
        let mut tried = answered;
        loop {
            tried += 1;
            if !apply(&state.0, tried).status.success() {
                break;
            }
            answered = tried;
        }
        killer.join().unwrap();
        let console = start(&state.0, ports);
        // Before the very first answer there may be nothing yet: make one.
        if answered == 0 {
            assert!(apply(&state.0, 1).status.success());
            answered = 1;
        }
        let found = in_force(&state.0);
        assert!(
            found == answered || found == tried,
            "round {round}: {found} of {answered} answered, {tried} tried"
        );
        answered = found;
        drop(console);
    }
}
