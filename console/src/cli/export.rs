//! `export`.

use std::process::ExitCode;

use clap::Args;
use model::draft::Kind;
use serde_json::Value;

use super::out::{Failure, say};
use super::{Client, ServerArgs};

/// `export`'s arguments.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// KIND, KIND/NAME, or everything.
    what: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn export(args: ExportArgs) -> Result<ExitCode, Failure> {
    let mut path = "/api/v1/objects".to_owned();
    if let Some(what) = &args.what {
        let (kind, name) = what.split_once('/').map_or((what.as_str(), None), |(kind, name)| (kind, Some(name)));
        let kind = Kind::parse(kind).map_err(|error| Failure::because(error.to_string()))?;
        path.push_str(&format!("?kind={}", kind.as_str()));
        if let Some(name) = name {
            name.parse::<model::name::Name>().map_err(|error| Failure::because(format!("{name}: {error}")))?;
            path.push_str(&format!("&name={name}"));
        }
    }
    let answer = Client::find(&args.server)?.get(&path).await?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    match args.json {
        true => say(serde_json::to_string_pretty(&items).unwrap_or_default()),
        false => say(yaml(&items)?.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Documents as `apply` reads them.
pub(super) fn yaml(items: &[Value]) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        let one = serde_saphyr::to_string(item)
            .map_err(|error| Failure::fault(format!("an object cannot be written as YAML: {error}")))?;
        text.push_str(one.trim_start_matches("---\n"));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}
