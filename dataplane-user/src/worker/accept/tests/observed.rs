//! Rules that are only observed: whom they would refuse is served, and counted by them once.

use std::collections::BTreeMap;

use model::filter::{FilterAction, FilterMode, FilterRule};
use model::report::Place;
use rustls::ClientConfig;

use super::node::{Node, client, get};

const OBSERVED: &str = "observed";

fn observe(id: u32, action: FilterAction, prefix: &str) -> FilterRule {
    let rule = FilterRule::new(id, "f/r", action, vec![prefix.parse().unwrap()]);
    FilterRule { mode: FilterMode::Observe, ..rule }
}

fn enforce(rule: FilterRule) -> FilterRule {
    FilterRule { mode: FilterMode::Enforce, ..rule }
}

/// What was counted since the last time, by rule.
fn counted(node: &Node) -> BTreeMap<u32, u64> {
    let report = node.observe.report();
    let observed = report.drops.iter().filter(|one| one.place == Place::Proxy && one.reason == OBSERVED);
    observed.map(|one| (one.rule, one.count)).collect()
}

async fn served(node: &Node, config: &std::sync::Arc<ClientConfig>, header: &str) {
    let mut stream = node.shake_behind(config, header.as_bytes()).await.unwrap();
    assert!(get(&mut stream, "a.test", "/").await.starts_with("HTTP/1.1 200"), "{header}");
}

#[tokio::test]
async fn who_connects_is_counted_by_the_rule_that_would_refuse_it() {
    let mut node = Node::start(|snapshot, _| {
        snapshot.filter =
            vec![observe(1, FilterAction::Deny, "127.0.0.0/8"), observe(2, FilterAction::Deny, "::1/128")];
    })
    .await;
    let config = client(&node.pki.ca);
    node.get_ok(&config).await;
    node.shake_v6(&config).await.unwrap();
    node.shake_v6(&config).await.unwrap();
    assert_eq!(counted(&node), BTreeMap::from([(1, 1), (2, 2)]));
    // An allow list counts whom it does not name.
    node.change(|snapshot, _| snapshot.filter = vec![observe(3, FilterAction::Allow, "127.0.0.0/8")]);
    node.get_ok(&config).await;
    assert_eq!(counted(&node), BTreeMap::new());
    node.shake_v6(&config).await.unwrap();
    assert_eq!(counted(&node), BTreeMap::from([(3, 1)]));
    // In force it refuses, and observes nothing.
    node.change(|snapshot, _| snapshot.filter[0].mode = FilterMode::Enforce);
    node.get_ok(&config).await;
    assert!(node.shake_v6(&config).await.is_err());
    assert_eq!(counted(&node), BTreeMap::new());
}

#[tokio::test]
async fn a_balancers_clients_are_counted_by_rules_that_would_deny_them() {
    let mut node = Node::start(|snapshot, _| {
        snapshot.listeners[0].proxy_protocol =
            vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        snapshot.filter = vec![
            observe(1, FilterAction::Deny, "192.0.2.0/24"),
            observe(2, FilterAction::Deny, "2001:db8::/32"),
        ];
    })
    .await;
    let config = client(&node.pki.ca);
    let v4 = "PROXY TCP4 192.0.2.1 192.0.2.200 40000 443\r\n";
    let v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n";
    let other = "PROXY TCP4 198.51.100.1 192.0.2.200 40000 443\r\n";
    let own = "PROXY UNKNOWN\r\n";
    for header in [v4, v6, other, own] {
        served(&node, &config, header).await;
    }
    let both = BTreeMap::from([(1, 1), (2, 1)]);
    assert_eq!(counted(&node), both);
    // Allow lists are about balancers: one that is in force changes nothing, one that is observed counts no client.
    let allow = || observe(3, FilterAction::Allow, "127.0.0.0/8");
    for rule in [enforce(allow()), allow()] {
        node.change(|snapshot, _| {
            snapshot.filter.truncate(2);
            snapshot.filter.push(rule);
        });
        for header in [v4, v6, other, own] {
            served(&node, &config, header).await;
        }
        assert_eq!(counted(&node), both);
    }
    // What would refuse the balancer counts each connection once, whoever is behind it.
    node.change(|snapshot, _| snapshot.filter.push(observe(4, FilterAction::Deny, "127.0.0.0/8")));
    for header in [v4, v6, other, own] {
        served(&node, &config, header).await;
    }
    assert_eq!(counted(&node), BTreeMap::from([(4, 4)]));
}
