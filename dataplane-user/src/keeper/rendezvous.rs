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

/// Makes `keeper.sock`, which only the worker's group and the keeper itself can use; [`recognise`] turns away who of these
/// is no worker.
///
/// # Errors
/// What the kernel said.
pub fn listen(run: &Directory, user: Option<User>) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    run.remove(SOCKET)?;
    let address = SocketAddrUnix::new(run.short_path(SOCKET))?;
    in_group(user, || rustix::net::bind(&socket, &address))?;
    let mode = rustix::fs::Mode::from_raw_mode(if user.is_some() { 0o660 } else { 0o600 });
    rustix::fs::chmodat(run.as_fd(), SOCKET, mode, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, 8)?;
    handover::watch(socket)
}

/// Does `work` with the worker's group, so that what it makes is the group's: a unit gives CAP_SETGID and no CAP_CHOWN.
fn in_group(user: Option<User>, work: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
    let Some(user) = user else { return Ok(work()?) };
    let own = rustix::process::getegid();
    rustix::thread::set_thread_res_gid(None, rustix::fs::Gid::from_raw(user.gid), None)?;
    let done = work();
    rustix::thread::set_thread_res_gid(None, own, None)?;
    Ok(done?)
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
    let pids: BTreeSet<u32> =
        alive(run).into_iter().chain(workers.values().map(|worker| worker.pid)).collect();
    let lines: Vec<String> = pids.iter().filter_map(|pid| identify(*pid).ok()).collect();
    if let Err(error) = run.write_volatile(WORKERS, lines.join("\n").as_bytes(), 0o600) {
        tracing::warn!(%error, "the list of workers cannot be written: they are not recognised by the next keeper");
    }
    pids
}

/// The workers that were written down and still live.
fn alive(run: &Directory) -> BTreeSet<u32> {
    let known = run.read(WORKERS).ok().flatten().unwrap_or_default();
    let pid = |line: &str| line.split(' ').next()?.parse::<u32>().ok();
    String::from_utf8_lossy(&known)
        .lines()
        .filter_map(|line| pid(line).filter(|pid| identify(*pid).is_ok_and(|alive| alive == line)))
        .collect()
}

/// Live workers of a former keeper that have not come to this one.
pub fn astray(run: &Directory, workers: &BTreeMap<WorkerNumber, Worker>) -> BTreeSet<u32> {
    let ours: BTreeSet<u32> = workers.values().map(|worker| worker.pid).collect();
    alive(run).difference(&ours).copied().collect()
}

/// Ends a worker that has not come in time.
pub fn end(run: &Directory, pid: u32) -> io::Result<()> {
    let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let id = id.ok_or_else(|| io::Error::other("not a process id"))?;
    let process = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty())?;
    // The descriptor names one process for good; whether it is the worker is asked once more.
    if alive(run).contains(&pid) {
        rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL)?;
    }
    Ok(())
}

/// A process id may be used again; with the start time it is unique.
fn identify(pid: u32) -> io::Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may hold anything; the start time is the twentieth after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_ascii_whitespace();
    // What is dead and not yet collected is nobody.
    let living = fields.next().filter(|state| !matches!(*state, "Z" | "X"));
    living
        .and_then(|_| fields.nth(18))
        .map(|start| format!("{pid} {start}"))
        .ok_or_else(|| io::Error::other("/proc/PID/stat cannot be read"))
}
