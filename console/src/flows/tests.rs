use model::flow::{ByVerdict, Capture, Captured, Verdict};

use super::*;
use crate::testing::dropped;

fn event(time_ns: u64) -> FlowEvent {
    FlowEvent { time_ns, one_in: 4, ..dropped(7) }
}

fn key(port: u16) -> Key {
    Key { node: None, filter: FlowFilter { port: Some(port), ..FlowFilter::default() } }
}

fn told(watch: u64, events: Vec<FlowEvent>) -> FlowMessage {
    let counts = FlowCounts { matched: ByVerdict { drops: 9, passes: 0 }, ..FlowCounts::default() };
    FlowMessage::Flows { watch, events, captured: Vec::new(), counts }
}

fn ids(orders: &watch::Receiver<Vec<FlowWatch>>) -> Vec<u64> {
    orders.borrow().iter().map(|watch| watch.id).collect()
}

#[test]
fn times_of_lines_are_as_wide_whenever_they_are() {
    for (time_ns, said) in [
        (1_000_000_000, "1970-01-01T00:00:01.000000000Z"),
        (1_764_413_123_120_000_000, "2025-11-29T10:45:23.120000000Z"),
    ] {
        let flow = Flow { node: "edge".to_owned(), event: event(time_ns) };
        assert_eq!(flow_line(&flow, &BTreeMap::new())["time"], said);
    }
}

#[tokio::test]
async fn what_a_node_tells_reaches_pages_and_readers_and_ends_with_them() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    assert!(ids(&orders).is_empty());
    assert_eq!(hub.look(&key(443)).unwrap().nodes["edge"], NodeState::Asked);
    let mut reader = hub.read(&key(443)).unwrap();
    let [id] = ids(&orders)[..] else { panic!("one watch for both") };
    assert!(hub.heard("edge", connection, told(id, vec![event(1), event(2)])));
    assert_eq!(reader.next().await.unwrap().event.time_ns, 1);
    let view = hub.look(&key(443)).unwrap();
    assert_eq!(view.flows.iter().map(|flow| flow.event.time_ns).collect::<Vec<_>>(), [2, 1]);
    assert!(matches!(view.nodes["edge"], NodeState::Watching(told) if told.counts.matched.drops == 9));
    drop(reader);
    // The page still counts.
    assert_eq!(ids(&orders), [id]);
    let other = hub.read(&key(80)).unwrap();
    assert_eq!(ids(&orders).len(), 2);
    drop(other);
    assert_eq!(ids(&orders), [id]);
}

#[test]
fn what_is_kept_is_bounded_and_a_slow_reader_is_told_what_it_missed() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let mut reader = hub.read(&key(443)).unwrap();
    let id = ids(&orders)[0];
    let events = (0..BACKLOG as u64 + 10).map(event).collect();
    hub.heard("edge", connection, told(id, events));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(reader.next()), Err(10));
    assert_eq!(runtime.block_on(reader.next()).unwrap().event.time_ns, 10);
    assert_eq!(hub.look(&key(443)).unwrap().flows.len(), KEPT);
}

#[test]
fn a_flood_that_is_over_is_still_told_at_its_rate() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let _reader = hub.read(&key(443)).unwrap();
    let id = ids(&orders)[0];
    let passed = |one_in| FlowEvent { verdict: Verdict::Pass, one_in, ..event(1) };
    let tell = |events: Vec<FlowEvent>, matched: (u64, u64), one_in: (u32, u32)| {
        let by = |(drops, passes)| ByVerdict { drops, passes };
        let counts = FlowCounts {
            matched: by(matched),
            one_in: ByVerdict { drops: one_in.0, passes: one_in.1 },
            lost: 0,
        };
        hub.heard("edge", connection, FlowMessage::Flows { watch: id, events, captured: Vec::new(), counts });
        let NodeState::Watching(told) = hub.look(&key(443)).unwrap().nodes["edge"] else { panic!() };
        let rates = told.rates();
        [rates.drops, rates.passes].map(|rates| (rates.finest, rates.coarsest))
    };
    // Nothing came: the rate that there is.
    assert_eq!(tell(vec![], (0, 0), (1, 1)), [(1, 1), (1, 1)]);
    assert_eq!(
        tell(vec![FlowEvent { one_in: 512, ..event(2) }], (90_000, 0), (512, 1)),
        [(512, 512), (1, 1)]
    );
    // It is over, and the rate fell while nothing came.
    assert_eq!(tell(vec![], (90_000, 0), (1, 1)), [(512, 512), (1, 1)]);
    assert_eq!(tell(vec![event(3), passed(1)], (90_004, 1), (4, 1)), [(4, 512), (1, 1)]);
    // Packets of which none was told were there all the same.
    assert_eq!(tell(vec![], (90_004, 700), (1, 64)), [(4, 512), (1, 64)]);
    // A keeper that was started again begins its figures anew, and what a node says is no division by zero.
    assert_eq!(tell(vec![passed(0)], (0, 1), (0, 0)), [(1, 1), (1, 1)]);
}

