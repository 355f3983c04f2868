use std::time::Duration;

use model::digest::Digest;
use model::draft::Kind;
use model::report::{Feature, Report};
use serde_json::json;

use crate::clock;
use crate::ops::{Actor, Changes, Ops, PublishOptions};
use crate::store::SecretOutcome;
use crate::testing::{Directory, object, operator, publish, shop};

/// A node that is enrolled and has not connected.
async fn enrolled(ops: &Ops, name: &str) {
    let (hash, ends) = (Digest::of(name.as_bytes()), clock::now() + Duration::from_secs(60));
    ops.store().put_node_secret(name, &hash, ends, None).await.unwrap();
    let outcome = ops.store().enrol(&hash, &Default::default(), "1", ends).await.unwrap();
    assert_eq!(outcome, SecretOutcome::Used);
}

/// What is asked of who works at this address before such a rule is published.
async fn asked_at(ops: &Ops, address: &str, rule: serde_json::Value) -> Vec<String> {
    let actor = Actor { address: address.parse().ok(), ..operator() };
    let change = || Changes::put(object("PacketFilter", "f", json!({ "rules": [rule] })));
    let review = ops.plan(&change(), &actor).await.unwrap();
    assert_eq!(review.problems, []);
    let asked: Vec<String> = review.confirmations.into_iter().map(|problem| problem.message).collect();
    // Who publishes is asked what was shown.
    match ops.publish(change(), &actor, PublishOptions::default()).await {
        Ok(_) => {
            assert_eq!(asked, [""; 0]);
            let remove = Changes::remove(Kind::PacketFilter, "f");
            ops.publish(remove, &actor, PublishOptions::default()).await.unwrap();
        }
        Err(error) => assert!(error.needs_confirmation() && !asked.is_empty(), "{error}"),
    }
    asked
}

/// Publishes what [`shop`] has, with its listener at these addresses.
async fn shop_at(ops: &Ops, addresses: &[&str], port: serde_json::Value) {
    let listener = object("Listener", "https", json!({ "addresses": addresses, "port": port }));
    let others = shop().into_iter().filter(|object| object.kind() != Kind::Listener);
    publish(ops, others.chain([listener]).collect()).await.unwrap();
}

/// A node that is enrolled and connected, and whose filter stands on no loopback interface.
async fn filters_elsewhere(ops: &Ops, name: &str) {
    enrolled(ops, name).await;
    let (connection, _orders) = ops.live().connected(name, "127.0.0.1:9".parse().unwrap(), false);
    let features = vec![Feature { name: "xdp:eth0".to_owned(), on: true, detail: String::new() }];
    ops.live().reported(name, connection, clock::now(), Report { features, ..Report::default() });
}

fn deny(prefixes: &[&str]) -> serde_json::Value {
    json!({ "name": "r", "action": "Deny", "prefixes": prefixes })
}

#[tokio::test]
async fn loopback_prefixes_ask_for_a_second_word_unless_no_filter_can_be_on_lo() {
    let directory = Directory::new();
    let ops = directory.open().await;
    shop_at(&ops, &["192.0.2.1", "2001:db8::1"], json!(443)).await;
    let here = "127.0.0.1".parse().unwrap();
    ops.links().opened("n1", [here, here]);
    let loopback = || deny(&["127.0.0.0/8", "::1/128"]);
    // Both: the person, and the node's link.
    let refused = async |part: &str| {
        let asked = asked_at(&ops, "127.0.0.1", loopback()).await;
        assert_eq!(asked.len(), 2, "{part}: {asked:?}");
        assert!(asked[0].contains("your own address 127.0.0.1 (") && asked[1].contains("node n1 and"));
        assert!(asked.iter().all(|one| one.contains(part) && !one.contains('`')), "{part}: {asked:?}");
    };
    refused("no node is enrolled").await;
    enrolled(&ops, "n1").await;
    refused("node n1 is not connected").await;
    let (connection, _orders) = ops.live().connected("n1", "127.0.0.1:9".parse().unwrap(), false);
    refused("node n1 is not connected to say").await;
    let reports = |features: &[(&str, bool)]| {
        let feature =
            |(name, on): &(&str, bool)| Feature { name: (*name).to_owned(), on: *on, detail: String::new() };
        let features = features.iter().map(feature).collect();
        ops.live().reported("n1", connection, clock::now(), Report { features, ..Report::default() });
    };
    // It says nothing of a filter, or that there is none yet.
    for unsaid in [&[][..], &[("sk_lookup", true)], &[("xdp", false)]] {
        reports(unsaid);
        refused("node n1 does not say").await;
    }
    for on_lo in [&[("xdp:lo", true)][..], &[("xdp:eth0", true), ("xdp:lo", false)]] {
        reports(on_lo);
        refused("node n1 has its filter on lo").await;
    }
    reports(&[("xdp:eth0", true), ("xdp:lo0", false), ("sk_lookup", true)]);
    for address in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(asked_at(&ops, address, loopback()).await, [""; 0], "{address}");
        let bogons = json!({ "name": "r", "action": "Deny", "prefixSets": ["bogons"] });
        assert_eq!(asked_at(&ops, address, bogons).await, [""; 0], "{address}");
    }
    // One that is away may have it there, unless it is shut out.
    enrolled(&ops, "n2").await;
    refused("node n2 is not connected").await;
    assert!(ops.store().set_node("n2", Some(true), None).await.unwrap());
    assert_eq!(asked_at(&ops, "127.0.0.1", loopback()).await, [""; 0]);
    ops.live().ended("n1", connection);
    refused("node n1 is not connected").await;
}

