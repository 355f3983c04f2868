//! Rules that are only observed drop nothing and count what they would drop: packets in the kernel, connections in the worker.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use sallyport_tests::browser::Browser;
use sallyport_tests::probe::Passed;
use sallyport_tests::stage::{CLIENT4, CLIENT6, FOE4, FOE6, HOST};
use sallyport_tests::{eventually, objects};
use serde_json::{Value, json};

use super::place::{Place, SENT, id_of};

/// The edge, whose prefixes alone are to reach port 443, and others. Nobody has these addresses: SYNs are all they send.
const EDGE: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];
const OTHERS: [&str; 2] = ["203.0.113.7", "2001:db8:2::7"];
/// A listener that believes [`CLIENT4`] and [`CLIENT6`].
const BALANCED: u16 = 8610;
const SOON: Duration = Duration::from_secs(10);

fn filter(rule: &str, action: &str, mode: &str, prefixes: &[&str], ports: &[&str]) -> Value {
    let rule = json!({ "name": rule, "action": action, "mode": mode, "prefixes": prefixes, "ports": ports });
    objects::object("PacketFilter", "watch", json!({ "rules": [rule] }))
}

fn edge_only(mode: &str) -> Value {
    let own = [format!("{CLIENT4}/32"), format!("{CLIENT6}/128")];
    let prefixes = ["198.51.100.0/24", "2001:db8:1::/48", own[0].as_str(), own[1].as_str()];
    filter("edge-only", "Allow", mode, &prefixes, &["443"])
}

/// Waits until the page Packet filter says how much an observed rule counted where.
fn page_says(admin: &Browser, place: &str, rule: &str, count: u64) {
    // Cells of a row, without what stands between them.
    let row = format!("observed{place} that passed{rule}{count}");
    eventually(&row, Duration::from_secs(40), || {
        let page = admin.read("/packet-filter");
        if page.contains(&row) { Ok(()) } else { Err(page) }
    });
}

#[test]
fn who_would_be_kept_from_a_port_is_counted_and_served_until_the_rule_is_in_force() {
    let place = Place::new("filterobserve", &[]);
    let admin = place.api.browser().set_up(&place.product.setup_token()).unwrap();
    place.apply(&[edge_only("Observe")]);
    let passed = Passed::count_each(&place.stage.node, &[EDGE, OTHERS].concat());
    let everything = || {
        place.syns(&[EDGE, OTHERS].concat(), 443);
        // Ports that the rule is not about.
        place.syns(&OTHERS, 444);
    };
    let flows = place.flows(&["--rule", "watch/edge-only"], 2 * SENT, everything);
    let rule = id_of(&flows, "observed", "watch/edge-only");
    for flow in &flows {
        let source = flow["source"].as_str().unwrap();
        assert_eq!((&flow["verdict"], &flow["destinationPort"]), (&json!("observed"), &json!(443)), "{flow}");
        assert!(OTHERS.contains(&source), "{flow}");
    }
    place.dropped("observed", &BTreeMap::new(), &[(rule, 2 * SENT)]);
    assert_eq!(place.drops("not-allowed"), BTreeMap::new());
    assert_eq!(passed.each(), [SENT, SENT, 2 * SENT, 2 * SENT]);
    page_says(&admin, "kernel, packets", "watch/edge-only", 2 * SENT);
    // Whoever would be kept out is served.
    for from in [IpAddr::from(FOE4), FOE6.into(), CLIENT4.into(), CLIENT6.into()] {
        assert_eq!(place.get(from, 443).unwrap(), 200, "{from}");
    }

    place.apply(&[edge_only("Enforce")]);
    drop(passed);
    let passed = Passed::count_each(&place.stage.node, &[EDGE, OTHERS].concat());
    let (observed, before) = (place.settled("observed"), place.drops("not-allowed"));
    everything();
    // No rule decided: there is none that allows it.
    place.dropped("not-allowed", &before, &[(0, 2 * SENT)]);
    assert_eq!(passed.each(), [SENT, SENT, SENT, SENT]);
    assert_eq!(place.drops("observed"), observed);
    for from in [IpAddr::from(FOE4), FOE6.into()] {
        assert!(place.get(from, 443).is_err(), "{from} is served");
    }
    for from in [IpAddr::from(CLIENT4), CLIENT6.into()] {
        assert_eq!(place.get(from, 443).unwrap(), 200, "{from}");
    }
}

