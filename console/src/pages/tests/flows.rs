//! What a person does: add, review, publish, get it wrong, take it back.

use axum::http::StatusCode;
use model::report::{OverBudget, Overload, Report, SynPressure};

use super::browser::{Answer, Browser};
use crate::clock;
use crate::ops::{Actor, Connection};

const ROUTE: [(&str, &str); 7] = [
    ("host", "shop.example.com"),
    ("path", "/"),
    ("source", "internal"),
    ("origin_source", "new"),
    ("origins", "https://origin.internal:8443"),
    ("trust_bundle", "internal"),
    ("enabled", "on"),
];

/// Publishes what a review shows.
async fn publish(browser: &Browser, path: &str, review: &Answer, more: &[(&str, &str)]) -> Answer {
    let hidden = review.hidden();
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.push(("step", "publish"));
    fields.extend(more);
    browser.post(path, &fields).await
}

#[tokio::test]
async fn one_form_makes_a_route_live() {
    let browser = Browser::administrator().await;
    let review = browser.submit("/routes/new", &ROUTE).await;
    assert_eq!(review.status, StatusCode::OK, "{}", review.body);
    for line in [
        "route shop-example-com",
        "certificate shop-example-com",
        "issued by the internal CA for shop.example.com",
        "origin group origin-internal-8443",
        "Becomes revision 2",
    ] {
        assert!(review.body.contains(line), "{line}: {}", review.body);
    }
    assert_eq!(
        browser.get("/routes/shop-example-com").await.status,
        StatusCode::NOT_FOUND,
        "nothing is published yet"
    );
    let done = publish(&browser, "/routes/new", &review, &[("message", "the shop goes live")]).await;
    assert_eq!((done.status, done.location.as_str()), (StatusCode::SEE_OTHER, "/changes/2"), "{}", done.body);
    let change = browser.get("/changes/2").await.body;
    assert!(change.contains("the shop goes live") && change.contains("by admin"));
    assert!(browser.get("/routes").await.body.contains("shop.example.com"));
}

fn other<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = ROUTE.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    kept.chain(changes).copied().collect()
}

#[tokio::test]
async fn another_route_changes_nothing_that_is_stored() {
    let browser = Browser::administrator().await;
    let review = browser.submit("/routes/new", &ROUTE).await;
    publish(&browser, "/routes/new", &review, &[]).await;

    // The same origin under another trust is another group; the host's certificate is the host's.
    let fields = other(&[("path", "/api"), ("trust_bundle", "system")]);
    let review = browser.submit("/routes/new", &fields).await;
    assert_eq!(review.status, StatusCode::OK, "{}", review.body);
    for line in ["route shop-example-com-api", "origin group origin-internal-8443-2"] {
        assert!(review.body.contains(line), "{line}: {}", review.body);
    }
    for kept in ["certificate shop-example-com<", ">~<"] {
        assert!(!review.body.contains(kept), "{kept}: {}", review.body);
    }
    let done = publish(&browser, "/routes/new", &review, &[]).await;
    assert_eq!(done.location, "/changes/3", "{}", done.body);

    // The same settings are the same group.
    let review = browser.submit("/routes/new", &other(&[("host", "two.example.com")])).await;
    assert!(review.body.contains("certificate two-example-com"), "{}", review.body);
    assert!(!review.body.contains("origin group origin-internal-8443-"), "{}", review.body);

    // Host and path that another route has: the compiler's own words, as in API and command line.
    let form = browser.submit("/routes/new", &ROUTE).await;
    assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", form.body);
    assert!(form.body.contains("already has shop.example.com/"), "{}", form.body);

    // A name that was typed is meant.
    let fields =
        other(&[("path", "/v2"), ("trust_bundle", "system"), ("group_name", "origin-internal-8443")]);
    let form = browser.submit("/routes/new", &fields).await;
    assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", form.body);
    assert!(form.body.contains("id=\"group_name-wrong\""), "{}", form.body);
}

