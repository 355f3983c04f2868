//! System calls that nothing else makes for us: programs of a few instructions, live frames, one interface setting.
#![expect(unsafe_code, reason = "system calls take pointers; every one of this program is made here")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_NATIVE: u32 = 1 << 2;
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames made before the receiver is woken; a veth's ring holds twice as many.
const BATCH: u32 = 128;
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_SGRO: u32 = 0x2c;

/// One command. The kernel takes a shorter attribute than its own for one with zeros behind it.
fn bpf<A>(command: libc::c_int, attribute: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is a live, padding-free `repr(C)` structure of the size given; pointers inside it are to
    // buffers that the callers in this file keep alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// An XDP program of these instructions.
pub(crate) fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    let license = c"Dual MIT/GPL";
    let mut log = vec![0_u8; 1 << 16];
    let mut attribute = Attribute {
        kind: TYPE_XDP,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 1,
        log_size: 1 << 16,
        log: log.as_mut_ptr() as u64,
    };
    bpf(PROG_LOAD, &mut attribute).and_then(descriptor).map_err(|error| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(0);
        let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default());
        io::Error::new(error.kind(), format!("loading a program: {error}: {text}"))
    })
}

/// Attaches a program to an interface of this thread's network namespace, in the driver, until the link is dropped.
pub(crate) fn attach(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    let mut attribute = [number(program), interface, ATTACH_XDP, XDP_NATIVE];
    bpf(LINK_CREATE, &mut attribute).and_then(descriptor)
}

/// Runs a program over real frames, each a copy of `frame` when it is first used, and does with them what it says.
pub(crate) fn run_live(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<()> {
    #[repr(C)]
    struct Attribute {
        program: u32,
        verdict: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        nanoseconds: u32,
        context_sizes: u64,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch: u32,
        padding: u32,
    }
    let mut attribute = Attribute {
        program: number(program),
        verdict: 0,
        size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat,
        nanoseconds: 0,
        context_sizes: 0,
        context_in: 0,
        context_out: 0,
        flags: LIVE_FRAMES,
        cpu: 0,
        batch: BATCH,
        padding: 0,
    };
    bpf(PROG_TEST_RUN, &mut attribute).map(drop)
}

/// Turns an interface's generic receive offload on, with which a veth polls (NAPI) as a network card does.
pub(crate) fn gro_on(interface: &str) -> io::Result<()> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        data: *mut Value,
        rest: [u8; 16],
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut value = Value { command: ETHTOOL_SGRO, data: 1 };
    let mut request = Request { name: [0; 16], data: &raw mut value, rest: [0; 16] };
    request.name.iter_mut().zip(interface.bytes().take(15)).for_each(|(to, from)| *to = from);
    // SAFETY: the request is a live `struct ifreq` of full size whose pointer is to a live `struct ethtool_value`.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
