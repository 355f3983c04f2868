//! The kernel says when interfaces, this host's addresses and default routes change (rtnetlink(7)), so that a new interface
//! is not left unfiltered until somebody looks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::netlink::{RTM_NEWADDR, RTM_NEWLINK, message};

const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Messages read before others have their turn: a router's tables change by the hundred thousand.
const AT_ONCE: usize = 256;

/// A socket that hears, without blocking, what changes in this thread's network namespace from now on.
///
/// # Errors
/// When the kernel has no rtnetlink, or no memory.
pub fn listen_to_changes() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Reads what there is, a bounded number of messages; whether programs or tables may have to follow.
///
/// # Errors
/// `WouldBlock` when there is nothing.
pub fn read_changes(socket: impl AsFd) -> io::Result<bool> {
    let (mut relevant, mut buffer) = (false, vec![0_u8; 32 * 1024]);
    for read in 0..AT_ONCE {
        match recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => relevant |= matters(buffer.get(..length).unwrap_or_default()),
            // NOBUFS: more than the socket holds. What was lost is seen by the look within a second.
            Err(Errno::INTR | Errno::NOBUFS) => {}
            Err(Errno::AGAIN) if read > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(relevant)
}

/// A new or changed interface, another address, a default route. Of other routes nothing depends.
fn matters(mut rest: &[u8]) -> bool {
    while let Some((kind, body, behind)) = message(rest) {
        match kind {
            RTM_NEWLINK | RTM_NEWADDR | RTM_DELADDR => return true,
            // `rtmsg`: family, length of the destination's prefix.
            RTM_NEWROUTE if body.get(1) == Some(&0) => return true,
            _ => rest = behind,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn interfaces_addresses_and_default_routes_matter() {
        for (kind, body, yes) in [
            (RTM_NEWLINK, [0; 12], true),
            (RTM_NEWADDR, [2; 12], true),
            (RTM_DELADDR, [2; 12], true),
            (RTM_NEWROUTE, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], true),
            (RTM_NEWROUTE, [2, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
            (17, [0; 12], false),
        ] {
            assert_eq!(matters(&of(kind, &body)), yes, "{kind} {body:?}");
            let behind = [of(RTM_NEWROUTE, &[2, 24, 0]), of(kind, &body)].concat();
            assert_eq!(matters(&behind), yes, "{kind} behind another");
        }
        for cut in 0..16 {
            assert!(!matters(&of(RTM_NEWLINK, &[])[..cut]));
        }
    }

    #[test]
    fn without_a_change_there_is_nothing_to_read() {
        let socket = listen_to_changes().unwrap();
        // The machine's own addresses may change while this runs.
        if let Err(error) = read_changes(&socket) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
