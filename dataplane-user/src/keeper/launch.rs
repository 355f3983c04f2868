//! Programs, and how a process is started from one.
//!
//! A program may lie on a file system that hangs, and then opening it or `execve` lasts as long as that does. So both happen
//! on a thread of their own, and the keeper goes on meanwhile.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::privileges::{self, User};
use super::store::notify::VARIABLES;

/// A program as it was when it was opened: a worker that died is followed by one of the same release, whatever was installed
/// under the name meanwhile, and a user who may not walk the path can run it.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: OwnedFd,
}

/// Where a program comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Somebody opened it.
    Open(Arc<Program>),
    /// Whatever is under this name when it is needed.
    At(PathBuf),
}

/// A process that was started.
#[derive(Debug)]
pub struct Launched {
    /// What it runs.
    pub program: Arc<Program>,
    /// Its process id.
    pub pid: u32,
    /// The process itself, whoever has its id later.
    pub process: OwnedFd,
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A directory, a device, a pipe.
    #[error("{} is no regular file", .0.display())]
    NoFile(PathBuf),
    /// What the file system or the kernel said.
    #[error("the new program cannot be started")]
    Io(#[from] io::Error),
}

impl Program {
    /// The one that runs.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn own() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, file: open(Path::new("/proc/self/exe"))? })
    }

    /// One that somebody opened; what it is shows when it is started.
    pub fn new(path: PathBuf, file: OwnedFd) -> Self {
        Self { path, file }
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next release will be found.
    pub fn installed(&self) -> PathBuf {
        // What the kernel adds when the file was replaced.
        PathBuf::from(self.path.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
    }

    /// The file.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path to it for this process.
    fn own_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

impl Source {
    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open(program) => program.path(),
            Self::At(path) => path,
        }
    }

    fn open(self) -> Result<Arc<Program>, LaunchError> {
        let program = match self {
            Self::Open(program) => program,
            Self::At(path) => Arc::new(Program { file: open(&path)?, path }),
        };
        let stat = rustix::fs::fstat(&program.file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LaunchError::NoFile(program.path.clone()));
        }
        Ok(program)
    }
}

impl Launched {
    /// Nobody wants it any more.
    pub fn discard(self) {
        if std::thread::Builder::new().name("discard".to_owned()).spawn(move || self.end()).is_err() {
            tracing::warn!("a process that was started too late could not be ended");
        }
    }

