//! The real executable.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_node::keeper::status::Status;

use super::{Console, Scratch, wait};

pub(crate) struct Node {
    pub(crate) scratch: Scratch,
    pub(crate) keeper: Option<Child>,
    pub(crate) arguments: Vec<String>,
    /// Wraps the command, such as `ip netns exec NAME`.
    pub(crate) wrapper: Vec<String>,
    log: PathBuf,
}

impl Node {
    /// A node of `console` on plain sockets, enrolled by its token.
    pub(crate) fn start(console: &Console) -> Self {
        let mut node = Self::prepare(console);
        node.arguments.push("--no-kernel".to_owned());
        node.run();
        node
    }

    pub(crate) fn prepare(console: &Console) -> Self {
        let scratch = Scratch::new();
        let token = scratch.path().join("token");
        std::fs::write(&token, console.token()).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let log = scratch.path().join("log");
        let arguments =
            ["--metrics-listen", "127.0.0.1:0", "--threads", "2", "--token-file"].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(token.display().to_string());
        Self { scratch, keeper: None, arguments, wrapper: Vec::new(), log }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let executable = env!("CARGO_BIN_EXE_sallyport-node");
        let words: Vec<&str> = self.wrapper.iter().map(String::as_str).chain([executable]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(subcommand);
        command.arg("--state-dir").arg(self.state_dir()).arg("--run-dir").arg(self.run_dir());
        command
    }

    /// Starts the keeper (again).
    pub(crate) fn run(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command("run");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.keeper = Some(command.spawn().unwrap());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Option<Status> {
        serde_json::from_slice(&std::fs::read(self.run_dir().join("status.json")).ok()?).ok()
    }

    #[track_caller]
    pub(crate) fn wait_status<T>(&self, what: &str, mut pick: impl FnMut(&Status) -> Option<T>) -> T {
        wait(what, || self.status().and_then(|status| pick(&status)))
    }

    /// The worker's process id, once it is another than `not`.
    #[track_caller]
    pub(crate) fn worker(&self, not: Option<u32>) -> u32 {
        let keeper = self.keeper.as_ref().unwrap().id();
        self.wait_status("a worker", |status| {
            status.worker.filter(|worker| {
                Some(*worker) != not && (status.keeper == keeper || !self.wrapper.is_empty())
            })
        })
    }

    /// `kill -9`.
    pub(crate) fn kill_keeper(&mut self) {
        let mut keeper = self.keeper.take().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
    }

    /// SIGTERM; the exit status and how long it took.
    pub(crate) fn stop(&mut self) -> (std::process::ExitStatus, Duration) {
        let mut keeper = self.keeper.take().unwrap();
        let begin = std::time::Instant::now();
        signal(keeper.id(), rustix::process::Signal::TERM);
        (keeper.wait().unwrap(), begin.elapsed())
    }
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Stops a process and waits until each of its threads stands still.
pub(crate) fn freeze(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
    let still = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    };
    wait("the process stands still", || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks.all(still).then_some(())
    });
}

pub(crate) fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- the node's log\n{}", self.log());
        }
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--instance") {
            // What a failed test leaves in the kernel is nobody else's to remove.
            let _ = self.command("detach").args(["--force", "--instance", &self.arguments[at + 1]]).output();
        }
        let ours = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("sallyport-node\0worker")
        };
        let workers = std::fs::read_to_string(self.run_dir().join("workers")).unwrap_or_default();
        let pids = workers.lines().filter_map(|line| line.split(' ').next()?.parse().ok());
        pids.filter(ours).for_each(kill);
    }
}
