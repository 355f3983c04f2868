//! The keeper's end of [`crate::hold`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::time::Instant;

use super::Holds;
use crate::handover::hold::{self, FromHolder, ToHolder, VERSION, same_user};
use crate::handover::message::{MAX_DESCRIPTORS, SocketInfo};
use crate::handover::{ChannelError, watch};
use crate::keeper::directory::Directory;
use crate::keeper::launch::{self, Launched, Source};
use crate::keeper::run::Keeper;
use crate::keeper::sockets::Held;
use crate::keeper::start::START;
use crate::keeper::supervise::{Worker, WorkerEvent};
use crate::sentence;

/// Where a holder waits for the next keeper, in the run directory.
pub(crate) const SOCKET: &str = "hold.sock";

/// How long one may take to hand over what it holds, or to hear.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait before another is started for one that died.
const PAUSE: Duration = Duration::from_secs(1);

/// A process that holds the sockets.
#[derive(Debug)]
pub(crate) struct Holder {
    pid: u32,
    channel: Arc<hold::Holder>,
}

impl Holder {
    /// The one that the former keeper left, with what it holds.
    pub(super) async fn meet(run: &Directory) -> Option<(Self, Vec<(SocketInfo, OwnedFd)>)> {
        // Where others stand at its door it is none that gives anything back, and nobody to wait for.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(run.short_path(SOCKET)).ok()?).ok()?;
        if !same_user(&socket).ok()? {
            return None;
        }
        let channel = hold::Holder::new(socket).ok()?;
        let heard = tokio::time::timeout(PATIENCE, receive(&channel)).await;
        match heard {
            Ok(Some((pid, kept))) => Some((Self { pid, channel: Arc::new(channel) }, kept)),
            Ok(None) | Err(_) => {
                tracing::warn!("what holds the listening sockets does not give them back");
                None
            }
        }
    }

    /// One that came across `execve`.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn resume(pid: u32, channel: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid, channel: Arc::new(hold::Holder::new(channel)?) })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The channel to it.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.channel.descriptor()
    }

    /// Has some let go and others held.
    pub(super) async fn change(&self, gone: &[SocketInfo], new: &[&Held]) -> io::Result<()> {
        if !gone.is_empty() {
            self.say(&ToHolder::LetGo { ids: gone.iter().map(|info| info.id).collect() }, &[]).await?;
        }
        for some in new.chunks(MAX_DESCRIPTORS) {
            let descriptors: Vec<_> = some.iter().map(|held| held.socket.as_fd()).collect();
            let sockets = some.iter().map(|held| held.info.clone()).collect();
            self.say(&ToHolder::Keep { sockets }, &descriptors).await?;
        }
        Ok(())
    }

    async fn say(&self, message: &ToHolder, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = tokio::time::timeout(PATIENCE, self.channel.send(message, descriptors)).await;
        sent.map_err(io::Error::from)?.map_err(io::Error::other)
    }
}

async fn receive(channel: &hold::Holder) -> Option<(u32, Vec<(SocketInfo, OwnedFd)>)> {
    let (mut holder, mut all) = (None, Vec::new());
    loop {
        match channel.receive().await.ok()? {
            (FromHolder::Here { version: VERSION, pid }, _) => holder = Some(pid),
            (FromHolder::Here { .. }, _) => return None,
            (FromHolder::Kept { sockets }, descriptors) => all.extend(sockets.into_iter().zip(descriptors)),
            (FromHolder::All, _) => return Some((holder?, all)),
        }
    }
}

