use super::*;

fn event() -> FlowEvent {
    FlowEvent {
        time_ns: 1,
        interface: "eth0".to_owned(),
        verdict: Verdict::Drop,
        reason: "denied".to_owned(),
        rule: 7,
        source: "10.1.2.3".parse().ok(),
        source_port: Some(4000),
        destination: "10.0.0.1".parse().ok(),
        destination_port: Some(443),
        protocol: Some(Protocol::TCP),
        icmp_type: None,
        bytes: 60,
        one_in: 1,
        head: None,
    }
}

#[test]
fn a_filter_is_about_what_has_all_of_it() {
    let with = |change: fn(&mut FlowFilter)| {
        let mut filter = FlowFilter::default();
        change(&mut filter);
        filter.is_about(&event())
    };
    assert!(with(|_| {}));
    assert!(with(|filter| filter.verdict = Some(Verdict::Drop)));
    assert!(!with(|filter| filter.verdict = Some(Verdict::Pass)));
    assert!(with(|filter| filter.reason = "denied".parse().ok()));
    assert!(!with(|filter| filter.reason = "land".parse().ok()));
    assert!(with(|filter| filter.rule = Some(7)));
    assert!(!with(|filter| filter.rule = Some(8)));
    assert!(with(|filter| filter.source = "10.1.0.0/16".parse().ok()));
    assert!(!with(|filter| filter.source = "10.2.0.0/16".parse().ok()));
    assert!(!with(|filter| filter.source = "::/0".parse().ok()));
    assert!(with(|filter| filter.port = Some(443)));
    assert!(!with(|filter| filter.port = Some(80)));
    assert!(with(|filter| filter.protocol = Some(Protocol::TCP)));
    assert!(!with(|filter| filter.protocol = Some(Protocol::UDP)));
}

#[test]
fn what_cannot_be_read_has_no_address_to_ask_for() {
    let unread = FlowEvent { source: None, destination_port: None, protocol: None, ..event() };
    let source = FlowFilter { source: "0.0.0.0/0".parse().ok(), ..FlowFilter::default() };
    let port = FlowFilter { port: Some(443), ..FlowFilter::default() };
    assert!(!source.is_about(&unread) && !port.is_about(&unread));
    assert!(FlowFilter::default().is_about(&unread));
}

#[test]
fn words_are_read_or_refused() {
    assert_eq!("TCP".parse(), Ok(Protocol::TCP));
    assert_eq!("47".parse::<Protocol>().map(String::from), Ok("47".to_owned()));
    assert_eq!("256".parse::<Protocol>(), Err(InvalidFlowFilter::Protocol));
    assert_eq!("observed".parse(), Ok(Verdict::Observed));
    assert_eq!("dropped".parse::<Verdict>(), Err(InvalidFlowFilter::Verdict));
    for bad in ["", "Denied", "a b", "<script>", &"x".repeat(41)] {
        assert_eq!(bad.parse::<ReasonName>(), Err(InvalidFlowFilter::Reason), "{bad}");
    }
}

#[test]
fn a_capture_stays_within_its_bounds() {
    let bounded = |packets, snap| Capture { packets, snap }.bounded();
    assert_eq!(bounded(0, 0), Capture { packets: 1, snap: 1 });
    assert_eq!(bounded(u32::MAX, u32::MAX), Capture { packets: CAPTURE_PACKETS_MAX, snap: CAPTURE_SNAP_MAX });
}
