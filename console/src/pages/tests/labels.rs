//! Other labels of a node: they decide which packet filters it has.

use axum::http::StatusCode;
use model::labels::Labels;
use serde_json::json;

use super::assert_clean;
use super::browser::Browser;
use crate::ops::{Actor, Changes, PublishOptions};
use crate::testing::object;

/// A sample whose nodes of `role=bar` deny the shop's clients, and one's own link where `too` names it.
async fn with_filter(too: &[&str]) -> Browser {
    let browser = Browser::with_sample().await;
    let prefixes: Vec<&str> = ["203.0.113.0/24", "2001:db8:c::/48"].iter().chain(too).copied().collect();
    let spec = json!({ "nodeSelector": { "matchLabels": { "role": "bar" } },
                       "rules": [{ "name": "cloud", "action": "Deny", "prefixes": prefixes }] });
    let options = PublishOptions { confirm: true, ..PublishOptions::default() };
    let changes = Changes::put(object("PacketFilter", "night", spec));
    browser.state.ops.publish(changes, &Actor::console(), options).await.unwrap();
    browser
}

async fn labels(browser: &Browser, node: &str) -> String {
    let nodes = browser.state.ops.nodes().await.unwrap();
    format!("{:?}", nodes.iter().find(|one| one.name == node).unwrap().labels)
}

#[tokio::test]
async fn labels_that_change_the_filter_are_shown_with_what_they_do_first() {
    let browser = with_filter(&[]).await;
    let others = browser.submit("/nodes/fra-1/labels", &[("labels", "zone=fra tier=edge")]).await;
    assert_eq!(others.location, "/nodes/fra-1", "the filter stays the same");
    let review = browser.submit("/nodes/fra-1/labels", &[("labels", "role=bar zone=fra")]).await;
    assert_eq!(review.status, StatusCode::OK);
    assert_clean("/nodes/fra-1/labels", &review.body);
    let said = "it would have dropped about 40,960 packets of 2 sources that pass today";
    assert!(review.body.contains(said) && review.body.contains("night/cloud"), "{}", review.body);
    assert!(review.body.contains("name=\"labels\" value=\"role=bar zone=fra\""), "{}", review.body);
    assert!(!review.body.contains("type=\"checkbox\" name=\"confirm\" value=\"on\" required><span>I have"));
    assert!(labels(&browser, "fra-1").await.contains("edge"), "nothing has changed yet");
    // Somebody who writes others into the field has not read about those.
    let other = [("labels", "role=bar"), ("reviewed", "role=bar zone=fra")];
    assert_eq!(browser.submit("/nodes/fra-1/labels", &other).await.status, StatusCode::OK);
    let read = [("labels", "zone=fra role=bar"), ("reviewed", "role=bar zone=fra")];
    assert_eq!(browser.submit("/nodes/fra-1/labels", &read).await.location, "/nodes/fra-1");
    assert!(labels(&browser, "fra-1").await.contains("bar"));
    let page = browser.get("/nodes/fra-1").await.body;
    assert!(page.contains("Listeners and packet filters choose nodes by labels"), "{page}");
}

