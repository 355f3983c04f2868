//! The command line.
//!
//! In: arguments, files. Out: sentences and an exit status. What it does to a console it does through the REST API.

mod apply;
mod client;
mod commands;
mod export;
mod files;
mod out;
mod places;
mod run;
mod status;
mod up;
mod wait;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use out::Failure;

pub(crate) use client::Client;
pub(crate) use out::say;

/// Sallyport: an eBPF-accelerated gateway that owns every hop of an encrypted path.
///
/// Exit status: 0 done; 1 refused, or a node refused it; 2 wrong usage (or a demo that needs root for some lines);
/// 3 the console cannot be reached; 78 it cannot start and trying again will not help.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a console and a node on this machine.
    Up(up::UpArgs),
    /// Runs the console alone.
    Console(run::ConsoleArgs),
    /// Publishes objects from files: all of them, or none.
    Apply(apply::ApplyArgs),
    /// Prints objects as YAML that `apply` reads; private keys are only named.
    Export(export::ExportArgs),
    /// Says what is in force, what the nodes say, and what needs you.
    Status {
        #[command(flatten)]
        server: ServerArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Publishes the objects of an earlier revision again.
    Rollback(commands::RollbackArgs),
    /// Keeps a revision that would roll back by itself.
    Confirm {
        /// Its number.
        revision: u64,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Nodes.
    #[command(subcommand)]
    Node(commands::NodeCommand),
    /// Users.
    #[command(subcommand)]
    User(commands::UserCommand),
}

/// Where the console is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArgs {
    /// The console's URL; without it and --token, cli.json in the console's state directory says both.
    #[arg(long, requires = "token")]
    pub(crate) server: Option<String>,
    /// An API token.
    #[arg(long, env = "SALLYPORT_TOKEN", hide_env_values = true, requires = "server")]
    pub(crate) token: Option<String>,
    /// The CA that signed the console's certificate, PEM (with --server).
    #[arg(long, requires = "server")]
    pub(crate) ca: Option<PathBuf>,
    /// The state directory.
    #[arg(long)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Where the console listens.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListenArgs {
    /// Address and port of the console's pages and API (repeatable).
    #[arg(long, default_value = "127.0.0.1:9443")]
    pub(crate) console_listen: Vec<SocketAddr>,
    /// Address and port that nodes connect to.
    #[arg(long, default_value = "127.0.0.1:9444")]
    pub(crate) node_listen: SocketAddr,
    /// What nodes are told to connect to, when that differs: `host:port`.
    #[arg(long)]
    pub(crate) node_address: Option<String>,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    out::log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::fault(format!("no runtime: {error}")).exit(),
    };
    match runtime.block_on(run_command(cli.command)) {
        Ok(code) => code,
        Err(failure) => failure.exit(),
    }
}

async fn run_command(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Console(args) => run::console(args).await,
        Command::Apply(args) => apply::apply(args).await,
        Command::Export(args) => export::export(args).await,
        Command::Status { server, json } => status::status(&server, json).await,
        Command::Rollback(args) => commands::rollback(args).await,
        Command::Confirm { revision, server } => commands::confirm(revision, &server).await,
        Command::Node(command) => commands::node(command).await,
        Command::User(command) => commands::user(command).await,
    }
}

#[cfg(test)]
mod tests;
