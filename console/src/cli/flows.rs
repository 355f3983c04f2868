//! `sallyport flows` and `sallyport capture`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value};

use super::{CliError, complain, numbers, plain, say};
use crate::client::Client;

/// For so long a node may say that it cannot: its link may come back, and what it said last may be of before.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only at this node
    #[arg(long)]
    node: Option<String>,
    /// Only for this reason, such as denied
    #[arg(long)]
    reason: Option<String>,
    /// Only what this rule decided: FILTER/RULE
    #[arg(long)]
    rule: Option<String>,
    /// Only from this prefix
    #[arg(long)]
    source: Option<String>,
    /// Only to this TCP or UDP port
    #[arg(long)]
    port: Option<String>,
    /// Only of this protocol: tcp, udp, icmp, icmpv6 or a number
    #[arg(long)]
    protocol: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: Filter,
    /// drop, observed or pass
    #[arg(long)]
    verdict: Option<String>,
    /// Packets after which it ends
    #[arg(long, default_value_t = 1000, value_parser = numbers::number::<u64>)]
    limit: u64,
    /// Seconds after which it ends
    #[arg(long, default_value_t = 10, value_parser = numbers::number::<u64>)]
    seconds: u64,
    /// JSON lines, as the API gives them
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureOptions {
    #[command(flatten)]
    filter: Filter,
    /// How many packets
    #[arg(long, default_value_t = 100, value_parser = numbers::number::<u64>)]
    packets: u64,
    /// Bytes of each at most
    #[arg(long, default_value_t = 256, value_parser = numbers::number::<u64>)]
    snap: u64,
    /// Seconds after which it ends
    #[arg(long, default_value_t = 60, value_parser = numbers::number::<u64>)]
    seconds: u64,
    /// Where the pcap file goes
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

impl Filter {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("node", &self.node),
            ("reason", &self.reason),
            ("rule", &self.rule),
            ("source", &self.source),
            ("port", &self.port),
            ("protocol", &self.protocol),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}

/// Prints packets as they come.
pub(crate) async fn run(client: &Client, options: &Options) -> Result<(), CliError> {
    let mut path = format!("/api/v1/flows?limit={}&seconds={}", options.limit, options.seconds);
    let verdict = options.verdict.as_deref().map(|verdict| ("verdict", verdict));
    for (name, text) in options.filter.pairs().chain(verdict) {
        path.push_str(&format!("&{name}="));
        text.bytes().for_each(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte) => path.push(byte.into()),
            byte => path.push_str(&format!("%{byte:02X}")),
        });
    }
    let (mut lines, mut told) = (Lines::default(), Told::default());
    let print = |bytes: &[u8]| {
        for line in lines.whole(bytes) {
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            match told.hear(&value) {
                // Whoever reads JSON finds it among the lines.
                Some(problem) if !options.json => complain(&problem),
                Some(_) | None if options.json => say(&line),
                Some(_) | None => say(&words(&value)),
            }
        }
        ControlFlow::Continue(())
    };
    client.stream("GET", &path, None, print).await?;
    told.outcome()
}

/// Whether any node told of packets.
#[derive(Default)]
struct Told {
    some: bool,
    silent: bool,
}

impl Told {
    /// Each node has a line at the end, if only to say why it tells nothing: that is given.
    fn hear(&mut self, line: &Value) -> Option<CliError> {
        if line["type"] != "problem" {
            self.some = true;
            return None;
        }
        self.silent = true;
        Some(CliError::TellsNothing(plain(&line["node"]), plain(&line["message"])))
    }

    fn outcome(self) -> Result<(), CliError> {
        match (self.some, self.silent) {
            (true, _) => Ok(()),
            (false, true) => Err(CliError::AllSilent),
            (false, false) => Err(CliError::NobodyTells),
        }
    }
}

