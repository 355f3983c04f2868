//! Budgets and packets that are over them.

use std::fs;

use aya::maps::{Array, Map, MapData};
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::maps;
use model::filter::{FilterBudget, FilterBudgets, FilterMode, PortBudget, PortRange};
use sallyport_node::keeper::kernel::{Filter, Kernel, Linux};
use sallyport_node::keeper::plan::KernelPlan;

use super::corpus::Counts;
use super::frames::{ethernet, ipv4, ipv6, syn, udp};
use super::rules::Rules;
use super::{Bpffs, Namespace, Port};

/// The slowest rate that a budget can have. Where one more a second would be too many, see [`put`].
const SLOW: u64 = 1;
/// Nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

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

/// Puts budgets in force of which nothing comes back while a test runs, however slow the machine is: see [`stretch`].
pub(crate) fn put(bpffs: &Bpffs, kernel: &mut Linux, budgets: FilterBudgets) {
    kernel.apply(&plan(budgets)).unwrap();
    stretch(bpffs);
}

/// Lets every budget, as it lies in the kernel, take an hour for one more; its burst stays. The keeper writes a budget that has
/// changed as it should be, so this is to be called again then.
pub(crate) fn stretch(bpffs: &Bpffs) {
    let map = Map::Array(bpffs.pinned(maps::BUDGETS));
    let mut table: Array<MapData, [u64; 4]> = map.try_into().unwrap();
    for place in 0..table.len() {
        let [interval, tolerance, rest @ ..] = table.get(&place, 0).unwrap();
        // The burst, less one.
        if let Some(more) = tolerance.checked_div(interval) {
            let [first, second] = rest;
            table.set(place, [HOUR, more * HOUR, first, second], 0).unwrap();
        }
    }
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
pub(crate) fn provoked(bpffs: &Bpffs, kernel: &mut Linux, from: Port<'_>) -> Vec<Reason> {
    cookies(from.namespace, true);
    let budgets = FilterBudgets {
        syn_per_source: slow(61, 3),
        syn_pressure: slow(62, 1),
        udp_per_source: slow(63, 1),
        ..FilterBudgets::default()
    };
    from.namespace.inside(|| put(bpffs, kernel, budgets));
    let frames = [syn_from("10.8.0.1", 443), syn_from("10.8.0.2", 443), datagram("10.8.0.1", 53)];
    let again = [syn_from("10.8.0.3", 22), syn_from("10.8.0.3", 22), syn_from("10.8.0.3", 22)];
    let over = [syn_from("10.8.0.3", 22), datagram("10.8.0.1", 53)];
    reasons(kernel, from, frames.into_iter().chain(again).chain(over))
}
