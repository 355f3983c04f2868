//! `sallyport-node upgrade`: the operator's end of `control.sock`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::handover::operator::{Part, ToNode, ToOperator};
use crate::handover::{Channel, ChannelError};
use crate::keeper::operator::SOCKET;

/// Longer than a keeper that is well is ever silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Why an upgrade did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// No file, or no right to it.
    #[error("{} cannot be opened", .path.display())]
    Program {
        /// The new program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No keeper, or one of a release that had no such socket.
    #[error(
        "no keeper answers on {}: either no node runs here, or one that cannot be upgraded in place (restart it)",
        .path.display()
    )]
    NoKeeper {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The channel broke.
    #[error("the keeper went away before it had answered; `sallyport-node status` says what runs")]
    Channel(#[from] ChannelError),
    /// Nothing was heard.
    #[error("the keeper has said nothing for {} seconds; `sallyport-node status` says what runs", SILENCE.as_secs())]
    Silent,
    /// The keeper's own sentence.
    #[error("{0}; what ran before goes on")]
    Refused(String),
    /// The runtime.
    #[error("this command cannot run")]
    Io(#[from] io::Error),
}

/// Asks the keeper of a run directory to take over a program, for `only` a part or both; `progress` gets its lines, the last one included.
///
/// # Errors
/// See [`OperateError`].
pub fn upgrade(
    run_dir: &Path,
    program: &Path,
    (deadline_ms, only): (u32, Option<Part>),
    progress: impl FnMut(&str),
) -> Result<(), OperateError> {
    let failed = |source| OperateError::Program { path: program.to_owned(), source };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::open(program, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let path = std::path::absolute(program)?.to_string_lossy().into_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(run_dir, &ToNode::Upgrade { path, deadline_ms, only }, file, progress))
}

async fn ask(
    run_dir: &Path,
    message: &ToNode,
    file: OwnedFd,
    mut progress: impl FnMut(&str),
) -> Result<(), OperateError> {
    let path = run_dir.join(SOCKET);
    let channel: Channel<ToNode, ToOperator> =
        connect(run_dir).map_err(|source| OperateError::NoKeeper { path, source })?;
    channel.send(message, &[file.as_fd()]).await?;
    loop {
        let heard = tokio::time::timeout(SILENCE, channel.receive()).await;
        let (message, _) = heard.map_err(|_elapsed| OperateError::Silent)??;
        match message {
            ToOperator::Progress { text } => progress(&text),
            ToOperator::Done { text } => {
                progress(&text);
                return Ok(());
            }
            ToOperator::Refused { reason } => return Err(OperateError::Refused(reason)),
        }
    }
}

/// Through the directory's descriptor: a socket's own path may be no longer than 107 bytes.
fn connect<Out: serde::Serialize, In: serde::de::DeserializeOwned>(
    run_dir: &Path,
) -> io::Result<Channel<Out, In>> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let directory = rustix::fs::open(run_dir, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Channel::new(socket)
}
