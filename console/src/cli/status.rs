//! `status`.

use std::process::ExitCode;

use serde_json::Value;

use super::out::{Failure, say};
use super::{Client, ServerArgs};

pub(super) async fn status(server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let status = Client::find(server)?.get("/api/v1/status").await?;
    if json {
        say(serde_json::to_string_pretty(&status).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("revision {} (epoch {})", status["revision"], status["epoch"]));
    for node in items(&status["nodes"]) {
        say(format_args!("node {}: {}", text(&node["name"]), state(node)));
        for listener in items(&node["listeners"]) {
            let addresses: Vec<&str> = items(&listener["addresses"]).map(text).collect();
            let problem = listener["problem"].as_str().map(|why| format!(", BUT {why}")).unwrap_or_default();
            let (name, mode) = (text(&listener["listener"]), text(&listener["mode"]));
            say(format_args!("  listener {name} on {} ({mode}){problem}", addresses.join(", ")));
        }
        for feature in items(&node["features"]) {
            let on = if feature["on"] == true { "on " } else { "OFF" };
            say(format_args!("  {on} {}: {}", text(&feature["name"]), text(&feature["detail"])));
        }
    }
    let needs: Vec<&Value> = items(&status["needs"]).collect();
    match needs.is_empty() {
        true => say("nothing needs you"),
        false => say("needs you:"),
    }
    for need in needs {
        say(format_args!("  {}: {}", text(&need["severity"]), text(&need["message"])));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn state(node: &Value) -> String {
    let mut words = match (&node["connected"], node["enrolled"] == true) {
        (Value::String(from), _) => format!("connected from {from}"),
        (_, true) => "not connected".to_owned(),
        (_, false) => "not enrolled yet".to_owned(),
    };
    if let Some(revision) = node["applied"]["revision"].as_u64() {
        words.push_str(&format!(", applied revision {revision}"));
    }
    if let (Some(revision), Some(why)) = (node["refused"][0]["revision"].as_u64(), node["refused"][1].as_str()) {
        words.push_str(&format!(", REFUSED revision {revision}: {why}"));
    }
    if node["drained"] == true {
        words.push_str(", drained");
    }
    if node["revoked"] == true {
        words.push_str(", revoked");
    }
    words
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