/// The door for the next keeper: this user's alone.
fn door(run: &Directory) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    run.remove(SOCKET)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(run.short_path(SOCKET))?)?;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::chmodat(run.as_fd(), SOCKET, mode, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

impl Keeper {
    /// Starts a holder, where nobody holds the sockets and one is due.
    pub(in crate::keeper) fn start_holder(&mut self) {
        if matches!(self.store.keeper, Holds::Holder(_)) && self.holder_number.is_none() {
            // The former keeper's.
            self.follow_holder();
        }
        let due = self.holder_at.is_none_or(|at| at <= Instant::now());
        let wanted = matches!(self.store.keeper, Holds::Nobody(_)) && self.current.is_some();
        if !wanted || !due || self.stop_at.is_some() || self.holder_number.is_some() {
            return;
        }
        self.holder_at = Some(Instant::now() + PAUSE);
        let words = vec!["hold".into()];
        match Worker::launch_with(
            self.next_worker,
            (None, words),
            Source::Open(Arc::clone(&self.program)),
            &self.events,
        ) {
            Ok(()) => {
                self.holder_number = Some(self.next_worker);
                self.launches.insert(self.next_worker, Instant::now() + START);
                self.next_worker += 1;
            }
            Err(error) => self.no_holder(&error),
        }
    }

    /// It runs: it holds from now on.
    pub(in crate::keeper) async fn holder_started(&mut self, launched: Launched, channel: OwnedFd) {
        let pid = launched.pid;
        let begun = async {
            let holder = Holder::resume(pid, channel)?;
            let door = door(&self.run)?;
            holder.say(&ToHolder::Begin, &[door.as_fd()]).await?;
            Ok::<_, io::Error>(holder)
        };
        match begun.await {
            Ok(holder) => {
                tracing::info!(pid, "a process holds the listening sockets too");
                self.store.change(Holds::Holder(holder));
                self.follow_holder();
            }
            Err(error) => {
                launched.discard();
                self.no_holder(&error);
            }
        }
    }

    /// Hears of its end, and collects it when it is this process's child.
    pub(in crate::keeper) fn follow_holder(&mut self) {
        let Holds::Holder(holder) = &self.store.keeper else { return };
        let (pid, channel, events) = (holder.pid, Arc::clone(&holder.channel), self.events.clone());
        let number = self.next_worker;
        self.next_worker += 1;
        self.holder_number = Some(number);
        tokio::spawn(async move {
            let process = launch::process(pid).and_then(watch);
            // It has nothing to say but that it is gone.
            while channel.receive().await.is_ok() {}
            if let Ok(process) = process {
                // An error means that it cannot be watched, and so not collected.
                let _ = process.readable().await;
                launch::reap(process.get_ref());
            }
            // The keeper's end is the process's end.
            let _ = events.send((number, WorkerEvent::Silent(ChannelError::Closed))).await;
        });
    }

    /// Nobody holds the sockets; another is started in a moment.
    pub(in crate::keeper) fn no_holder(&mut self, error: &dyn std::error::Error) {
        tracing::warn!(
            error = sentence(error),
            "no process holds the listening sockets beside keeper and worker"
        );
        self.holder_number = None;
        self.store.change(Holds::Nobody(sentence(error)));
    }

    /// The node stops: so does it.
    pub(in crate::keeper) async fn end_holder(&self) {
        let Holds::Holder(holder) = &self.store.keeper else { return };
        match holder.say(&ToHolder::End, &[]).await {
            // A node that has ended has no process left.
            Ok(()) => drop(
                tokio::time::timeout(PATIENCE, async { while holder.channel.receive().await.is_ok() {} })
                    .await,
            ),
            Err(error) => tracing::debug!(%error, "what held the listening sockets is gone already"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_with_a_queue_keeps_no_keeper_from_starting() {
        let path = std::env::temp_dir().join(format!("sallyport-hold-{}", std::process::id()));
        let run = Directory::open(&path, 0o700).unwrap();
        let door = door(&run).unwrap();
        let queue: Vec<_> = (0..8)
            .map_while(|_| {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket =
                    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                        .unwrap();
                let address = SocketAddrUnix::new(run.short_path(SOCKET)).unwrap();
                rustix::net::connect(&socket, &address).ok().map(|()| socket)
            })
            .collect();
        assert!(queue.len() < 8, "the queue has no end");
        let (told, met) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            told.send(runtime.block_on(Holder::meet(&run)).is_some()).unwrap();
        });
        assert_eq!(met.recv_timeout(Duration::from_secs(5)), Ok(false));
        drop((door, queue));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
