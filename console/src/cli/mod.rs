//! The command line. It does nothing of its own: every command is a call of the REST API, or starts a process.
//!
//! Exit status: 0 done; 1 refused or failed, the reason on standard error; 2 usage (and `demo` without root);
//! 78 a process that would fail in the same way when started again (sysexits' `EX_CONFIG`).

mod apply;
mod documents;
mod export;
mod flows;
mod nodes;
pub(crate) mod numbers;
pub(crate) mod places;
mod sources;
mod status;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use model::labels::Labels;
use model::name::Name;
use model::net::Prefix;
use serde_json::{Value, json};

use crate::client::{Client, ClientError};

/// Sallyport: a gateway that owns every hop of an encrypted path.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the console is.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// Where this machine's console keeps its state (in `console/` below)
    #[arg(long, global = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Another console: https://host:port
    #[arg(long, global = true, requires_all = ["token_file", "ca"])]
    server: Option<String>,
    /// A file with the API token for --server
    #[arg(long, global = true)]
    token_file: Option<PathBuf>,
    /// A file with the CA that --server is verified against, PEM
    #[arg(long, global = true)]
    ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a console and a node on this machine, and keep them running
    Up(Box<crate::up::Options>),
    /// Start the console alone
    Console(ConsoleOptions),
    /// Add and change objects; removes nothing without --prune
    Apply(apply::Options),
    /// Print objects as YAML that `apply` reads; private keys are named, not shown
    Export {
        /// `Kind`, or `Kind/name`; everything when absent
        what: Option<String>,
    },
    /// What is in force, and what needs somebody
    Status {
        /// As the API gives it
        #[arg(long)]
        json: bool,
    },
    /// Watch sampled packets that the filter dropped or passed
    Flows(flows::Options),
    /// Who sent to the nodes in the last hour
    Sources(sources::Options),
    /// Capture the next packets that a rule drops, or that are dropped for a reason, as a pcap file
    Capture(flows::CaptureOptions),
    /// Make an earlier revision's objects the newest revision
    Rollback {
        #[arg(value_parser = numbers::number::<u64>)]
        revision: u64,
        /// Do not wait for the nodes
        #[arg(long)]
        no_wait: bool,
    },
    /// Confirm a revision that would roll back by itself
    Confirm {
        #[arg(value_parser = numbers::number::<u64>)]
        revision: u64,
    },
    /// Fetch a prefix set's list now, from where it says
    Fetch {
        /// The prefix set
        name: Name,
        /// Take a list that would be kept back: much shorter, everybody, or without you or a node
        #[arg(long)]
        yes: bool,
    },
    /// Nodes
    Node {
        #[command(subcommand)]
        command: nodes::Command,
    },
    /// Users
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Show the product at work in namespaces of its own, with good and bad traffic
    Demo(crate::demo::Options),
}

/// `sallyport console`, also started by `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConsoleOptions {
    /// Where people and tools reach the console, HTTPS (repeatable) [default: 127.0.0.1:9443]
    #[arg(long, value_parser = numbers::address)]
    pub(crate) console_listen: Vec<SocketAddr>,
    /// Where nodes reach the console, mutual TLS (repeatable) [default: 127.0.0.1:9444]
    #[arg(long, value_parser = numbers::address)]
    pub(crate) node_listen: Vec<SocketAddr>,
    /// What nodes are told to connect to, host:port [default: where they reach the console]
    #[arg(long)]
    pub(crate) node_address: Option<String>,
    /// On the first start, make a listener `https` on this port
    #[arg(long, value_parser = numbers::number::<u16>)]
    pub(crate) first_listener: Option<u16>,
    /// Prefix sets may be fetched from this network too, although it is not public, such as 10.1.0.0/16 (repeatable)
    #[arg(long, value_name = "PREFIX")]
    pub(crate) fetch_from: Vec<Prefix>,
    /// Write this node's enrolment token to --local-token while it is not enrolled
    #[arg(long, requires = "local_token", hide = true)]
    pub(crate) local_node: Option<Name>,
    #[arg(long, hide = true)]
    pub(crate) local_token: Option<PathBuf>,
    /// The labels of --local-node
    #[arg(long, hide = true)]
    pub(crate) local_label: Vec<String>,
    /// End when this process, which started it, has ended
    #[arg(long, hide = true)]
    pub(crate) parent: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Give a user of this machine's console a new password
    Reset {
        name: String,
        /// Make an administrator of this name when there is no such user
        #[arg(long)]
        create: bool,
    },
}

