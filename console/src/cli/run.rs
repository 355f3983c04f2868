//! `console`: the console as a process.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::ListenArgs;
use super::client::CliFile;
use super::out::{Failure, say};
use super::places::{console_dir, state_dir};
use crate::ops::{Actor, Ops, Role};
use crate::server::{Port, Tls, bind, serve, server_names};
use crate::session::Sessions;
use crate::state::AppState;
use crate::{clock, nodes, router};

/// How often figures are written and unconfirmed revisions are looked for.
const FIGURES: Duration = Duration::from_secs(5);
const UNCONFIRMED: Duration = Duration::from_secs(1);

/// `console`'s arguments.
#[derive(Debug, Args)]
pub(super) struct ConsoleArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// The state directory; the console's own is `console/` in it.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// On the very first start, make a listener `https` on this port.
    #[arg(long, default_value_t = 443, value_name = "PORT")]
    first_listener: u16,
}

pub(super) async fn console(args: ConsoleArgs) -> Result<ExitCode, Failure> {
    let directory = console_dir(&state_dir(args.state_dir.as_deref()));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|error| Failure::config(format!("{} cannot be made: {error}", directory.display())))?;
    let _alone = lock(&directory)?;
    let config = |error: &dyn std::fmt::Display| Failure::config(error.to_string());
    // Ports before the database: a second console must not touch the first one's state.
    let node_port = bind(args.listen.node_listen, "--node-listen").await.map_err(|error| config(&error))?;
    let mut console_ports = Vec::new();
    for address in &args.listen.console_listen {
        console_ports.push(bind(*address, "--console-listen").await.map_err(|error| config(&error))?);
    }
    let node_address = args.listen.node_address.clone().unwrap_or_else(|| reachable(args.listen.node_listen));
    let ops = Ops::open(&directory, &node_address).await.map_err(|error| config(&error))?;
    ops.begin(args.first_listener).await.map_err(|error| config(&error))?;
    let (stop, stopped) = watch::channel(false);
    let mut serving = tokio::task::JoinSet::new();
    let names = server_names(&[args.listen.node_listen], &host_of(&node_address));
    let node_tls = Arc::new(Tls::new(ops.authority().clone(), names, true));
    let port = Port { tls: node_tls, router: nodes::router(ops.clone()), nodes: true };
    serving.spawn(serve(node_port, port, stopped.clone()));
    let names = server_names(&args.listen.console_listen, &[]);
    let tls = Arc::new(Tls::new(ops.authority().clone(), names, false));
    let state = AppState { ops: ops.clone(), sessions: Sessions::new(ops.clone()) };
    let router = router::router(&state);
    let url = format!("https://{}", first_url(&console_ports, &args.listen.console_listen));
    for listener in console_ports {
        let port = Port { tls: Arc::clone(&tls), router: router.clone(), nodes: false };
        serving.spawn(serve(listener, port, stopped.clone()));
    }
    write_cli_file(&directory, &ops, &url).await?;
    greet(&state, &url).await?;
    tracing::info!(url, nodes = node_address, revision = ops.current().id.revision, "console ready");
    let work = tokio::spawn(background(ops.clone()));
    wait_for_signal().await?;
    tracing::info!("console stops");
    stop.send_replace(true);
    while serving.join_next().await.is_some() {}
    work.abort();
    if let Err(error) = ops.figures().write(ops.store()).await {
        tracing::warn!(%error, "the last figures were not written");
    }
    ops.store().close().await;
    Ok(ExitCode::SUCCESS)
}

/// One console per state directory; the lock goes with the process.
fn lock(directory: &Path) -> Result<fs::File, Failure> {
    let path = directory.join("lock");
    let failed = |error: std::io::Error| Failure::config(format!("{}: {error}", path.display()));
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let sentence = format!("another console runs with {}; stop it, or choose another --state-dir", directory.display());
            Err(Failure::config(sentence))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// What nodes on other machines are told: a wildcard address is nothing to connect to.
fn reachable(listen: SocketAddr) -> String {
    match listen.ip().is_unspecified() {
        true => format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), listen.port()),
        false => listen.to_string(),
    }
}

fn host_of(address: &str) -> Vec<String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    vec![host.trim_matches(['[', ']']).to_owned()]
}

fn first_url(ports: &[tokio::net::TcpListener], asked: &[SocketAddr]) -> String {
    let bound = ports.first().and_then(|port| port.local_addr().ok()).or_else(|| asked.first().copied());
    match bound {
        Some(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        Some(address) => address.to_string(),
        None => "127.0.0.1".to_owned(),
    }
}

/// Leaves (or renews) what the command line on this machine needs; a token that still works stays.
async fn write_cli_file(directory: &Path, ops: &Ops, url: &str) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::config(format!("cli.json: {error}"));
    let path = directory.join("cli.json");
    let old: Option<CliFile> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let token = match old {
        Some(old) if ops.token(&old.token).await.is_ok_and(|found| found.is_some()) => old.token,
        _ => {
            let made = ops.make_token("cli", Role::Administrator, &Actor::console()).await;
            made.map_err(|error| failed(&error))?
        }
    };
    let file = CliFile { url: url.to_owned(), token, ca: ops.authority().pem().to_owned() };
    let json = serde_json::to_vec_pretty(&file).map_err(|error| failed(&error))?;
    replace(&path, &json).map_err(|error| failed(&error))?;
    replace(&directory.join("ca.pem"), file.ca.as_bytes()).map_err(|error| failed(&error))
}

/// Writes a file whole or not at all, readable by its owner only.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    // What a crash left over is ours.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

async fn greet(state: &AppState, url: &str) -> Result<(), Failure> {
    let token = state.sessions.setup_token().await.map_err(|error| Failure::config(error.to_string()))?;
    match token {
        Some(token) => {
            say("Open this link once to choose the administrator's name and password:");
            say(format_args!("  {url}/setup?token={token}"));
            say("(or run: sallyport user reset NAME)");
        }
        None => say(format_args!("The console is at {url}")),
    }
    Ok(())
}

/// What goes on beside requests: figures to the disk, unconfirmed revisions back.
async fn background(ops: Ops) {
    let mut figures = tokio::time::interval(FIGURES);
    let mut unconfirmed = tokio::time::interval(UNCONFIRMED);
    loop {
        tokio::select! {
            _ = figures.tick() => {
                if let Err(error) = ops.figures().write(ops.store()).await {
                    tracing::warn!(%error, "figures were not written; they are kept and tried again");
                }
            }
            _ = unconfirmed.tick() => {
                if let Err(error) = ops.roll_back_unconfirmed(clock::now()).await {
                    tracing::error!(%error, "an unconfirmed revision could not be rolled back; trying again");
                }
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn wait_for_signal() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::fault(format!("signals cannot be waited for: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
