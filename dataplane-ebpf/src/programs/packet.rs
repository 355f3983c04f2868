//! The one unsafe door to a packet's bytes.
#![expect(unsafe_code, reason = "the packet is reached through pointers that the verifier checks")]

use core::array;

use aya_ebpf::helpers::bpf_xdp_load_bytes;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::decide::{Bytes, Front};

/// No header chain we follow reaches farther; the verifier wants the bound spelt out.
const OFFSET_MAX: usize = 0x7fff;
/// The loopback interface's index, in every network namespace.
const LOOPBACK: u32 = 1;

/// Loads a number from a packet in one piece: the compiler would load its bytes, because it does not know that a packet may be
/// read unaligned (the verifier allows it where the processor does, as x86-64 and arm64 do).
macro_rules! load {
    ($number:ident, $start:expr, $offset:expr) => {{
        let loaded: u64;
        // SAFETY: the number lies inside the packet, as the pointer's type says that was checked.
        unsafe {
            core::arch::asm!(
                concat!("{number} = *(", stringify!($number), " *)({start} + {offset})"),
                number = out(reg) loaded,
                start = in(reg) $start,
                offset = const $offset,
                options(readonly, nostack, preserves_flags),
            );
            // Else the compiler would cut off what is not there.
            core::hint::assert_unchecked(loaded <= $number::MAX as u64);
        }
        loaded as $number
    }};
}

/// A frame as XDP has it.
pub(crate) struct XdpFrame<'a>(pub(crate) &'a XdpContext);

/// The first bytes of a packet, which were checked to be in its first buffer.
pub(crate) struct XdpFront<const N: usize>(*const [u8; N]);

impl<const N: usize> Front for XdpFront<N> {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        load!(u8, self.0, AT)
    }

    #[inline(always)]
    fn half<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N) };
        load!(u16, self.0, AT)
    }

    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N) };
        load!(u32, self.0, AT)
    }

    #[inline(always)]
    fn long<const AT: usize>(&self) -> u64 {
        const { assert!(AT + 8 <= N) };
        load!(u64, self.0, AT)
    }
}

impl Bytes for XdpFrame<'_> {
    type Front<const N: usize> = XdpFront<N>;

    #[inline(always)]
    fn front<const N: usize>(&self) -> Option<XdpFront<N>> {
        self.ptr_at(0).map(XdpFront)
    }

    #[inline(always)]
    fn is_near(&self, length: usize) -> bool {
        // The verifier of Linux 6.12 and before knows no bound of a number whose bytes were swapped.
        length <= OFFSET_MAX && self.0.data() + length <= self.0.data_end()
    }

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
        if offset > OFFSET_MAX {
            return None;
        }
        match self.ptr_at::<[u8; 2]>(offset) {
            Some(start) => Some(load!(u16, start, 0)),
            None => self.beyond_the_first_buffer(offset).map(u16::from_ne_bytes),
        }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        match self.ptr_at::<[[u8; 4]; N]>(offset) {
            Some(start) => Some(array::from_fn(|index| match index {
                0 => load!(u32, start, 0),
                1 => load!(u32, start, 4),
                2 => load!(u32, start, 8),
                3 => load!(u32, start, 12),
                4 => load!(u32, start, 16),
                _ => const { most_at_once(N) },
            })),
            None => self.beyond_the_first_buffer(offset),
        }
    }

    #[inline(always)]
    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        match self.ptr_at::<[[u8; 8]; N]>(offset) {
            Some(start) => Some(array::from_fn(|index| match index {
                0 => load!(u64, start, 0),
                1 => load!(u64, start, 8),
                2 => load!(u64, start, 16),
                3 => load!(u64, start, 24),
                4 => load!(u64, start, 32),
                _ => const { most_at_once(N) as u64 },
            })),
            None => self.beyond_the_first_buffer(offset),
        }
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        // SAFETY: the helper only reads the context the kernel gave.
        self.is_near(length) || unsafe { bpf_xdp_get_buff_len(self.0.ctx) } >= length as u64
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

    /// A multi-buffer frame may hold headers in later buffers, where no pointer reaches. `T` is an array of numbers.
    #[inline(always)]
    fn beyond_the_first_buffer<T: Copy + Default, const N: usize>(&self, offset: usize) -> Option<[T; N]> {
        let mut numbers = [T::default(); N];
        // SAFETY: the buffer is as long as is said, and ours; any bytes are numbers.
        let failed = unsafe {
            let size = size_of_val(&numbers) as u32;
            bpf_xdp_load_bytes(self.0.ctx, offset as u32, numbers.as_mut_ptr().cast(), size)
        };
        (failed == 0).then_some(numbers)
    }
}

/// How many numbers are read at once at most; more do not compile.
const fn most_at_once(count: usize) -> u32 {
    assert!(count <= 5);
    0
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
