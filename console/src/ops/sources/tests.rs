use std::net::IpAddr;

use model::name::Name;
use model::snapshot::FilterRule;
use serde_json::json;

use super::*;
use crate::fetch::testing::{Origin, Reply};
use crate::fetch::{Patience, Places};
use crate::ops::{Changes, PublishOptions};
use crate::testing::{Directory, object, operator, publish};

const THREE: &str = "192.0.2.0/24\n198.51.100.0/24\n2001:db8::/32\n";

async fn open(directory: &Directory) -> Ops {
    let patience =
        Patience { connect: std::time::Duration::from_secs(5), all: std::time::Duration::from_secs(10) };
    let places = Places { also: vec!["127.0.0.0/8".parse().unwrap()] };
    Ops::open_with(directory.path(), "127.0.0.1:9444", Fetcher { places, patience }).await.unwrap()
}

fn administrator() -> Actor {
    Actor { name: "ada".to_owned(), role: Role::Administrator, ..operator() }
}

/// A set that is fetched from the origin, and a filter that denies it.
fn objects(origin: &Origin) -> Vec<Object> {
    let source = json!({ "url": origin.url("/list"), "trustBundle": "lists", "intervalSeconds": 3600 });
    let rule = json!({ "name": "listed", "action": "Deny", "prefixSets": ["drop"] });
    vec![
        object("TrustBundle", "lists", json!({ "certificates": origin.ca })),
        object("PrefixSet", "drop", json!({ "source": source })),
        object("PacketFilter", "edge", json!({ "rules": [rule] })),
    ]
}

/// A console whose administrator has said where `drop` is fetched from.
async fn console(directory: &Directory, origin: &Origin) -> Ops {
    let ops = open(directory).await;
    let changes = Changes { put: objects(origin), ..Changes::default() };
    ops.publish(changes, &administrator(), PublishOptions::default()).await.unwrap();
    ops
}

/// What the schedule does when the set is due.
async fn due_now(ops: &Ops) -> Outcome {
    ops.fetch("drop", None).await.unwrap()
}

use super::take::Outcome;

fn list(ops: &Ops) -> Vec<String> {
    ops.fetched_set("drop").unwrap().spec.prefixes
}

fn state(ops: &Ops) -> SourceState {
    ops.source_state("drop").unwrap()
}

fn rules(ops: &Ops) -> Vec<FilterRule> {
    let node: Name = "n1".parse().unwrap();
    ops.current().snapshot_for(&node, &BTreeMap::new()).unwrap().filter
}

#[tokio::test]
async fn a_changed_list_is_a_revision_and_goes_to_the_nodes() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    assert!(rules(&ops).is_empty(), "the rule waits for its first list");
    origin.answers(Reply::list("1", THREE));
    // The schedule finds it due at once.
    let mut running = tokio::task::JoinSet::new();
    ops.fetch_due(&mut running).await;
    while running.join_next().await.is_some() {}
    assert_eq!(list(&ops).len(), 3);
    let [rule] = &rules(&ops)[..] else { unreachable!() };
    assert_eq!(rule.prefixes.len(), 3);
    let revision = ops.revision(2).await.unwrap().unwrap();
    assert_eq!(revision.actor, "prefix set drop from URL");
    assert!(revision.message.contains("3 prefixes more and 0 less"), "{}", revision.message);
    assert!(state(&ops).current_at.is_some() && state(&ops).failures == 0);
    ops.fetch_due(&mut running).await;
    assert!(running.is_empty(), "it is not due before an hour");

    origin.requests();
    origin.answers(Reply::of(304, &[], ""));
    assert_eq!(due_now(&ops).await, Outcome::Unchanged);
    assert!(origin.requests()[0].to_lowercase().contains("if-none-match: \"1\""));
    origin.answers(Reply::list("2", "[\"192.0.2.0/24\", \"203.0.113.0/24\"]"));
    assert_eq!(due_now(&ops).await, Outcome::Published(3));
    assert_eq!(list(&ops), ["192.0.2.0/24", "203.0.113.0/24"]);
    assert_eq!(rules(&ops)[0].prefixes.len(), 2);
    // The same in another order is no change.
    origin.answers(Reply::list("3", "203.0.113.0/24\n192.0.2.0/24\n"));
    assert_eq!(due_now(&ops).await, Outcome::Unchanged);
    assert_eq!(ops.current().id.revision, 3);
}

#[tokio::test]
async fn what_was_taken_and_why_not_survive_a_restart() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    origin.answers(Reply::list("1", THREE));
    due_now(&ops).await;
    origin.answers(Reply::of(500, &[], ""));
    assert_eq!(due_now(&ops).await, Outcome::Kept("the origin answered 500".to_owned()));
    let before = state(&ops);
    ops.store().close().await;
    drop(ops);
    let ops = open(&directory).await;
    let after = state(&ops);
    assert_eq!((after.prefixes, after.current_at), (3, before.current_at));
    assert_eq!((after.failures, after.reason.as_deref()), (1, Some("status")));
    assert_eq!(after.next_at, before.next_at);
    origin.requests();
    origin.answers(Reply::of(304, &[], ""));
    assert_eq!(due_now(&ops).await, Outcome::Unchanged);
    assert!(origin.requests()[0].to_lowercase().contains("if-none-match: \"1\""));
    assert_eq!(state(&ops).problem, None);
}

