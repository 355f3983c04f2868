//! The programs in the kernel. On any other target this is an empty program, so that the workspace builds as one.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod budget;
#[cfg(target_arch = "bpf")]
mod cookie;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod here;
#[cfg(target_arch = "bpf")]
mod judged;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod ranges;
#[cfg(target_arch = "bpf")]
mod senders;
#[cfg(target_arch = "bpf")]
mod steer;

#[cfg(target_arch = "bpf")]
mod entry {
    //! The entry points.
    #![expect(unsafe_code, reason = "the kernel finds programs by exported names and sections")]

    use aya_ebpf::bindings::sk_action;
    use aya_ebpf::macros::{sk_lookup, xdp};
    use aya_ebpf::programs::{SkLookupContext, XdpContext};
    use dataplane_ebpf::reason::Reason;

    use crate::{budget, cookie, filter, steer};

    /// Judges every frame an interface receives.
    #[xdp(frags)]
    fn sallyport_xdp(context: XdpContext) -> u32 {
        filter::filter(&context)
    }

    /// Spends budgets.
    #[xdp(frags)]
    fn sallyport_budget(context: XdpContext) -> u32 {
        budget::spend(&context)
    }

    /// Answers a SYN with a cookie.
    #[xdp(frags)]
    fn sallyport_answer(context: XdpContext) -> u32 {
        cookie::answer(&context)
    }

    /// Looks whether a segment brings a cookie back.
    #[xdp(frags)]
    fn sallyport_learn(context: XdpContext) -> u32 {
        cookie::learn(&context)
    }

    /// Chooses the socket for a packet that belongs to no connection.
    #[sk_lookup]
    fn sallyport_steer(context: SkLookupContext) -> u32 {
        sk_verdict(steer::steer(&context))
    }

    #[inline(always)]
    fn sk_verdict(reason: Reason) -> u32 {
        if reason.is_drop() { sk_action::SK_DROP } else { sk_action::SK_PASS }
    }

    /// Never reached: the verifier accepts no program that could panic. The linker wants it all the same.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// The kernel lets only GPL-compatible programs call some helpers; these programs may be used under either licence.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
