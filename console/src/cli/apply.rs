//! `sallyport apply`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, documents, numbers, plain, say};
use crate::client::{Client, ClientError};

/// How long nodes may take to answer a revision.
const ARRIVAL: Duration = Duration::from_secs(30);
/// So many sources of an effect are shown; the review page and the API have more.
const SOURCES: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Files or directories of objects, YAML or JSON; `-` is standard input
    #[arg(short, long = "file", required = true)]
    file: Vec<PathBuf>,
    /// Remove every object that the files do not have; shows them first
    #[arg(long)]
    prune: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go ahead with what needs to be confirmed: removals, and a filter that could lock somebody out
    #[arg(long)]
    yes: bool,
    /// Do not wait for the nodes
    #[arg(long)]
    no_wait: bool,
    /// Why, for the list of changes
    #[arg(short, long, default_value = "")]
    message: String,
    /// Roll back by itself unless `sallyport confirm` comes within so many seconds
    #[arg(long, value_parser = numbers::number::<u32>)]
    rollback_after: Option<u32>,
}

pub(crate) async fn run(client: &Client, options: &Options) -> Result<(), CliError> {
    let objects = documents::read(&options.file)?;
    let mut request = json!({
        "objects": objects,
        "prune": options.prune,
        "dryRun": true,
        "confirm": options.yes,
        "message": options.message,
        "rollbackAfterSeconds": options.rollback_after,
    });
    if options.prune || options.dry_run {
        let review = client.must("POST", "/api/v1/apply", Some(&request)).await?;
        let removes = review["changes"]
            .as_array()
            .is_some_and(|changes| changes.iter().any(|c| c["action"] == "remove"));
        if options.dry_run || (removes && !options.yes) {
            tell(&review);
            if options.dry_run || removes && agreed()? {
                return if options.dry_run { Ok(()) } else { publish(client, &mut request, options).await };
            }
            return Err(CliError::Unconfirmed);
        }
    }
    publish(client, &mut request, options).await
}

async fn publish(client: &Client, request: &mut Value, options: &Options) -> Result<(), CliError> {
    request["dryRun"] = json!(false);
    let answer = client.must("POST", "/api/v1/apply", Some(request)).await?;
    tell(&answer);
    if options.no_wait { Ok(()) } else { arrive(client, &answer).await }
}

/// Asks, where somebody is there to answer.
fn agreed() -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    say("Go ahead? [y/N]");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Shows what changed, in words.
pub(crate) fn tell(answer: &Value) {
    let changes = answer["changes"].as_array().map_or(&[][..], Vec::as_slice);
    if changes.is_empty() {
        say("nothing changes");
    }
    for change in changes {
        let sign = match change["action"].as_str() {
            Some("add") => '+',
            Some("remove") => '-',
            _ => '~',
        };
        say(&format!("{sign} {}  {}", plain(&change["object"]), plain(&change["words"])));
    }
    answer["touches"].as_array().into_iter().flatten().for_each(|sentence| say(&plain(sentence)));
    tell_effect(answer);
    if let Some(at) = answer["rollbackAt"].as_str() {
        say(&format!(
            "rolls back by itself at {at} unless confirmed: sallyport confirm {}",
            answer["revision"]
        ));
    }
}

/// Shows what a packet filter would have done to what was sent, and what of it has to be confirmed.
pub(crate) fn tell_effect(answer: &Value) {
    for sentence in answer["effect"]["words"].as_array().into_iter().flatten() {
        say(&plain(sentence));
    }
    for place in answer["effect"]["places"].as_array().into_iter().flatten() {
        say(&effect_line(place));
    }
    answer["effect"]["sources"].as_array().into_iter().flatten().take(SOURCES).for_each(|source| {
        say(&source_line(source));
    });
    for problem in answer["confirmations"].as_array().into_iter().flatten() {
        say(&format!("needs --yes: {}", plain(&problem["message"])));
    }
}

