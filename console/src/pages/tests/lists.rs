//! Prefix sets as long as they may be, through their form.

use std::fmt::Write as _;

use axum::http::StatusCode;
use model::draft::{Kind, Spec};

use super::assert_clean;
use super::browser::Browser;
use crate::ops::{Actor, Changes, PublishOptions};
use crate::testing::object;

/// As many as a set may have, half of each family.
const MOST: usize = 100_000;

fn prefix(n: usize) -> String {
    match n % 2 {
        0 => format!("10.{}.{}.0/24", n / 2 / 256, n / 2 % 256),
        _ => format!("2001:db8:1234:5678:9abc:def0:{:x}:{:x}/128", n >> 16, n & 0xffff),
    }
}

async fn prefixes(browser: &Browser, name: &str) -> usize {
    let stored = browser.state.ops.get(Kind::PrefixSet, name).await.unwrap().unwrap();
    let Spec::PrefixSet(spec) = stored.object.spec else { unreachable!() };
    spec.prefixes.len()
}

#[tokio::test]
async fn a_set_of_the_most_prefixes_is_reviewed_and_published_with_the_form() {
    let browser = Browser::administrator().await;
    let all: Vec<String> = (0..MOST).map(prefix).collect();
    let put = Changes::put(object("PrefixSet", "most", serde_json::json!({ "prefixes": all })));
    let options = PublishOptions { confirm: true, ..PublishOptions::default() };
    browser.state.ops.publish(put, &Actor::console(), options).await.unwrap();
    assert_eq!(prefixes(&browser, "most").await, MOST);
    // Opened, and reviewed as it came: nothing changes.
    let form = browser.get("/prefix-sets/most").await;
    let csrf = form.csrf().to_owned();
    let (_, rest) = form.body.split_once("name=\"prefixes\"").unwrap();
    let text = rest.split_once('>').unwrap().1.split("</textarea>").next().unwrap().trim_start().to_owned();
    assert!(text.len() > 2 << 20, "{}", text.len());
    let typed = text.replace('\n', "\r\n");
    let fields = [("csrf", &*csrf), ("prefixes", &*typed), ("step", "review")];
    for answer in
        [browser.upload("/prefix-sets/most", &fields).await, browser.post("/prefix-sets/most", &fields).await]
    {
        assert_eq!(answer.status, StatusCode::OK, "{}", &answer.body[..answer.body.len().min(2_000)]);
        assert!(answer.body.contains("Nothing changes"));
    }
    // A file in its place: the review carries both on, and publishes.
    let mut file = String::from("[\n");
    for n in (0..120_000).step_by(2) {
        // As lists are: each prefix with more about it.
        let about = "\"region\": \"some-region-of-some-cloud-a\", \"service\": \"SOMETHING\"";
        writeln!(file, "{{\"prefix\": \"{}\", {about}}},", prefix(n)).unwrap();
    }
    file.push_str("{}]");
    assert!(file.len() > 5 << 20, "{}", file.len());
    let fields = [("csrf", &*csrf), ("prefixes", &*typed), ("prefixes_file", &*file), ("step", "review")];
    let review = browser.upload("/prefix-sets/most", &fields).await;
    assert_eq!(review.status, StatusCode::OK, "{}", review.status);
    assert!(review.body.contains("id=\"review\" enctype=\"multipart/form-data\""));
    let mut hidden = review.hidden();
    hidden.push(("step".to_owned(), "publish".to_owned()));
    let hidden: Vec<(&str, &str)> = hidden.iter().map(|(name, value)| (&**name, &**value)).collect();
    let published = browser.upload("/prefix-sets/most", &hidden).await;
    assert_eq!(published.status, StatusCode::SEE_OTHER, "{}", published.status);
    assert_eq!(prefixes(&browser, "most").await, 60_000);
}

#[tokio::test]
async fn a_rule_whose_set_was_never_fetched_says_that_it_is_not_in_force() {
    let browser = Browser::administrator().await;
    let source = serde_json::json!({ "source": { "url": "https://lists.example.com/a.json" } });
    let rules = serde_json::json!({ "rules": [
        { "name": "cloud", "action": "Allow", "prefixSets": ["cloud-b"], "ports": ["443"] },
        { "name": "office", "action": "Allow", "prefixes": ["192.0.2.0/24"], "ports": ["443"] }] });
    let put = vec![object("PrefixSet", "cloud-b", source), object("PacketFilter", "edge", rules)];
    let options = PublishOptions { confirm: true, ..PublishOptions::default() };
    let changes = Changes { put, ..Changes::default() };
    browser.state.ops.publish(changes, &Actor::console(), options).await.unwrap();
    let page = browser.get("/packet-filter").await.body;
    assert_eq!(page.matches("not in force: set cloud-b was never fetched").count(), 1, "{page}");
    assert_eq!(page.matches("<span class=\"state good\">").count(), 1, "{page}");
    // What metrics and flows call them.
    let rules = browser.state.ops.rules();
    assert_eq!(rules.len(), 2);
    for rule in &rules {
        assert!(page.contains(&format!("id {}</span>", rule.id)) && !rule.removed, "{page}");
    }
    let gone = Changes::remove(Kind::PacketFilter, "edge");
    browser.state.ops.publish(gone, &Actor::console(), PublishOptions::default()).await.unwrap();
    assert!(browser.state.ops.rules().iter().all(|rule| rule.removed));
}

#[tokio::test]
async fn a_form_that_is_too_long_is_refused_with_a_page() {
    let browser = Browser::administrator().await;
    let long = "x".repeat(33 << 20);
    for answer in [
        browser.post("/prefix-sets/new", &[("prefixes", &*long)]).await,
        browser.upload("/prefix-sets/new", &[("prefixes", &*long)]).await,
    ] {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_clean("/prefix-sets/new", &answer.body);
        assert!(answer.body.contains("longer than the 32 MiB"), "{}", answer.body);
    }
    // Who is not signed in sends a name and a password, and nothing long.
    let stranger = Browser::stranger().await;
    let answer = stranger.post("/login", &[("name", &long[..70_000])]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.body.contains("longer than the 64 KiB"), "{}", answer.body);
}
