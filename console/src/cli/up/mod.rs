//! `up`: a console and a node on this machine, supervised.

mod child;
mod owner;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::watch;

use super::out::{Failure, say};
use super::places::{console_dir, state_dir};
use super::run::{replace, wait_for_signal};
use super::{Client, ListenArgs};
use owner::Owner;

/// How long the console may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// `up`'s arguments.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// The state directory; default: /var/lib/sallyport as root, else ~/.local/state/sallyport.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// For sockets and status; default: /run/sallyport as root, else `run/` in the state directory.
    #[arg(long)]
    run_dir: Option<PathBuf>,
    /// Where the node's metrics and health are.
    #[arg(long, default_value = "127.0.0.1:9464")]
    metrics_listen: SocketAddr,
    /// Attach the packet filter to this interface (repeatable); default: those of the default routes.
    #[arg(long)]
    interface: Vec<String>,
    /// Plain sockets, even as root.
    #[arg(long)]
    no_kernel: bool,
    /// Keeps several gateways on one machine apart.
    #[arg(long, default_value = "default")]
    instance: String,
    /// Worker threads; default: one per core.
    #[arg(long)]
    threads: Option<usize>,
    /// A label of the node, key=value (repeatable).
    #[arg(long)]
    label: Vec<String>,
    /// The user the node's worker runs as.
    #[arg(long)]
    user: Option<String>,
    /// Append the access log to this file instead of standard output.
    #[arg(long)]
    access_log: Option<PathBuf>,
    /// The port of the listener that the first start makes; default: 443 as root, else 8443.
    #[arg(long)]
    first_listener: Option<u16>,
}

/// Where everything is.
struct Places {
    state: PathBuf,
    run: PathBuf,
    node: PathBuf,
    owner: Owner,
}

pub(super) async fn up(args: UpArgs) -> Result<ExitCode, Failure> {
    let places = prepare(&args)?;
    let node_program = node_program()?;
    say(format_args!("Sallyport {}", env!("CARGO_PKG_VERSION")));
    say(format_args!("state in {}", places.state.display()));
    match places.owner.is_root() {
        true => say(format_args!("console as {}, node as root (it gives up what it does not need)", places.owner.name)),
        false => say(
            "without root: plain sockets, no packet filter in the kernel, keeper and worker are not isolated (run it through sudo for all of it)",
        ),
    }
    let (stop, stopped) = watch::channel(false);
    let console = child::supervise("console", console_command(&args, &places)?, stopped.clone());
    let mut console = tokio::spawn(console);
    tokio::select! {
        ended = &mut console => return Ok(ended_early(ended)),
        ready = enrol(&places) => ready?,
        signal = wait_for_signal() => {
            signal?;
            stop.send_replace(true);
            return Ok(ended_early(console.await));
        }
    }
    say("starting the node");
    let node = child::supervise("node", node_command(&args, &places, &node_program), stopped);
    let mut node = tokio::spawn(node);
    let code = tokio::select! {
        ended = &mut console => {
            stop.send_replace(true);
            let _node = node.await;
            return Ok(ended_early(ended));
        }
        ended = &mut node => {
            stop.send_replace(true);
            let _console = console.await;
            return Ok(ended_early(ended));
        }
        signal = wait_for_signal() => signal.map(|()| ExitCode::SUCCESS)?,
    };
    say("stopping");
    stop.send_replace(true);
    // The node first drains; the console answers it until then.
    let (_node, _console) = (node.await, console.await);
    Ok(code)
}

fn ended_early(ended: Result<ExitCode, tokio::task::JoinError>) -> ExitCode {
    ended.unwrap_or(ExitCode::FAILURE)
}