/// `  https, TCP 443 (routes shop, api): 120 packets of 3 sources`.
fn effect_line(place: &Value) -> String {
    let routes: Vec<String> = place["routes"].as_array().into_iter().flatten().map(plain).collect();
    let listener = place["listener"].as_str().map(|listener| format!("{listener}, ")).unwrap_or_default();
    let routes = match (routes.is_empty(), place["moreRoutes"].as_u64()) {
        (true, _) => String::new(),
        (false, None | Some(0)) => format!(" (routes {})", routes.join(", ")),
        (false, Some(more)) => format!(" (routes {} and {more} more)", routes.join(", ")),
    };
    let observed = if place["observed"] == true { ", only observed" } else { "" };
    let (packets, sources) = (&place["packets"], &place["sources"]);
    format!("  {listener}{}{routes}: packets {packets}, sources {sources}{observed}", plain(&place["what"]))
}

/// `  from 192.0.2.1: packets 12, by front/threats`.
fn source_line(source: &Value) -> String {
    let rules: Vec<String> = source["rules"].as_array().into_iter().flatten().map(plain).collect();
    let by =
        if rules.is_empty() { "no rule allows it".to_owned() } else { format!("by {}", rules.join(", ")) };
    let observed = if source["observed"] == true { ", only observed" } else { "" };
    format!("  from {}: packets {}, {by}{observed}", plain(&source["source"]), source["packets"])
}

/// Waits until every connected node has answered the revision, telling each.
///
/// # Errors
/// A node refused it, or did not answer in time.
pub(crate) async fn arrive(client: &Client, answer: &Value) -> Result<(), CliError> {
    let Some(revision) = answer["revision"].as_u64() else { return Ok(()) };
    let end = Instant::now() + ARRIVAL;
    let mut told = Vec::new();
    let mut refusals = Vec::new();
    loop {
        let nodes = client.must("GET", "/api/v1/nodes", None).await?;
        let mut waiting = Vec::new();
        for node in
            nodes["items"].as_array().into_iter().flatten().filter(|node| node["connected"].is_string())
        {
            let name = plain(&node["name"]);
            if told.contains(&name) {
                continue;
            }
            if node["refused"][0]["revision"].as_u64() >= Some(revision) {
                say(&format!("node {name} refuses revision {revision}: {}", plain(&node["refused"][1])));
                refusals.push((name.clone(), node["applied"]["revision"].as_u64()));
                told.push(name);
            } else if node["applied"]["revision"].as_u64() >= Some(revision) {
                say(&format!("node {name} has revision {revision}"));
                told.push(name);
            } else {
                waiting.push(name);
            }
        }
        match (waiting.is_empty(), refusals.is_empty()) {
            (true, true) => break,
            (true, false) => return Err(refused(&refusals, revision)),
            _ if Instant::now() > end => {
                let what = format!("no answer within {} s from {}", ARRIVAL.as_secs(), waiting.join(", "));
                return Err(CliError::NodesRefused(what));
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    if told.is_empty() {
        say(&format!("revision {revision} is stored; no node is connected"));
    }
    Ok(())
}

/// `refusals`: each node with the revision it has in force.
fn refused(refusals: &[(String, Option<u64>)], revision: u64) -> CliError {
    let in_force = |(node, applied): &(String, Option<u64>)| match applied {
        Some(applied) => format!("{node} (revision {applied} is)"),
        None => format!("{node} (none is)"),
    };
    let nodes: Vec<String> = refusals.iter().map(in_force).collect();
    let oldest = refusals.iter().filter_map(|(_, applied)| *applied).min();
    let back = oldest.map(|applied| format!(", or: sallyport rollback {applied}")).unwrap_or_default();
    CliError::NodesRefused(format!(
        "revision {revision} is not in force on {}; mend it{back}",
        nodes.join(", ")
    ))
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Client(ClientError::Unreachable { authority: String::new(), source: error })
    }
}