#[tokio::test]
async fn failures_keep_the_list_say_why_and_are_tried_again_later_and_later() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    origin.answers(Reply::list("1", THREE));
    due_now(&ops).await;
    let good = state(&ops).current_at;
    let failures = [
        (Reply::of(404, &[], ""), "status"),
        (Reply::of(200, &[], "<html>Sorry</html>"), "unreadable"),
        (Reply::of(200, &[], "{\"prefixes\": ["), "unreadable"),
        (Reply::of(200, &[], b"\xff\xfe"), "unreadable"),
        (Reply::of(200, &[], ""), "unreadable"),
        (Reply::of(200, &["Content-Encoding: br"], "x"), "encoded"),
    ];
    for (n, (reply, reason)) in failures.into_iter().enumerate() {
        origin.answers(reply);
        assert!(matches!(due_now(&ops).await, Outcome::Kept(_)));
        let state = state(&ops);
        assert_eq!((state.reason.as_deref(), state.failures), (Some(reason), n as u64 + 1));
        assert_eq!((state.prefixes, state.current_at), (3, good));
        let wait = state.next_at - state.tried_at.unwrap();
        assert_eq!(wait, Duration::minutes(1 << n).min(Duration::hours(1)));
    }
    assert_eq!(ops.current().id.revision, 2);
    assert_eq!(state(&ops).failed, BTreeMap::from([("encoded", 1), ("status", 1), ("unreadable", 4)]));
    let needs = ops.needs().await.unwrap();
    assert!(needs.iter().any(|need| need.link == "/prefix-sets/drop" && need.message.contains("compressed")));
}

#[tokio::test]
async fn a_list_that_shrinks_at_once_or_is_everybody_waits_for_a_person() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    origin.answers(Reply::list("1", THREE));
    due_now(&ops).await;
    origin.answers(Reply::list("2", "192.0.2.0/24\n"));
    for _ in 0..2 {
        assert!(matches!(due_now(&ops).await, Outcome::Kept(_)), "the second time too: it was not taken");
        assert_eq!((state(&ops).reason.as_deref(), list(&ops).len()), (Some("shrunk"), 3));
    }
    assert!(state(&ops).confirmable);
    let unconfirmed = ops.fetch_now("drop", false, &operator()).await.unwrap();
    assert_eq!(unconfirmed.reason.as_deref(), Some("shrunk"));
    let confirmed = ops.fetch_now("drop", true, &operator()).await.unwrap();
    assert_eq!((confirmed.problem, confirmed.prefixes), (None, 1));
    assert_eq!(ops.revision(3).await.unwrap().unwrap().actor, "olga");
    for (tag, all) in
        [("3", "192.0.2.0/24\n::/0\n"), ("4", "0.0.0.0/1\n128.0.0.0/1\n"), ("5", "::/1\n8000::/1\n")]
    {
        origin.answers(Reply::list(tag, all));
        due_now(&ops).await;
        assert_eq!((state(&ops).reason.as_deref(), list(&ops).len()), (Some("everybody"), 1), "{all}");
    }
}

#[tokio::test]
async fn a_list_locks_out_neither_people_nor_nodes() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    origin.answers(Reply::list("1", THREE));
    due_now(&ops).await;
    // A person, then a node's link.
    ops.saw("203.0.113.9".parse::<IpAddr>().unwrap());
    origin.answers(Reply::list("2", &format!("{THREE}203.0.113.0/24\n")));
    assert!(matches!(due_now(&ops).await, Outcome::Kept(_)));
    let kept = state(&ops);
    assert_eq!((kept.reason.as_deref(), kept.prefixes), (Some("protected"), 3));
    let problem = kept.problem.unwrap();
    assert!(problem.contains("rule listed would drop 203.0.113.9, from which somebody"), "{problem}");
    ops.links().opened("n1", ["10.1.0.7".parse().unwrap(), "10.1.0.1".parse().unwrap()]);
    origin.answers(Reply::list("3", &format!("{THREE}10.1.0.0/16\n")));
    due_now(&ops).await;
    let problem = state(&ops).problem.unwrap();
    assert!(problem.contains("which node n1 and this console use"), "{problem}");
    // Whoever signed in over the last days counts after a restart too.
    ops.store().audit(&Actor { address: "10.9.0.1".parse().ok(), ..operator() }, "logged in").await.unwrap();
    ops.store().close().await;
    drop(ops);
    let ops = open(&directory).await;
    origin.answers(Reply::list("4", &format!("{THREE}10.9.0.0/16\n")));
    due_now(&ops).await;
    assert!(state(&ops).problem.unwrap().contains("10.9.0.1"));
    assert_eq!(ops.current().id.revision, 2);
}

