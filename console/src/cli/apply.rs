//! `apply`.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::out::{Failure, say};
use super::{Client, ServerArgs, files, wait};
use crate::ops::{Action, ChangeLine};

/// `apply`'s arguments.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A file, a directory, or - for standard input (repeatable).
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also remove every object that the files do not have.
    #[arg(long)]
    prune: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before removing.
    #[arg(short, long)]
    yes: bool,
    /// Publish even though it would shut out this machine or a node.
    #[arg(long)]
    confirm: bool,
    /// Why, for the list of changes.
    #[arg(short, long, default_value = "")]
    message: String,
    /// Roll back by itself after so many seconds, unless `sallyport confirm` comes first.
    #[arg(long, value_name = "SECONDS")]
    rollback_after: Option<u64>,
    #[command(flatten)]
    wait: wait::WaitArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn apply(args: ApplyArgs) -> Result<ExitCode, Failure> {
    let objects = files::read(&args.files)?;
    if objects.is_empty() && !args.prune {
        return Err(Failure::because("the input has no objects"));
    }
    let client = Client::find(&args.server)?;
    let documents: Vec<Value> = objects.iter().map(model::draft::Object::to_value).collect();
    let mut body = json!({
        "objects": documents,
        "prune": args.prune,
        "dryRun": true,
        "confirm": args.confirm,
        "message": args.message,
        "rollbackAfterSeconds": args.rollback_after,
    });
    if args.prune || args.dry_run {
        let review = client.post("/api/v1/apply", &body).await?;
        let changes = changes(&review);
        if args.dry_run {
            show(&changes);
            say(format_args!("nothing was published (--dry-run); {} changes", changes.len()));
            return Ok(ExitCode::SUCCESS);
        }
        may_prune(&changes, args.yes)?;
        body["baseRevision"] = review["revision"].clone();
    }
    body["dryRun"] = Value::Bool(false);
    let published = client.post("/api/v1/apply", &body).await?;
    let changes = changes(&published);
    let revision = published["revision"].as_u64().unwrap_or_default();
    if changes.is_empty() {
        say(format_args!("nothing to change: revision {revision} has all of it"));
    } else {
        show(&changes);
        say(format_args!("published as revision {revision}"));
    }
    if let Some(seconds) = args.rollback_after.filter(|_| !changes.is_empty()) {
        say(format_args!("it rolls back in {seconds} s unless you run: sallyport confirm {revision}"));
    }
    wait::until_applied(&client, revision, &args.wait).await
}

pub(super) fn changes(answer: &Value) -> Vec<ChangeLine> {
    serde_json::from_value(answer["changes"].clone()).unwrap_or_default()
}

pub(super) fn show(changes: &[ChangeLine]) {
    for line in changes {
        let sign = match line.action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        say(format_args!("{sign} {}  {}", line.object, line.words));
    }
}

/// What would go is shown first; without a terminal only --yes lets it go.
fn may_prune(changes: &[ChangeLine], yes: bool) -> Result<(), Failure> {
    let going: Vec<ChangeLine> = changes.iter().filter(|line| line.action == Action::Remove).cloned().collect();
    if going.is_empty() || yes {
        return Ok(());
    }
    say(format_args!("--prune removes {} objects:", going.len()));
    show(&going);
    if !std::io::stdin().is_terminal() {
        return Err(Failure::because("nothing was changed: add --yes to remove them without being asked"));
    }
    say("Remove them? Type yes:");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && answer.trim() == "yes" {
        true => Ok(()),
        false => Err(Failure::because("nothing was changed")),
    }
}
