//! The stage: namespaces, origins, a console and a node of their own, in a directory of their own. All gone on drop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::client::Client;

use super::names::{CLIENT, FIRST, LINK, SECOND, Wire};
use super::origin::{Certified, Origin, OriginCa};
use super::spaces::{Namespaces, PREFIX};
use super::{DemoError, Table};

const READY_SECONDS: u64 = 30;

/// Everything the lines need. Fields drop in order: processes before the namespaces they live in.
pub(super) struct Stage {
    /// The console's API.
    pub(super) api: Client,
    /// Where clients connect, IPv4 then IPv6.
    pub(super) doors: [SocketAddr; 2],
    /// The origins by part; the first one can be stopped by a line.
    pub(super) first: Mutex<Option<Origin>>,
    pub(super) second: Origin,
    pub(super) impostor: Origin,
    /// Signs the origins' certificates.
    pub(super) origin_ca: OriginCa,
    _processes: Processes,
    namespaces: Option<Namespaces>,
    /// Logs, state and sockets.
    directory: Directory,
}

impl Stage {
    /// Builds it, saying what it does.
    pub(super) async fn build(no_root: bool, out: &Table) -> Result<Self, DemoError> {
        let root = !no_root && rustix::process::geteuid().is_root();
        let directory = Directory::make()?;
        let namespaces = match root {
            true => {
                out.say("Building the stage: namespaces client, node and two origins ...");
                Some(Namespaces::make()?)
            }
            false => {
                out.say("Building the stage on loopback (the kernel's part needs root) ...");
                None
            }
        };
        let origin_ca = OriginCa::new()?;
        let part = |wire: Wire| match &namespaces {
            Some(namespaces) => {
                (Some(namespaces.name(wire)), wire.far_addresses().map(|a| SocketAddr::new(a, 8443)))
            }
            None => (None, LOOPBACK.map(|a| SocketAddr::new(a, 0))),
        };
        let start = |wire: Wire, name, certified, port| {
            let (namespace, addresses) = part(wire);
            let addresses = addresses.map(|a| SocketAddr::new(a.ip(), if a.port() == 0 { 0 } else { port }));
            Origin::start(namespace.as_deref(), name, certified, addresses.to_vec(), &origin_ca)
        };
        let first = start(FIRST, "first", Certified::AsExpected, 8443)?;
        let second = start(SECOND, "second", Certified::AsExpected, 8443)?;
        let impostor = start(SECOND, "impostor", Certified::ForAnother, 9443)?;
        out.say("Starting a console and a node ...");
        let mut processes = Processes::default();
        let api = console(&directory.0, root, &mut processes).await?;
        node(&directory.0, namespaces.as_ref(), &api, &mut processes).await?;
        let doors = match &namespaces {
            Some(_) => CLIENT.near_addresses().map(|a| SocketAddr::new(a, 443)),
            None => {
                let port = free_port()?;
                LOOPBACK.map(|a| SocketAddr::new(a, port))
            }
        };
        Ok(Self {
            api,
            doors,
            first: Mutex::new(Some(first)),
            second,
            impostor,
            origin_ca,
            _processes: processes,
            namespaces,
            directory,
        })
    }

    /// Whether the kernel's part is played.
    pub(super) fn privileged(&self) -> bool {
        self.namespaces.is_some()
    }

    /// The clients' namespace.
    pub(super) fn client(&self) -> Option<String> {
        self.namespaces.as_ref().map(|namespaces| namespaces.name(CLIENT))
    }

