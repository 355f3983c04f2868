//! systemd's protocol with a service, `sd_notify(3)` and `sd_listen_fds(3)`: datagrams to `NOTIFY_SOCKET`, descriptors from 3
//! on. The service manager keeps duplicates of descriptors in its store and gives them to the next process it starts.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::handover::message::SocketInfo;
use crate::handover::succession::{Fd, Inherited};

/// The variables of the protocol: they are this process's alone.
pub(crate) const VARIABLES: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The first descriptor that a service manager passes.
const FIRST: i32 = 3;

/// The most that is believed to be passed.
const MOST: i32 = 4096;

/// Where the service manager listens.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl Manager {
    /// The one that this process's environment names: a path, or an abstract name behind `@`.
    pub(crate) fn of_environment() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        Self::at(name.as_bytes()).inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET")).ok()
    }

    fn at(name: &[u8]) -> io::Result<Self> {
        let address = match name {
            [b'@', rest @ ..] => SocketAddrUnix::new_abstract_name(rest)?,
            [b'/', ..] => SocketAddrUnix::new(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, address })
    }

    /// Says how it stands: lines of `NAME=value`.
    ///
    /// # Errors
    /// The service manager cannot be told.
    pub(crate) fn say(&self, lines: &str) -> io::Result<()> {
        self.send(lines, &[])
    }

    /// Has a listening socket kept for the next process.
    ///
    /// # Errors
    /// The service manager cannot be told.
    pub(crate) fn keep(&self, info: &SocketInfo, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&format!("FDSTORE=1\nFDNAME={}", name(info)), &[socket])
    }

    /// Has a kept one let go.
    ///
    /// # Errors
    /// The service manager cannot be told.
    pub(crate) fn let_go(&self, info: &SocketInfo) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={}", name(info)), &[])
    }

    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(rustix::io::Errno::TOOBIG.into());
        }
        let parts = [IoSlice::new(text.as_bytes())];
        rustix::net::sendmsg_addr(&self.socket, &self.address, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// What the service manager kept from the process before: what each is, and the descriptor. Others are closed.
pub(crate) fn kept() -> Vec<(SocketInfo, OwnedFd)> {
    let variable = |name| std::env::var(name).ok();
    // Somebody's child has the variables too, and not the descriptors.
    let ours = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let count =
        variable("LISTEN_FDS").filter(|_| ours).and_then(|count| count.parse::<i32>().ok()).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut inherited = Inherited::default();
    let mut kept = BTreeMap::new();
    for (number, name) in (FIRST..FIRST + count.clamp(0, MOST)).zip(names.split(':')) {
        match (inherited.take(Fd::named(number)), parse(name)) {
            (Ok(descriptor), Some(info)) => drop(kept.insert(info.id, (info, descriptor))),
            (Ok(_), None) => tracing::warn!(name, "the service manager kept something unknown"),
            (Err(error), _) => tracing::warn!(%error, name, "a descriptor of the service manager"),
        }
    }
    kept.into_values().collect()
}

/// What a socket is called in the store, `listen-ID-THREAD-FAMILY-PLACE`; colons have a meaning there, so IPv6 is hexadecimal.
fn name(info: &SocketInfo) -> String {
    let place = match info.place {
        None => "steered".to_owned(),
        Some((None, port)) => format!("any-{port}"),
        Some((Some(IpAddr::V4(address)), port)) => format!("{:08x}-{port}", u32::from(address)),
        Some((Some(IpAddr::V6(address)), port)) => format!("{:032x}-{port}", u128::from(address)),
    };
    format!("listen-{}-{}-{}-{place}", info.id, info.thread, if info.v6 { 6 } else { 4 })
}

/// Only what [`name`] writes.
fn parse(text: &str) -> Option<SocketInfo> {
    let mut parts = text.strip_prefix("listen-")?.splitn(4, '-');
    let (id, thread) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let v6 = match parts.next()? {
        "4" => false,
        "6" => true,
        _ => return None,
    };
    let place = match (parts.next()?, v6) {
        ("steered", _) => None,
        (place, v6) => {
            let (address, port) = place.split_once('-')?;
            let address = match (address, v6) {
                ("any", _) => None,
                (hex, false) => Some(IpAddr::from(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?))),
                (hex, true) => Some(IpAddr::from(Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?))),
            };
            Some((address, port.parse().ok()?))
        }
    };
    let info = SocketInfo { id, thread, v6, place };
    (name(&info) == text).then_some(info)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

    use super::*;

    fn infos() -> Vec<SocketInfo> {
        let places = [
            None,
            Some((None, 443)),
            Some((Some("10.1.2.3".parse().unwrap()), 65535)),
            Some((Some("0.0.0.1".parse().unwrap()), 1)),
        ];
        let six = [None, Some((None, 8443)), Some((Some("fd99:1::1".parse().unwrap()), 443))];
        let v4 = places.into_iter().map(|place| (false, place));
        let all = v4.chain(six.into_iter().map(|place| (true, place)));
        all.enumerate()
            .map(|(id, (v6, place))| SocketInfo { id: id as u64, thread: id % 2, v6, place })
            .collect()
    }

    #[test]
    fn a_sockets_name_says_what_it_is() {
        for info in infos() {
            assert_eq!(parse(&name(&info)), Some(info.clone()), "{}", name(&info));
            assert!(name(&info).len() < 255 && !name(&info).contains(':'));
        }
        assert_eq!(name(&infos()[6]), "listen-6-0-6-fd990001000000000000000000000001-443");
        for wrong in [
            "",
            "stored",
            "listen-1-0-4",
            "listen-1-0-5-any-443",
            "listen-01-0-4-any-443",
            "listen-1-0-4-any-65536",
            "listen-1-0-4-0a010203",
            "listen-1-0-4-a010203-443",
            "listen-1-0-4-any-443-more",
            "listen-1-0-6-steered-1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    /// One datagram: its text and how many descriptors.
    fn heard(socket: &OwnedFd) -> (String, usize) {
        let mut bytes = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [io::IoSliceMut::new(&mut bytes)];
        let received = rustix::net::recvmsg(socket, parts, &mut control, RecvFlags::empty()).unwrap().bytes;
        let count = |message| {
            if let RecvAncillaryMessage::ScmRights(rights) = message { rights.count() } else { 0 }
        };
        let rights = control.drain().map(count).sum();
        (String::from_utf8(bytes[..received].to_vec()).unwrap(), rights)
    }

    #[test]
    fn the_manager_hears_datagrams_under_a_path_and_under_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("sallyport-notify-{}", std::process::id()));
        let text = path.to_string_lossy().into_owned();
        for name in [text.clone(), format!("@{text}")] {
            let address = match name.strip_prefix('@') {
                Some(rest) => SocketAddrUnix::new_abstract_name(rest.as_bytes()).unwrap(),
                None => SocketAddrUnix::new(name.as_str()).unwrap(),
            };
            let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
            rustix::net::bind(&socket, &address).unwrap();
            let manager = Manager::at(name.as_bytes()).unwrap();
            manager.say("READY=1").unwrap();
            assert_eq!(heard(&socket), ("READY=1".to_owned(), 0));
            let info = &infos()[1];
            manager.keep(info, socket.as_fd()).unwrap();
            assert_eq!(heard(&socket), ("FDSTORE=1\nFDNAME=listen-1-1-4-any-443".to_owned(), 1));
            manager.let_go(info).unwrap();
            assert_eq!(heard(&socket), ("FDSTOREREMOVE=1\nFDNAME=listen-1-1-4-any-443".to_owned(), 0));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Manager::at(b"relative").is_err() && Manager::at(b"").is_err());
    }
}
