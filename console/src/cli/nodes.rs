//! `sallyport node`.

use clap::Subcommand;
use model::name::Name;
use serde_json::json;

use super::apply::tell_effect;
use super::status::node_line;
use super::{CliError, parsed, say};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a one-time token that enrols a node, and say how to use it
    Enrol {
        name: Name,
        /// A label, key=value (repeatable); a known node keeps its own when there is none
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// Go ahead with labels of a known node whose packet filters could lock somebody out
        #[arg(long)]
        yes: bool,
    },
    /// Give a node these labels instead of those it has
    Label {
        name: Name,
        #[arg(value_name = "KEY=VALUE", required_unless_present = "none")]
        labels: Vec<String>,
        /// Take all labels away
        #[arg(long, conflicts_with = "labels")]
        none: bool,
        /// Show what the node's packet filters would do to you and to what was sent, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Go ahead with labels whose packet filters could lock somebody out
        #[arg(long)]
        yes: bool,
    },
    /// All nodes
    List,
    /// Let a node finish what is open and accept nothing new
    Drain { name: Name },
    /// Put a drained node back to work
    #[command(alias = "undrain")]
    Resume { name: Name },
    /// Refuse a node from now on
    Revoke { name: Name },
}

/// Does what was said about a node.
pub(crate) async fn run(client: &Client, command: Command) -> Result<(), CliError> {
    match command {
        Command::Enrol { name, labels, yes } => {
            let body = json!({ "labels": parsed(&labels)?.as_map(), "confirm": yes });
            let answer = client.must("POST", &format!("/api/v1/nodes/{name}/enrol"), Some(&body)).await?;
            say("On the node, once (the token is for one use):\n");
            say("    umask 077; cat > token <<'END'");
            say(answer["token"].as_str().unwrap_or_default());
            say("END\n    sallyport-node run --token-file token");
            if let Some(warning) = answer["warning"].as_str() {
                say(&format!("\n{warning}"));
            }
        }
        Command::List => {
            let answer = client.must("GET", "/api/v1/nodes", None).await?;
            answer["items"].as_array().into_iter().flatten().for_each(|node| say(&node_line(node)));
        }
        Command::Label { name, labels, none: _, dry_run, yes } => {
            let body = json!({ "labels": parsed(&labels)?.as_map(), "confirm": yes, "dryRun": dry_run });
            let answer = client.must("PUT", &format!("/api/v1/nodes/{name}/labels"), Some(&body)).await?;
            if dry_run {
                if answer["effect"].is_null() {
                    say("the packet filters of the node stay the same");
                }
                tell_effect(&answer);
                return Ok(());
            }
            say(&format!("node {name} has the labels: {}", labels.join(" ")));
        }
        Command::Drain { name } => {
            client.must("POST", &format!("/api/v1/nodes/{name}/drain"), Some(&json!({}))).await?;
            say(&format!("node {name} accepts nothing new; back to work: sallyport node resume {name}"));
        }
        Command::Resume { name } => {
            client.must("POST", &format!("/api/v1/nodes/{name}/resume"), Some(&json!({}))).await?;
            say(&format!("node {name} goes back to work"));
        }
        Command::Revoke { name } => {
            client.must("POST", &format!("/api/v1/nodes/{name}/revoke"), Some(&json!({}))).await?;
            say(&format!("node {name} is refused from now on"));
        }
    }
    Ok(())
}
