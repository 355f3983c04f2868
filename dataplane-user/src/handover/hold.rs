//! What a keeper and the process that holds its sockets say to each other.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::Channel;
use super::message::SocketInfo;

/// The version this release speaks, and the only one so far.
pub const VERSION: u32 = 1;

/// From keeper to holder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ToHolder {
    /// Once, to a holder that was started. Descriptor: the listening socket for the keeper after this one.
    Begin,
    /// Hold these. Descriptors: one for each.
    Keep {
        /// What they are, in the descriptors' order.
        sockets: Vec<SocketInfo>,
    },
    /// Close these.
    LetGo {
        /// Their ids.
        ids: Vec<u64>,
    },
    /// Close all and end: the node stops.
    End,
}

/// From holder to the keeper that connected to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FromHolder {
    /// First.
    Here {
        /// [`VERSION`] of its release.
        version: u32,
        /// Its process id; the kernel only knows who made the socket where it is found.
        pid: u32,
    },
    /// Some of what it holds. Descriptors: one for each.
    Kept {
        /// What they are, in the descriptors' order.
        sockets: Vec<SocketInfo>,
    },
    /// That is everything.
    All,
}

/// The channel as the holder sees it.
pub type ToKeeper = Channel<FromHolder, ToHolder>;

/// The channel as the keeper sees it.
pub type Holder = Channel<ToHolder, FromHolder>;

/// Whether a process of this one's own user is on the other side.
///
/// # Errors
/// What the kernel said.
pub fn same_user(socket: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid == rustix::process::geteuid())
}
