//! Pages through the whole stack: routes, sessions, operations, a database of their own.

mod browser;
mod flows;
mod labels;
mod lists;
mod many;
mod sample;

use axum::http::StatusCode;
use model::report::Place;

use browser::Browser;

/// Every page without an object in its address.
const PAGES: [&str; 22] = [
    "/",
    "/?range=24h",
    "/routes",
    "/routes/new",
    "/origins",
    "/origins/new",
    "/certificates",
    "/certificates/new",
    "/trust-bundles",
    "/trust-bundles/new",
    "/listeners",
    "/listeners/new",
    "/packet-filter",
    "/packet-filter/new",
    "/prefix-sets",
    "/prefix-sets/new",
    "/sources",
    "/sources?sort=drops&dir=desc&q=fra-1",
    "/flows",
    "/flows?verdict=drop&port=x&source=1.2.3.4/8",
    "/nodes",
    "/changes",
];

/// What the strict policy would block must not be written in the first place.
fn assert_clean(path: &str, html: &str) {
    assert!(html.starts_with("<!doctype html>"), "{path}");
    for forbidden in [" style=", "<style", "javascript:", " onclick=", " onload=", "http://", "{{", "{%"] {
        let html =
            html.replace("http://www.w3.org", "").replace("http:// origins", "").replace("http:// in", "");
        let html = html.replace("http://legacy.internal", "");
        assert!(!html.contains(forbidden), "{path} has {forbidden}");
    }
    assert_eq!(html.matches("<script").count(), html.matches("<script src=\"/static/").count(), "{path}");
    assert_eq!(html.matches("<h1").count(), 1, "{path}");
    for form in html.split("<form").skip(1) {
        let form = form.split("</form>").next().unwrap_or_default();
        let public = form.contains("action=\"/login\"") || form.contains("action=\"/setup\"");
        assert!(
            !form.contains("method=\"post\"") || public || form.contains("name=\"csrf\""),
            "{path}: {form}"
        );
    }
}

