//! Other labels of a node: they decide which packet filters it has.

use axum::http::StatusCode;
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
    let confirmed = [enrolling[0], enrolling[1], ("confirm", "on")];
    assert!(browser.submit("/nodes", &confirmed).await.body.contains("sallyport1."));
}
