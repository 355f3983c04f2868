//! Who works on the console's own machine, which is the node's too: no XDP filter meets what comes over loopback, and the worker asks
//! the rules about whatever a listener accepts there.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sallyport_tests::client::Dial;
use sallyport_tests::stage::{HOST, NODE4, NODE6};
use sallyport_tests::{eventually, objects};
use serde_json::{Value, json};

use super::place::Place;

/// `sallyport apply` without `--yes`: whether it was done, and what it said.
fn apply(place: &Place, rule: &Value) -> (bool, String) {
    let file = place.product.dir().join("here.yaml");
    fs::write(&file, objects::object("PacketFilter", "here", json!({ "rules": [rule] })).to_string())
        .unwrap();
    let (done, out, err) = place.product.cli(&["apply", "-f", file.to_str().unwrap()]);
    (done, out + &err)
}

/// The node's listener, at these addresses.
fn listen_at(place: &Place, addresses: &[IpAddr]) {
    place.apply(&[objects::object("Listener", "https", json!({ "addresses": addresses, "port": 443 }))]);
}

#[test]
fn loopback_prefixes_need_no_second_word_and_who_may_come_through_a_tunnel_does() {
    let place = Place::new("filterhere", &[]);
    listen_at(&place, &[NODE4.into(), NODE6.into()]);
    // Both have a loopback address: this command line, and the node's link.
    eventually("the node has said where its filter stands", Duration::from_secs(15), || {
        match apply(&place, &json!({ "name": "r", "action": "Deny", "prefixSets": ["bogons"] })) {
            (true, _) => Ok(()),
            (false, said) => Err(said),
        }
    });
    let ssh = json!({ "name": "r", "action": "Allow", "prefixes": ["203.0.113.0/24"], "ports": ["22"] });
    for rule in [json!({ "name": "r", "action": "Deny", "prefixes": ["0.0.0.0/0"] }), ssh] {
        let (done, said) = apply(&place, &rule);
        assert!(!done && said.contains("your own address 127.0.0.1 (the end of a tunnel"), "{said}");
        assert!(said.contains("sallyport apply --yes") && !said.contains('`'), "{said}");
    }
}

#[test]
fn with_a_listener_there_they_do() {
    let place = Place::new("filterlocal", &[]);
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let get = || place.stage.node.inside(|| Dial { target, ..place.stage.dial() }.get(HOST, "/"));
    assert_eq!(get().unwrap().status, 200, "a client on the node's own machine is served");
    let rule = json!({ "name": "r", "action": "Deny", "prefixSets": ["bogons"] });
    let wanted = "your own address 127.0.0.1 (listener https accepts at loopback addresses too";
    eventually("the node has said where its filter stands", Duration::from_secs(15), || {
        match apply(&place, &rule) {
            (false, said) if said.contains(wanted) => Ok(()),
            (_, said) => Err(said),
        }
    });
    // It is no idle question: whoever answers it shuts out those clients.
    place.apply(&[objects::object("PacketFilter", "here", json!({ "rules": [rule] }))]);
    let refused = get().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset, "{refused}");
}

#[test]
fn with_the_filter_on_lo_they_do() {
    let place = Place::new("filterlo", &["--interface", "lo"]);
    let (done, said) = apply(&place, &json!({ "name": "r", "action": "Deny", "prefixSets": ["bogons"] }));
    assert!(!done && said.contains("your own address 127.0.0.1 (node "), "{said}");
    eventually("the node has said where its filter stands", Duration::from_secs(15), || {
        let said = apply(&place, &json!({ "name": "r", "action": "Deny", "prefixes": ["127.0.0.1"] })).1;
        if said.contains("has its filter on lo)") { Ok(()) } else { Err(said) }
    });
}
