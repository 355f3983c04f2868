//! System calls that nothing else makes for us: programs of a few instructions, live frames.
#![expect(unsafe_code, reason = "system calls take pointers; every one of this program is made here")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const TYPE_PROG_ARRAY: u32 = 3;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_NATIVE: u32 = 1 << 2;
/// As the filter says of itself: only a program that says the same may call it.
const HAS_FRAGS: u32 = 1 << 5;
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames that are made and filtered before those that pass go on together: as many as a driver's poll takes.
const BATCH: u32 = 64;

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
        kernel: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach: u32,
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
        kernel: 0,
        flags: HAS_FRAGS,
        name: [0; 16],
        interface: 0,
        attach: ATTACH_XDP,
    };
    bpf(PROG_LOAD, &mut attribute).and_then(descriptor).map_err(|error| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(0);
        let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default());
        io::Error::new(error.kind(), format!("loading a program: {error}: {text}"))
    })
}

/// A place for one program that others can go on with.
pub(crate) fn program_array() -> io::Result<OwnedFd> {
    let mut attribute = [TYPE_PROG_ARRAY, 4, 4, 1, 0];
    bpf(MAP_CREATE, &mut attribute).and_then(descriptor)
}

/// Enters a program there, or empties it.
pub(crate) fn enter(array: BorrowedFd<'_>, program: Option<BorrowedFd<'_>>) -> io::Result<()> {
    #[repr(C)]
    struct Attribute {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let (key, value) = (0_u32, program.map_or(0, number));
    let mut attribute = Attribute {
        map: number(array),
        padding: 0,
        key: &raw const key as u64,
        value: if program.is_some() { &raw const value as u64 } else { 0 },
        flags: 0,
    };
    match program {
        Some(_) => bpf(MAP_UPDATE_ELEM, &mut attribute).map(drop),
        None => match bpf(MAP_DELETE_ELEM, &mut attribute) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        },
    }
}

/// Attaches a program to an interface of this thread's network namespace, in the driver, until the link is dropped.
pub(crate) fn attach(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    let mut attribute = [number(program), interface, ATTACH_XDP, XDP_NATIVE];
    bpf(LINK_CREATE, &mut attribute).and_then(descriptor)
}

/// Runs a program over real frames, each a copy of `frame` when it is first used, as if that interface of this thread's network
/// namespace had received them, and does with them what it says.
pub(crate) fn run_live(program: BorrowedFd<'_>, interface: u32, frame: &[u8], repeat: u32) -> io::Result<()> {
    #[repr(C)]
    struct Context {
        data: u32,
        data_end: u32,
        data_meta: u32,
        ingress_ifindex: u32,
        rx_queue_index: u32,
        egress_ifindex: u32,
    }
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
        context_size_in: u32,
        context_size_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch: u32,
        padding: u32,
    }
    let size_in = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = Context {
        data: 0,
        data_end: size_in,
        data_meta: 0,
        ingress_ifindex: interface,
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    let mut attribute = Attribute {
        program: number(program),
        verdict: 0,
        size_in,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat,
        nanoseconds: 0,
        context_size_in: size_of::<Context>() as u32,
        context_size_out: 0,
        context_in: &raw const context as u64,
        context_out: 0,
        flags: LIVE_FRAMES,
        cpu: 0,
        batch: BATCH,
        padding: 0,
    };
    bpf(PROG_TEST_RUN, &mut attribute).map(drop)
}

/// Waits for datagrams at a socket, no longer than it says, and reads up to 64; says how many there were.
pub(crate) fn receive(socket: BorrowedFd<'_>, room: &mut [[u8; 64]; 64]) -> io::Result<u64> {
    let mut vectors =
        room.each_mut().map(|bytes| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 64 });
    // SAFETY: zeros are a message header with nothing in it.
    let mut headers: [libc::mmsghdr; 64] = unsafe { std::mem::zeroed() };
    for (header, vector) in headers.iter_mut().zip(&mut vectors) {
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (vector, 1);
    }
    let (flags, none) = (libc::MSG_WAITFORONE, std::ptr::null_mut());
    // SAFETY: 64 headers, each with one vector of 64 bytes that live until the call returns.
    let got = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), 64, flags, none) };
    u64::try_from(got).map_err(|_negative| io::Error::last_os_error())
}

/// Lets this thread run as soon as it has something to do, before all that has no deadline.
pub(crate) fn go_first() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the structure is live and of the right type.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This process's CPU time, its own and the kernel's for it.
pub(crate) fn spent() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live and of the right type.
    match unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))),
        _ => Err(io::Error::last_os_error()),
    }
}