/// Lines that come in pieces.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// Those that are whole now, without their ends.
    fn whole(&mut self, piece: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(piece);
        let end = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole: Vec<u8> = self.0.drain(..end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}

/// One line for people.
fn words(line: &Value) -> String {
    let text = |name: &str| if line[name].is_null() { "-".to_owned() } else { plain(&line[name]) };
    let end = |address: &str, port: &str| match (line[address].as_str(), line[port].as_u64()) {
        (None, _) => "-".to_owned(),
        (Some(address), None) => address.to_owned(),
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
    };
    match line["type"].as_str() {
        Some("flow") => format!(
            "{} {} {:<8} {} {} {} -> {} {} {} bytes, 1 in {}",
            text("time"),
            text("node"),
            text("verdict"),
            text("reason"),
            text("rule"),
            end("source", "sourcePort"),
            end("destination", "destinationPort"),
            text("protocol"),
            text("bytes"),
            text("oneIn"),
        ),
        Some("counts") => format!(
            "node {}: {} dropped or observed ({} shown), {} passed ({} shown), {} lost, {} missed",
            text("node"),
            line["matched"]["drops"],
            rates(line, "drops"),
            line["matched"]["passes"],
            rates(line, "passes"),
            line["lost"],
            line["missed"],
        ),
        _ => plain(line),
    }
}

/// `1 in 8`, or `1 in 1 to 512` where the rate moved. A console of an older release says one rate.
fn rates(counts: &Value, class: &str) -> String {
    let (finest, coarsest) = (&counts["finest"][class], &counts["oneIn"][class]);
    if finest.is_null() || finest == coarsest {
        return format!("1 in {coarsest}");
    }
    format!("1 in {finest} to {coarsest}")
}

/// Captures, waits, and writes the file; where nothing comes of it, no file is left where there was none.
pub(crate) async fn capture(client: &Client, options: &CaptureOptions) -> Result<(), CliError> {
    let path = &options.output;
    let cannot = |source| CliError::Write { path: path.clone(), source };
    // Before anybody waits for packets that could not be kept.
    let new = !path.exists();
    private().append(true).open(path).map_err(cannot)?;
    let captured = captured(client, options).await;
    if captured.is_err() && new {
        std::fs::remove_file(path).map_err(cannot)?;
    }
    let (file, capture) = captured?;
    let written = private().write(true).truncate(true).open(path).and_then(|mut to| to.write_all(&file));
    written.map_err(cannot)?;
    say(&kept(&capture, path));
    Ok(())
}

/// What became of a capture: somebody may have stopped it before it had all.
fn kept(capture: &Value, path: &Path) -> String {
    let stopped = capture["stopped"].as_str().map(|by| format!("; {by} stopped it")).unwrap_or_default();
    format!("{} packets in {}, {} lost{stopped}", capture["taken"], path.display(), capture["lost"])
}

/// Packets may hold personal data: a file that is made for them is for its owner alone. One that was there stays as it is.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

/// The file of packets, and what the console says of the capture, which ends there when this does.
async fn captured(client: &Client, options: &CaptureOptions) -> Result<(Vec<u8>, Value), CliError> {
    let mut body: Map<String, Value> =
        options.filter.pairs().map(|(name, text)| (name.to_owned(), text.into())).collect();
    for (name, number) in [("packets", options.packets), ("snap", options.snap), ("seconds", options.seconds)]
    {
        body.insert(name.to_owned(), number.into());
    }
    body.insert("follow".to_owned(), true.into());
    let (mut lines, mut progress) = (Lines::default(), Progress::default());
    let look = |bytes: &[u8]| {
        for line in lines.whole(bytes) {
            progress.hear(serde_json::from_str(&line).unwrap_or_default());
        }
        if progress.is_hopeless() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    client.stream("POST", "/api/v1/captures", Some(&Value::Object(body)), look).await?;
    let capture = progress.outcome(options.seconds)?;
    let mut file = Vec::new();
    let keep = |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        ControlFlow::Continue(())
    };
    client.stream("GET", &format!("/api/v1/captures/{}/pcap", capture["id"]), None, keep).await?;
    Ok((file, capture))
}

/// What the console says of a capture, line after line.
#[derive(Default)]
struct Progress {
    capture: Value,
    /// Why its node captured nothing when that was last told, and since when. The last line, of a capture that has ended, says none.
    unable: Option<(Instant, String)>,
}

impl Progress {
    fn hear(&mut self, capture: Value) {
        if capture["running"] == true {
            let why = capture["problem"].as_str();
            let since = self.unable.take().map(|(since, _)| since);
            self.unable = why.map(|why| (since.unwrap_or_else(Instant::now), why.to_owned()));
        }
        self.capture = capture;
    }

    fn took_nothing(&self) -> bool {
        self.capture["taken"].as_u64().unwrap_or(0) == 0
    }

    fn is_hopeless(&self) -> bool {
        self.took_nothing() && self.unable.as_ref().is_some_and(|(since, _)| since.elapsed() >= PATIENCE)
    }

    /// The capture, where it took something.
    fn outcome(self, seconds: u64) -> Result<Value, CliError> {
        let stopped = self.capture["stopped"].as_str().map(|_by| plain(&self.capture["stopped"]));
        if !self.took_nothing() {
            return Ok(self.capture);
        }
        let node = plain(&self.capture["node"]);
        Err(match (stopped, self.unable) {
            (Some(by), Some((_, why))) => CliError::StoppedUnable { by, node, why },
            (Some(by), None) => CliError::Stopped(by),
            (None, Some((_, why))) => CliError::CannotCapture(node, why),
            (None, None) => CliError::NothingCaptured(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_summary_says_the_rates_of_all_that_was_shown() {
        let counts = |one_in: u64, finest: Value| {
            words(&json!({
                "type": "counts", "node": "edge", "matched": {"drops": 70_000, "passes": 3}, "lost": 0, "missed": 2,
                "oneIn": {"drops": one_in, "passes": 1}, "finest": finest,
            }))
        };
        let of = |drops: &str| {
            format!(
                "node edge: 70000 dropped or observed (1 in {drops} shown), 3 passed (1 in 1 shown), 0 lost, 2 missed"
            )
        };
        assert_eq!(counts(512, json!({"drops": 1, "passes": 1})), of("1 to 512"));
        assert_eq!(counts(512, json!({"drops": 512, "passes": 1})), of("512"));
        assert_eq!(counts(4, Value::Null), of("4"));
    }

    #[test]
    fn it_fails_where_no_node_tells_of_packets() {
        let outcome = |lines: &[Value]| {
            let mut told = Told::default();
            let problems = lines.iter().filter_map(|line| told.hear(line)).map(|problem| problem.to_string());
            let problems = problems.collect::<Vec<_>>();
            (problems, told.outcome().map_err(|error| error.to_string()))
        };
        let problem = json!({"type": "problem", "node": "edge", "message": "it knows no reason \"denyed\""});
        let said = vec!["node edge tells of no packets: it knows no reason \"denyed\"".to_owned()];
        assert_eq!(
            outcome(std::slice::from_ref(&problem)),
            (said.clone(), Err(CliError::AllSilent.to_string()))
        );
        let counts = json!({"type": "counts", "node": "other"});
        assert_eq!(outcome(&[counts, problem]), (said, Ok(())), "the others did");
        assert_eq!(outcome(&[]), (Vec::new(), Err(CliError::NobodyTells.to_string())));
    }

    #[test]
    fn a_capture_says_who_stopped_it() {
        let said = |stopped: Value| {
            kept(&json!({"taken": 3, "lost": 1, "stopped": stopped}), Path::new("drops.pcap"))
        };
        assert_eq!(said(Value::Null), "3 packets in drops.pcap, 1 lost");
        assert_eq!(said("ann".into()), "3 packets in drops.pcap, 1 lost; ann stopped it");
    }

    #[test]
    fn of_a_capture_that_took_nothing_the_nodes_reason_is_told() {
        let line = |taken: u64, running: bool, problem: Value| json!({"node": "edge", "taken": taken, "running": running, "problem": problem});
        let outcome = |lines: &[Value]| {
            let mut progress = Progress::default();
            lines.iter().for_each(|line| progress.hear(line.clone()));
            progress.outcome(3).map(|capture| capture["taken"].clone()).map_err(|error| error.to_string())
        };
        let (ended, cannot) = (line(0, false, Value::Null), line(0, true, "no such reason".into()));
        let told = outcome(&[cannot.clone(), ended.clone()]);
        assert_eq!(told, Err("node edge captures nothing: no such reason".to_owned()));
        // What it said of before is over once it captures.
        let told = outcome(&[cannot.clone(), line(0, true, Value::Null), ended]).unwrap_err();
        assert!(told.contains("within 3 s") && told.contains("mode Observe"), "{told}");
        assert_eq!(outcome(&[cannot.clone(), line(2, false, Value::Null)]), Ok(2.into()));
        let stopped = |before: Value, taken| {
            let mut last = line(taken, false, Value::Null);
            last["stopped"] = "ann".into();
            outcome(&[before, last])
        };
        let fine = line(0, true, Value::Null);
        assert_eq!(stopped(fine, 0), Err("ann stopped it before such a packet was dropped".to_owned()));
        // Who waits longer next time would wait in vain.
        let both = "ann stopped it; until then node edge captured nothing: no such reason";
        assert_eq!(stopped(cannot.clone(), 0), Err(both.to_owned()));
        assert_eq!(stopped(cannot, 2), Ok(2.into()), "what it had is kept");
    }

    #[test]
    fn a_capture_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("sallyport-capture-{}", std::process::id()));
        private().append(true).open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o777, 0o600);
    }
}
