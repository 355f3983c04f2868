//! Waiting until every connected node has answered a revision.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;

use super::Client;
use super::out::{Failure, say};

/// Whether to wait.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct WaitArgs {
    /// Do not wait for the nodes.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Wait until every connected node has applied or refused it (the default).
    #[arg(long, conflicts_with = "no_wait")]
    pub(super) wait: bool,
    /// Wait so many seconds at most.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(super) timeout: u64,
}

#[derive(Deserialize)]
struct Status {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    connected: Option<String>,
    applied: Option<Id>,
    refused: Option<(Id, String)>,
}

#[derive(Deserialize)]
struct Id {
    revision: u64,
}

enum Answer {
    Applied,
    Refused(String),
    Waiting,
}

impl Node {
    fn answer(&self, revision: u64) -> Answer {
        match (&self.applied, &self.refused) {
            (Some(id), _) if id.revision >= revision => Answer::Applied,
            (_, Some((id, why))) if id.revision >= revision => Answer::Refused(why.clone()),
            _ => Answer::Waiting,
        }
    }
}

/// Prints each node as it arrives; ends when all connected ones have answered.
pub(super) async fn until_applied(client: &Client, revision: u64, args: &WaitArgs) -> Result<ExitCode, Failure> {
    if args.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut told = Vec::new();
    let mut refused = false;
    loop {
        let status: Status = serde_json::from_value(client.get("/api/v1/status").await?)
            .map_err(|error| Failure::fault(format!("the console's status cannot be read: {error}")))?;
        let connected: Vec<&Node> = status.nodes.iter().filter(|node| node.connected.is_some()).collect();
        let mut waiting = Vec::new();
        for node in &connected {
            match node.answer(revision) {
                Answer::Waiting => waiting.push(node.name.clone()),
                _ if told.contains(&node.name) => {}
                Answer::Applied => {
                    say(format_args!("node {} applied revision {revision}", node.name));
                    told.push(node.name.clone());
                }
                Answer::Refused(why) => {
                    say(format_args!("node {} refused revision {revision}: {why}", node.name));
                    refused = true;
                    told.push(node.name.clone());
                }
            }
        }
        if waiting.is_empty() {
            if connected.is_empty() {
                say("no node is connected; they get it when they come");
            }
            return Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        if Instant::now() > deadline {
            let sentence = format!("{} did not answer within {} s", waiting.join(", "), args.timeout);
            return Err(Failure::because(sentence));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