#[test]
fn a_node_has_so_many_watches_and_no_more() {
    let hub = Hub::default();
    let (_connection, _orders) = hub.connected("edge");
    let readers: Vec<Reader> =
        (0..WATCHES_MAX).map(|port| hub.read(&key(u16::try_from(port).unwrap())).unwrap()).collect();
    assert!(hub.look(&key(0)).is_ok(), "the same once more is no more");
    assert_eq!(hub.look(&key(99)).unwrap_err(), Busy::Everywhere);
    // Watches of all nodes are also those of one that comes later.
    assert_eq!(hub.look(&at("other", 99)).unwrap_err(), Busy::Node("other".to_owned()));
    drop(readers);
    assert!(hub.look(&key(99)).is_ok());
    let nodes = hub.look(&at("other", 99)).unwrap().nodes;
    assert!(matches!(&nodes["other"], NodeState::Cannot(why) if why.starts_with("it is not connected")));
}

fn at(node: &str, port: u16) -> Key {
    Key { node: Some(node.to_owned()), ..key(port) }
}

#[test]
fn nodes_that_are_not_connected_have_no_more_watches_than_others() {
    let hub = Hub::default();
    let places = u16::try_from(WATCHES_MAX).unwrap();
    let ports = |node: &str| (0..1000).filter(|port| hub.look(&at(node, *port)).is_ok()).count();
    assert_eq!(ports("away"), WATCHES_MAX);
    assert_eq!(hub.look(&at("away", places)).unwrap_err(), Busy::Node("away".to_owned()));
    // Whoever watches all nodes would watch that one too.
    assert_eq!(hub.look(&key(1)).unwrap_err(), Busy::Node("away".to_owned()));
    let all: usize = (0..100).map(|node| ports(&format!("n{node}"))).sum();
    assert_eq!(all + WATCHES_MAX, ALL);
    assert_eq!(hub.look(&at("one-more", 1)).unwrap_err(), Busy::All);
    assert_eq!(hub.capture(order(1, Duration::from_secs(60))).unwrap_err(), Busy::All);
    // What the node is told once it comes is as much as it can do.
    assert_eq!(ids(&hub.connected("away").1).len(), WATCHES_MAX);
    let said = Busy::All.to_string();
    assert!(said.starts_with("64 different") && said.contains("closed counts for 7 seconds"), "{said}");
}

/// As if nobody had looked at it for so long.
fn age(hub: &Hub, key: &Key, by: Duration) {
    let mut state = hub.lock();
    state.watches.values_mut().find(|watch| watch.key == *key).unwrap().until -= by;
}

#[test]
fn what_a_page_has_left_makes_room_and_nothing_else_does() {
    let hub = Hub::default();
    let (_connection, orders) = hub.connected("edge");
    // Two open pages, which look every second, and somebody who narrows a third one down.
    let open = [key(1), key(2)];
    for port in 10..30 {
        hub.leave(&key(port - 1));
        hub.look(&key(port)).unwrap();
        let pages = open.iter().map(|key| hub.look(key).map(|_| ()));
        pages.collect::<Result<Vec<()>, Busy>>().unwrap();
    }
    let watched = |hub: &Hub| {
        let state = hub.lock();
        state.watches.values().filter_map(|watch| watch.key.filter.port).collect::<Vec<u16>>()
    };
    assert_eq!(watched(&hub), [1, 2, 28, 29]);
    // What was left makes room for a capture, too. Then nothing is left, and open pages do not push each other out.
    let capture = hub.capture(CaptureOrder { filter: key(3).filter, ..order(1, Duration::from_secs(60)) });
    assert_eq!(watched(&hub), [1, 2, 29, 3]);
    for full in [key(30), at("edge", 30)] {
        assert_eq!(hub.look(&full).unwrap_err(), Busy::Node("edge".to_owned()));
    }
    assert_eq!(ids(&orders).len(), WATCHES_MAX);
    // A page that was closed makes room after a few seconds; not what somebody reads, nor a capture.
    let reader = hub.read(&key(2)).unwrap();
    let second = Duration::from_secs(1);
    for (key, by) in
        [(key(2), PAGE - second), (at("edge", 3), PAGE), (key(29), IDLE), (key(1), IDLE - second)]
    {
        age(&hub, &key, by);
    }
    hub.look(&at("edge", 30)).unwrap();
    assert_eq!(watched(&hub), [1, 2, 3, 30]);
    assert!(hub.look(&key(31)).is_err());
    drop((reader, capture));
}

