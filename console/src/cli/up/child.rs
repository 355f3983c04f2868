//! One child process, started again when it ends.

use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::super::out::EX_CONFIG;

/// The first wait before it is started again; doubled each time, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// A child that lived so long begins with the shortest wait again.
const HEALTHY: Duration = Duration::from_secs(10);
/// How long an orderly stop may take; a node drains for up to half a minute.
const STOP: Duration = Duration::from_secs(40);

/// Runs the child until `stop`; ends early only when the child says that starting it again will not help.
pub(super) async fn supervise(name: &'static str, mut command: Command, mut stop: watch::Receiver<bool>) -> ExitCode {
    let mut wait = SHORTEST;
    loop {
        let began = Instant::now();
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(child = name, %error, "cannot be started");
                return ExitCode::FAILURE;
            }
        };
        tracing::info!(child = name, pid = child.id(), "started");
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = stopped(&mut stop) => return end(name, child).await,
        };
        match ended {
            Ok(status) if status.code() == Some(i32::from(EX_CONFIG)) => return ExitCode::from(EX_CONFIG),
            Ok(status) => tracing::warn!(child = name, status = %status, "ended; starting it again"),
            Err(error) => tracing::warn!(child = name, %error, "was lost; starting it again"),
        }
        if began.elapsed() > HEALTHY {
            wait = SHORTEST;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stop) => return ExitCode::SUCCESS,
        }
        wait = (wait * 2).min(LONGEST);
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _signal = stop.wait_for(|stop| *stop).await.map(|_guard| ());
}

/// Asks it to stop, waits, and kills it when it does not.
async fn end(name: &'static str, mut child: Child) -> ExitCode {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::warn!(child = name, %error, "cannot be asked to stop");
    }
    match tokio::time::timeout(STOP, child.wait()).await {
        Ok(Ok(status)) => code(status),
        Ok(Err(error)) => {
            tracing::warn!(child = name, %error, "was lost while stopping");
            ExitCode::FAILURE
        }
        Err(_elapsed) => {
            tracing::warn!(child = name, "did not stop in time and is killed");
            let _gone = child.kill().await;
            ExitCode::FAILURE
        }
    }
}

fn code(status: ExitStatus) -> ExitCode {
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