/// The worker asks the rules about whom a listener accepts, wherever filters stand.
#[tokio::test]
async fn loopback_prefixes_ask_for_a_second_word_where_a_listener_accepts_there() {
    let directory = Directory::new();
    let ops = directory.open().await;
    filters_elsewhere(&ops, "n1").await;
    let (both, v4, v6) = ((true, true), (true, false), (false, true));
    let places: [(&[&str], serde_json::Value, (bool, bool)); 9] = [
        (&[], json!(443), both),
        (&["127.0.0.1"], json!(443), v4),
        (&["192.0.2.1", "127.9.0.0/16"], json!(443), v4),
        (&["64.0.0.0/2"], json!(443), v4),
        (&["127.0.0.0/8"], json!("any"), v4),
        (&["::1"], json!("any"), v6),
        (&["::1", "192.0.2.0/24"], json!(443), v6),
        (&["126.0.0.0/7", "::1"], json!(443), both),
        (&["192.0.2.0/24", "2001:db8::/32", "128.0.0.0/8", "126.0.0.0/8"], json!("any"), (false, false)),
    ];
    for (addresses, port, (by_v4, by_v6)) in places {
        shop_at(&ops, addresses, port).await;
        for (address, meets) in [("127.0.0.1", by_v4), ("::ffff:127.0.0.1", by_v4), ("::1", by_v6)] {
            let bogons = json!({ "name": "r", "action": "Deny", "prefixSets": ["bogons"] });
            for rule in [deny(&["127.0.0.0/8", "::1"]), bogons] {
                let asked = asked_at(&ops, address, rule).await;
                assert_eq!(asked.len(), usize::from(meets), "{addresses:?}, {address}: {asked:?}");
                let why =
                    format!("your own address {address} (listener https accepts at loopback addresses too");
                assert!(asked.iter().all(|one| one.contains(&why)), "{asked:?}");
            }
        }
    }
    // All of them are named, so that nobody changes one and is asked again about the next.
    let listener = |name: &str, port: u16| {
        object("Listener", name, json!({ "addresses": ["127.0.0.1", "192.0.2.1"], "port": port }))
    };
    publish(&ops, vec![listener("https", 443), listener("more", 8443)]).await.unwrap();
    let asked = asked_at(&ops, "127.0.0.1", deny(&["127.0.0.0/8"])).await;
    let why =
        "(listeners https, more accept at loopback addresses too, and ask the rules about their clients";
    assert!(asked.len() == 1 && asked[0].contains(why), "{asked:?}");
    ops.publish(Changes::remove(Kind::Listener, "more"), &operator(), PublishOptions::default())
        .await
        .unwrap();
    // What counts is what is to be in force: a listener that comes with the rule, and one that goes.
    let actor = Actor { address: "127.0.0.1".parse().ok(), ..operator() };
    let filter = || object("PacketFilter", "f", json!({ "rules": [deny(&["127.0.0.0/8"])] }));
    let with = |addresses: &[&str]| {
        let listener = object("Listener", "https", json!({ "addresses": addresses, "port": 443 }));
        Changes { put: vec![filter(), listener], ..Changes::default() }
    };
    let asked = async |changes: &Changes| ops.plan(changes, &actor).await.unwrap().confirmations.len();
    assert_eq!(asked(&with(&["127.0.0.1"])).await, 1);
    shop_at(&ops, &["127.0.0.1"], json!(443)).await;
    assert_eq!(asked(&with(&["192.0.2.1"])).await, 0);
}

/// A loopback address may be the end of a tunnel: whom the filter then meets is not known.
#[tokio::test]
async fn rules_that_may_meet_who_comes_through_a_tunnel_ask_whatever_nodes_say() {
    let directory = Directory::new();
    let ops = directory.open().await;
    shop_at(&ops, &["192.0.2.1", "2001:db8::1"], json!(443)).await;
    filters_elsewhere(&ops, "n1").await;
    let ssh =
        |prefixes: &[&str]| json!({ "name": "r", "action": "Allow", "prefixes": prefixes, "ports": ["22"] });
    // Who names loopback among those who may come has thought of it.
    assert_eq!(asked_at(&ops, "127.0.0.1", ssh(&["198.51.100.0/24", "127.0.0.0/8"])).await, [""; 0]);
    let ssh = ssh(&["198.51.100.0/24"]);
    for rule in [ssh, deny(&["0.0.0.0/0"]), deny(&["64.0.0.0/2", "127.0.0.1"])] {
        let asked = asked_at(&ops, "127.0.0.1", rule.clone()).await;
        let [one] = &asked[..] else { panic!("{rule}: {asked:?}") };
        assert!(one.contains("your own address 127.0.0.1 (the end of a tunnel"), "{one}");
    }
    for rule in [deny(&["::/0"]), deny(&["::1", "8000::/1"])] {
        let wide = rule["prefixes"][0] == "::/0";
        assert_eq!(asked_at(&ops, "::1", rule).await.len(), usize::from(wide));
    }
    let asked = asked_at(&ops, "192.0.2.10", deny(&["127.0.0.1", "192.0.2.0/24"])).await;
    assert!(asked.len() == 1 && asked[0].contains("your own address 192.0.2.10:"), "{asked:?}");
}
