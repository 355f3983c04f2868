//! The console as a process: its state, its two ports, what goes on beside requests.
//!
//! In: where state lies and where to listen. Out: answered requests until it is told to stop. A slow or silent peer costs a
//! bounded time, a flood of connections a bounded number.

mod files;
mod linger;
mod owner;
mod serve;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::labels::Labels;
use model::name::Name;
use model::net::Prefix;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use files::{Held, console_of, hold};
pub use serve::{BindError, Port};
pub use tls::{Tls, TlsError};

use crate::fetch::{Fetcher, Places};
use crate::ops::{Actor, OpenError, Ops, OpsError};
use crate::session::Sessions;
use crate::state::AppState;
use crate::{clock, nodes, router};
use serve::{bind, serve};
use tls::server_names;

/// How often figures are written.
const FIGURES: Duration = Duration::from_secs(5);
/// How often revisions that nobody confirmed are looked for.
const UNCONFIRMED: Duration = Duration::from_secs(1);
/// How often it is looked which lists are due.
const FETCHES: Duration = Duration::from_secs(1);

/// What a console needs to be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; the console's own is `console/` in it.
    pub state_dir: PathBuf,
    /// Where people and tools connect.
    pub console_listen: Vec<SocketAddr>,
    /// Where nodes connect.
    pub node_listen: Vec<SocketAddr>,
    /// What nodes are told to connect to, `host:port`; where they connect, unless that differs.
    pub node_address: Option<String>,
    /// On the very first start, make a listener `https` on this port.
    pub default_port: Option<u16>,
    /// Write this node's enrolment token to this file (mode 0600) while the node is not enrolled.
    pub local_node: Option<(Name, PathBuf)>,
    /// That node's labels; it keeps those it has when there are none.
    pub local_labels: Labels,
    /// Networks that are not public and that prefix sets may be fetched from all the same.
    pub fetch_from: Vec<Prefix>,
}

/// Why the console does not start; trying again in the same way will not help.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An operation of the start.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// A file.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// Another console has the state.
    #[error("another console{who} runs with {}; stop it, or choose another --state-dir", directory.display())]
    Running {
        /// The state.
        directory: PathBuf,
        /// Its process id in words; empty where it did not leave one.
        who: String,
    },
    /// There is no console here.
    #[error("{} has no console's database; --state-dir says where it is", .0.display())]
    NoConsole(PathBuf),
    /// Nowhere to listen.
    #[error("the console needs at least one --console-listen and one --node-listen")]
    NoPort,
}

/// Runs the console until `stop`.
///
/// # Errors
/// When it cannot start. What is there is then as it was.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    let directory = options.state_dir.join("console");
    files::make(&directory)?;
    let _alone = files::lock(&directory)?;
    let node_ports = bind_all(&options.node_listen, "--node-listen").await?;
    let console_ports = bind_all(&options.console_listen, "--console-listen").await?;
    let (Some(node_first), Some(console_first)) = (first(&node_ports), first(&console_ports)) else {
        return Err(StartError::NoPort);
    };
    let node_address = options.node_address.clone().unwrap_or_else(|| reachable(node_first));
    let fetcher = Fetcher { places: Places { also: options.fetch_from.clone() }, ..Fetcher::default() };
    let ops = Ops::open_with(&directory, &node_address, fetcher).await?;
    if let Some(port) = options.default_port {
        ops.begin(port).await?;
    }
    let ports = node_ports.iter().chain(&console_ports).filter_map(|port| port.local_addr().ok());
    let said = node_address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    ops.links().serves(ports.map(|address| address.port()).chain(said));
    let (stopping, stopped) = watch::channel(false);
    let mut serving = JoinSet::new();
    let names = server_names(&options.node_listen, &host_of(&node_address));
    let tls = Arc::new(Tls::new(ops.authority().clone(), names, true));
    let port = Port { tls, router: nodes::router(ops.clone()), nodes: true };
    for listener in node_ports {
        serving.spawn(serve(listener, port.clone(), stopped.clone()));
    }
    let state = AppState { ops: ops.clone(), sessions: Sessions::new(ops.clone()) };
    let names = server_names(&options.console_listen, &[]);
    let tls = Arc::new(Tls::new(ops.authority().clone(), names, false));
    let port = Port { tls, router: router::router(&state), nodes: false };
    for listener in console_ports {
        serving.spawn(serve(listener, port.clone(), stopped.clone()));
    }
    let url = format!("https://{}", browsable(console_first));
    if let Some((node, path)) = &options.local_node {
        offer_token(&ops, node, &options.local_labels, path).await?;
    }
    files::write_cli(&directory, &ops, &url).await?;
    greet(&state.sessions, &url, &options.state_dir).await?;
    tracing::info!(url, nodes = node_address, revision = ops.current().id.revision, "console ready");
    let work = tokio::spawn(background(ops.clone()));
    let fetching = tokio::spawn(fetch(ops.clone()));
    stop.await;
    tracing::info!("console stops");
    stopping.send_replace(true);
    while serving.join_next().await.is_some() {}
    work.abort();
    fetching.abort();
    write_figures(&ops).await;
    ops.store().close().await;
    Ok(())
}

