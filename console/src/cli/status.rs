//! `sallyport status`.

use std::process::ExitCode;

use model::listen::Place;
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
                listener_lines(listener).iter().for_each(|line| say(line));
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

/// Where a listener accepts on a node, and what it leaves to others there.
fn listener_lines(listener: &Value) -> Vec<String> {
    let list = |name: &str| listener[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let range = |place| Place::deserialize(place).map_or_else(|_| plain(place), |place| place.to_string());
    let places: Vec<String> =
        list("addresses").iter().map(plain).chain(list("ranges").iter().map(range)).collect();
    let problem = listener["problem"].as_str().map_or_else(String::new, |problem| format!("  {problem}"));
    let (name, mode) = (plain(&listener["listener"]), plain(&listener["mode"]));
    let places = if places.is_empty() { "on no address".to_owned() } else { places.join(", ") };
    let mut lines = vec![format!("  listener {name} ({mode}) {places}{problem}")];
    let left = |left: &Value| format!("    left to {}: {}", plain(&left["owner"]), plain(&left["at"]));
    lines.extend(list("leftOut").iter().map(left));
    lines
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

#[cfg(test)]
mod tests {
    use model::report::{LeftOut, ListenerReport};

    use super::*;

    #[test]
    fn a_listener_says_where_it_accepts_and_what_it_leaves() {
        let report = ListenerReport {
            listener: "customers".parse().unwrap(),
            mode: "steered".to_owned(),
            addresses: vec!["192.0.2.1:443".parse().unwrap()],
            ranges: Place::all(
                &["10.0.7.0/24".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
                model::listen::Port::Any,
            )
            .collect(),
            left_out: vec![LeftOut { at: "[::]:22".parse().unwrap(), owner: "sshd (process 7)".to_owned() }],
            connections: 0,
            problem: None,
        };
        let lines = listener_lines(&serde_json::to_value(&report).unwrap());
        assert_eq!(
            lines,
            [
                "  listener customers (steered) 192.0.2.1:443, any port of 10.0.7.0/24, any port of 2001:db8::/64",
                "    left to sshd (process 7): [::]:22",
            ]
        );
    }
}
