//! The one unsafe door to a packet's bytes.
#![expect(unsafe_code, reason = "the packet is reached through pointers that the verifier checks")]

use aya_ebpf::helpers::bpf_xdp_load_bytes;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::Bytes;

/// No header chain we follow reaches farther; the verifier wants the bound spelt out.
const OFFSET_MAX: usize = 0x7fff;
/// The loopback interface's index, in every network namespace.
const LOOPBACK: u32 = 1;

/// `$count` numbers at an offset: each in one load, where the compiler would load bytes, because it does not know that a packet
/// may be read unaligned (the verifier allows it where the processor does, as x86-64 and arm64 do).
macro_rules! load {
    ($frame:expr, $offset:expr, $width:literal, $number:ty, $count:expr) => {{
        let (frame, offset): (&XdpFrame<'_>, usize) = ($frame, $offset);
        if offset > OFFSET_MAX {
            return None;
        }
        match frame.ptr_at::<[$number; $count]>(offset) {
            Some(start) => {
                let mut numbers: [$number; $count] = [0; $count];
                for (index, number) in numbers.iter_mut().enumerate() {
                    let loaded: u64;
                    // SAFETY: `ptr_at` checked that all of them lie inside the packet; the instruction reads one.
                    unsafe {
                        core::arch::asm!(
                            concat!("{number} = *(", $width, " *)({place} + 0)"),
                            number = out(reg) loaded,
                            place = in(reg) start.cast::<$number>().wrapping_add(index),
                            options(readonly, nostack, preserves_flags),
                        );
                    }
                    *number = loaded as $number;
                }
                Some(numbers)
            }
            None => {
                let mut numbers: [$number; $count] = [0; $count];
                // SAFETY: the buffer is as long as is said, and ours.
                let failed = unsafe {
                    bpf_xdp_load_bytes(frame.0.ctx, offset as u32, numbers.as_mut_ptr().cast(), size_of_val(&numbers) as u32)
                };
                (failed == 0).then_some(numbers)
            }
        }
    }};
}

/// A frame as XDP has it.
pub(crate) struct XdpFrame<'a>(pub(crate) &'a XdpContext);

impl Bytes for XdpFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        match self.ptr_at::<[u8; N]>(offset) {
            // SAFETY: `ptr_at` checked that all N bytes lie inside the packet, and bytes need no alignment. A copy leaves,
            // so nothing outlives a change of the packet.
            Some(bytes) => Some(unsafe { *bytes }),
            None => self.beyond_the_first_buffer(offset),
        }
    }

    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        load!(self, offset, "u16", u16, 1).map(|[half]| half)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        load!(self, offset, "u32", u32, N)
    }

    #[inline(always)]
    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        load!(self, offset, "u64", u64, N)
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        // The verifier of Linux 6.12 and before knows no bound of a number whose bytes were swapped.
        let near = length <= OFFSET_MAX && self.0.data() + length <= self.0.data_end();
        // SAFETY: the helper only reads the context the kernel gave.
        near || unsafe { bpf_xdp_get_buff_len(self.0.ctx) } >= length as u64
    }

    #[inline(always)]
    fn is_looped(&self) -> bool {
        // SAFETY: the pointer is to the context, which lives as long as the program runs.
        unsafe { (*self.0.ctx).ingress_ifindex == LOOPBACK }
    }

    #[inline(always)]
    fn forget(&self, number: usize, other: usize) -> usize {
        let mut number = number;
        // SAFETY: the register ends as it was. The verifier follows no sum of an unknown number back.
        unsafe {
            core::arch::asm!(
                "{number} += {other}",
                "{number} -= {other}",
                number = inout(reg) number,
                other = in(reg) other,
                options(pure, nomem, nostack),
            );
        }
        number
    }
}

impl XdpFrame<'_> {
    /// A pointer to a `T` inside the packet's first buffer.
    #[inline(always)]
    fn ptr_at<T>(&self, offset: usize) -> Option<*const T> {
        let start = self.0.data() + offset;
        if start + size_of::<T>() > self.0.data_end() { None } else { Some(start as *const T) }
    }

    /// A multi-buffer frame may hold headers in later buffers, where no pointer reaches.
    #[inline(always)]
    fn beyond_the_first_buffer<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the buffer is N bytes long and ours.
        let failed =
            unsafe { bpf_xdp_load_bytes(self.0.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        (failed == 0).then_some(bytes)
    }
}

/// A number of which the compiler knows nothing any more.
#[inline(always)]
pub(crate) fn hidden(number: u64) -> u64 {
    let mut number = number;
    // SAFETY: the register is moved to itself: with no instruction at all two line numbers would stand at one, which the kernel
    // refuses.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}
