//! `sallyport sources`.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{CliError, numbers, plain, say};
use crate::client::Client;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only those that sent to this node
    #[arg(long)]
    node: Option<model::name::Name>,
    /// What most of comes first
    #[arg(long, value_enum, default_value_t)]
    sort: By,
    /// So many at most; 0 for all
    #[arg(long, default_value_t = 20, value_parser = numbers::number::<u32>)]
    top: u32,
    /// As the API gives it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum By {
    #[default]
    Packets,
    Bytes,
    Syns,
    Drops,
}

/// Prints who sent how much, what was dropped of it, and to what.
pub(crate) async fn run(client: &Client, options: &Options) -> Result<(), CliError> {
    let Options { node, sort, top, json } = options;
    let sort = sort.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let node = node.as_ref().map_or_else(String::new, |node| format!("&node={node}"));
    let answer = client.must("GET", &format!("/api/v1/sources?sort={sort}&top={top}{node}"), None).await?;
    match json {
        true => say(&answer.to_string()),
        false => lines(&answer).iter().for_each(|line| say(line)),
    }
    Ok(())
}

fn lines(answer: &Value) -> Vec<String> {
    let list = |name: &str| answer[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = list("nodes").iter().map(node_line).collect();
    if list("items").is_empty() {
        return lines;
    }
    lines.push(format!(
        "{:<39} {:>12} {:>15} {:>12} {:>12}  {:<20}  {:<20}  node: to",
        "source", "packets", "bytes", "SYNs", "drops", "first", "last"
    ));
    lines.extend(list("items").iter().map(|source| {
        let places = source["to"].as_array().map(Vec::as_slice).unwrap_or_default();
        let to: Vec<String> = places.iter().map(place).collect();
        format!(
            "{:<39} {:>12} {:>15} {:>12} {:>12}  {:<20}  {:<20}  {}: {}",
            plain(&source["source"]),
            plain(&source["packets"]),
            plain(&source["bytes"]),
            plain(&source["syns"]),
            plain(&source["drops"]),
            plain(&source["first"]),
            plain(&source["last"]),
            plain(&source["node"]),
            to.join(", ")
        )
    }));
    let (shown, total) = (list("items").len() as u64, answer["total"].as_u64().unwrap_or_default());
    if total > shown {
        lines.push(format!("{} more: --top 0 shows all", total - shown));
    }
    lines
}

/// A node's record: since when, and how much of the traffic it stands for.
fn node_line(node: &Value) -> String {
    let name = plain(&node["node"]);
    let record = &node["record"];
    if record.is_null() {
        return format!("node {name}: {}", plain(&node["why"]));
    }
    let others = match record["others"]["packets"].as_u64() {
        Some(others @ 1..) => {
            format!("; {others} packets are of sources that were seen too seldom to be told one by one")
        }
        _ => String::new(),
    };
    let (since, until, one_in) = (plain(&record["since"]), plain(&record["until"]), plain(&record["oneIn"]));
    format!("node {name}: from {since} to {until}, one packet in {one_in} looked at{others}")
}

fn place(to: &Value) -> String {
    let listener =
        to["listener"].as_str().map_or_else(String::new, |listener| format!(" (listener {listener})"));
    format!("{} {}{listener}", plain(&to["address"]), plain(&to["what"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_are_lines_and_what_is_missing_is_said() {
        let answer = json!({
            "nodes": [
                {"node": "a", "record": {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z", "oneIn": 4, "others": {"packets": 7}}, "why": null},
                {"node": "b", "record": null, "why": "its release does not say"},
            ],
            "items": [{
                "node": "a", "source": "2001:db8::1", "packets": 12, "bytes": 1200, "syns": 3, "drops": 2,
                "first": "2026-01-01T00:00:00Z", "last": "2026-01-01T00:30:00Z",
                "to": [{"address": "fd00::1", "what": "TCP 443", "listener": "https"}, {"address": "fd00::2", "what": "UDP 53", "listener": null}],
            }],
            "total": 3,
        });
        let lines = lines(&answer);
        assert_eq!(
            lines[0],
            "node a: from 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z, one packet in 4 looked at; 7 packets are of sources that were seen too seldom to be told one by one"
        );
        assert_eq!(lines[1], "node b: its release does not say");
        let columns: Vec<&str> = lines[3].split_whitespace().take(7).collect();
        assert_eq!(
            columns,
            ["2001:db8::1", "12", "1200", "3", "2", "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z"]
        );
        assert!(
            lines[3].starts_with("2001:db8::1 ")
                && lines[3].ends_with("a: fd00::1 TCP 443 (listener https), fd00::2 UDP 53"),
            "{}",
            lines[3]
        );
        assert_eq!(lines[4], "2 more: --top 0 shows all");
        assert_eq!(super::lines(&json!({"nodes": [], "items": [], "total": 0})), Vec::<String>::new());
    }
}