#[tokio::test]
async fn a_blank_form_says_what_it_needs() {
    let browser = Browser::administrator().await;
    let form = browser.submit("/routes/new", &other(&[("host", ""), ("origins", " ")])).await;
    assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", form.body);
    for control in ["host-wrong", "origins-wrong"] {
        assert!(form.body.contains(&format!("id=\"{control}\"")), "{control}: {}", form.body);
    }
    for noise in ["name-wrong", "group_name-wrong"] {
        assert!(!form.body.contains(&format!("id=\"{noise}\"")), "{noise}: {}", form.body);
    }
}

#[tokio::test]
async fn nothing_typed_is_lost() {
    let browser = Browser::administrator().await;
    let mut fields = ROUTE.to_vec();
    fields[0] = ("host", "not a_host! <b>");
    fields.push(("response_timeout_ms", "soon"));
    let form = browser.submit("/routes/new", &fields).await;
    assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(form.body.contains("value=\"not a_host! &#60;b&#62;\""));
    assert!(
        form.body.contains("href=\"#response_timeout_ms\"")
            && form.body.contains("id=\"response_timeout_ms-wrong\"")
    );
    fields.pop();
    let form = browser.submit("/routes/new", &fields).await;
    assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        form.body.contains("id=\"host-wrong\"") && form.body.contains("https://origin.internal:8443"),
        "{}",
        form.body
    );
}

#[tokio::test]
async fn back_to_the_form_has_everything() {
    let browser = Browser::administrator().await;
    let review = browser.submit("/routes/new", &ROUTE).await;
    let hidden = review.hidden();
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.push(("step", "edit"));
    let form = browser.post("/routes/new", &fields).await;
    assert_eq!(form.status, StatusCode::OK);
    for typed in ["shop.example.com", "https://origin.internal:8443", "value=\"internal\" checked"] {
        assert!(form.body.contains(typed), "{typed}");
    }
}