fn prepare(args: &UpArgs) -> Result<Places, Failure> {
    let owner = Owner::find();
    let state = state_dir(args.state_dir.as_deref());
    let run = args.run_dir.clone().unwrap_or_else(|| match owner.is_root() {
        true => PathBuf::from("/run/sallyport"),
        false => state.join("run"),
    });
    let node = state.join("node");
    let make = |path: &Path, mode: u32| {
        let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        let moded = made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
        moded.map_err(|error| Failure::config(format!("{} cannot be made: {error}", path.display())))
    };
    // The console's user must reach its own directory; what is secret is below.
    make(&state, if owner.is_root() { 0o755 } else { 0o700 })?;
    let console = console_dir(&state);
    make(&console, 0o700)?;
    owner.give(&console)?;
    make(&node, 0o700)?;
    make(&run, if owner.is_root() { 0o755 } else { 0o700 })?;
    Ok(Places { state, run, node, owner })
}

/// The node's program: beside this one, or on the PATH.
fn node_program() -> Result<PathBuf, Failure> {
    const NAME: &str = "sallyport-node";
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(NAME)));
    if let Some(beside) = beside.filter(|path| path.is_file()) {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(NAME)).find(|path| path.is_file());
    found.ok_or_else(|| Failure::config(format!("{NAME} is neither beside sallyport nor on the PATH; build or install it")))
}

fn console_command(args: &UpArgs, places: &Places) -> Result<Command, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::fault(format!("the own program is unknown: {error}")))?;
    let mut command = Command::new(own);
    let port = args.first_listener.unwrap_or(if places.owner.is_root() { 443 } else { 8443 });
    command.arg("console").arg("--state-dir").arg(&places.state).arg("--first-listener").arg(port.to_string());
    for address in &args.listen.console_listen {
        command.arg("--console-listen").arg(address.to_string());
    }
    command.arg("--node-listen").arg(args.listen.node_listen.to_string());
    if let Some(address) = &args.listen.node_address {
        command.arg("--node-address").arg(address);
    }
    places.owner.run_as(&mut command);
    Ok(command)
}

fn node_command(args: &UpArgs, places: &Places, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg("--state-dir").arg(&places.state).arg("--run-dir").arg(&places.run);
    command.arg("--instance").arg(&args.instance).arg("--metrics-listen").arg(args.metrics_listen.to_string());
    let token = token_file(places);
    if token.exists() {
        command.arg("--token-file").arg(token);
    }
    for interface in &args.interface {
        command.arg("--interface").arg(interface);
    }
    for label in &args.label {
        command.arg("--label").arg(label);
    }
    if args.no_kernel {
        command.arg("--no-kernel");
    }
    if let Some(threads) = args.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    if let Some(user) = &args.user {
        command.arg("--user").arg(user);
    }
    if let Some(log) = &args.access_log {
        command.arg("--access-log").arg(log);
    }
    command
}

fn token_file(places: &Places) -> PathBuf {
    places.node.join("enrolment-token")
}

/// Waits for the console and enrols this machine's node, once.
async fn enrol(places: &Places) -> Result<(), Failure> {
    let client = answering(places).await?;
    if places.node.join("node.json").exists() {
        return Ok(());
    }
    let name = own_name();
    say(format_args!("enrolling this machine's node as {name}"));
    let answer = client.post(&format!("/api/v1/nodes/{name}/enrol"), &json!({})).await?;
    let token = answer["token"].as_str().unwrap_or_default();
    replace(&token_file(places), token.as_bytes())
        .map_err(|error| Failure::config(format!("{}: {error}", token_file(places).display())))
}

async fn answering(places: &Places) -> Result<Client, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried = match Client::of_state(&places.state) {
            Ok(client) => client.get("/api/v1/status").await.map(|_status| client),
            Err(failure) => Err(failure),
        };
        match tried {
            Ok(client) => return Ok(client),
            Err(failure) if Instant::now() > deadline => return Err(failure),
            Err(_not_yet) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The first label of the machine's name, as far as it can name a node.
fn own_name() -> String {
    let hostname = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let first = hostname.split('.').next().unwrap_or_default();
    let kept: String = first.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    let name = kept.trim_matches('-');
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}
