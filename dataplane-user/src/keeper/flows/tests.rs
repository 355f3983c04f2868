use std::collections::BTreeSet;

use dataplane_ebpf::wire::flow::Head;
use model::flow::{Capture, FlowFilter};

use super::*;

fn asked(id: u64, reason: Option<&str>) -> FlowWatch {
    let reason = reason.map(|name| name.parse().unwrap());
    FlowWatch { id, filter: FlowFilter { reason, ..FlowFilter::default() }, capture: None }
}

fn watched(flows: &Flows) -> Vec<Option<u64>> {
    flows.places.iter().map(|place| Some(place.as_ref()?.asked.id)).collect()
}

#[tokio::test]
async fn a_capture_of_which_too_much_was_counted_takes_what_is_missing() {
    let (mut flows, seen) = (Flows::default(), Seen::default());
    let capture =
        |id, packets| FlowWatch { capture: Some(Capture { packets, snap: 60 }), ..asked(id, Some("land")) };
    flows.place(vec![asked(1, None), capture(2, 5), capture(3, 5)], &seen, Instant::now());
    let record = Record {
        head: Head {
            time: u64::MAX,
            length: 60,
            captured: 0,
            interface: 1,
            reason: Reason::Land.number(),
            rule: 0,
            shifts: [NOT_TAKEN, 0, NOT_TAKEN, NOT_TAKEN],
        },
        bytes: Vec::new(),
    };
    let limits = |flows: &Flows| flows.watches(1).map(|watch| watch.limit);
    for _packet in 0..3 {
        assert!(flows.packet(&record, &Clock::read()).is_some());
    }
    assert_eq!(flows.short(&[9, 4, 0, 0]), [0_usize; 0], "they are on their way");
    assert_eq!(limits(&flows), [0, 5, 5, 0]);
    assert_eq!(flows.short(&[9, 5, 0, 0]), [1]);
    assert_eq!(limits(&flows), [0, 2, 5, 0]);
    // At most as many as were asked for, whatever comes.
    let took = (0..9).filter(|_packet| flows.packet(&record, &Clock::read()).is_some()).count();
    assert_eq!((took, flows.short(&[9, 9, 0, 0])), (2, vec![]));
}

#[tokio::test]
async fn what_cannot_be_watched_takes_no_place_and_ends_nothing() {
    let (mut flows, seen) = (Flows::default(), Seen::default());
    let mut place = |asked: Vec<FlowWatch>| {
        let Placed { anew, refused } = flows.place(asked, &seen, Instant::now());
        let refused: Vec<u64> = refused.iter().map(|(id, _)| *id).collect();
        (watched(&flows), anew, refused)
    };
    let none = Vec::<u64>::new();
    assert_eq!(place(vec![asked(1, None)]), (vec![Some(1), None, None, None], vec![0], none.clone()));
    let with = |unknown| vec![asked(1, None), asked(unknown, Some("no-such")), asked(3, Some("land"))];
    assert_eq!(place(with(2)), (vec![Some(1), Some(3), None, None], vec![1], vec![2]));
    assert_eq!(place(with(2)), (vec![Some(1), Some(3), None, None], vec![], vec![2]), "the next lease");
    // First or last, and where it alone is asked for.
    let turned = with(2).into_iter().rev().collect();
    assert_eq!(place(turned), (vec![Some(1), Some(3), None, None], vec![], vec![2]));
    let capture = Some(Capture { packets: 3, snap: 60 });
    let capture = FlowWatch { capture, ..asked(5, Some("no-such")) };
    assert_eq!(place(vec![capture]), (vec![None; 4], vec![], vec![5]));
    assert_eq!(place(vec![asked(6, None)]), (vec![Some(6), None, None, None], vec![0], none));
}

/// The names in the first column of the table under a heading.
fn listed<'a>(text: &'a str, heading: &str) -> BTreeSet<&'a str> {
    let (_, section) = text.split_once(heading).expect("the heading");
    let section = section.split_once("\n#").map_or(section, |(section, _)| section);
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_reason_stands_in_the_documentation() {
    let passing = listed(include_str!("../../../../docs/packet-filter.md"), "\n### Reasons\n");
    let dropping = listed(include_str!("../../../../docs/metrics.md"), "\n## Why packets are dropped\n");
    let named = |drop: bool| {
        let of = Reason::ALL.iter().filter(move |reason| reason.is_drop() == drop);
        of.map(|reason| reason.name()).collect::<BTreeSet<_>>()
    };
    assert_eq!(passing, named(false));
    // What did not drop a packet and is told as if is there too.
    let told = BTreeSet::from([Reason::Observed.name(), Reason::SynCookie.name()]);
    assert_eq!(dropping, &named(true) | &told);
}
