//! `sallyport demo`: the product on a stage of its own, with good and bad traffic, each outcome beside the expected one.
//!
//! With root the stage is four network namespaces (client, node, two HTTPS origins) and the packet filter and steering
//! are the kernel's. Without root everything runs on loopback, lines that need the kernel print "needs root", and the
//! exit status is 2. Everything is configured through the REST API, as an operator's tool would. What was made is
//! removed at the end, also after a failure.

mod lines;
mod names;
mod origin;
mod probe;
mod spaces;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// What the command line says.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Leave everything running to look at in the console, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Run on loopback without the kernel's help, even as root
    #[arg(long)]
    no_root: bool,
}

/// What went wrong before the first line could be judged.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{command}` failed: {said}")]
    Command { command: String, said: String },
    #[error("{} is missing; build it with: cargo build --release -p sallyport-node", .0.display())]
    NoNode(PathBuf),
    #[error("the {who} was not ready within {seconds} s; its log is {}", .log.display())]
    NotReady { who: &'static str, seconds: u64, log: PathBuf },
    #[error("the console cannot be asked")]
    Client(#[from] crate::client::ClientError),
    #[error("the console answered {status} to the configuration: {said}")]
    Configuration { status: u16, said: String },
    #[error("cannot make the demo's certificates")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

impl DemoError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

/// Runs the demo. Exit status: 0 all outcomes as expected; 1 one differed, or the stage could not be built; 2 as
/// expected, but lines that need root were left out.
pub async fn run(options: Options) -> ExitCode {
    let mut out = Table::default();
    let outcome = tokio::select! {
        outcome = perform(&options, &mut out) => outcome,
        () = interrupted() => {
            out.say("Interrupted; everything that was made is removed.");
            return ExitCode::from(1);
        }
    };
    if let Err(error) = outcome {
        out.say(&format!("The demo could not go on: {}", chain(&error)));
        return ExitCode::from(1);
    }
    out.summary()
}

async fn perform(options: &Options, out: &mut Table) -> Result<(), DemoError> {
    let stage = stage::Stage::build(options.no_root, out).await?;
    out.privileged = stage.privileged();
    lines::all(&stage, out).await?;
    if options.keep {
        out.say("");
        out.say(&stage.how_to_look());
        interrupted().await;
    }
    Ok(())
}

async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}

/// The table that is printed, and its sums.
#[derive(Debug, Default)]
struct Table {
    privileged: bool,
    passed: u32,
    failed: u32,
    left_out: u32,
}

#[expect(clippy::print_stdout, reason = "the demo's output is its purpose")]
impl Table {
    /// Free text between lines.
    fn say(&self, text: &str) {
        println!("{text}");
    }

    /// One outcome beside the expected one.
    fn line(&mut self, what: &str, expected: &str, seen: &str) {
        let right = expected == seen;
        let mark = if right { "ok " } else { "NOT" };
        println!("{mark}  {what:<66}  expected {expected:<34}  saw {seen}");
        if right { self.passed += 1 } else { self.failed += 1 }
    }

    /// A line that the kernel decides: left out without root.
    fn needs_root(&mut self, what: &str, expected: &str) {
        println!("--   {what:<66}  expected {expected:<34}  needs root");
        self.left_out += 1;
    }

    fn summary(&self) -> ExitCode {
        println!("\n{} as expected, {} different, {} need root", self.passed, self.failed, self.left_out);
        match (self.failed, self.left_out) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}
