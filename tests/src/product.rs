//! The real `sallyport up`, its processes and what they say.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::api::Api;
use crate::eventually;
use crate::space::{Space, command};

/// One of the product's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `sallyport up`.
    Up,
    /// `sallyport console`.
    Console,
    /// `sallyport-node run`.
    Keeper,
    /// `sallyport-node worker`.
    Worker,
    /// `sallyport-node hold`.
    Holder,
}

/// `sallyport up`, with everything below one directory that goes with this value.
#[derive(Debug)]
pub struct Product {
    space: Arc<Space>,
    dir: PathBuf,
    instance: String,
    child: Option<Child>,
    user: Option<u32>,
    more: Vec<String>,
    wrapper: Vec<String>,
    small: bool,
}

impl Product {
    /// Copies the programs to where every user may run them, and starts them in `space`.
    ///
    /// With `user` the whole product runs as that user, without any privilege.
    pub fn start(space: &Arc<Space>, name: &str, user: Option<u32>, more: &[&str]) -> Self {
        Self::start_with(space, name, user, more, &[], false)
    }

    /// The same as root, its command behind others, such as `setpriv --bounding-set=-bpf`.
    pub fn start_behind(space: &Arc<Space>, name: &str, wrapper: &[&str]) -> Self {
        Self::start_with(space, name, None, &[], wrapper, false)
    }

    /// The same with a file system of 24 MiB for its state, which a test can fill.
    pub fn start_on_small_disk(space: &Arc<Space>, name: &str) -> Self {
        Self::start_with(space, name, None, &[], &[], true)
    }