/// A connection whose balancer names `client`.
fn behind(place: &Place, client: &str) -> io::Result<u16> {
    let (family, balancer, other): (_, IpAddr, _) = match client.contains(':') {
        true => ("TCP6", CLIENT6.into(), "2001:db8::1"),
        false => ("TCP4", CLIENT4.into(), "192.0.2.200"),
    };
    let dial = place.dial(balancer, BALANCED);
    place.stage.clients.inside(|| {
        let mut tcp = dial.tcp()?;
        tcp.write_all(format!("PROXY {family} {client} {other} 4000 443\r\n").as_bytes())?;
        dial.secure(tcp)?.get(HOST, "/").map(|answer| answer.status)
    })
}

fn counted(place: &Place, wanted: &BTreeMap<u64, u64>) {
    eventually(&format!("the worker counts {wanted:?}"), SOON, || {
        let now = place.connections();
        if now == *wanted { Ok(()) } else { Err(format!("{now:?}")) }
    });
}

#[test]
fn clients_behind_a_balancer_are_counted_by_the_rule_that_would_deny_them() {
    let place = Place::new("filterbehind", &[]);
    let admin = place.api.browser().set_up(&place.product.setup_token()).unwrap();
    let balanced = json!({
        "port": BALANCED, "certificates": ["front"],
        "proxyProtocol": { "prefixes": [format!("{CLIENT4}/32"), format!("{CLIENT6}/128")] },
    });
    let deny = |mode| filter("foes", "Deny", mode, &["203.0.113.0/24", "2001:db8:2::/48"], &[]);
    place.apply(&[objects::object("Listener", "balanced", balanced), deny("Observe")]);
    // The kernel sees them only where they come by themselves, and says which rule it is.
    let flows = place.flows(&["--verdict", "observed"], 2 * SENT, || place.syns(&OTHERS, BALANCED));
    let rule = id_of(&flows, "observed", "watch/foes");
    assert_eq!(place.connections(), BTreeMap::new());
    place.dropped("observed", &BTreeMap::new(), &[(rule, 2 * SENT)]);
    let kernel = place.drops("observed");
    for client in [OTHERS, EDGE].concat() {
        for _ in 0..3 {
            assert_eq!(behind(&place, client).unwrap(), 200, "{client}");
        }
    }
    let both = BTreeMap::from([(rule, 6)]);
    counted(&place, &both);
    assert_eq!(place.drops("observed"), kernel);
    page_says(&admin, "proxy, connections", "watch/foes", 6);

    place.apply(&[deny("Enforce")]);
    let refused = || place.product.metric("sallyport_refusals_total", "reason=\"denied\"");
    for client in OTHERS {
        assert!(behind(&place, client).is_err(), "{client} is served");
    }
    for client in EDGE {
        assert_eq!(behind(&place, client).unwrap(), 200, "{client}");
    }
    eventually("the worker refuses them", SOON, || match refused() {
        2.0 => Ok(()),
        other => Err(other.to_string()),
    });
    counted(&place, &both);
}

#[test]
fn where_the_kernel_filters_nothing_the_worker_counts_what_it_would_refuse() {
    let place = Place::new("filterplain", &["--no-kernel"]);
    let foes = [FOE4.to_string(), FOE6.to_string()];
    let deny = |mode| filter("foes", "Deny", mode, &[&foes[0], &foes[1]], &["443"]);
    place.apply(&[deny("Observe")]);
    for from in [IpAddr::from(FOE4), FOE6.into(), CLIENT4.into(), CLIENT6.into()] {
        assert_eq!(place.get(from, 443).unwrap(), 200, "{from}");
    }
    eventually("the worker counts them", SOON, || {
        let counts: Vec<u64> = place.connections().into_values().collect();
        if counts == [2] { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    let before = place.connections();
    place.apply(&[deny("Enforce")]);
    for (from, fine) in [(IpAddr::from(FOE4), false), (FOE6.into(), false), (CLIENT4.into(), true)] {
        assert_eq!(place.get(from, 443).is_ok(), fine, "{from}");
    }
    counted(&place, &before);
}
