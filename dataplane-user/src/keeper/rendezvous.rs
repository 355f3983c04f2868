//! `keeper.sock`: where a worker that outlived its keeper finds the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;

use super::directory::Directory;
use super::privileges::User;
use super::supervise::{Worker, WorkerNumber};
use crate::handover;

const SOCKET: &str = "keeper.sock";

/// Lists live workers, one `pid start-time` a line, so that the next keeper knows whom to expect.
const WORKERS: &str = "workers";

/// Makes `keeper.sock`, which only the worker's user can use.
///
/// # Errors
/// What the kernel said.
pub fn listen(run: &Directory, user: Option<User>) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    run.remove(SOCKET)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(run.short_path(SOCKET))?)?;
    let owner = user.map(|user| rustix::fs::Uid::from_raw(user.uid));
    let owned = rustix::fs::chownat(run.as_fd(), SOCKET, owner, None, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    let mode = match owned {
        Ok(()) => rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        // A unit gives no CAP_CHOWN: then all may connect, and who is not the worker's user is turned away by SO_PEERCRED.
        Err(rustix::io::Errno::PERM) => rustix::fs::Mode::from_raw_mode(0o666),
        Err(error) => return Err(error.into()),
    };
    rustix::fs::chmodat(run.as_fd(), SOCKET, mode, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, 8)?;
    handover::watch(socket)
}

/// The next one who connects.
///
/// # Errors
/// What the kernel said.
pub async fn accept(socket: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    let accept = |socket: &OwnedFd| Ok(rustix::net::accept_with(socket, SocketFlags::CLOEXEC)?);
    socket.async_io(tokio::io::Interest::READABLE, accept).await
}

/// The process on the other side, when it is a worker of this run directory.
///
/// # Errors
/// It is somebody else, or is gone.
pub fn recognise(run: &Directory, socket: &OwnedFd, uid: u32) -> io::Result<u32> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).map_err(io::Error::other)?;
    let line = identify(pid)?;
    let known = run.read(WORKERS)?.unwrap_or_default();
    if peer.uid.as_raw() == uid && String::from_utf8_lossy(&known).lines().any(|known| known == line) {
        return Ok(pid);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("process {pid} of user {} is no worker", peer.uid.as_raw()),
    ))
}

/// Writes down which workers live, those of a former keeper included; the answer is their process ids.
pub fn remember(run: &Directory, workers: &BTreeMap<WorkerNumber, Worker>) -> BTreeSet<u32> {
    let known = run.read(WORKERS).ok().flatten().unwrap_or_default();
    let pid = |line: &str| line.split(' ').next()?.parse::<u32>().ok();
    let former: Vec<u32> = String::from_utf8_lossy(&known)
        .lines()
        .filter_map(|line| pid(line).filter(|pid| identify(*pid).is_ok_and(|alive| alive == line)))
        .collect();
    let pids: BTreeSet<u32> = former.into_iter().chain(workers.values().map(|worker| worker.pid)).collect();
    let lines: Vec<String> = pids.iter().filter_map(|pid| identify(*pid).ok()).collect();
    if let Err(error) = run.write_volatile(WORKERS, lines.join("\n").as_bytes(), 0o600) {
        tracing::warn!(%error, "the list of workers cannot be written: they are not recognised by the next keeper");
    }
    pids
}

/// A process id may be used again; with the start time it is unique.
fn identify(pid: u32) -> io::Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may hold anything; the start time is the twentieth after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start = after_name.split_ascii_whitespace().nth(19);
    start
        .map(|start| format!("{pid} {start}"))
        .ok_or_else(|| io::Error::other("/proc/PID/stat cannot be read"))
}