    /// Ends and collects it. May wait, so not on the keeper's own thread.
    fn end(&self) {
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        // The descriptor does not wait by itself, as the keeper's own thread wants it.
        let mut ended = [rustix::event::PollFd::new(&self.process, rustix::event::PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut ended, None) {}
        reap(&self.process);
    }
}

/// Starts a process with these arguments and this standard input, as `user`, with no privilege of the keeper's.
/// `done` hears of it on the thread that starts it, and gives back what nobody wants.
///
/// # Errors
/// There is no thread to be had.
pub fn launch(
    source: Source,
    user: Option<User>,
    arguments: Vec<OsString>,
    input: OwnedFd,
    done: impl FnOnce(Result<Launched, LaunchError>) -> Option<Launched> + Send + 'static,
) -> io::Result<()> {
    let start = move || -> Result<Launched, LaunchError> {
        let program = source.open()?;
        // Privileges are each thread's own, and a child has its thread's.
        privileges::leave_children_nothing().map_err(io::Error::other)?;
        let mut command = Command::new(program.own_path());
        command.arg0("sallyport-node").args(&arguments).stdin(Stdio::from(input));
        // A terminal's ^C is the keeper's to pass on: the worker drains when it is told.
        command.process_group(0);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if let Some(user) = user {
            command.gid(user.gid).uid(user.uid);
        }
        let pid = command.spawn()?.id();
        Ok(Launched { program, pid, process: process(pid)? })
    };
    let thread = std::thread::Builder::new().name("launch".to_owned());
    thread.spawn(move || {
        if let Some(unwanted) = done(start()) {
            unwanted.end();
        }
    })?;
    Ok(())
}

/// The process that has this id now.
///
/// # Errors
/// There is none.
pub fn process(pid: u32) -> io::Result<OwnedFd> {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let id = id.ok_or_else(|| io::Error::other("not a process id"))?;
    Ok(rustix::process::pidfd_open(id, PidfdFlags::NONBLOCK)?)
}

/// Whether a process runs the very program that this one runs. To look at another user's takes `CAP_SYS_PTRACE` (proc_pid_exe(5));
/// without it nothing is known.
pub fn runs_own_program(pid: u32) -> bool {
    let program = |process: &str| {
        let stat = rustix::fs::stat(format!("/proc/{process}/exe")).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    program("self").is_some_and(|own| program(&pid.to_string()) == Some(own))
}

/// Collects a dead child; how it ended, for the log.
pub fn reap(process: &OwnedFd) -> String {
    match collect(process) {
        Ok(Some(status)) => status.to_string(),
        Ok(None) => "it has not ended".to_owned(),
        Err(rustix::io::Errno::CHILD) => "it was another keeper's child".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn collect(process: &OwnedFd) -> rustix::io::Result<Option<ExitStatus>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let ended = rustix::process::waitid(WaitId::PidFd(process.as_fd()), options)?;
    // As `wait` gives it: the exit status in the second byte, or the signal in the first.
    let status =
        |ended: rustix::process::WaitIdStatus| match (ended.exit_status(), ended.terminating_signal()) {
            (Some(code), _) => ExitStatus::from_raw(code << 8),
            (None, signal) => ExitStatus::from_raw(signal.unwrap_or_default()),
        };
    Ok(ended.map(status))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn run(source: Source, arguments: &[&str]) -> Result<Launched, LaunchError> {
        let (sender, outcome) = mpsc::channel();
        let (_ours, theirs) = crate::handover::channel::pair().unwrap();
        let arguments = arguments.iter().map(|word| (*word).into()).collect();
        launch(source, None, arguments, theirs, move |launched| sender.send(launched).err()?.0.ok()).unwrap();
        outcome.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn ended(launched: &Launched) -> String {
        let mut ended = [rustix::event::PollFd::new(&launched.process, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
        reap(&launched.process)
    }

    fn at(path: &str) -> Source {
        Source::At(path.into())
    }

    #[test]
    fn a_process_is_started_and_how_it_ended_is_known() {
        let launched = run(at("/bin/sh"), &["-c", "exit 3"]).unwrap();
        assert_eq!(launched.program.path(), Path::new("/bin/sh"));
        assert_eq!(ended(&launched), "exit status: 3");
        assert_eq!(reap(&launched.process), "it was another keeper's child", "it is collected");

        let launched = run(at("/bin/sh"), &["-c", "kill -9 $$"]).unwrap();
        assert!(ended(&launched).starts_with("signal: 9"));
    }

    #[test]
    fn what_is_no_program_is_said() {
        assert!(matches!(run(at("/etc"), &[]), Err(LaunchError::NoFile(_))));
        assert!(matches!(run(at("/etc/passwd"), &[]), Err(LaunchError::Io(_))));
        assert!(matches!(run(at("/nowhere"), &[]), Err(LaunchError::Io(_))));
        let opened = Arc::new(Program::new("/etc".into(), open(Path::new("/etc")).unwrap()));
        assert!(matches!(run(Source::Open(opened), &[]), Err(LaunchError::NoFile(_))));
    }

    #[test]
    fn a_process_that_nobody_waits_for_any_more_is_ended_and_collected() {
        let (_ours, theirs) = crate::handover::channel::pair().unwrap();
        let (told, pid) = mpsc::channel();
        launch(at("/bin/sleep"), None, vec!["1000".into()], theirs, move |launched| {
            let launched = launched.unwrap();
            told.send(launched.pid).unwrap();
            Some(launched)
        })
        .unwrap();
        let pid = pid.recv_timeout(Duration::from_secs(10)).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(std::time::Instant::now() < until, "{pid} lives");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