    fn start_with(
        space: &Arc<Space>,
        name: &str,
        user: Option<u32>,
        more: &[&str],
        wrapper: &[&str],
        small: bool,
    ) -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("bin")).expect("a directory below /var/tmp");
        for program in ["sallyport", "sallyport-node"] {
            let from = bin_dir().join(program);
            fs::copy(&from, dir.join("bin").join(program)).unwrap_or_else(|error| {
                panic!("{}: {error}; build first, or set SALLYPORT_BIN_DIR", from.display())
            });
        }
        let state = dir.join("state");
        fs::create_dir_all(&state).expect("state directory");
        if small {
            command(
                "mount",
                &["-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", &state.display().to_string()],
            );
        }
        if user.is_some() {
            std::os::unix::fs::chown(dir.join("state"), user, user).expect("chown");
        }
        let mut product = Self {
            space: space.clone(),
            dir,
            instance: name.to_owned(),
            child: None,
            user,
            more: words(more),
            wrapper: words(wrapper),
            small,
        };
        product.up();
        product
    }

    /// Starts `sallyport up` (again).
    pub fn up(&mut self) {
        let log = |name: &str| {
            let file = fs::OpenOptions::new().create(true).append(true).open(self.dir.join(name));
            file.expect("log file")
        };
        let program = self.program("sallyport").display().to_string();
        let mut words = self.wrapper.iter().chain([&program]);
        let mut command = Command::new(words.next().expect("a command"));
        command
            .args(words)
            .arg("up")
            .args(["--state-dir", &self.dir.join("state").display().to_string()])
            .args(["--run-dir", &self.dir.join("state/run").display().to_string()])
            .args(["--instance", &self.instance])
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log("out"))
            .stderr(log("log"))
            .current_dir("/")
            // In a group of its own: a test's terminal does not interrupt it.
            .process_group(0);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        self.child = Some(self.space.inside(|| command.spawn()).expect("start sallyport up"));
    }

    /// A program's path.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// The directory with state and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pins' directory name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Waits for the API and the node, which must be connected and have applied something.
    pub fn ready(&mut self) -> Api {
        let file = self.dir.join("state/console/cli.json");
        let until = Instant::now() + Duration::from_secs(40);
        loop {
            let state = Api::from_file(&self.space, &file).and_then(|api| {
                let status = api.call("GET", "/api/v1/status", None).map_err(|error| error.to_string())?;
                let nodes = status.1["nodes"].as_array().cloned().unwrap_or_default();
                let serving =
                    nodes.iter().any(|node| !node["connected"].is_null() && !node["applied"].is_null());
                if status.0 == 200 && serving { Ok(api) } else { Err(format!("{} {}", status.0, status.1)) }
            });
            let complaint = match state {
                Ok(api) => return api,
                Err(complaint) => complaint,
            };
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                panic!("sallyport up is not ready ({ended:?}): {complaint}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs the command line against this console: success, standard output, standard error.
    pub fn cli(&self, arguments: &[&str]) -> (bool, String, String) {
        let state = self.dir.join("state").display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--state-dir", &state]);
        self.space.try_run(&self.program("sallyport").display().to_string(), &all)
    }

    /// Begins the same; its output is not looked at.
    pub fn begin_cli(&self, arguments: &[&str]) -> Child {
        let program = self.program("sallyport");
        let state = self.dir.join("state");
        self.space.inside(|| {
            let mut command = Command::new(program);
            command.args(arguments).arg("--state-dir").arg(state).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("sallyport")
        })
    }

    /// The processes that run now, of one role.
    pub fn pids(&self, role: Role) -> Vec<u32> {
        self.processes().into_iter().filter(|(_, known)| *known == role).map(|(pid, _)| pid).collect()
    }

    /// All processes that run the programs of this product.
    pub fn processes(&self) -> Vec<(u32, Role)> {
        let bin = self.dir.join("bin");
        let entries = fs::read_dir("/proc").expect("/proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            if !program.starts_with(&bin) {
                return None;
            }
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let role = line.split(|byte| *byte == 0).skip(1).find_map(|word| match word {
                b"up" => Some(Role::Up),
                b"console" => Some(Role::Console),
                b"run" => Some(Role::Keeper),
                b"worker" => Some(Role::Worker),
                b"hold" => Some(Role::Holder),
                _ => None,
            })?;
            Some((pid, role))
        })
        .collect()
    }

    /// Sends a signal to one of our processes.
    pub fn signal(&self, pid: u32, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(pid).expect("pid")).expect("pid");
        let _ = kill_process(pid, signal);
    }

    /// What all processes logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The log's end, for a failure's message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The token of the link that makes the first administrator.
    pub fn setup_token(&self) -> String {
        eventually("the link to set up", Duration::from_secs(10), || {
            let said = self.log() + &fs::read_to_string(self.dir.join("out")).unwrap_or_default();
            let (_, rest) = said.split_once("/setup?token=").ok_or_else(|| said.clone())?;
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
            Ok(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().to_owned())
        })
    }

    /// The access log.
    pub fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("out")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The node's metrics.
    pub fn metrics(&self) -> String {
        self.told("/metrics")
    }

    /// What the node answers on its port for metrics and health.
    pub fn told(&self, path: &str) -> String {
        let text = self.space.inside(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 9464)))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        text.unwrap_or_default()
    }

    /// The sum of all series of a metric whose labels contain `label` (such as `reason="no-route"`).
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let metrics = self.metrics();
        let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What the keeper says of the node.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn node_status(&self) -> Result<Value, String> {
        let path = self.dir.join("state/run/status.json");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Waits until the node has applied the revision, or a newer one.
    pub fn applied(&self, revision: u64) {
        eventually("the node applies a revision", Duration::from_secs(20), || {
            let status = self.node_status()?;
            match status["applied"]["revision"].as_u64() {
                Some(applied) if applied >= revision => Ok(()),
                other => Err(format!("revision {revision} wanted, {other:?} applied; {}", status["refused"])),
            }
        });
    }

    /// The orderly end; what is still there afterwards.
    pub fn stop(&mut self) -> Vec<(u32, Role)> {
        if let Some(mut child) = self.child.take() {
            self.signal(child.id(), Signal::TERM);
            let until = Instant::now() + Duration::from_secs(40);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.processes()
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log's end ({}):\n{}", self.dir.join("log").display(), self.log_tail());
        }
        // The parent first, or it would start the others again.
        for role in [Role::Up, Role::Keeper, Role::Console, Role::Worker, Role::Holder] {
            self.pids(role).into_iter().for_each(|pid| self.signal(pid, Signal::KILL));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(crate::probe::pins(&self.instance));
        if self.small {
            let _ = Command::new("umount").arg("-l").arg(self.dir.join("state")).output();
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where the built programs are.
pub fn bin_dir() -> PathBuf {
    match std::env::var_os("SALLYPORT_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"),
    }
}
