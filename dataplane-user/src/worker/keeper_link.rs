//! The worker's end of the channel: it outlives its keeper and finds the next one.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::handover::{Channel, ChannelError, ToKeeper, ToWorker};

/// The channel as the worker sees it.
pub type KeeperChannel = Channel<ToKeeper, ToWorker>;

/// Between attempts to find the next keeper.
const RETRY: Duration = Duration::from_millis(100);

/// The keeper, or the place where the next one will be.
#[derive(Debug)]
pub struct KeeperLink {
    channel: Option<KeeperChannel>,
    run_directory: Option<OwnedFd>,
}

/// What came of waiting for the keeper.
#[derive(Debug)]
pub enum Heard {
    /// It said something.
    Said(Box<ToWorker>, Vec<OwnedFd>),
    /// There is another keeper, which knows nothing yet.
    Another,
    /// The keeper is gone, and there is no way to find another.
    Alone,
}

impl KeeperLink {
    /// With the channel the worker was started with.
    pub fn new(channel: KeeperChannel) -> Self {
        Self { channel: Some(channel), run_directory: None }
    }

    /// Where `keeper.sock` is.
    pub fn set_run_directory(&mut self, directory: OwnedFd) {
        self.run_directory = Some(directory);
    }

    /// The next thing that happens. Nothing is lost when the future is dropped before it is ready.
    pub async fn hear(&mut self) -> Heard {
        if let Some(channel) = &self.channel {
            match channel.receive().await {
                Ok((message, descriptors)) => return Heard::Said(Box::new(message), descriptors),
                Err(error) => {
                    tracing::warn!(%error, "the keeper is gone; serving goes on");
                    self.channel = None;
                }
            }
        }
        let Some(directory) = &self.run_directory else { return Heard::Alone };
        loop {
            tokio::time::sleep(RETRY).await;
            if let Ok(channel) = connect(directory) {
                self.channel = Some(channel);
                return Heard::Another;
            }
        }
    }

    /// Says something, when there is a keeper. One that is gone is noticed by [`Self::hear`].
    pub async fn say(&self, message: &ToKeeper, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let Some(channel) = &self.channel else { return };
        if let Err(error) = channel.send(message, descriptors).await
            && !matches!(error, ChannelError::Closed)
        {
            tracing::error!(%error, "the keeper cannot be told");
        }
    }
}

/// Through the directory's descriptor: the path may be one that this user cannot walk.
fn connect(directory: &OwnedFd) -> std::io::Result<KeeperChannel> {
    let path = format!("/proc/self/fd/{}/keeper.sock", directory.as_raw_fd());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    KeeperChannel::new(socket)
}
