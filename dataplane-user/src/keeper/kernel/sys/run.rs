//! `BPF_PROG_TEST_RUN`.

use std::io;
use std::os::fd::BorrowedFd;

use super::{PROG_TEST_RUN, address, bpf, number};

/// Runs an XDP program over a frame, as if it came from the interface of that index in this thread's network namespace, which
/// must have an XDP program; gives its verdict (`enum xdp_action`).
pub(in crate::keeper::kernel) fn test_run(
    program: BorrowedFd<'_>,
    interface: Option<u32>,
    frame: &[u8],
    repeat: u32,
) -> io::Result<TestRun> {
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
    }
    let size_in = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = Context {
        data: 0,
        data_end: size_in,
        data_meta: 0,
        ingress_ifindex: interface.unwrap_or(0),
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    let context_size_in =
        if interface.is_some() { u32::try_from(size_of::<Context>()).unwrap_or(0) } else { 0 };
    let (program, data_in) = (number(program), address(frame));
    let mut attribute = Attribute {
        program,
        verdict: 0,
        size_in,
        size_out: 0,
        data_in,
        data_out: 0,
        repeat,
        nanoseconds: 0,
        context_size_in,
        context_size_out: 0,
        context_in: if interface.is_some() { &raw const context as u64 } else { 0 },
        context_out: 0,
    };
    bpf(PROG_TEST_RUN, &mut attribute)?;
    Ok(TestRun { verdict: attribute.verdict, nanoseconds: attribute.nanoseconds })
}

/// What a run over a frame gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestRun {
    /// 1 dropped, 2 passed.
    pub verdict: u32,
    /// The mean of a run's duration.
    pub nanoseconds: u32,
}