#[tokio::test]
async fn nobody_looks_without_signing_in() {
    let browser = Browser::stranger().await;
    for path in PAGES.into_iter().chain(["/routes/a", "/nodes/a", "/changes/1", "/events"]) {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(answer.location.starts_with("/login"), "{path}");
    }
    assert_eq!(browser.get("/login").await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_page_when_there_is_nothing_yet() {
    let browser = Browser::administrator().await;
    for path in PAGES {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_clean(path, &answer.body);
        assert!(answer.policy.starts_with("default-src 'none'"), "{path}");
    }
}

#[tokio::test]
async fn every_page_with_things_on_it() {
    let browser = Browser::with_sample().await;
    let details = [
        "/routes/shop",
        "/origins/billing",
        "/certificates/shop-2027",
        "/trust-bundles/company-ca",
        "/listeners/https",
        "/packet-filter/edge",
        "/prefix-sets/cloud-a",
        "/nodes/fra-1",
        "/changes/1",
        "/changes/2?with=1",
    ];
    for path in PAGES.into_iter().chain(details) {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        assert_clean(path, &answer.body);
    }
}

/// An open page takes over the parts that it has: what there is nothing of yet has its part already.
#[tokio::test]
async fn what_comes_while_a_page_is_open_has_a_place_on_it() {
    let (empty, full) = (Browser::administrator().await, Browser::with_sample().await);
    let live = |html: &str| -> Vec<String> {
        let tags = html.split('<').filter(|tag| tag.contains(" data-live"));
        tags.map(|tag| tag.split_once("id=\"").unwrap().1.split('"').next().unwrap().to_owned()).collect()
    };
    for path in ["/packet-filter", "/sources", "/flows"] {
        let [before, after] = [empty.get(path).await.body, full.get(path).await.body].map(|html| live(&html));
        assert_eq!(before, after, "{path}");
    }
}

#[tokio::test]
async fn a_rule_that_is_only_observed_says_so() {
    let browser = Browser::with_sample().await;
    let page = browser.get("/packet-filter").await.body;
    assert_eq!(page.matches("observed only").count(), 1);
    assert!(page.contains("set cloud-a, set bogons") && page.contains("TCP 3306, 8000-8010"), "{page}");
    let sets = browser.get("/prefix-sets").await.body;
    assert!(sets.contains("/packet-filter/edge") && sets.contains("<strong>bogons</strong>"), "{sets}");
}

/// A connection's packets are counted already: the two are not added up.
#[tokio::test]
async fn hits_are_packets_and_connections_stand_beside_them() {
    let browser = Browser::with_sample().await;
    let page = browser.get("/packet-filter").await.body;
    let drops = browser.state.ops.drops(std::time::Duration::from_secs(3_600)).await.unwrap();
    let count = |place| {
        let mine =
            drops.iter().filter(|one| one.rule.as_deref() == Some("edge/probes") && one.place == place);
        mine.map(|one| one.count).sum::<u64>()
    };
    let (packets, connections) = (count(Place::Kernel), count(Place::Proxy));
    assert!(packets > connections && connections > 1, "{packets}, {connections}");
    assert!(page.contains(&format!("data-sort=\"{packets}\"><span data-label=\"packets\">")), "{page}");
    assert!(page.contains(&format!(">{connections} connections</span>")), "{page}");
}

#[tokio::test]
async fn a_setup_link_that_is_none_says_what_to_do() {
    let mut browser = Browser::stranger().await;
    let answer = browser.get("/setup?token=guess").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("each start of the console prints another"), "{}", answer.body);
    assert_clean("/setup", &answer.body);
    browser = Browser::administrator().await;
    let answer = browser.get("/setup?token=used").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let said = ["it works once", "sallyport user reset NAME", "action=\"/login\""];
    assert!(said.iter().all(|words| answer.body.contains(words)), "{}", answer.body);
}

#[tokio::test]
async fn who_is_sending_is_told_by_source_and_node() {
    let browser = Browser::with_sample().await;
    let page = browser.get("/sources").await.body;
    // Most packets first; a node's figures stand for themselves.
    let first = page.find("203.0.113.9").unwrap();
    assert!(first < page.find("2001:db8:c::17").unwrap(), "{page}");
    assert!(page.contains("TCP 8443 (https)") && page.contains("1.5 MB"), "{page}");
    assert!(page.contains("in busy times one packet in 8 was looked at"), "{page}");
    assert!(page.find("Figures are estimates").unwrap() < first, "{page}");
    assert!(
        page.contains("/sources?sort=drops&#38;dir=desc\"")
            && page.contains("/sources?sort=node&#38;dir=asc\"")
    );
    assert!(
        page.contains("every packet was looked at") && page.contains("its packet filter is off"),
        "{page}"
    );
    let dropped = browser.get("/sources?sort=drops&dir=desc&q=fra-1").await.body;
    assert!(dropped.find("198.51.100.23").unwrap() < dropped.find("203.0.113.9").unwrap(), "{dropped}");
    assert!(!dropped.contains("<a href=\"/nodes/fra-3\">fra-3</a></td>"), "{dropped}");
}

#[tokio::test]
async fn a_review_says_what_the_filter_would_have_done() {
    let browser = Browser::with_sample().await;
    let csrf = browser.get("/packet-filter/new").await.csrf().to_owned();
    let fields = [
        ("csrf", csrf.as_str()),
        ("name", "night"),
        ("rule.0.name", "cloud"),
        ("rule.0.action", "Deny"),
        ("rule.0.mode", "Enforce"),
        ("rule.0.prefixes", "203.0.113.0/24 2001:db8:c::/48"),
        ("step", "review"),
    ];
    let page = browser.post("/packet-filter/new", &fields).await.body;
    assert_clean("/packet-filter/new", &page);
    assert!(
        page.contains("it would have dropped about 40,960 packets of 2 sources that pass today"),
        "{page}"
    );
    assert!(page.contains("Figures are estimates"), "{page}");
    assert!(page.contains("Nothing is recorded on node fra-2: its packet filter is off."), "{page}");
    assert!(page.contains("<a href=\"/routes/shop\">shop</a>") && page.contains("night/cloud"), "{page}");
    // Of budgets it says that it is not known, and nothing of packets where nothing else changes.
    let unknown = "What the budgets would have done in the last hour is not predicted";
    assert!(!page.contains(unknown), "{page}");
    let fields = [
        ("csrf", csrf.as_str()),
        ("name", "calm"),
        ("budget.udp.rate", "1000"),
        ("budget.udp.mode", "Enforce"),
        ("step", "review"),
    ];
    let page = browser.post("/packet-filter/new", &fields).await.body;
    assert!(page.contains(unknown) && !page.contains("it would have dropped"), "{page}");
    // What is no change of the filter has no such section.
    let other = [("csrf", csrf.as_str()), ("name", "x"), ("prefixes", "192.0.2.0/24"), ("step", "review")];
    let page = browser.post("/prefix-sets/new", &other).await.body;
    assert!(page.contains("What will be published") && !page.contains("id=\"effect\""), "{page}");
}

#[tokio::test]
async fn what_is_not_there() {
    let browser = Browser::administrator().await;
    for path in ["/nowhere", "/routes/none", "/nodes/none", "/changes/99", "/changes/x", "/certificates/none"]
    {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.body.contains("Not here"), "{path}");
        assert_clean(path, &answer.body);
    }
}

#[tokio::test]
async fn the_overview_tells_the_legs_apart() {
    let browser = Browser::with_sample().await;
    let body = browser.get("/").await.body;
    assert!(body.contains("encrypted, seen on traffic: </span>TLS 1.3 · shop-origin.internal"));
    assert!(body.contains("not safe: </span>clear text · billing"));
    assert!(body.contains("configured, no traffic yet: </span>TLS · tenants"));
    assert!(body.contains("class=\"area teal\""));
}

#[tokio::test]
async fn tables_keep_their_state_in_the_url() {
    let browser = Browser::with_sample().await;
    let body = browser.get("/routes?q=shop&sort=rate&dir=desc").await.body;
    assert!(body.contains("shop.example.com") && !body.contains("id.example.com"));
    assert!(body.contains("/routes?q=shop&#38;sort=rate&#38;dir=asc"));
    assert!(body.contains("aria-sort=\"descending\""));
}