#[tokio::test]
async fn labels_that_shut_out_need_the_tick_box() {
    let browser = with_filter(&["10.0.0.0/8"]).await;
    browser.state.ops.links().opened("fra-1", ["10.1.2.3".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
    let review = browser.submit("/nodes/fra-1/labels", &[("labels", "role=bar"), ("confirm", "on")]).await;
    assert_eq!(review.status, StatusCode::OK, "a tick before the question is no answer to it");
    assert_clean("/nodes/fra-1/labels", &review.body);
    let said = "rule cloud would drop 10.1.2.3, which node fra-1 and this console use to reach each other; leave the address out, or \
                confirm that you mean it</li>";
    assert!(review.body.contains(said) && review.body.contains("name=\"confirm\""), "{}", review.body);
    let mut fields = vec![("labels", "role=bar"), ("reviewed", "role=bar")];
    assert_eq!(browser.submit("/nodes/fra-1/labels", &fields).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let enrolling = [("name", "fra-1"), ("labels", "role=bar")];
    let refused = browser.submit("/nodes", &enrolling).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_clean("/nodes", &refused.body);
    assert!(refused.body.contains("rule cloud would drop 10.1.2.3") && !refused.body.contains("sallyport1."));
    assert!(!labels(&browser, "fra-1").await.contains("bar"));
    fields.push(("confirm", "on"));
    assert_eq!(browser.submit("/nodes/fra-1/labels", &fields).await.location, "/nodes/fra-1");
    assert!(labels(&browser, "fra-1").await.contains("bar"));
    browser.submit("/nodes/fra-1/labels", &[("labels", "zone=fra"), ("reviewed", "zone=fra")]).await;
    let read = [("reviewed_name", "fra-1"), ("reviewed", "role=bar"), ("confirm", "on")];
    let confirmed = [&enrolling[..], &read].concat();
    assert!(browser.submit("/nodes", &confirmed).await.body.contains("sallyport1."));
}

#[tokio::test]
async fn labels_that_are_all_taken_away_are_reviewed_too() {
    let browser = Browser::with_sample().await;
    let rule = json!({ "name": "cloud", "action": "Deny", "prefixes": ["203.0.113.0/24", "10.0.0.0/8"] });
    let allow = json!({ "name": "known", "action": "Allow", "priority": 10, "prefixes": ["203.0.113.0/24", "10.0.0.0/8"] });
    let edge = json!({ "nodeSelector": { "matchLabels": { "tier": "edge" } }, "rules": [allow] });
    let put = vec![
        object("PacketFilter", "night", json!({ "rules": [rule] })),
        object("PacketFilter", "known", edge),
    ];
    let options = PublishOptions { confirm: true, ..PublishOptions::default() };
    let changes = Changes { put, ..Changes::default() };
    browser.state.ops.publish(changes, &Actor::console(), options).await.unwrap();
    let tier = Labels::parse(["tier=edge"]).unwrap();
    browser.state.ops.label_node("fra-1", &tier, true, &Actor::console()).await.unwrap();
    browser.state.ops.links().opened("fra-1", ["10.1.2.3".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
    assert!(labels(&browser, "fra-1").await.contains("edge"));
    let unread = [("labels", ""), ("confirm", "on")];
    let review = browser.submit("/nodes/fra-1/labels", &unread).await;
    assert_eq!(review.status, StatusCode::OK);
    assert!(review.body.contains("rule cloud would drop 10.1.2.3"), "{}", review.body);
    assert!(review.body.contains("name=\"reviewed\" value=\"\""), "{}", review.body);
    assert!(labels(&browser, "fra-1").await.contains("edge"), "nobody has read what it does");
    let read = [("labels", ""), ("reviewed", ""), ("confirm", "on")];
    assert_eq!(browser.submit("/nodes/fra-1/labels", &read).await.location, "/nodes/fra-1");
    assert!(!labels(&browser, "fra-1").await.contains("edge"));
}

#[tokio::test]
async fn a_tick_beside_the_enrolment_confirms_what_was_read_and_nothing_else() {
    let browser = with_filter(&["10.0.0.0/8"]).await;
    for node in ["fra-1", "fra-2"] {
        browser.state.ops.links().opened(node, ["10.1.2.3".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
    }
    let asked = browser.submit("/nodes", &[("name", "fra-1"), ("labels", "role=bar")]).await;
    for (field, value) in [("reviewed_name", "fra-1"), ("reviewed", "role=bar")] {
        let hidden = format!("<input type=\"hidden\" name=\"{field}\" value=\"{value}\">");
        assert!(asked.body.contains(&hidden), "{}", asked.body);
    }
    let read = [("reviewed_name", "fra-1"), ("reviewed", "role=bar"), ("confirm", "on")];
    for (name, given, read) in [
        ("fra-2", "role=bar", &read[..]),
        ("fra-1", "role=bar zone=fra", &read[..]),
        ("fra-1", "role=bar", &read[2..]),
    ] {
        let fields = [&[("name", name), ("labels", given)][..], read].concat();
        let again = browser.submit("/nodes", &fields).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "{fields:?}");
        assert!(again.body.contains("rule cloud would drop 10.1.2.3"), "{fields:?}: {}", again.body);
        assert!(!labels(&browser, name).await.contains("bar"), "{fields:?}");
    }
}
