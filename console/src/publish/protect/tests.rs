use model::draft::Object;
use model::labels::Labels as Given;
use serde_json::json;

use crate::ops::{Actor, Changes, Ops, PublishOptions, Role};
use crate::testing::{Directory, object, operator, publish, shop};

fn filter(role: &str, rule: serde_json::Value) -> Object {
    let selector = json!({ "matchLabels": { "role": role } });
    let mut rule = rule;
    rule["name"] = json!("r");
    object("PacketFilter", role, json!({ "nodeSelector": selector, "rules": [rule] }))
}

fn deny(prefix: &str) -> serde_json::Value {
    json!({ "action": "Deny", "prefixes": [prefix] })
}

fn labels(text: &str) -> Given {
    Given::parse(text.split_whitespace()).unwrap()
}

/// The operator of [`operator`], with the role that labels need.
fn administrator() -> Actor {
    Actor { role: Role::Administrator, ..operator() }
}

async fn confirmed(ops: &Ops, put: Vec<Object>) {
    let options = PublishOptions { confirm: true, ..PublishOptions::default() };
    ops.publish(Changes { put, ..Changes::default() }, &operator(), options).await.unwrap();
}

async fn asked(ops: &Ops, put: Vec<Object>) -> Vec<String> {
    let review = ops.plan(&Changes { put, ..Changes::default() }, &operator()).await.unwrap();
    assert_eq!(review.problems, []);
    review.confirmations.into_iter().map(|problem| problem.message).collect()
}

#[tokio::test]
async fn labels_that_give_a_node_a_filter_which_shuts_out_are_asked_about() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let admin = administrator();
    ops.enrol_node("x", &labels("role=a"), false, &admin).await.unwrap();
    // Nobody was connected from there when it was published.
    publish(&ops, vec![filter("b", deny("10.0.0.0/8"))]).await.unwrap();
    ops.links().opened("x", ["10.1.2.3".parse().unwrap(), "203.0.113.1".parse().unwrap()]);
    let before = ops.current().id;
    let other = labels("role=b");
    let refused = ops.label_node("x", &other, false, &admin).await.unwrap_err();
    let said = "rule r would drop 10.1.2.3, which node x and this console use to reach each other; leave the address out, or \
                confirm that you mean it (the tick box beside the labels, --yes on the command line, \"confirm\": true in the API)";
    assert!(refused.needs_confirmation() && refused.to_string().contains(said), "{refused}");
    let refused = ops.enrol_node("x", &other, false, &admin).await.unwrap_err();
    assert!(refused.needs_confirmation(), "{refused}");
    let review = ops.plan_labels("x", &other, &admin).await.unwrap();
    assert_eq!(review.confirmations.len(), 1);
    let effect = review.effect.unwrap();
    assert!(effect.words[0].starts_with("Nothing is recorded on node x"), "{effect:?}");
    // Nothing has changed so far.
    assert_eq!((ops.current().id, &ops.nodes().await.unwrap()[0].labels["role"][..]), (before, "a"));
    ops.label_node("x", &other, true, &admin).await.unwrap();
    assert_eq!(ops.nodes().await.unwrap()[0].labels["role"], "b");
    // What is so already does not ask again, nor does what lets go.
    for fine in ["role=b zone=fra", "role=a", "zone=fra"] {
        assert_eq!(ops.plan_labels("x", &labels(fine), &admin).await.unwrap().confirmations, [], "{fine}");
        ops.label_node("x", &labels(fine), false, &admin).await.unwrap();
    }
    // A new node has nothing yet that it could lose.
    ops.enrol_node("y", &other, false, &admin).await.unwrap();
}

#[tokio::test]
async fn labels_are_asked_about_for_the_person_and_for_what_another_filter_let_through() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let admin = administrator();
    // Two that each ask when they are published, and one that lets through what the first denies.
    let allow = json!({ "action": "Allow", "prefixes": ["192.0.2.0/24"], "priority": 10 });
    let ssh = json!({ "action": "Allow", "prefixes": ["198.51.100.0/24"], "ports": ["22"] });
    let b = object(
        "PacketFilter",
        "b",
        json!({ "nodeSelector": { "matchLabels": { "role": "b" } },
                "rules": [{ "name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"] }] }),
    );
    let c = object(
        "PacketFilter",
        "c",
        json!({ "nodeSelector": { "matchLabels": { "office": "yes" } },
                "rules": [{ "name": "r", "action": allow["action"], "prefixes": allow["prefixes"], "priority": 10 }] }),
    );
    confirmed(&ops, vec![b, c, filter("d", ssh)]).await;
    ops.enrol_node("x", &labels("role=b office=yes"), false, &admin).await.unwrap();
    for (text, part) in [
        ("role=b", "rule r would drop your own address 192.0.2.10"),
        ("role=d", "would let only its own prefixes reach port 22, and not your own address"),
    ] {
        let review = ops.plan_labels("x", &labels(text), &admin).await.unwrap();
        let said: Vec<&str> = review.confirmations.iter().map(|problem| &*problem.message).collect();
        assert!(said.len() == 1 && said[0].contains(part), "{text}: {said:?}");
    }
    // So is the removal of what lets through, where a node has both.
    let remove = Changes::remove(model::draft::Kind::PacketFilter, "c");
    assert_eq!(ops.plan(&remove, &operator()).await.unwrap().confirmations.len(), 1);
}

