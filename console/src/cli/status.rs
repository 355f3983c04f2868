//! `sallyport status`.

use std::process::ExitCode;

use model::report::Overload;
use serde::Deserialize;
use serde_json::Value;

use super::{CliError, plain, say};
use crate::client::Client;

/// Prints the status. The exit status is 1 when something is bad, so that scripts can ask.
pub(crate) async fn run(client: &Client, json: bool) -> Result<ExitCode, CliError> {
    let status = client.must("GET", "/api/v1/status", None).await?;
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    if json {
        say(&status.to_string());
    } else {
        say(&format!("revision {}", status["revision"]));
        for node in list("nodes") {
            say(&node_line(&node));
            if let Some(overload) = overload(&node) {
                say(&format!("  overload: {overload}"));
            }
            for feature in node["features"].as_array().into_iter().flatten() {
                let state = if feature["on"] == true { "on " } else { "OFF" };
                say(&format!("  {state}  {:<14} {}", plain(&feature["name"]), plain(&feature["detail"])));
            }
            for listener in node["listeners"].as_array().into_iter().flatten() {
                let list = |name: &str| listener[name].as_array().cloned().unwrap_or_default();
                let places = [list("addresses"), list("ranges")].concat();
                let addresses = places.iter().map(plain).collect::<Vec<_>>();
                let problem =
                    listener["problem"].as_str().map_or_else(String::new, |problem| format!("  {problem}"));
                say(&format!(
                    "  listener {} ({}) {}{problem}",
                    plain(&listener["listener"]),
                    plain(&listener["mode"]),
                    addresses.join(", ")
                ));
                for left in list("leftOut") {
                    say(&format!("    left to {}: {}", plain(&left["owner"]), plain(&left["at"])));
                }
            }
        }
        let needs = list("needs");
        if !needs.is_empty() {
            say("needs you:");
        }
        needs
            .iter()
            .for_each(|need| say(&format!("  {}: {}", plain(&need["severity"]), plain(&need["message"]))));
    }
    let bad = list("needs").iter().any(|need| need["severity"] == "bad");
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a node refuses for too much to do.
fn overload(node: &Value) -> Option<String> {
    Overload::deserialize(&node["overload"]).ok().map(|overload| overload.sentence())
}

/// One node in one line.
pub(crate) fn node_line(node: &Value) -> String {
    let name = plain(&node["name"]);
    if node["revoked"] == true {
        return format!("node {name}: revoked");
    }
    let link = match node["connected"].as_str() {
        Some(address) => format!("connected from {address}"),
        None if node["enrolled"] == true => format!("not connected since {}", plain(&node["lastSeen"])),
        None => "not enrolled yet".to_owned(),
    };
    let drained = match (node["drained"] == true, node["connections"].as_u64()) {
        (true, Some(open @ 1..)) => format!(", drained, {open} still open"),
        (true, _) => ", drained".to_owned(),
        (false, _) => String::new(),
    };
    let applied =
        node["applied"]["revision"].as_u64().map_or_else(String::new, |n| format!(", revision {n} in force"));
    let refused = match node["refused"][1].as_str() {
        Some(reason) => format!(", refuses revision {}: {reason}", node["refused"][0]["revision"]),
        None => String::new(),
    };
    let labels: String = node["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!(" {key}={}", plain(value)))
        .collect();
    format!("node {name}{labels}: {link}{drained}{applied}{refused}")
}
