//! Pages with 10,000 routes and 10,000 certificates: each in under 50 ms (a release build; `docs/benchmarks.md`).

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use model::draft::Object;
use serde_json::json;

use super::browser::Browser;
use crate::ops::{Actor, Changes, PublishOptions};
use crate::testing::object;

/// Routes, and as many certificates.
const MANY: usize = 10_000;
/// Of each page, after one that warms the caches.
const ASKED: usize = 11;
/// What a page may take.
const PATIENCE: Duration = Duration::from_millis(50);

fn objects() -> Vec<Object> {
    let mut all =
        vec![object("OriginGroup", "shop", json!({ "origins": [{ "url": "https://shop.internal" }] }))];
    for n in 0..MANY {
        let (name, host) = (format!("t{n}"), format!("t{n}.example.com"));
        all.push(object("Certificate", &name, json!({ "internalCa": { "hostnames": [host] } })));
        let route = json!({ "hostnames": [host], "certificate": name, "originGroup": "shop" });
        all.push(object("Route", &name, route));
    }
    all
}

#[tokio::test]
#[ignore = "takes a minute and only says something in release: cargo test --release -p sallyport --lib many -- --ignored --nocapture"]
async fn pages_with_ten_thousand_routes_and_certificates_are_fast() {
    let browser = Browser::administrator().await;
    let options = PublishOptions { confirm: true, ..PublishOptions::default() };
    let begin = Instant::now();
    let changes = Changes { put: objects(), ..Changes::default() };
    browser.state.ops.publish(changes, &Actor::console(), options.clone()).await.unwrap();
    println!("publishing {MANY} routes with as many certificates: {} ms", begin.elapsed().as_millis());
    let one = Changes::put(object("Listener", "more", json!({ "port": 9443 })));
    let begin = Instant::now();
    browser.state.ops.publish(one, &Actor::console(), options).await.unwrap();
    println!("publishing one more object: {} ms", begin.elapsed().as_millis());
    let mut slow = Vec::new();
    println!("median ms  worst ms  bytes  page");
    for path in [
        "/",
        "/routes",
        "/routes?page=60",
        "/routes?q=t777",
        "/routes?sort=name&dir=desc",
        "/routes/t5000",
        "/routes/new",
        "/certificates",
        "/certificates?page=60",
        "/certificates?q=t777",
        "/certificates/t5000",
        "/origins",
        "/origins/shop",
        "/trust-bundles",
        "/listeners",
        "/listeners/https",
        "/packet-filter",
        "/nodes",
        "/changes",
        "/changes?q=t777",
        "/changes/2",
        "/changes/3",
        "/changes/3?with=2",
    ] {
        let first = browser.get(path).await;
        assert_eq!(first.status, StatusCode::OK, "{path}");
        let mut times = Vec::new();
        for _ in 0..ASKED {
            let begin = Instant::now();
            browser.get(path).await;
            times.push(begin.elapsed());
        }
        times.sort();
        let (median, worst) = (times[ASKED / 2], times[ASKED - 1]);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{:9.1}  {:8.1}  {:7}  {path}", ms(median), ms(worst), first.body.len());
        if median > PATIENCE {
            slow.push(path);
        }
    }
    assert!(slow.is_empty(), "over {} ms: {slow:?}", PATIENCE.as_millis());
}
