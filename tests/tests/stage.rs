//! The tests' own tools, without the product: negative results of the others mean nothing if one of these fails.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use sallyport_tests::client::Dial;
use sallyport_tests::frames::Flood;
use sallyport_tests::load::{Load, Transfer};
use sallyport_tests::probe::Passed;
use sallyport_tests::stage::{FOE4, NODE4, ORIGIN_NAME, ORIGINS4, ORIGINS6, Stage};

#[test]
fn the_namespaces_reach_each_other_and_nobody_listens() {
    let stage = Stage::new("bare");
    stage.clients.run("ping", &["-c", "1", "-W", "2", &NODE4.to_string()]);
    stage.clients.run("ping", &["-c", "1", "-W", "2", "-I", &FOE4.to_string(), &NODE4.to_string()]);
    stage.node.run("ping", &["-c", "1", "-W", "2", &ORIGINS4.to_string()]);
    stage.node.run("ping", &["-c", "1", "-W", "2", &ORIGINS6.to_string()]);
    let refused = stage.clients.inside(|| stage.dial().tcp());
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_flood_that_nothing_stops_is_counted() {
    let stage = Stage::new("bareflood");
    let passed = Passed::count(&stage.node, &FOE4.to_string());
    let flood =
        Flood::start(&stage.clients, FOE4, SocketAddrV4::new(NODE4, 443), 1500, Duration::from_secs(10));
    std::thread::sleep(Duration::from_secs(2));
    let (sent, rate) = flood.stop();
    assert!(rate >= 1000.0, "{rate} SYNs a second");
    assert!(passed.packets() >= sent / 2, "{} of {sent}", passed.packets());
}

#[test]
fn loads_and_transfers_see_what_the_origin_does() {
    let stage = Stage::new("bareload");
    let origin = stage.origin("one", 8443);
    let tls = stage.origin_ca.client(&["http/1.1"]);
    // From the node's namespace, straight to the origin.
    let dial = Dial::new(SocketAddr::new(ORIGINS4.into(), 8443), ORIGIN_NAME, &tls);
    let load = Load::start(&stage.node, &dial, 8, 20);
    let download = Transfer::download(&stage.node, &dial);
    let upload = Transfer::upload(&stage.node, &dial);
    std::thread::sleep(Duration::from_secs(1));
    origin.finish();
    assert!(download.finish().unwrap() > 4096);
    assert!(upload.finish().unwrap() > 4096);
    assert!(load.answers() > 100 && load.connections() > 8, "{} on {}", load.answers(), load.connections());
    assert!(load.stop().is_empty());

    // What goes wrong is seen: an answer cut short, and nobody there.
    let cut = stage.node.inside(|| dial.get(ORIGIN_NAME, "/cut"));
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    let load = Load::start(&stage.node, &dial, 2, 1_000_000);
    std::thread::sleep(Duration::from_millis(300));
    origin.close(&stage.origins);
    stage.origins.ip("link set o0 down");
    std::thread::sleep(Duration::from_secs(12));
    assert!(!load.stop().is_empty(), "an origin that is gone was not seen");
}
