//! What a filter means to the program.

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::Address;
use dataplane_ebpf::wire::flow::Watch;
use dataplane_ebpf::wire::slot;
use ipnet::IpNet;
use model::flow::{FlowFilter, Protocol};

/// The watch of a filter, for no time yet.
pub(super) fn watch(filter: &FlowFilter) -> Result<Watch, String> {
    let (family, source, mask) = match filter.source.map(|prefix| prefix.net()) {
        None => (0, [0; 2], [0; 2]),
        Some(IpNet::V4(net)) => {
            let [a, b, c, d] = net.netmask().octets();
            let mut mask = [0xff; 16];
            mask[12..].copy_from_slice(&[a, b, c, d]);
            (4, Address::v4(net.network().octets()).words(), Address::v6(mask).words())
        }
        Some(IpNet::V6(net)) => {
            (6, Address::v6(net.network().octets()).words(), Address::v6(net.netmask().octets()).words())
        }
    };
    let slots = slots(filter.port, filter.protocol);
    let rule = filter.rule.unwrap_or(0);
    Ok(Watch { reasons: reasons(filter)?, source, mask, slots, rule, family, ..Watch::default() })
}

fn reasons(filter: &FlowFilter) -> Result<u64, String> {
    let of_verdict = |reason: &Reason| match filter.verdict {
        None => true,
        Some(wanted) => super::verdict(*reason) == wanted,
    };
    let named = |reason: &Reason| filter.reason.as_ref().is_none_or(|name| name.as_str() == reason.name());
    if let Some(name) = filter.reason.as_ref().filter(|_| !Reason::ALL.iter().any(named)) {
        return Err(format!("this node knows no reason {:?}", name.as_str()));
    }
    let both = Reason::ALL.iter().filter(|reason| of_verdict(reason) && named(reason));
    match (both.fold(0, |mask, reason| mask | 1 << reason.number()), &filter.reason, filter.verdict) {
        // Nothing would ever come of it, and its place is somebody else's.
        (0, Some(name), Some(verdict)) => {
            Err(format!("no packet of reason {:?} has the verdict {}", name.as_str(), verdict.word()))
        }
        (mask, ..) => Ok(mask),
    }
}

/// Two ranges of slots.
fn slots(port: Option<u16>, protocol: Option<Protocol>) -> [[u32; 2]; 2] {
    const NONE: [u32; 2] = [1, 0];
    let one = |slot: u32| [slot, slot];
    let later = |protocol: u8| one(slot::LATER_FRAGMENT + u32::from(protocol));
    match (port.map(u32::from), protocol) {
        (None, None) => [[0, u32::MAX], NONE],
        (Some(port), None) => [one(slot::TCP + port), one(slot::UDP + port)],
        (Some(port), Some(Protocol::TCP)) => [one(slot::TCP + port), NONE],
        (Some(port), Some(Protocol::UDP)) => [one(slot::UDP + port), NONE],
        // No other protocol has ports.
        (Some(_), Some(_)) => [NONE, NONE],
        (None, Some(Protocol::TCP)) => [[slot::TCP, slot::UDP - 1], later(Protocol::TCP.0)],
        (None, Some(Protocol::UDP)) => [[slot::UDP, slot::ICMP - 1], later(Protocol::UDP.0)],
        (None, Some(Protocol::ICMP)) => [[slot::ICMP, slot::ICMPV6 - 1], later(Protocol::ICMP.0)],
        (None, Some(Protocol::ICMPV6)) => [[slot::ICMPV6, slot::OTHER - 1], later(Protocol::ICMPV6.0)],
        (None, Some(Protocol(number))) => [one(slot::OTHER + u32::from(number)), later(number)],
    }
}

#[cfg(test)]
mod tests {
    use dataplane_ebpf::wire::flow::{NO_SLOT, Watched};
    use model::flow::Verdict;

    use super::*;

    fn about(filter: &FlowFilter, source: Address, family: u32, slot: u32, reason: Reason) -> bool {
        let packet = Watched { source: source.words(), family, slot, reason: reason.number(), rule: 0 };
        watch(filter).unwrap().is_about(&packet)
    }

    #[test]
    fn prefixes_hold_their_family() {
        let from = |prefix: &str| FlowFilter { source: prefix.parse().ok(), ..FlowFilter::default() };
        let (four, six) = (Address::v4([10, 1, 2, 3]), Address::v6([0x20; 16]));
        let held = |prefix| {
            let of = |address, family| about(&from(prefix), address, family, 443, Reason::Denied);
            (of(four, 4), of(six, 6))
        };
        assert_eq!(held("0.0.0.0/0"), (true, false));
        assert_eq!(held("10.1.0.0/16"), (true, false));
        assert_eq!(held("10.1.2.3"), (true, false));
        assert_eq!(held("10.2.0.0/15"), (false, false));
        assert_eq!(held("::/0"), (false, true));
        assert_eq!(held("2020::/16"), (false, true));
        assert_eq!(held("2021::/16"), (false, false));
    }

    #[test]
    fn ports_and_protocols_are_slots() {
        let asks = |port: Option<u16>, protocol: Option<&str>, slot| {
            let protocol = protocol.and_then(|name| name.parse().ok());
            let filter = FlowFilter { port, protocol, ..FlowFilter::default() };
            about(&filter, Address::v4([1; 4]), 4, slot, Reason::Denied)
        };
        assert!(asks(None, None, NO_SLOT));
        assert!(asks(Some(443), None, 443) && asks(Some(443), None, slot::UDP + 443));
        assert!(asks(Some(443), Some("tcp"), 443) && !asks(Some(443), Some("tcp"), slot::UDP + 443));
        assert!(!asks(Some(8), Some("icmp"), slot::ICMP + 8));
        assert!(asks(None, Some("icmp"), slot::ICMP + 8) && !asks(None, Some("icmp"), slot::ICMPV6));
        assert!(
            asks(None, Some("47"), slot::OTHER + 47) && asks(None, Some("47"), slot::LATER_FRAGMENT + 47)
        );
        assert!(asks(None, Some("udp"), slot::LATER_FRAGMENT + 17) && !asks(None, Some("udp"), NO_SLOT));
    }

    #[test]
    fn verdicts_and_reasons_are_bits() {
        let mask = |verdict, reason: Option<&str>| {
            let reason = reason.and_then(|name| name.parse().ok());
            watch(&FlowFilter { verdict, reason, ..FlowFilter::default() }).map(|watch| watch.reasons)
        };
        let bit = |reason: Reason| 1_u64 << reason.number();
        assert_eq!(mask(Some(Verdict::Observed), None), Ok(bit(Reason::Observed)));
        assert_eq!(mask(None, Some("land")), Ok(bit(Reason::Land)));
        let never = "no packet of reason \"land\" has the verdict pass".to_owned();
        assert_eq!(mask(Some(Verdict::Pass), Some("land")), Err(never));
        let all = [Verdict::Drop, Verdict::Observed, Verdict::Pass]
            .map(|verdict| mask(Some(verdict), None).unwrap());
        assert_eq!(all.iter().sum::<u64>(), mask(None, None).unwrap());
        assert_eq!(mask(None, Some("no-such")), Err("this node knows no reason \"no-such\"".to_owned()));
    }
}
