//! `sallyport up`: a console and a node on this machine, kept running.
//!
//! The parent parses nothing and listens on nothing. With root's rights the console half runs as the caller of sudo or
//! as a system user; the node keeps the privileges it needs and drops the rest by itself.

mod child;
mod user;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use model::name::Name;

use crate::cli::{numbers, places, say};
use crate::client::{Client, ClientError};
use crate::server::{Held, console_of, hold};
use child::Keep;
use user::User;

/// Exit status of a process that would fail in the same way when started again (sysexits.h).
pub(crate) const EX_CONFIG: u8 = 78;

/// How long the console may take until it answers.
const READY: Duration = Duration::from_secs(60);

/// How long the console of a former `up` may take until it has ended; it drains for five seconds.
const FORMER: Duration = Duration::from_secs(8);

/// What is passed on to the two processes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    console: crate::cli::ConsoleOptions,
    /// The node's metrics and health
    #[arg(long, value_parser = numbers::address)]
    metrics_listen: Option<SocketAddr>,
    /// A file with the token that the node's /metrics asks for, mode 0600; needed where it is not on loopback
    #[arg(long)]
    metrics_token_file: Option<PathBuf>,
    /// Where the node's sockets and status are [default: /run/sallyport, or run/ below the state]
    #[arg(long)]
    run_dir: Option<PathBuf>,
    /// Filter packets on this interface (repeatable) [default: those of the default routes]
    #[arg(long)]
    interface: Vec<String>,
    /// Plain sockets and no packet filter in the kernel, even as root
    #[arg(long)]
    no_kernel: bool,
    /// Keeps several nodes on one machine apart
    #[arg(long)]
    instance: Option<String>,
    /// The node's worker threads [default: one a core]
    #[arg(long, value_parser = numbers::number::<usize>)]
    threads: Option<usize>,
    /// What the node may have of the machine's memory, such as 512M [default: what its control group may have]
    #[arg(long)]
    memory_limit: Option<String>,
    /// The node's labels, key=value (repeatable)
    #[arg(long)]
    label: Vec<String>,
    /// A file for the access log [default: standard output]
    #[arg(long)]
    access_log: Option<PathBuf>,
}