#[test]
fn an_older_stream_of_a_node_says_nothing_any_more() {
    let hub = Hub::default();
    let (old, _orders) = hub.connected("edge");
    let (new, _orders) = hub.connected("edge");
    let cannot = |connection| {
        hub.heard("edge", connection, FlowMessage::Cannot { reason: "no\u{1b}[2J filter".to_owned() });
        hub.look(&key(1)).unwrap().nodes["edge"].clone()
    };
    assert_eq!(cannot(old), NodeState::Asked);
    hub.ended("edge", old);
    assert_eq!(cannot(new), NodeState::Cannot("no[2J filter".to_owned()));
}

#[test]
fn a_watch_that_a_node_refuses_is_told_so_alone() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let (other, _orders) = hub.connected("other");
    let (fine, wrong) = (hub.read(&key(1)).unwrap(), hub.read(&key(2)).unwrap());
    let capture = hub.capture(order(1, Duration::from_secs(60))).unwrap().leave();
    let [first, second, third] = ids(&orders)[..] else { panic!() };
    assert_eq!(third, capture);
    let refuse = |connection, watch| {
        let reason = "this node knows no reason\u{7} \"no-such\"".to_owned();
        hub.heard("edge", connection, FlowMessage::Refused { watch, reason })
    };
    let cannot = NodeState::Cannot("this node knows no reason \"no-such\"".to_owned());
    hub.heard("edge", connection, told(first, vec![event(1)]));
    assert!(refuse(connection, second));
    assert!(!refuse(connection, second), "it is told with every lease, and news once");
    assert!(!refuse(connection, 99) && !refuse(other, first), "nobody asked; another node's stream");
    assert!(matches!(fine.nodes()["edge"], NodeState::Watching(_)));
    assert_eq!((&wrong.nodes()["edge"], &wrong.nodes()["other"]), (&cannot, &NodeState::Asked));
    // What is told of one watch says nothing of another.
    hub.heard("edge", connection, told(first, vec![event(2)]));
    assert_eq!(wrong.nodes()["edge"], cannot);
    assert_eq!(hub.captures()[0].problem, None);
    refuse(connection, capture);
    assert_eq!(hub.captures()[0].problem.as_deref(), Some("this node knows no reason \"no-such\""));
    // Another release may know it.
    let (_connection, _orders) = hub.connected("edge");
    assert_eq!((&wrong.nodes()["edge"], &hub.captures()[0].problem), (&NodeState::Asked, &None));
}

fn order(packets: u32, lasts: Duration) -> CaptureOrder {
    CaptureOrder {
        node: "edge".to_owned(),
        filter: FlowFilter::default(),
        words: "all".to_owned(),
        capture: Capture { packets, snap: 2 },
        lasts,
        actor: "ann".to_owned(),
    }
}

#[test]
fn a_capture_that_nothing_comes_for_says_why() {
    let hub = Hub::default();
    let (connection, _orders) = hub.connected("edge");
    let id = hub.capture(order(1, Duration::from_secs(60))).unwrap().leave();
    let problem = || hub.captures()[0].problem.clone();
    assert_eq!(problem(), None);
    hub.heard("edge", connection, FlowMessage::Cannot { reason: "XDP is off".to_owned() });
    assert_eq!(problem().as_deref(), Some("XDP is off"));
    hub.heard("edge", connection, told(id, Vec::new()));
    assert_eq!(problem(), None);
    hub.ended("edge", connection);
    assert_eq!(problem().as_deref(), Some(ABSENT));
    // What has ended has nothing to wait for.
    let over = hub.capture(order(1, Duration::ZERO)).unwrap().leave();
    assert_eq!(hub.pcap(over).unwrap().0.problem, None);
}

#[test]
fn a_capture_that_is_stopped_keeps_what_it_has_and_gives_its_place_free() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let begin = || hub.capture(order(5, Duration::from_secs(60))).map(Attended::leave);
    let captures: Vec<u64> = (0..WATCHES_MAX).map(|_| begin().unwrap()).collect();
    assert!(begin().is_err());
    let (first, captured) = (captures[0], Captured { time_ns: 1, length: 60, bytes: "AQID".to_owned() });
    let counts = FlowCounts::default();
    let message = FlowMessage::Flows { watch: first, events: Vec::new(), captured: vec![captured], counts };
    hub.heard("edge", connection, message);
    let view = hub.stop(first, "ben").unwrap();
    assert!(!view.running);
    assert_eq!(view.stopped.as_deref(), Some("ben"));
    assert_eq!((view.taken, hub.pcap(first).unwrap().1.len()), (1, 24 + 16 + 2));
    assert!(!ids(&orders).contains(&first), "the node is told");
    // Once more changes nothing, and others go on.
    assert_eq!(hub.stop(first, "cara").unwrap(), view);
    assert!(hub.captures().iter().filter(|one| one.running).count() == WATCHES_MAX - 1);
    assert!(begin().is_ok());
    assert!(hub.stop(99, "ben").is_none());
}

