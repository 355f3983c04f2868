//! `control.sock`: where `sallyport-node upgrade` asks. Only root and the keeper's own user are heard.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::directory::Directory;
use crate::handover::operator::{ToNode, ToOperator};
use crate::handover::{self, Channel};
use crate::sentence;

/// The socket's name in the run directory.
pub const SOCKET: &str = "control.sock";

/// How long somebody who connected may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who asked, and hears what comes of it.
#[derive(Debug, Clone)]
pub struct Operator(Arc<Channel<ToOperator, ToNode>>);

/// What somebody asked, with its descriptors.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub message: ToNode,
    /// Which process, as the kernel says.
    pub pid: u32,
    /// As the message promises.
    pub descriptors: Vec<OwnedFd>,
    /// Who.
    pub operator: Operator,
}

impl Operator {
    /// Whoever asked the release before.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn resume(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(Channel::new(socket)?)))
    }

    /// Their connection.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor()
    }

    /// Tells them. Whoever is gone needs no answer: what was begun goes on.
    pub async fn tell(&self, message: &ToOperator) {
        let sent = tokio::time::timeout(PATIENCE, self.0.send(message, &[])).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("nobody waits for the answer any more");
        }
    }
}

/// Makes `control.sock`, for the keeper's user alone.
///
/// # Errors
/// What the kernel said.
pub fn listen(run: &Directory) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    run.remove(SOCKET)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(run.short_path(SOCKET))?)?;
    rustix::fs::chmodat(
        run.as_fd(),
        SOCKET,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::AtFlags::empty(),
    )?;
    rustix::net::listen(&socket, 4)?;
    handover::watch(socket)
}

/// Reads what somebody asks and hands it to the keeper; strangers and silence are turned away.
pub fn hear(socket: OwnedFd, asked: &mpsc::Sender<Asked>) {
    let own = rustix::process::geteuid();
    let pid = match rustix::net::sockopt::socket_peercred(&socket) {
        Ok(peer) if peer.uid.is_root() || peer.uid == own => peer.pid.as_raw_nonzero().get().unsigned_abs(),
        Ok(peer) => {
            return tracing::warn!(uid = peer.uid.as_raw(), "a stranger at {SOCKET} was turned away");
        }
        Err(error) => return tracing::warn!(%error, "{SOCKET}"),
    };
    let channel = match Channel::new(socket) {
        Ok(channel) => Arc::new(channel),
        Err(error) => return tracing::warn!(%error, "{SOCKET}"),
    };
    let asked = asked.clone();
    tokio::spawn(async move {
        match tokio::time::timeout(PATIENCE, channel.receive()).await {
            Ok(Ok((message, descriptors))) => {
                // The keeper's end is the process's end.
                let _ = asked.send(Asked { message, pid, descriptors, operator: Operator(channel) }).await;
            }
            Ok(Err(error)) => {
                let reason = format!("the keeper does not understand this command: {}", sentence(&error));
                Operator(channel).tell(&ToOperator::Refused { reason }).await;
            }
            Err(_elapsed) => {}
        }
    });
}