/// Why `up` ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(
        "{what}{who} is running already with its state in {}{at}; stop it, or start this one with another --state-dir and other addresses (--console-listen, --node-listen, --metrics-listen)", state_dir.display()
    )]
    Running { what: &'static str, who: String, state_dir: PathBuf, at: String },
    #[error("{} is missing; build it with: cargo build --release -p sallyport-node", .0.display())]
    NoNode(PathBuf),
    #[error("the {0} cannot start; it says why above")]
    Config(&'static str),
    #[error("the console did not answer within {} s; it says why above", READY.as_secs())]
    NotReady,
}

impl UpError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

/// Runs both until SIGTERM or SIGINT, or until the terminal is closed.
pub(crate) async fn run(said: Option<PathBuf>, options: Options) -> Result<ExitCode, UpError> {
    let own = std::env::current_exe().map_err(UpError::io("find the own executable"))?;
    let binary = own.with_file_name("sallyport-node");
    if !binary.exists() {
        return Err(UpError::NoNode(binary));
    }
    let state_dir = places::state_dir(said.as_deref())?;
    let root = rustix::process::geteuid().is_root();
    let user = root.then(User::for_console).transpose()?;
    make(&state_dir, 0o755)?;
    // Before anything there is given to another user.
    let _alone = alone(&state_dir)?;
    give_console(&state_dir, user.as_ref())?;
    announce(&state_dir, user.as_ref(), root);

    let token = state_dir.join("console/local-node.token");
    let plan = Arc::new(Plan { state_dir, token, user, options });
    let mut stop = std::pin::pin!(places::stopped());
    // A node that was enrolled has a snapshot to serve, whether or not a console starts.
    let enrolled = plan.state_dir.join("node/node.sealed").exists();
    let start_node = || Keep::start("node", enrolled, node_command(binary.clone(), &plan));
    let mut early = if enrolled { Some(start_node()?) } else { None };
    if let Err(error) = no_console(&plan.state_dir, FORMER).await {
        if let Some(mut node) = early {
            node.stop().await;
        }
        return Err(error);
    }
    let mut console = Keep::start("console", enrolled, console_command(own, &plan))?;
    let ended = tokio::select! {
        ready = ready(&plan.state_dir, enrolled) => ready.map(|()| false),
        failed = console.watch() => Err(failed),
        failed = watch(&mut early) => Err(failed),
        () = &mut stop => Ok(true),
    };
    if !matches!(ended, Ok(false)) {
        return end(early, console, ended.map(drop)).await;
    }
    console.proven();
    let mut node = match early {
        Some(mut node) => {
            // The console does not know it, or not any more.
            if plan.token.exists() {
                say("the node is not enrolled at this console; starting it again with a token");
                node.restart().await?;
            }
            node
        }
        None => start_node()?,
    };
    let ended = tokio::select! {
        failed = console.watch() => Err(failed),
        failed = node.watch() => Err(failed),
        () = &mut stop => Ok(()),
    };
    end(Some(node), console, ended).await
}

/// One `up` a state directory: its console and node would try in vain for ever beside those of another.
fn alone(state_dir: &Path) -> Result<std::fs::File, UpError> {
    let path = state_dir.join("up.lock");
    match hold(&path).map_err(UpError::io(format!("lock {}", path.display())))? {
        Held::Ours(file) => Ok(file),
        Held::Theirs(who) => Err(running("Sallyport", who, state_dir)),
    }
}

/// Waits until nobody else's console has the state: that of a former `up` ends by itself, a service does not.
async fn no_console(state_dir: &Path, within: Duration) -> Result<(), UpError> {
    let (end, directory) = (Instant::now() + within, state_dir.join("console"));
    while let Some(who) = console_of(&directory) {
        if Instant::now() >= end {
            return Err(running("a console", who, state_dir));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn running(what: &'static str, who: String, state_dir: &Path) -> UpError {
    let url = Client::local(&state_dir.join("console/cli.json")).map(|client| client.url());
    let at = url.map_or_else(|_no_file| String::new(), |url| format!("; its console is at {url}"));
    UpError::Running { what, who, state_dir: state_dir.to_owned(), at }
}

async fn watch(child: &mut Option<Keep>) -> UpError {
    match child {
        Some(child) => child.watch().await,
        None => std::future::pending().await,
    }
}

/// Ends both, the node first: until then the console hears how it fares.
async fn end(node: Option<Keep>, mut console: Keep, why: Result<(), UpError>) -> Result<ExitCode, UpError> {
    if let Some(mut node) = node {
        say("stopping: connections may finish what they are doing");
        node.stop().await;
    }
    console.stop().await;
    why.map(|()| ExitCode::SUCCESS)
}

fn announce(state_dir: &Path, user: Option<&User>, root: bool) {
    say(&format!("Sallyport {} keeps its state in {}", env!("CARGO_PKG_VERSION"), state_dir.display()));
    match user {
        Some(user) => {
            say(&format!("  the console runs as {}, the node with the capabilities it needs", user.name));
            if let Some(warning) = user.warning(state_dir) {
                say(&warning);
            }
        }
        None if !root => say(&format!(
            "  without root: plain sockets, no packet filter in the kernel; `sallyport{} status` says what is off",
            places::to_say(state_dir)
        )),
        None => {}
    }
}

fn make(path: &Path, mode: u32) -> Result<(), UpError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(UpError::io(format!("create {}", path.display())))
}

/// The state directory is open for passing through; the console's part is the console's alone.
fn give_console(state_dir: &Path, user: Option<&User>) -> Result<(), UpError> {
    use std::os::unix::fs::chown;
    let console = state_dir.join("console");
    make(&console, 0o700)?;
    match user {
        Some(user) => chown(&console, Some(user.uid), Some(user.gid)).map_err(UpError::io(format!(
            "give {} to {}",
            console.display(),
            user.name
        ))),
        None => Ok(()),
    }
}

/// What both commands are made from.
struct Plan {
    state_dir: PathBuf,
    token: PathBuf,
    user: Option<User>,
    options: Options,
}

fn console_command(own: PathBuf, plan: &Arc<Plan>) -> child::Make {
    use std::os::unix::process::CommandExt as _;
    let plan = Arc::clone(plan);
    Box::new(move || {
        let mut start = child::start(&own)?;
        let command = &mut start.command;
        let listen = &plan.options.console;
        command.arg("--state-dir").arg(&plan.state_dir).arg("console");
        command.args(["--parent", &std::process::id().to_string()]);
        for (flag, addresses) in
            [("--console-listen", &listen.console_listen), ("--node-listen", &listen.node_listen)]
        {
            for address in addresses {
                command.args([flag, &address.to_string()]);
            }
        }
        if let Some(address) = &listen.node_address {
            command.args(["--node-address", address]);
        }
        let prefixes = listen.fetch_from.iter().map(ToString::to_string);
        command.args(prefixes.flat_map(|prefix| ["--fetch-from".to_owned(), prefix]));
        let port = listen.first_listener.unwrap_or(if plan.user.is_some() { 443 } else { 8443 });
        command.args(["--first-listener", &port.to_string()]);
        command.args(["--local-node", node_name().as_str()]).arg("--local-token").arg(&plan.token);
        command.args(plan.options.label.iter().flat_map(|label| ["--local-label", label]));
        if let Some(user) = &plan.user {
            command.uid(user.uid).gid(user.gid).env("HOME", plan.state_dir.join("console"));
        }
        Ok(start)
    })
}

fn node_command(binary: PathBuf, plan: &Arc<Plan>) -> child::Make {
    let plan = Arc::clone(plan);
    Box::new(move || {
        let options = &plan.options;
        let mut start = child::start(&binary)?;
        let command = &mut start.command;
        command.arg("run").arg("--state-dir").arg(&plan.state_dir);
        command.args(["--parent", &std::process::id().to_string()]);
        // Written by the console while the node is not enrolled; one that was used before changes nothing.
        if plan.token.exists() {
            command.arg("--token-file").arg(&plan.token);
        }
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let pairs = [
            ("--run-dir", path(&options.run_dir)),
            ("--metrics-listen", options.metrics_listen.map(|address| address.to_string())),
            ("--metrics-token-file", path(&options.metrics_token_file)),
            ("--instance", options.instance.clone()),
            ("--threads", options.threads.map(|threads| threads.to_string())),
            ("--memory-limit", options.memory_limit.clone()),
            ("--access-log", path(&options.access_log)),
        ];
        for (flag, value) in pairs {
            command.args(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        command.args(options.interface.iter().flat_map(|name| ["--interface", name]));
        if options.no_kernel {
            command.arg("--no-kernel");
        }
        Ok(start)
    })
}

/// The host name's first label where it can be a node's name, else `local`.
fn node_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    label.parse::<Name>().map_or_else(|_no_name| "local".to_owned(), String::from)
}

/// Waits until the console answers its own command line; for ever where a node serves meanwhile.
async fn ready(state_dir: &Path, patient: bool) -> Result<(), UpError> {
    let file = state_dir.join("console/cli.json");
    let end = Instant::now() + READY;
    while patient || Instant::now() < end {
        if let Ok(client) = Client::local(&file)
            && matches!(client.call("GET", "/readyz", None).await, Ok((200, _)))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(UpError::NotReady)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;

    #[test]
    fn a_second_one_with_the_same_state_says_who_runs() {
        let directory = Directory::new();
        let state = directory.path();
        let first = alone(state).unwrap();
        let file = state.join("console/cli.json");
        let said = alone(state).unwrap_err().to_string();
        assert!(said.starts_with(&format!("Sallyport (process {}) is running already", std::process::id())));
        assert!(said.contains("--state-dir") && !said.contains("its console is at"), "{said}");
        std::fs::create_dir(state.join("console")).unwrap();
        let ca = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
        let cli = serde_json::json!({ "url": "https://127.0.0.1:9443", "token": "t", "ca": ca });
        std::fs::write(file, cli.to_string()).unwrap();
        let said = alone(state).unwrap_err().to_string();
        assert!(said.contains("; its console is at https://127.0.0.1:9443; stop it"), "{said}");
        drop(first);
        assert!(alone(state).is_ok());
    }

    #[tokio::test]
    async fn nothing_is_started_beside_somebody_elses_console() {
        let directory = Directory::new();
        let (console, soon) = (directory.path().join("console"), Duration::from_millis(120));
        assert!(no_console(directory.path(), soon).await.is_ok(), "there is none yet");
        std::fs::create_dir(&console).unwrap();
        let Ok(Held::Ours(theirs)) = hold(&console.join("lock")) else { panic!() };
        let waits = Instant::now();
        let error = no_console(directory.path(), soon).await.unwrap_err().to_string();
        assert!(error.starts_with("a console (process ") && waits.elapsed() >= soon, "{error}");
        drop(theirs);
        assert!(no_console(directory.path(), soon).await.is_ok());
    }
}
