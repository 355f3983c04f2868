//! Budgets and packets that are over them.

use std::fs;

use dataplane_ebpf::reason::Reason;
use model::filter::{FilterBudget, FilterBudgets, FilterMode, PortBudget, PortRange};
use sallyport_node::keeper::kernel::{Filter, Kernel, Linux};
use sallyport_node::keeper::plan::KernelPlan;

use super::corpus::Counts;
use super::frames::{ethernet, ipv4, ipv6, syn, udp};
use super::rules::Rules;
use super::{Namespace, Port};

/// So slow that a test is over before one more is allowed.
const SLOW: u64 = 1;

pub(crate) fn budget(id: u32, rate: u64, burst: u64) -> Option<FilterBudget> {
    Some(FilterBudget { id, name: format!("f/b{id}"), rate, burst, mode: FilterMode::Enforce })
}

pub(crate) fn slow(id: u32, burst: u64) -> Option<FilterBudget> {
    budget(id, SLOW, burst)
}

pub(crate) fn port(id: u32, burst: u64, first: u16, last: u16) -> PortBudget {
    let ports = vec![PortRange::new(first, last)];
    PortBudget { budget: slow(id, burst).unwrap(), ports }
}

/// A plan with a listener on 443 and budgets.
pub(crate) fn plan(budgets: FilterBudgets) -> KernelPlan {
    KernelPlan { budgets, ..Rules { listeners: vec![(None, 443)], ..Rules::default() }.plan() }
}

/// Lets the namespace's kernel answer every SYN with a cookie, which it takes the programs' cookies for; or not.
pub(crate) fn cookies(namespace: &Namespace, always: bool) {
    let text = if always { "2" } else { "1" };
    namespace.inside(|| fs::write("/proc/sys/net/ipv4/tcp_syncookies", text).unwrap());
}

/// A UDP packet in whichever family.
pub(crate) fn datagram(source: &str, port: u16) -> Vec<u8> {
    if source.contains(':') {
        ethernet(&[], 0x86dd, &ipv6(source, "fd00::1", 17, 64, &udp(port)))
    } else {
        ethernet(&[], 0x0800, &ipv4(source, "10.0.0.1", 17, 0, &[], &udp(port)))
    }
}

/// A SYN to 10.0.0.1 or fd00::1.
pub(crate) fn syn_from(source: &str, port: u16) -> Vec<u8> {
    syn(source, if source.contains(':') { "fd00::1" } else { "10.0.0.1" }, port)
}

/// The reasons that frames from a wire have, one after the other.
pub(crate) fn reasons(
    kernel: &Linux,
    from: Port<'_>,
    frames: impl IntoIterator<Item = Vec<u8>>,
) -> Vec<Reason> {
    let filter = kernel.filter().unwrap();
    let one = |frame: Vec<u8>| {
        let before = Counts::read(kernel);
        receive(&filter, from, &frame);
        before.reason_since(kernel)
    };
    frames.into_iter().map(one).collect()
}

/// Lets the filter judge a frame from a wire; gives its verdict.
pub(crate) fn receive(filter: &Filter, from: Port<'_>, frame: &[u8]) -> u32 {
    from.namespace.inside(|| filter.judge_from(from.index, frame, 1).unwrap().verdict)
}

/// Every reason that budgets give in XDP.
pub(crate) fn provoked(kernel: &mut Linux, from: Port<'_>) -> Vec<Reason> {
    cookies(from.namespace, true);
    from.namespace.inside(|| {
        let budgets = FilterBudgets {
            syn_per_source: slow(61, 3),
            syn_pressure: slow(62, 1),
            udp_per_source: slow(63, 1),
            ..FilterBudgets::default()
        };
        kernel.apply(&plan(budgets)).unwrap();
    });
    let frames = [syn_from("10.8.0.1", 443), syn_from("10.8.0.2", 443), datagram("10.8.0.1", 53)];
    let again = [syn_from("10.8.0.3", 22), syn_from("10.8.0.3", 22), syn_from("10.8.0.3", 22)];
    let over = [syn_from("10.8.0.3", 22), datagram("10.8.0.1", 53)];
    reasons(kernel, from, frames.into_iter().chain(again).chain(over))
}