#[tokio::test]
async fn a_private_key_never_comes_back() {
    let browser = Browser::administrator().await;
    let issued = rcgen::generate_simple_self_signed(vec!["own.example.com".to_owned()]).unwrap();
    let (chain, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let both = format!("{key}{chain}");
    let fields = [("name", "own"), ("source", "upload"), ("chain", both.as_str())];
    let yaml = browser.submit("/certificates/new", &[&fields[..], &[("step", "yaml")]].concat()).await;
    assert_eq!(yaml.status, StatusCode::OK, "{}", yaml.body);
    assert!(yaml.body.contains("privateKeyRef"));
    let review = browser.submit("/certificates/new", &fields).await;
    assert_eq!(review.status, StatusCode::OK, "{}", review.body);
    let line = key.lines().nth(1).unwrap();
    for page in [&yaml, &review] {
        assert!(!page.body.contains("PRIVATE KEY-----\nM") && !page.body.contains(line));
    }
    let done = publish(&browser, "/certificates/new", &review, &[]).await;
    assert_eq!(done.location, "/changes/2", "{}", done.body);
    let shown = browser.get("/certificates/own").await.body;
    assert!(shown.contains("own.example.com") && !shown.contains(line));
}

#[tokio::test]
async fn a_form_of_another_session_changes_nothing() {
    let browser = Browser::administrator().await;
    let mut fields = ROUTE.to_vec();
    fields.extend([("step", "publish"), ("csrf", "guessed")]);
    assert_eq!(browser.post("/routes/new", &fields).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.post("/logout", &[("csrf", "guessed")]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.get("/changes/2").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn removing_says_what_it_breaks() {
    let browser = Browser::with_sample().await;
    let page = browser.get("/origins/billing").await.body;
    assert!(page.contains("1 route would have no origin: api"), "{page}");
    let review = browser.submit("/origins/billing/remove", &[]).await;
    assert_eq!(review.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(review.body.contains("This cannot be published.") && !review.body.contains("value=\"publish\""));
    let review = browser.submit("/routes/id/remove", &[]).await;
    assert_eq!(review.status, StatusCode::OK);
    let done = publish(&browser, "/routes/id/remove", &review, &[]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
    assert_eq!(browser.get("/routes/id").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn rolling_back_is_reviewed_too() {
    let browser = Browser::with_sample().await;
    let newest = browser.state.ops.status().await.unwrap().revision;
    let review = browser.submit("/changes/1/rollback", &[]).await;
    assert_eq!(review.status, StatusCode::OK, "{}", review.body);
    assert!(
        review.body.contains("Roll back to revision 1")
            && review.body.contains("- </span>") | review.body.contains("class=\"remove\"")
    );
    let done = publish(&browser, "/changes/1/rollback", &review, &[]).await;
    assert_eq!(done.location, format!("/changes/{}", newest + 1), "{}", done.body);
    assert!(browser.get("/routes").await.body.contains("No route yet"));
}

#[tokio::test]
async fn a_name_is_taken() {
    let browser = Browser::with_sample().await;
    let fields = [("name", "https"), ("port", "9999"), ("min_version", "1.3")];
    let form = browser.submit("/listeners/new", &fields).await;
    assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        form.body.contains("the name https is taken by another listener")
            && form.body.contains("value=\"9999\"")
    );
}

#[tokio::test]
async fn a_revision_that_waits_is_kept_from_a_new_connection() {
    let mut browser = Browser::administrator().await;
    browser.over = Some(Connection::accepted());
    let fields = [
        ("name", "more"),
        ("port", "9999"),
        ("min_version", "1.3"),
        ("rollback_after", "5"),
        ("step", "publish"),
    ];
    let published = browser.submit("/listeners/new", &fields).await;
    assert_eq!(published.status, StatusCode::SEE_OTHER, "{}", published.body);
    assert!(
        browser.over.as_ref().is_some_and(Connection::is_closing),
        "the next click comes over another one"
    );
    let keep = format!("{}/confirm", published.location);
    let refused = browser.submit(&keep, &[]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("opened after it was published"), "{}", refused.body);
    let page = browser.get(&published.location).await.body;
    assert!(page.contains("Keep it") && page.contains("nothing else is published"), "{page}");
    // Meanwhile other forms say so, and keep what was typed.
    for step in ["", "publish"] {
        let fields = [("name", "innocent"), ("port", "9998"), ("min_version", "1.3"), ("step", step)];
        let form = browser.submit("/listeners/new", &fields).await;
        assert_eq!(form.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(form.body.contains("waits until") && form.body.contains("value=\"9998\""), "{}", form.body);
        let removal = browser.submit("/listeners/https/remove", &[("step", step)]).await;
        assert!(removal.body.contains("waits until"), "{}", removal.body);
    }
    // Going back is no trial of its own.
    let number = published.location.rsplit('/').next().unwrap().parse::<u64>().unwrap();
    let back = format!("/changes/{}/rollback", number - 1);
    assert!(page.contains(&back), "{page}");
    let again = browser.submit(&back, &[("step", "publish"), ("rollback_after", "2")]).await;
    assert!(again.status == StatusCode::UNPROCESSABLE_ENTITY && again.body.contains("waits until"));
    assert!(browser.submit(&back, &[]).await.body.contains("value=\"publish\""));
    browser.over = None;
    assert_eq!(browser.submit(&keep, &[]).await.location, published.location);
    assert!(!browser.get(&published.location).await.body.contains("Keep it"));
}

#[tokio::test]
async fn a_node_with_too_much_to_do_is_shown_while_it_says_so() {
    let browser = Browser::with_sample().await;
    let ops = &browser.state.ops;
    let (connection, _) = ops.live().connected("fra-1", ([192, 0, 2, 10], 40_000).into(), false);
    let tell = |overload: Option<Overload>| {
        let report = Report { overload, ..Report::default() };
        ops.live().reported("fra-1", connection, clock::now(), report);
    };
    let why = "61 of 64 MiB of memory used".to_owned();
    let words = "new connections are refused by 2 threads and new requests by 1: 61 of 64 MiB of memory used";
    let shown = async || {
        let [node, nodes] = [browser.get("/nodes/fra-1").await.body, browser.get("/nodes").await.body];
        let needs = ops.needs().await.unwrap();
        let needed = needs.iter().any(|need| need.message.contains(words) && need.link == "/nodes/fra-1");
        [node.contains(words), node.contains("overloaded"), nodes.contains(words), needed]
    };
    tell(None);
    assert_eq!(shown().await, [false; 4]);
    let overload = Overload { connections: 2, requests: 1, why };
    tell(Some(overload.clone()));
    assert_eq!(shown().await, [true; 4]);
    tell(None);
    assert_eq!(shown().await, [false; 4]);
    // What it said last is not what is: it is gone.
    tell(Some(overload));
    assert!(ops.live().ended("fra-1", connection));
    assert_eq!(shown().await, [false; 4]);
}

#[tokio::test]
async fn budgets_say_how_nodes_stand_to_them() {
    let browser = Browser::with_sample().await;
    let ops = &browser.state.ops;
    let (connection, _) = ops.live().connected("fra-1", ([192, 0, 2, 10], 40_000).into(), false);
    let shown = async |syn_pressure: Option<SynPressure>| {
        let report = Report { syn_pressure, ..Report::default() };
        ops.live().reported("fra-1", connection, clock::now(), report);
        let page = browser.get("/packet-filter").await.body;
        assert!(page.contains("SYNs of one source") && page.contains("syn-pressure"), "{page}");
        assert!(page.contains("5,000") && page.contains("10,000"), "{page}");
        page
    };
    assert!(!shown(None).await.contains("fra-1: "));
    let pressure = |now, over| Some(SynPressure { now, over });
    for (told, words) in [
        (pressure(false, OverBudget::Cookie), "fra-1: within it"),
        (pressure(true, OverBudget::Cookie), "fra-1: over it, cookies answer"),
        (pressure(true, OverBudget::Drop), "fra-1: over it, the rest is dropped"),
        (pressure(true, OverBudget::Passes), "fra-1: over it, which is only observed"),
    ] {
        assert!(shown(told).await.contains(words), "{words}");
    }
    assert!(ops.live().ended("fra-1", connection));
    assert!(!browser.get("/packet-filter").await.body.contains("fra-1: "), "it is gone");
}

#[tokio::test]
async fn a_node_is_enrolled_with_one_command() {
    let browser = Browser::administrator().await;
    let page = browser.submit("/nodes", &[("name", "fra-9")]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("sallyport1.") && page.body.contains("sallyport-node run --token-file"));
    let refused = browser.submit("/nodes", &[("name", "Not A Name")]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("value=\"Not A Name\"") && refused.body.contains("id=\"name-wrong\""));
    let labelled = browser.submit("/nodes/fra-9/labels", &[("labels", "zone=fra, tier=edge")]).await;
    assert_eq!(labelled.location, "/nodes/fra-9");
    assert!(browser.get("/nodes/fra-9").await.body.contains("value=\"tier=edge zone=fra\""));
    let refused = browser.submit("/nodes/fra-9/labels", &[("labels", "zone")]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    for (act, state, next) in [("drain", "drained", "resume"), ("resume", "waiting for its token", "drain")] {
        let done = browser.submit(&format!("/nodes/fra-9/{act}"), &[]).await;
        assert_eq!(done.location, "/nodes/fra-9");
        assert!(browser.state.ops.nodes().await.unwrap()[0].drained == (act == "drain"));
        let page = browser.get("/nodes/fra-9").await.body;
        assert!(page.contains(&format!("/nodes/fra-9/{next}\"")), "{state}: {page}");
    }
    let revoke = browser.submit("/nodes/fra-9/revoke", &[]).await;
    assert_eq!(revoke.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(browser.submit("/nodes/fra-9/revoke", &[("confirm", "on")]).await.location, "/nodes");
    assert!(browser.get("/nodes/fra-9").await.body.contains("revoked"));
}

#[tokio::test]
async fn signing_in_and_out() {
    let browser = Browser::administrator().await;
    let wrong =
        browser.post("/login", &[("name", "admin"), ("password", "wrong"), ("next", "/routes")]).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert!(wrong.body.contains("name or password is wrong") && wrong.body.contains("value=\"/routes\""));
    let right = [("name", "admin"), ("password", "a long enough password"), ("next", "//evil.test")];
    let begun = browser.post("/login", &right).await;
    assert_eq!((begun.status, begun.location.as_str()), (StatusCode::SEE_OTHER, "/"));
    assert!(browser.submit("/logout", &[]).await.cookie.contains("Max-Age=0"));
    assert_eq!(browser.get("/").await.location, "/login");
}

#[tokio::test]
async fn a_capture_is_stopped_on_the_page_that_began_it() {
    let browser = Browser::administrator().await;
    browser.state.ops.enrol_node("edge", &Default::default(), false, &Actor::console()).await.unwrap();
    let of = [("node", "edge"), ("reason", "denied"), ("packets", "1000")];
    let begun = browser.submit("/flows/capture", &of).await;
    assert_eq!(
        (begun.status, &*begun.location),
        (StatusCode::SEE_OTHER, "/flows?node=edge&reason=denied#captures")
    );
    let page = browser.get("/flows?node=edge&verdict=drop&reason=denied").await;
    assert!(page.body.contains("0 of 1,000 packets at edge, going on"), "{}", page.body);
    // Its form has the page's filter, and leads back to it.
    let (_, form) = page.body.split_once("action=\"/flows/stop\"").unwrap();
    let form = form.split("</form>").next().unwrap();
    let fields = Answer { body: form.to_owned(), ..page }.hidden();
    let fields: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let stranger = browser.post("/flows/stop", &fields[1..]).await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN, "without the session's token");
    assert!(browser.state.ops.captures(&Actor::console()).unwrap()[0].running);
    let stopped = browser.post("/flows/stop", &fields).await;
    let back = "/flows?node=edge&verdict=drop&reason=denied#captures";
    assert_eq!((stopped.status, &*stopped.location), (StatusCode::SEE_OTHER, back));
    assert!(!browser.state.ops.captures(&Actor::console()).unwrap()[0].running);
    let page = browser.get("/flows?node=edge&reason=denied").await.body;
    assert!(
        page.contains("0 of 1,000 packets at edge<p>")
            && page.contains("; stopped by admin<")
            && !page.contains("/flows/stop"),
        "{page}"
    );
    for unknown in ["7", "x", ""] {
        let answer = browser.submit("/flows/stop", &[("capture", unknown)]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{unknown:?}");
    }
}

#[tokio::test]
async fn whoever_narrows_a_filter_down_keeps_nobody_from_watching() {
    let browser = Browser::administrator().await;
    browser.state.ops.enrol_node("edge", &Default::default(), false, &Actor::console()).await.unwrap();
    let busy =
        |answer: &Answer| answer.body.contains("4 different watches and captures are going on at edge");
    let other = "/flows?node=edge&reason=denied";
    let mut before = "/flows?node=edge".to_owned();
    for port in 1..=12 {
        let path = format!("/flows?node=edge&port={port}");
        let answer = browser.get_from(&before, &path).await;
        assert!(!busy(&answer) && answer.body.contains("is not connected"), "{}", answer.body);
        // It looks again by itself, and so does another tab.
        assert!(!busy(&browser.get_from(&path, &path).await) && !busy(&browser.get_from(other, other).await));
        before = path;
    }
    let captures = [("node", "edge"), ("reason", "land")];
    for _capture in 0..2 {
        assert_eq!(browser.submit("/flows/capture", &captures).await.status, StatusCode::SEE_OTHER);
    }
    // Four that go on, and none that was left: a tab more says so, where the page changes by itself.
    let full = browser.get("/flows?node=edge&port=99").await;
    assert!(busy(&full), "{}", full.body);
    let (_, live) = full.body.split_once("<div id=\"trouble\" data-live>").unwrap();
    assert!(live.split("<section").next().unwrap().contains("4 different watches"), "{live}");
}