#[tokio::test]
async fn what_a_person_puts_in_its_place_stays_until_the_origin_has_another() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    origin.answers(Reply::list("1", "192.0.2.0/24\n"));
    due_now(&ops).await;
    origin.answers(Reply::list("2", THREE));
    due_now(&ops).await;
    ops.rollback(2, &operator(), PublishOptions::default()).await.unwrap();
    assert_eq!(list(&ops), ["192.0.2.0/24"]);
    assert_eq!(due_now(&ops).await, Outcome::Unchanged, "an origin without ETag sends it again");
    assert!(state(&ops).replaced && list(&ops).len() == 1);
    assert!(ops.needs().await.unwrap().iter().any(|need| need.message.contains("another list than")));
    origin.answers(Reply::list("3", "192.0.2.0/24\n203.0.113.0/24\n"));
    assert_eq!(due_now(&ops).await, Outcome::Published(5));
    ops.rollback(2, &operator(), PublishOptions::default()).await.unwrap();
    let taken = ops.fetch_now("drop", false, &operator()).await.unwrap();
    assert_eq!((taken.prefixes, taken.replaced), (2, false), "who asks for it gets it");
}

#[tokio::test]
async fn a_revision_that_waits_for_its_confirmation_goes_on_waiting() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    let listener = object("Listener", "https", json!({ "port": 8443 }));
    let options = PublishOptions {
        rollback_after: Some(std::time::Duration::from_secs(600)),
        ..PublishOptions::default()
    };
    ops.publish(Changes::put(listener), &operator(), options).await.unwrap();
    origin.answers(Reply::list("1", THREE));
    due_now(&ops).await;
    assert_eq!((state(&ops).reason.as_deref(), list(&ops).len()), (Some("waiting"), 0));
    assert!(ops.revision(2).await.unwrap().unwrap().rollback_at.is_some());
}

#[tokio::test]
async fn only_administrators_say_where_from() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = open(&directory).await;
    let refused = publish(&ops, objects(&origin)).await.unwrap_err();
    assert!(matches!(refused, OpsError::Forbidden(_)), "{refused}");
    let changes = Changes { put: objects(&origin), ..Changes::default() };
    let review = ops.plan(&changes, &operator()).await.unwrap();
    assert_eq!(review.problems[0].field, "spec.source.url");
    ops.publish(changes, &administrator(), PublishOptions::default()).await.unwrap();
    origin.answers(Reply::list("1", THREE));
    due_now(&ops).await;
    // Operators write the set as it is, without its list too; and take the source away.
    let stored = ops.get(Kind::PrefixSet, "drop").await.unwrap().unwrap().object;
    let [_, bare, _] = &objects(&origin)[..] else { unreachable!() };
    let revision = ops.current().id.revision;
    assert_eq!(publish(&ops, vec![stored]).await.unwrap().revision, revision);
    assert_eq!(publish(&ops, vec![bare.clone()]).await.unwrap().revision, revision, "its list stays");
    let elsewhere = json!({ "source": { "url": "https://169.254.169.254/latest" } });
    let refused = publish(&ops, vec![object("PrefixSet", "drop", elsewhere)]).await.unwrap_err();
    assert!(matches!(refused, OpsError::Forbidden(_)), "{refused}");
    let bundle = Changes::remove(Kind::TrustBundle, "lists");
    assert!(ops.publish(bundle, &operator(), PublishOptions::default()).await.is_err(), "it is in use");
    publish(&ops, vec![object("PrefixSet", "drop", json!({ "prefixes": ["192.0.2.0/24"] }))]).await.unwrap();
    assert_eq!(ops.source_state("drop"), None);
    assert!(matches!(ops.fetch_now("drop", false, &operator()).await, Err(OpsError::NotFound(_))));
    // What is gone is forgotten.
    ops.fetch_due(&mut tokio::task::JoinSet::new()).await;
    assert!(ops.store().sources().await.unwrap().is_empty());
}

#[tokio::test]
async fn whom_it_is_verified_against() {
    let (directory, origin) = (Directory::new(), Origin::start().await);
    let ops = console(&directory, &origin).await;
    origin.answers(Reply::list("1", THREE));
    for bundle in [None, Some("internal")] {
        let mut source = json!({ "url": origin.url("/list") });
        if let Some(bundle) = bundle {
            source["trustBundle"] = json!(bundle);
        }
        let set = object("PrefixSet", "drop", json!({ "source": source }));
        ops.publish(Changes::put(set), &administrator(), PublishOptions::default()).await.unwrap();
        due_now(&ops).await;
        assert_eq!(state(&ops).reason.as_deref(), Some("tls"), "{bundle:?}");
    }
    assert!(origin.requests().is_empty());
}
