//! One child process, kept running.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use tokio::process::Child;

use super::{EX_CONFIG, UpError};
use crate::cli::{places, say};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A child that ran this long is started again at once.
const STEADY: Duration = Duration::from_secs(10);
/// The longest drain of a listener is far below.
const PATIENCE: Duration = Duration::from_secs(90);

/// Makes the command for each start: what it depends on may have changed since the last.
pub(super) type Make = Box<dyn Fn() -> std::io::Result<Start>>;

/// A command, and the executable it runs.
pub(super) struct Start {
    pub(super) command: Command,
    /// The command's path leads through this descriptor.
    _executable: OwnedFd,
}

/// The start of a command that runs `executable`, also as a user who may not walk the path to it (a checkout below
/// /root): it is opened here, so that a binary replaced under the same name is the new one.
pub(super) fn start(executable: &Path) -> std::io::Result<Start> {
    let file = rustix::fs::open(executable, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // A terminal's ^C and its end are for `up`, which then stops its children one after the other.
    command.arg0(executable).process_group(0);
    Ok(Start { command, _executable: file })
}

/// A child that is started again whenever it ends.
pub(super) struct Keep {
    name: &'static str,
    make: Make,
    child: Child,
    since: Instant,
    pause: Duration,
    /// Whether it ever ran steadily: before that, `EX_CONFIG` is the operator's to mend.
    proven: bool,
}

impl Keep {
    pub(super) fn start(name: &'static str, proven: bool, make: Make) -> Result<Self, UpError> {
        let child = spawn(name, &make)?;
        Ok(Self { name, make, child, since: Instant::now(), pause: SHORTEST_PAUSE, proven })
    }

    /// Says that it has done its work once: whatever keeps it from starting from now on, the other child goes on meanwhile.
    pub(super) fn proven(&mut self) {
        self.proven = true;
    }

    /// Watches it, and starts it again with growing pauses; ends only when starting again is of no use.
    pub(super) async fn watch(&mut self) -> UpError {
        loop {
            let status = match self.child.wait().await {
                Ok(status) => status,
                Err(error) => return UpError::io(format!("wait for the {}", self.name))(error),
            };
            let steady = self.since.elapsed() >= STEADY;
            self.proven |= steady;
            if !self.proven && status.code() == Some(i32::from(EX_CONFIG)) {
                return UpError::Config(self.name);
            }
            self.pause = if steady { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
            say(&format!("the {} ended ({status}); starting it again in {:?}", self.name, self.pause));
            tokio::time::sleep(self.pause).await;
            match spawn(self.name, &self.make) {
                Ok(child) => self.child = child,
                Err(error) => return error,
            }
            self.since = Instant::now();
        }
    }

    /// Asks it to end in an orderly way, and waits. Whoever asks again is in a hurry, which the child is told.
    pub(super) async fn stop(&mut self) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            tokio::select! {
                waited = tokio::time::timeout_at(end, self.child.wait()) => {
                    if waited.is_err() {
                        say(&format!("the {} does not end; killing it", self.name));
                        drop(self.child.kill().await);
                    }
                    return;
                }
                () = places::stopped() => {}
            }
        }
    }

    /// Ends it in an orderly way and starts it anew.
    pub(super) async fn restart(&mut self) -> Result<(), UpError> {
        self.stop().await;
        self.child = spawn(self.name, &self.make)?;
        self.since = Instant::now();
        Ok(())
    }
}

fn spawn(name: &'static str, make: &Make) -> Result<Child, UpError> {
    let spawned = make().and_then(|Start { command, _executable }| {
        // The descriptor lives until the child has called execve.
        tokio::process::Command::from(command).spawn()
    });
    spawned.map_err(UpError::io(format!("start the {name}")))
}
