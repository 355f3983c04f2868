//! Programs that are no good, for tests of upgrades: each is this one under the name that says what is wrong with it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use model::snapshot::Snapshot;
use sallyport_node::handover::{self, Channel, ToKeeper, ToWorker};

fn main() -> io::Result<()> {
    let own = std::env::current_exe()?;
    match own.file_name().and_then(|name| name.to_str()) {
        Some("deaf") => deaf(),
        Some("doomed") => doomed(&own),
        other => {
            Err(io::Error::other(format!("there is no way to be unfit called {other:?}, of {}", shown(&own))))
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A keeper that passes the trial and dies as soon as it has taken over; its worker is a good one.
fn doomed(own: &Path) -> io::Result<()> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if !words.iter().any(|word| word == "--handover-try" || word == "worker") {
        return Err(io::Error::other("doomed"));
    }
    Err(Command::new(own.with_file_name("sallyport-node")).args(words).exec())
}

/// A worker that has the snapshot in force live and never accepts.
fn deaf() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let keeper: Channel<ToKeeper, ToWorker> = Channel::new(handover::inherited(0)?)?;
        let hello = ToKeeper::Hello {
            oldest: handover::OLDEST,
            newest: handover::VERSION,
            release: "deaf".to_owned(),
            running: None,
        };
        keeper.send(&hello, &[]).await.map_err(io::Error::other)?;
        while let Ok((message, _sockets)) = keeper.receive().await {
            if let ToWorker::Start(start) = message {
                let snapshot = start.snapshot.as_ref();
                let snapshot = snapshot.and_then(|signed| Snapshot::from_verified_json(&signed.body).ok());
                let live = snapshot.map(|snapshot| snapshot.id);
                let ready = ToKeeper::Ready { live, problem: None, features: Vec::new() };
                keeper.send(&ready, &[]).await.map_err(io::Error::other)?;
            } else if matches!(message, ToWorker::Retire { .. }) {
                return Ok(());
            }
        }
        Ok(())
    })
}
