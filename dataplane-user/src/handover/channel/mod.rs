//! One `SOCK_SEQPACKET` socket that carries messages with descriptors.
//!
//! A packet is one byte that says where the message is ([`INLINE`] or [`IN_FILE`]) and, inline, its JSON. A message
//! that is long or secret is in a memory file, whose descriptor comes before the message's own. The reader copies the
//! file within a bound before parsing, so what the other side does to it meanwhile is harmless.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::MAX_DESCRIPTORS;

/// The longest message, bytes: a snapshot frame, its JSON escaped once more, and a node's sealed keys.
pub const MAX_MESSAGE: usize = 192 << 20;

/// The longest message that travels in the packet itself; well below the default send buffer.
const MAX_INLINE: usize = 16 * 1024;

const INLINE: u8 = 0;
const IN_FILE: u8 = 1;

/// A channel that sends `Out` and receives `In`.
#[derive(Debug)]
pub struct Channel<Out, In> {
    socket: AsyncFd<OwnedFd>,
    directions: PhantomData<fn(Out) -> In>,
}

/// Why a channel is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other process closed the channel")]
    Closed,
    /// The kernel's word.
    #[error("the channel failed")]
    Io(#[from] io::Error),
    /// Longer than [`MAX_MESSAGE`], or cut off.
    #[error("the message is longer than allowed")]
    TooLong,
    /// More descriptors than [`MAX_DESCRIPTORS`], or fewer than the message needs.
    #[error("the message's descriptors are not what it promises")]
    Descriptors,
    /// Neither inline nor in a file.
    #[error("the packet is not one of this protocol")]
    Packet,
    /// Not a message of this protocol.
    #[error("the message cannot be read")]
    Json(#[from] serde_json::Error),
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(error: rustix::io::Errno) -> Self {
        match error {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

/// Two connected sockets, for a parent and the child it is about to start.
///
/// # Errors
/// What the kernel said.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    /// Takes a connected `SOCK_SEQPACKET` socket; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: super::watch(socket)?, directions: PhantomData })
    }

    /// The user and process on the other side, as the kernel knows them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn peer(&self) -> io::Result<rustix::net::UCred> {
        Ok(rustix::net::sockopt::socket_peercred(self.socket.get_ref())?)
    }

    /// Its socket.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// Sends a message with its descriptors.
    ///
    /// # Errors
    /// The other side is gone, or the message is out of bounds.
    pub async fn send(&self, message: &Out, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let json = serde_json::to_vec(message)?;
        if json.len() > MAX_INLINE {
            return self.send_in_file(&json, descriptors).await;
        }
        self.send_packet(&[IoSlice::new(&[INLINE]), IoSlice::new(&json)], descriptors).await
    }

    /// Sends a message in a memory file, so that its secrets stand in no socket buffer.
    ///
    /// # Errors
    /// The other side is gone, or the message is out of bounds.
    pub async fn send_secret(
        &self,
        message: &Out,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let json = zeroize::Zeroizing::new(serde_json::to_vec(message)?);
        self.send_in_file(&json, descriptors).await
    }

    async fn send_in_file(&self, json: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if json.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLong);
        }
        let file = memory_file(json)?;
        let all: Vec<BorrowedFd<'_>> =
            std::iter::once(file.as_fd()).chain(descriptors.iter().copied()).collect();
        self.send_packet(&[IoSlice::new(&[IN_FILE])], &all).await
    }

    async fn send_packet(
        &self,
        parts: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        if descriptors.len() > MAX_DESCRIPTORS + 1 {
            return Err(ChannelError::Descriptors);
        }
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::from(rustix::io::Errno::TOOBIG));
            }
            Ok(rustix::net::sendmsg(socket, parts, &mut control, SendFlags::NOSIGNAL)?)
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) => Err(classify(error)),
        }
    }

    /// Receives the next message with its descriptors.
    ///
    /// # Errors
    /// The other side is gone, or does not keep to the protocol: the channel is of no further use.
    pub async fn receive(&self) -> Result<(In, Vec<OwnedFd>), ChannelError> {
        let mut packet = vec![0; MAX_INLINE + 2];
        let received = self.socket.async_io(Interest::READABLE, |socket| receive_packet(socket, &mut packet));
        let (length, truncated, mut descriptors) = received.await.map_err(classify)?;
        if truncated {
            return Err(ChannelError::TooLong);
        }
        match packet.get(..length).and_then(<[u8]>::split_first) {
            None => Err(ChannelError::Closed),
            Some((&INLINE, json)) => Ok((serde_json::from_slice(json)?, descriptors)),
            Some((&IN_FILE, [])) if !descriptors.is_empty() => {
                let file = descriptors.remove(0);
                let json = zeroize::Zeroizing::new(read_file(&file)?);
                Ok((serde_json::from_slice(&json)?, descriptors))
            }
            Some(_) => Err(ChannelError::Packet),
        }
    }
}

fn classify(error: io::Error) -> ChannelError {
    match rustix::io::Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => ChannelError::Io(error),
    }
}

/// One packet: its length, whether anything of it was cut off, its descriptors.
fn receive_packet(socket: &OwnedFd, packet: &mut [u8]) -> io::Result<(usize, bool, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(packet)];
    let received = rustix::net::recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let truncated = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok((received.bytes, truncated, descriptors))
}

/// A memory file that nobody can change or resize any more.
pub(super) fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("sallyport", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

/// The bytes of such a file.
pub(super) fn read_file(file: &OwnedFd) -> Result<Vec<u8>, ChannelError> {
    // Reading a pipe or a device could block or never end: only a sealed memory file has seals at all, and its size stands.
    let seals = rustix::fs::fcntl_get_seals(file).map_err(|_not_a_memory_file| ChannelError::Packet)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE) {
        return Err(ChannelError::Packet);
    }
    let size = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(usize::MAX);
    if size > MAX_MESSAGE {
        return Err(ChannelError::TooLong);
    }
    let mut bytes = vec![0; size];
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..)
        && !rest.is_empty()
    {
        match rustix::io::pread(file, rest, at as u64)? {
            0 => return Err(ChannelError::Packet),
            read => at += read,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
