//! What a driver says of its interface (`SIOCETHTOOL`).

use std::os::fd::AsRawFd;

/// How many receive queues an interface of this thread's network namespace uses: its driver may have made more, and rtnetlink tells
/// those. Nothing where the driver does not say (`ETHTOOL_GCHANNELS`, Linux 3.0).
pub(in crate::keeper::kernel) fn receive_queues(name: &str) -> Option<u32> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    /// `ethtool_channels`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        /// Receive, send, other, combined.
        most: [u32; 4],
        used: [u32; 4],
    }
    /// `ifreq`.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IF_NAMESIZE],
        data: *mut Channels,
        padding: [u8; 16],
    }
    let mut request = Request { name: [0; libc::IF_NAMESIZE], data: std::ptr::null_mut(), padding: [0; 16] };
    let (room, _end) = request.name.split_last_mut().map(|(end, room)| (room, end))?;
    room.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    request.data = &raw mut channels;
    // Of any family: the kernel passes the request on to the interface.
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
    let socket = socket.ok()?;
    // SAFETY: the structures are live, of the size that the request has, and the kernel writes to them alone.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    let [receive, _, _, combined] = channels.used;
    let queues = receive.saturating_add(combined);
    (done == 0 && queues != 0).then_some(queues)
}
