//! The short commands.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::out::{Failure, say};
use super::places::{console_dir, state_dir};
use super::{Client, ServerArgs, apply, status, wait};
use crate::ops::{Actor, Ops};

/// `rollback`'s arguments.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The revision to return to.
    revision: u64,
    /// Publish even though it would shut out this machine or a node.
    #[arg(long)]
    confirm: bool,
    /// Why, for the list of changes.
    #[arg(short, long, default_value = "")]
    message: String,
    #[command(flatten)]
    wait: wait::WaitArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn rollback(args: RollbackArgs) -> Result<ExitCode, Failure> {
    let client = Client::find(&args.server)?;
    let body = json!({ "confirm": args.confirm, "message": args.message });
    let published = client.post(&format!("/api/v1/revisions/{}/rollback", args.revision), &body).await?;
    apply::show(&apply::changes(&published));
    let revision = published["revision"].as_u64().unwrap_or_default();
    say(format_args!("revision {revision} has the objects of revision {}", args.revision));
    wait::until_applied(&client, revision, &args.wait).await
}

pub(super) async fn confirm(revision: u64, server: &ServerArgs) -> Result<ExitCode, Failure> {
    Client::find(server)?.post(&format!("/api/v1/revisions/{revision}/confirm"), &json!({})).await?;
    say(format_args!("revision {revision} stays"));
    Ok(ExitCode::SUCCESS)
}

/// Nodes.
#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Prints a one-time token; on the node: sallyport-node run --token-file FILE.
    Enrol {
        /// The node's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lists nodes.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Shuts a node out.
    Revoke {
        /// The node's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lets a node finish what is open and accept nothing new.
    Drain {
        /// The node's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Puts a drained node back to work.
    Resume {
        /// The node's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn node(command: NodeCommand) -> Result<ExitCode, Failure> {
    let (verb, name, server) = match command {
        NodeCommand::List { server } => return list(&server).await,
        NodeCommand::Enrol { name, server } => ("enrol", name, server),
        NodeCommand::Revoke { name, server } => ("revoke", name, server),
        NodeCommand::Drain { name, server } => ("drain", name, server),
        NodeCommand::Resume { name, server } => ("resume", name, server),
    };
    name.parse::<model::name::Name>().map_err(|error| Failure::because(format!("{name}: {error}")))?;
    let answer = Client::find(&server)?.post(&format!("/api/v1/nodes/{name}/{verb}"), &json!({})).await?;
    match answer["token"].as_str() {
        Some(token) => say(token),
        None => say(format_args!("node {name}: {verb} done")),
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(server: &ServerArgs) -> Result<ExitCode, Failure> {
    let answer = Client::find(server)?.get("/api/v1/nodes").await?;
    for node in answer["items"].as_array().into_iter().flatten() {
        say(format_args!("{}: {}", node["name"].as_str().unwrap_or_default(), status::state(node)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Users.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Gives a user a random password and prints it; a new one becomes administrator.
    Reset {
        /// The user's name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn user(command: UserCommand) -> Result<ExitCode, Failure> {
    let UserCommand::Reset { name, server } = command;
    let usable = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-+".contains(&b));
    if name.is_empty() || !usable {
        return Err(Failure::because("a user's name is 1 to 64 letters, digits or any of . _ @ - +"));
    }
    let answer = match Client::find(&server) {
        Ok(client) => client.post(&format!("/api/v1/users/{name}/reset"), &json!({})).await,
        Err(failure) => Err(failure),
    };
    let password = match answer {
        Ok(answer) => answer["password"].as_str().unwrap_or_default().to_owned(),
        // Without a running console: whoever may write its files may do this.
        Err(failure) if failure.is_unreachable() && server.server.is_none() => offline(&name, &server, failure).await?,
        Err(failure) => return Err(failure),
    };
    say(format_args!("the password of {name} is now: {password}"));
    Ok(ExitCode::SUCCESS)
}

async fn offline(name: &str, server: &ServerArgs, failure: Failure) -> Result<String, Failure> {
    let directory = console_dir(&state_dir(server.state_dir.as_deref()));
    if !directory.join("console.sqlite").exists() {
        return Err(failure);
    }
    let ops = Ops::open(&directory, "localhost:9444").await.map_err(|error| Failure::config(error.to_string()))?;
    let done = ops.reset_user(name, &Actor::console()).await;
    done.map_err(|error| Failure::because(error.to_string()))
}

