//! `sallyport-node hold`: a process that does nothing but hold a keeper's listening sockets, so that they outlive keeper and
//! worker where no service manager holds them. It has no capability, opens nothing and reads nothing from the network.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::SocketFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::handover::hold::{FromHolder, ToHolder, ToKeeper, VERSION, same_user};
use crate::handover::message::{MAX_DESCRIPTORS, SocketInfo};
use crate::handover::{self, ChannelError};

/// How long it waits for the next keeper before it takes the node for gone: connections wait meanwhile, and would wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds what the keeper behind `channel` and its successors say, until one says that it stops or none comes.
///
/// # Errors
/// What the kernel said.
pub fn run(channel: OwnedFd) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut holding = Holding { kept: BTreeMap::new(), door: None };
        let mut keeper = ToKeeper::new(channel)?;
        while !holding.obey(&keeper).await {
            match holding.next_keeper().await {
                Some(next) => keeper = next,
                None => break,
            }
        }
        Ok(())
    })
}

struct Holding {
    kept: BTreeMap<u64, (SocketInfo, OwnedFd)>,
    /// Where the next keeper comes.
    door: Option<AsyncFd<OwnedFd>>,
}

impl Holding {
    /// Does what a keeper says until it is gone; whether it said to end.
    async fn obey(&mut self, keeper: &ToKeeper) -> bool {
        while let Ok((message, descriptors)) = keeper.receive().await {
            match message {
                ToHolder::Begin => {
                    let door = descriptors.into_iter().next().map(handover::watch);
                    self.door = door.and_then(Result::ok);
                }
                ToHolder::Keep { sockets } => {
                    let kept = sockets.into_iter().zip(descriptors);
                    self.kept.extend(kept.map(|(info, descriptor)| (info.id, (info, descriptor))));
                }
                ToHolder::LetGo { ids } => self.kept.retain(|id, _| !ids.contains(id)),
                ToHolder::End => return true,
            }
        }
        false
    }

    /// The next keeper, which has been given everything; `None` when none comes.
    async fn next_keeper(&self) -> Option<ToKeeper> {
        let door = self.door.as_ref()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let accept = |door: &OwnedFd| Ok(rustix::net::accept_with(door, SocketFlags::CLOEXEC)?);
            let accepted = tokio::time::timeout_at(until, door.async_io(Interest::READABLE, accept)).await;
            let socket = accepted.ok()?.ok()?;
            if !same_user(&socket).unwrap_or(false) {
                continue;
            }
            let Ok(keeper) = ToKeeper::new(socket) else { continue };
            if self.give(&keeper).await.is_ok() {
                return Some(keeper);
            }
        }
    }

    async fn give(&self, keeper: &ToKeeper) -> Result<(), ChannelError> {
        keeper.send(&FromHolder::Here { version: VERSION, pid: std::process::id() }, &[]).await?;
        let all: Vec<_> = self.kept.values().collect();
        for some in all.chunks(MAX_DESCRIPTORS) {
            let descriptors: Vec<_> = some.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
            let sockets = some.iter().map(|(info, _)| info.clone()).collect();
            keeper.send(&FromHolder::Kept { sockets }, &descriptors).await?;
        }
        keeper.send(&FromHolder::All, &[]).await
    }
}