/// Gives a user of this machine's console (a new one as administrator) a random password; works beside a running console.
///
/// # Errors
/// When there is no console here, or its state cannot be opened.
pub async fn reset_user(state_dir: &Path, name: &str, create: bool) -> Result<String, StartError> {
    let directory = state_dir.join("console");
    if !directory.join("console.sqlite").exists() {
        return Err(StartError::NoConsole(directory));
    }
    let ops = Ops::open(&directory, "").await?;
    let password = ops.reset_user(name, create, &Actor::console()).await?;
    ops.store().close().await;
    Ok(password)
}

async fn bind_all(addresses: &[SocketAddr], option: &'static str) -> Result<Vec<TcpListener>, BindError> {
    let mut ports = Vec::new();
    for address in addresses {
        ports.push(bind(*address, option).await?);
    }
    Ok(ports)
}

fn first(ports: &[TcpListener]) -> Option<SocketAddr> {
    ports.first()?.local_addr().ok()
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

fn browsable(listen: SocketAddr) -> String {
    match listen.ip().is_unspecified() {
        true => format!("127.0.0.1:{}", listen.port()),
        false => listen.to_string(),
    }
}

/// Leaves a token for this machine's own node, and takes it away when it is no longer of use.
async fn offer_token(ops: &Ops, node: &Name, labels: &Labels, path: &Path) -> Result<(), StartError> {
    let known = ops.store().node(node.as_str()).await.map_err(OpsError::from)?;
    if let Some(row) = known.filter(|row| row.serial.is_some()) {
        if !labels.is_empty() && row.labels != *labels.as_map() {
            // Whoever starts it with other labels has nobody to answer questions, and sits at this machine.
            ops.label_node(node.as_str(), labels, true, &Actor::console()).await?;
        }
        return files::remove(path);
    }
    let token = ops.enrol_node(node.as_str(), labels, true, &Actor::console()).await?;
    files::replace(path, token.as_bytes())
}

/// Says where the console is; while there is no user, by a link that makes the administrator.
async fn greet(sessions: &Sessions, url: &str, state_dir: &Path) -> Result<(), StartError> {
    match sessions.setup_token().await? {
        Some(token) => crate::cli::say(&format!(
            "Open this link once to choose the administrator's name and password:\n  {url}/setup?token={token}\n(or run: sallyport{} user reset NAME)",
            crate::cli::places::to_say(state_dir)
        )),
        None => crate::cli::say(&format!("The console is at {url}")),
    }
    Ok(())
}

async fn write_figures(ops: &Ops) {
    if let Err(error) = ops.figures().write(ops.store()).await {
        tracing::warn!(%error, "figures were not written; they are kept and tried again");
    }
}

/// Fetches prefix sets' lists when they are due.
async fn fetch(ops: Ops) {
    let (mut due, mut running) = (tokio::time::interval(FETCHES), JoinSet::new());
    loop {
        due.tick().await;
        ops.fetch_due(&mut running).await;
    }
}

/// What goes on beside requests: figures to the disk, unconfirmed revisions back.
async fn background(ops: Ops) {
    let mut figures = tokio::time::interval(FIGURES);
    let mut unconfirmed = tokio::time::interval(UNCONFIRMED);
    loop {
        tokio::select! {
            _ = figures.tick() => write_figures(&ops).await,
            _ = unconfirmed.tick() => {
                if let Err(error) = ops.roll_back_unconfirmed(clock::now()).await {
                    tracing::error!(%error, "an unconfirmed revision could not be rolled back; trying again");
                }
            }
        }
    }
}
