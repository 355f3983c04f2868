//! Packet filter, budgets, flows, sources and overview in Chromium while the node is under load: what a person reads there is
//! what was sent.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it saw"
)]

mod after;
mod during;
mod flows;
mod load;
mod place;
mod screen;

use std::time::{Duration, Instant};

use flows::Fate;
use load::{Carried, Load, Senders, Stream};
use place::Place;
use sallyport_tests::stage::Stage;

/// The streams' places, whichever way they are counted.
const FOES: usize = 0;
const WATCHED: usize = 1;
const SYN: usize = 2;
const UDP: usize = 3;
const PORT: usize = 4;
const PRESSURE: usize = 5;
const PLAIN: usize = 6;
const STREAMS: [Stream; 7] = [
    stream(Carried::Syn, 443, Senders::Few(2), 6000, [203, 0, 113], 0xf0e),
    stream(Carried::Ack, 9, Senders::Few(2), 3000, [198, 51, 100], 0x0b5),
    stream(Carried::Syn, 9, Senders::Few(4), 2000, [192, 0, 2], 0x541),
    stream(Carried::Udp, 5000, Senders::Few(4), 2500, [100, 64, 7], 0x0d9),
    stream(Carried::Syn, 8000, Senders::Spray, 1500, [12, 0, 0], 0x807),
    stream(Carried::Syn, 443, Senders::Spray, 3000, [11, 0, 0], 0x9e5),
    stream(Carried::Ack, 10, Senders::Few(2), 1500, [172, 20, 8], 0x91a),
];
/// What may become of a packet of each stream: verdict, and reason with rule.
const PASS: [&str; 2] = ["pass", "no rule"];
const FATES: [Fate<'_>; 7] = [
    (STREAMS[FOES], &[["drop", "denied load/foes"]]),
    (STREAMS[WATCHED], &[["observed", "observed load/watched"]]),
    (STREAMS[SYN], &[PASS, ["drop", "syn budget load/syn-per-source"]]),
    (STREAMS[UDP], &[PASS, ["drop", "udp budget load/udp-per-source"]]),
    (STREAMS[PORT], &[PASS, ["drop", "syn budget load/web"]]),
    (
        STREAMS[PRESSURE],
        &[PASS, ["answered", "syn cookie load/syn-pressure"], ["drop", "syn budget load/syn-pressure"]],
    ),
    (STREAMS[PLAIN], &[PASS]),
];
/// Packets a second of both families and all streams: at least so many, with which the SYNs are still over their pressure. A machine
/// with two cores for the test alone sends all 39,000 of them; one that has other things to do is still under load.
const RATE: f64 = 5_000.0;

/// Budgets, each a second and at once: less than is sent.
const SYN_BUDGET: u64 = 100;
const UDP_BUDGET: u64 = 80;
const PORT_BUDGET: u64 = 500;
const PRESSURE_BUDGET: u64 = 300;
/// New connections of a source, and how many it asks for.
const CONNECTIONS: u64 = 3;
const ASKED: u64 = 10;
/// Before the load one of the foes sends so many.
const EARLY: u64 = 30;

/// What is open on the page Flows while the load goes on.
const TABS: [(&str, &str); 4] = [
    ("all", "/flows"),
    ("foes", "/flows?rule=load/foes"),
    ("watched", "/flows?verdict=observed"),
    ("udp", "/flows?protocol=udp"),
];
/// Pages that are looked at, and their pictures' names.
const PAGES: [(&str, &str); 4] =
    [("/packet-filter", "packet-filter"), ("/flows", "flows"), ("/sources", "sources"), ("/", "overview")];
/// A page is there by then, whatever else the machine has to do: one that waits for the load to end is not.
const ANSWER: Duration = Duration::from_secs(15);

const fn stream(
    carried: Carried,
    port: u16,
    senders: Senders,
    rate: u64,
    net4: [u8; 3],
    net6: u16,
) -> Stream {
    Stream { carried, port, senders, rate, net4, net6 }
}

#[test]
fn what_is_read_on_the_pages_under_load_is_what_was_sent() {
    let begin = Instant::now();
    let stage = Stage::new("pages");
    let mut place = Place::new(&stage);
    place.quiet();
    place.watch();
    println!("{:?}: the load begins", begin.elapsed());

    let mut load = Load::start(&stage.clients, &STREAMS);
    let sampled = place.during(&load);
    let (sent, rate) = load.finish();
    println!("{:?}: {rate:.0} packets a second: {sent:?}", begin.elapsed());
    for (what, sampled) in sampled {
        sampled.adds_up(what);
    }

    let went = place.went(sent);
    println!("{went:?}");
    let all: u64 = went.sent.iter().flatten().sum();
    assert!(went.lost * 20 < all, "the link lost {} of {all}: that is no measure", went.lost);
    place.figures(&went);
    println!("{:?}: figures are right", begin.elapsed());
    place.senders(&went);
    println!("{:?}: senders are right", begin.elapsed());
    place.looks();
    println!("{:?}: the end", begin.elapsed());
    assert!(rate > RATE, "{rate:.0} packets a second: this machine has no room for the load");
}