    /// The first origin's addresses, as long as it runs.
    pub(super) fn first_addresses(&self) -> Vec<SocketAddr> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.as_ref().map_or_else(Vec::new, |origin| origin.addresses.clone())
    }

    /// Stops the first origin.
    pub(super) fn stop_first(&self) {
        drop(self.first.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The node's status as `sallyport-node status --json` prints it.
    pub(super) fn node_status(&self) -> Value {
        let text = std::fs::read(self.directory.0.join("run/status.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    }

    /// For `--keep`.
    pub(super) fn how_to_look(&self) -> String {
        let state = self.directory.0.join("state");
        format!(
            "Everything is left running. The setup link for a first administrator is in {}.\nCommand line: sallyport --state-dir {} status\nCtrl-C ends it and cleans up.",
            self.directory.0.join("console.log").display(),
            state.display(),
        )
    }
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The console, on the machine's own loopback, with the node link on the stage's wire.
async fn console(directory: &Path, root: bool, processes: &mut Processes) -> Result<Client, DemoError> {
    let own = std::env::current_exe().map_err(DemoError::io("find the own executable"))?;
    let link = if root { LINK.near_addresses()[0] } else { LOOPBACK[0] };
    let listen = if TcpListener::bind("127.0.0.1:9443").is_ok() { 9443 } else { free_port()? };
    let node_port = if root { 9444 } else { free_port()? };
    let mut command = Command::new(own);
    command
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("console")
        .args(["--console-listen", &format!("127.0.0.1:{listen}")])
        .args(["--node-listen", &SocketAddr::new(link, node_port).to_string()]);
    let log = directory.join("console.log");
    processes.start(command, &log)?;
    let file = directory.join("state/console/cli.json");
    wait("console", &log, async || match Client::local(&file) {
        Ok(api) if matches!(api.call("GET", "/api/v1/status", None).await, Ok((200, _))) => Some(api),
        _ => None,
    })
    .await
}

/// Enrols a node with a one-time token, as an operator would, and waits until the console sees it.
async fn node(
    directory: &Path,
    namespaces: Option<&Namespaces>,
    api: &Client,
    processes: &mut Processes,
) -> Result<(), DemoError> {
    let own = std::env::current_exe().map_err(DemoError::io("find the own executable"))?;
    let binary = own.with_file_name("sallyport-node");
    if !binary.exists() {
        return Err(DemoError::NoNode(binary));
    }
    let token = api.must("POST", "/api/v1/nodes/demo/enrol", Some(&json!({}))).await?;
    let token_file = directory.join("token");
    write_private(&token_file, token["token"].as_str().unwrap_or_default())?;
    let mut command = match namespaces {
        Some(namespaces) => {
            // `ip netns exec` would put a new /sys over the one bpffs is mounted in.
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", namespaces.of_node())).arg(&binary);
            command
        }
        None => Command::new(&binary),
    };
    command
        .arg("run")
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--run-dir")
        .arg(directory.join("run"));
    command
        .arg("--token-file")
        .arg(&token_file)
        .args(["--instance", &format!("demo-{}", std::process::id())]);
    match namespaces {
        Some(_) => command.args(["--interface", CLIENT.near]),
        None => command.args(["--no-kernel", "--metrics-listen", &format!("127.0.0.1:{}", free_port()?)]),
    };
    let log = directory.join("node.log");
    processes.start(command, &log)?;
    wait("node", &log, async || {
        let nodes = api.must("GET", "/api/v1/nodes", None).await.ok()?;
        nodes["items"].as_array()?.iter().any(|node| node["connected"].is_string()).then_some(())
    })
    .await
}

async fn wait<T>(who: &'static str, log: &Path, ready: impl AsyncFn() -> Option<T>) -> Result<T, DemoError> {
    let end = Instant::now() + Duration::from_secs(READY_SECONDS);
    while Instant::now() < end {
        if let Some(value) = ready().await {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(DemoError::NotReady { who, seconds: READY_SECONDS, log: log.to_owned() })
}

fn free_port() -> Result<u16, DemoError> {
    let socket = TcpListener::bind("127.0.0.1:0").map_err(DemoError::io("find a free port"))?;
    Ok(socket.local_addr().map_err(DemoError::io("find a free port"))?.port())
}

fn write_private(path: &Path, text: &str) -> Result<(), DemoError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(DemoError::io(format!("create {}", path.display())))?;
    file.write_all(text.as_bytes()).map_err(DemoError::io(format!("write {}", path.display())))
}

/// A directory of the demo's own, removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, DemoError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        // 0711: the node's worker is another user and must reach its sockets; nothing below is listable.
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .map_err(DemoError::io(format!("create {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Children, ended in an orderly way on drop, the last started first.
#[derive(Default)]
struct Processes(Vec<Child>);

impl Processes {
    fn start(&mut self, mut command: Command, log: &Path) -> Result<(), DemoError> {
        let file = std::fs::File::create(log).map_err(DemoError::io(format!("create {}", log.display())))?;
        let again = file.try_clone().map_err(DemoError::io("duplicate the log's descriptor"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .spawn()
            .map_err(DemoError::io(format!("start {}", command.get_program().display())))?;
        self.0.push(child);
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        while let Some(mut child) = self.0.pop() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(50));
            }
            drop(child.kill());
            drop(child.wait());
        }
    }
}