/// Why a command failed, after which the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Label(#[from] model::labels::InvalidLabel),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Documents(#[from] documents::DocumentsError),
    #[error(transparent)]
    Start(#[from] crate::server::StartError),
    #[error(transparent)]
    Up(#[from] crate::up::UpError),
    #[error("no such kind as {0:?}; kinds are {1}")]
    Kind(String, String),
    #[error("{0}")]
    NodesRefused(String),
    #[error("this removes objects; look at the list above and say --yes")]
    Unconfirmed,
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("no connected node tells of packets; `sallyport node list` shows which there are")]
    NobodyTells,
    #[error("node {0} tells of no packets: {1}")]
    TellsNothing(String, String),
    #[error("no node told of packets: what each says stands above")]
    AllSilent,
    #[error("node {0} captures nothing: {1}")]
    CannotCapture(String, String),
    #[error(
        "no such packet was dropped within {0} s; what a rule or list in mode Observe is about passes, is never captured, and stands in `sallyport flows`"
    )]
    NothingCaptured(u64),
    #[error("{0} stopped it before such a packet was dropped")]
    Stopped(String),
    #[error("{by} stopped it; until then node {node} captured nothing: {why}")]
    StoppedUnable { by: String, node: String, why: String },
    #[error("cannot write YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// The whole program. It stands in the library, so that its futures are compiled once and not again in the binary.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => {
            complain(&CliError::Runtime(error));
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SALLYPORT_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().init();
    }
}

async fn run(cli: Cli) -> ExitCode {
    match perform(cli).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::from(if matches!(error, CliError::Start(_)) { crate::up::EX_CONFIG } else { 1 })
        }
    }
}

async fn perform(cli: Cli) -> Result<ExitCode, CliError> {
    let reach = &cli.reach;
    match cli.command {
        Command::Up(options) => return Ok(crate::up::run(reach.state_dir.clone(), *options).await?),
        Command::Console(options) => console(reach, options).await?,
        Command::Apply(options) => apply::run(&reach.client()?, &options).await?,
        Command::Export { what } => export::run(&reach.client()?, what.as_deref()).await?,
        Command::Status { json } => return status::run(&reach.client()?, json).await,
        Command::Flows(options) => flows::run(&reach.client()?, &options).await?,
        Command::Sources(options) => sources::run(&reach.client()?, &options).await?,
        Command::Capture(options) => flows::capture(&reach.client()?, &options).await?,
        Command::Rollback { revision, no_wait } => {
            let client = reach.client()?;
            let answer = client
                .must("POST", &format!("/api/v1/revisions/{revision}/rollback"), Some(&json!({})))
                .await?;
            apply::tell(&answer);
            if !no_wait {
                apply::arrive(&client, &answer).await?;
            }
        }
        Command::Confirm { revision } => {
            reach
                .client()?
                .must("POST", &format!("/api/v1/revisions/{revision}/confirm"), Some(&json!({})))
                .await?;
            say(&format!("revision {revision} is confirmed"));
        }
        Command::Fetch { name, yes } => return fetch(&reach.client()?, &name, yes).await,
        Command::Node { command } => nodes::run(&reach.client()?, command).await?,
        Command::User { command: UserCommand::Reset { name, create } } => {
            let state_dir = places::state_dir(reach.state_dir.as_deref())?;
            let password = crate::server::reset_user(&state_dir, &name, create).await?;
            say(&format!("{name}'s new password: {password}"));
        }
        Command::Demo(options) => return Ok(crate::demo::run(options).await),
    }
    Ok(ExitCode::SUCCESS)
}