#[tokio::test]
async fn the_console_s_own_ports_are_asked_about_whatever_listens_there() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    ops.links().serves([9443, 9444]);
    ops.links().opened("x", ["203.0.113.7".parse().unwrap(), "203.0.113.1".parse().unwrap()]);
    let listener = |port: u16| {
        object("Listener", &format!("l{port}"), json!({ "port": port, "addresses": ["198.51.100.9"] }))
    };
    publish(&ops, vec![listener(9443), listener(9444)]).await.unwrap();
    let at = |prefix: &str, port: &str| json!({ "action": "Deny", "prefixes": [prefix], "ports": [port] });
    for (rule, part) in [
        (at("192.0.2.10/32", "9443"), "drop what comes to port 9443 from your own address"),
        (at("203.0.113.7/32", "9444"), "drop what comes to port 9444 from 203.0.113.7, which node x"),
    ] {
        let said = asked(&ops, vec![filter("a", rule)]).await;
        assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
    }
    // Whom other listeners turn away is what rules are for.
    assert_eq!(asked(&ops, vec![filter("a", at("192.0.2.10/32", "8443"))]).await, [""; 0]);
}

#[tokio::test]
async fn only_listeners_of_the_nodes_in_question_are_left_out() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let elsewhere = json!({ "port": 7000, "nodeSelector": { "matchLabels": { "role": "edge" } } });
    publish(&ops, vec![object("Listener", "edge", elsewhere)]).await.unwrap();
    let rule = || json!({ "action": "Deny", "prefixes": ["192.0.2.10/32"], "ports": ["7000"] });
    assert_eq!(asked(&ops, vec![filter("edge", rule())]).await, [""; 0]);
    let said = asked(&ops, vec![filter("other", rule())]).await;
    assert!(said.len() == 1 && said[0].contains("port 7000 from your own address"), "{said:?}");
}

/// A node that is known, with such labels and the ends of its link.
async fn linked(ops: &Ops, name: &str, given: &str, ends: &[&str]) {
    ops.enrol_node(name, &labels(given), true, &administrator()).await.unwrap();
    ops.links().opened(name, ends.iter().map(|end| end.parse().unwrap()));
}

#[tokio::test]
async fn a_node_s_link_keeps_only_its_own_filters_from_changing() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    linked(&ops, "x", "role=a zone=1", &["203.0.113.7", "203.0.113.1", "10.1.2.3", "198.51.100.66"]).await;
    // It comes first and is of the same kind.
    linked(&ops, "o", "role=a zone=0", &["203.0.113.8", "203.0.113.1"]).await;
    linked(&ops, "y", "role=b", &["203.0.113.9", "203.0.113.1"]).await;
    for end in ["203.0.113.7/32", "10.1.2.3/32", "198.51.100.66/32"] {
        assert_eq!(asked(&ops, vec![filter("b", deny(end))]).await, [""; 0], "{end}");
        let said = asked(&ops, vec![filter("a", deny(end))]).await;
        assert!(said.len() == 1 && said[0].contains("which node x and this console"), "{end}: {said:?}");
    }
    // The console's address is an end of every link.
    let said = asked(&ops, vec![filter("b", deny("203.0.113.1/32"))]).await;
    assert!(said.len() == 1 && said[0].contains("which node y and"), "{said:?}");
    // Of no node, and of one whose labels nobody knows: it may have any filter.
    assert_eq!(asked(&ops, vec![filter("c", deny("10.1.2.3/32"))]).await, [""; 0]);
    ops.links().opened("z", ["198.18.0.77".parse().unwrap(), "203.0.113.1".parse().unwrap()]);
    let said = asked(&ops, vec![filter("c", deny("198.18.0.77/32"))]).await;
    assert!(said.len() == 1 && said[0].contains("which node z and"), "{said:?}");
}

#[tokio::test]
async fn other_labels_of_a_node_are_asked_about_for_its_own_link() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    publish(&ops, vec![filter("b", deny("10.1.2.3/32"))]).await.unwrap();
    linked(&ops, "x", "role=a", &["203.0.113.7", "203.0.113.1", "10.1.2.3"]).await;
    linked(&ops, "y", "role=a", &["203.0.113.9", "203.0.113.1"]).await;
    let asked = async |node: &str| {
        ops.plan_labels(node, &labels("role=b"), &administrator()).await.unwrap().confirmations.len()
    };
    assert_eq!((asked("y").await, asked("x").await), (0, 1));
}

#[tokio::test]
async fn the_filter_on_the_console_s_machine_is_asked_about_every_node_s_address() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    linked(&ops, "x", "role=a", &["203.0.113.7", "203.0.113.1", "198.51.100.66"]).await;
    for ends in [&["127.0.0.1", "127.0.0.1"][..], &["203.0.113.1", "203.0.113.1"], &["203.0.113.1"]] {
        linked(&ops, "here", "role=b", ends).await;
        let said = asked(&ops, vec![filter("b", deny("203.0.113.7/32"))]).await;
        assert!(said.len() == 1 && said[0].contains("which node x and"), "{ends:?}: {said:?}");
        // What that node says of itself is nothing to this one.
        assert_eq!(asked(&ops, vec![filter("b", deny("198.51.100.66/32"))]).await, [""; 0], "{ends:?}");
        assert_eq!(asked(&ops, vec![filter("c", deny("203.0.113.7/32"))]).await, [""; 0], "{ends:?}");
    }
    // One that is shut out comes back from nowhere, also where its link was opened at that moment.
    ops.revoke_node("x", &administrator()).await.unwrap();
    ops.links().opened("x", ["203.0.113.7".parse().unwrap(), "203.0.113.1".parse().unwrap()]);
    assert_eq!(asked(&ops, vec![filter("b", deny("203.0.113.7/32"))]).await, [""; 0]);
}