#[test]
fn what_is_on_its_way_when_a_capture_is_stopped_is_no_part_of_it() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let tell = |watch, lost| {
        let captured = vec![Captured { time_ns: 1, length: 60, bytes: "AQID".to_owned() }];
        let counts = FlowCounts { lost, ..FlowCounts::default() };
        hub.heard("edge", connection, FlowMessage::Flows { watch, events: Vec::new(), captured, counts });
    };
    let begin = || hub.capture(order(5, Duration::from_secs(60))).unwrap();
    let (stopped, other) = (begin().leave(), begin().leave());
    let given_up = begin();
    let up = given_up.id();
    assert_eq!(ids(&orders), [stopped, other, up]);
    for id in [stopped, other, up] {
        tell(id, 0);
    }
    let view = hub.stop(stopped, "ben").unwrap();
    drop(given_up);
    for id in [stopped, other, up] {
        tell(id, 3);
    }
    let file = |id| hub.pcap(id).unwrap();
    assert_eq!(file(stopped).0, view, "whoever stopped it was told how much it has");
    assert_eq!(file(stopped).1.len(), 24 + 16 + 2);
    assert_eq!((file(up).0.taken, file(up).0.lost), (1, 0));
    assert_eq!((file(other).0.taken, file(other).0.lost), (2, 3));
}

#[test]
fn a_capture_takes_what_was_asked_for_and_ends() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let id = hub.capture(order(2, Duration::from_secs(60))).unwrap().leave();
    assert_eq!(orders.borrow()[0].capture, Some(Capture { packets: 2, snap: 2 }));
    let captured = |bytes: &str| Captured { time_ns: 1, length: 60, bytes: bytes.to_owned() };
    let captured = vec![captured("AQIDBA=="), captured("BQY="), captured("Bwg=")];
    let counts = FlowCounts { lost: 3, ..FlowCounts::default() };
    hub.heard("edge", connection, FlowMessage::Flows { watch: id, events: vec![event(1)], captured, counts });
    let (view, file) = hub.pcap(id).unwrap();
    assert_eq!((view.taken, view.lost, view.running, view.actor.as_str()), (2, 3, false, "ann"));
    assert_eq!(file.len(), 24 + 2 * (16 + 2));
    hub.tidy();
    assert!(ids(&orders).is_empty());
    // One that nothing comes for ends too, and more of them than are kept make room for each other.
    for _capture in 0..2 * CAPTURES {
        hub.capture(order(1, Duration::ZERO)).unwrap().leave();
        hub.tidy();
    }
    assert_eq!((hub.captures().len(), ids(&orders).len()), (CAPTURES, 0));
}

#[test]
fn captures_that_go_on_push_none_out_whatever_nodes_they_are_of() {
    let hub = Hub::default();
    let at = |node: usize| CaptureOrder { node: format!("n{node}"), ..order(1, Duration::from_secs(60)) };
    let going_on: Vec<Attended> = (0..CAPTURES).map(|node| hub.capture(at(node)).unwrap()).collect();
    let refused = hub.capture(at(CAPTURES)).unwrap_err();
    assert_eq!(refused, Busy::Captures);
    assert!(refused.to_string().starts_with("8 captures are going on already; stop one"), "{refused}");
    drop(going_on);
    assert!(hub.capture(at(CAPTURES)).is_ok());
}

#[test]
fn a_capture_ends_with_whoever_waits_for_it_and_keeps_what_it_has() {
    let hub = Hub::default();
    let (connection, orders) = hub.connected("edge");
    let alone = hub.capture(order(2, Duration::from_secs(60))).unwrap().leave();
    let attended = hub.capture(order(2, Duration::from_secs(60))).unwrap();
    let id = attended.id();
    assert_eq!(ids(&orders), [alone, id]);
    let captured = vec![Captured { time_ns: 1, length: 60, bytes: "AQIDBA==".to_owned() }];
    let counts = FlowCounts::default();
    hub.heard("edge", connection, FlowMessage::Flows { watch: id, events: Vec::new(), captured, counts });
    assert_eq!(attended.view().map(|view| (view.taken, view.running)), Some((1, true)));
    drop(attended);
    assert_eq!(ids(&orders), [alone], "the node is told at once");
    let view = hub.pcap(id).unwrap().0;
    assert_eq!((view.taken, view.running), (1, false));
}