async fn console(reach: &Reach, options: ConsoleOptions) -> Result<(), CliError> {
    if options.parent.is_some_and(|parent| !places::end_with_parent(parent)) {
        return Ok(());
    }
    let or = |listen: Vec<SocketAddr>, port| match listen.is_empty() {
        true => vec![SocketAddr::from(([127, 0, 0, 1], port))],
        false => listen,
    };
    let options = crate::server::Options {
        state_dir: places::state_dir(reach.state_dir.as_deref())?,
        node_address: options.node_address,
        console_listen: or(options.console_listen, places::CONSOLE_PORT),
        node_listen: or(options.node_listen, places::NODE_PORT),
        default_port: options.first_listener,
        local_node: options.local_node.zip(options.local_token),
        local_labels: parsed(&options.local_label)?,
        fetch_from: options.fetch_from,
    };
    Ok(crate::server::run(options, places::stopped()).await?)
}

/// The exit status is 1 when the list stays as it was for a reason.
async fn fetch(client: &Client, name: &Name, yes: bool) -> Result<ExitCode, CliError> {
    let url = format!("/api/v1/prefix-sets/{name}/fetch");
    let state = client.must("POST", &url, Some(&json!({ "confirm": yes }))).await?;
    let prefixes = &state["prefixes"];
    match state["problem"].as_str() {
        None => {
            say(&format!("prefix set {name} has {prefixes} prefixes, as {} has them", plain(&state["url"])))
        }
        Some(problem) => {
            say(&format!("prefix set {name} stays as it is, with {prefixes} prefixes: {problem}"));
            if state["confirmable"] == true {
                say(&format!("to take the list all the same: sallyport fetch {name} --yes"));
            }
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parsed(labels: &[String]) -> Result<Labels, CliError> {
    Ok(Labels::parse(labels.iter().map(String::as_str))?)
}

impl Reach {
    fn client(&self) -> Result<Client, CliError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| ClientError::File { path: path.clone(), source })
        };
        match (&self.server, &self.token_file, &self.ca) {
            (Some(server), Some(token), Some(ca)) => {
                Ok(Client::new(server, read(token)?.trim(), &read(ca)?)?)
            }
            _ => Ok(Client::local(&places::cli_file(self.state_dir.as_deref())?)?),
        }
    }
}

/// Text of a value for people: strings as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Prints a line for whoever ran the command.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    // A reader that went away (`| head`) is no reason to stop.
    let _gone = writeln!(std::io::stdout().lock(), "{line}");
}

/// One line on standard error, the cause behind the symptom; one line each for several problems.
#[expect(clippy::print_stderr, reason = "a command's complaint")]
pub(crate) fn complain(error: &CliError) {
    if let CliError::Client(ClientError::Problems(problems)) = error {
        problems.iter().for_each(|problem| eprintln!("sallyport: {problem}"));
        return;
    }
    let mut line = format!("sallyport: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        let text = next.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = next.source();
    }
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_documentation_names_every_command_that_talks_to_a_console() {
        let text = include_str!("../../../docs/operations.md");
        let (_, names) = text.split_once("The commands that talk to a console (").unwrap();
        let (names, _) = names.split_once(')').unwrap();
        let named: BTreeSet<&str> = names.split(',').map(|name| name.trim().trim_matches('`')).collect();
        let command = Cli::command();
        // These start processes, or are about this machine's own files.
        let own = ["up", "console", "user", "demo"];
        let all = command.get_subcommands().map(clap::Command::get_name);
        assert_eq!(named, all.filter(|name| !own.contains(name)).collect());
    }
}
