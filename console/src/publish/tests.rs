use std::time::Duration;

use model::draft::{Kind, Spec};
use model::problem::Code;
use serde_json::json;
use time::OffsetDateTime;

use crate::ops::{Action, Actor, Changes, Connection, Ops, OpsError, PublishOptions, Role};
use crate::testing::{Directory, object, operator, publish, shop};

fn codes(error: OpsError) -> Vec<(String, Code)> {
    let OpsError::Problems(problems) = error else { panic!("{error}") };
    problems.into_iter().map(|p| (p.field, p.code)).collect()
}

fn filter(prefix: &str) -> model::draft::Object {
    object(
        "PacketFilter",
        "edge",
        json!({ "rules": [{ "name": "bad", "action": "Deny", "prefixes": [prefix] }] }),
    )
}

#[tokio::test]
async fn a_revision_is_stored_compiled_and_survives_a_restart() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let published = publish(&ops, shop()).await.unwrap();
    assert_eq!((published.revision, published.changes.len()), (1, 4));
    let before = ops.current().snapshot_for(&"n".parse().unwrap(), &Default::default()).unwrap();
    // The process is killed: nothing is closed.
    std::mem::forget(ops);
    let ops = directory.open().await;
    let after = ops.current().snapshot_for(&"n".parse().unwrap(), &Default::default()).unwrap();
    assert_eq!(before.to_canonical_json().unwrap(), after.to_canonical_json().unwrap());
    assert_eq!(after.routes.len(), 1);
    // Applying the same again changes nothing: the internal CA does not issue anew.
    let again = publish(&ops, shop()).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (1, 0));
}

#[tokio::test]
async fn what_does_not_compile_changes_nothing() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let lost = object("Route", "shop", json!({ "hostnames": ["shop.example.com"], "originGroup": "none" }));
    let found = codes(publish(&ops, vec![lost.clone()]).await.unwrap_err());
    assert!(found.contains(&("spec.originGroup".to_owned(), Code::UnknownReference)), "{found:?}");
    assert_eq!(ops.current().id.revision, 1);
    let review = ops.plan(&Changes::put(lost), &operator()).await.unwrap();
    assert!(!review.problems.is_empty());
    let twice =
        vec![object("Listener", "a", json!({"port": 1})), object("Listener", "a", json!({"port": 2}))];
    assert_eq!(codes(publish(&ops, twice).await.unwrap_err())[0].1, Code::Duplicate);
    let gone =
        ops.publish(Changes::remove(Kind::Route, "none"), &operator(), PublishOptions::default()).await;
    assert_eq!(codes(gone.unwrap_err())[0].1, Code::UnknownReference);
    assert_eq!(ops.current().id.revision, 1);
}

/// A certificate that cannot be issued is not missing: it was wanted, and what is wrong with it is said once.
#[tokio::test]
async fn nothing_follows_from_a_certificate_that_is_refused() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let hosts = json!(["shop.example.com", "bad_host!"]);
    let wrong = vec![
        object("Certificate", "new", json!({ "internalCa": { "hostnames": hosts } })),
        object("Route", "new", json!({ "hostnames": hosts, "originGroup": "shop", "certificate": "new" })),
    ];
    let OpsError::Problems(problems) = publish(&ops, wrong).await.unwrap_err() else { panic!() };
    let said: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    // The same of both, so that a form with one control for both says it once.
    assert!(said[0].starts_with("\"bad_host!\" is not valid: every label") && said[0] == said[1], "{said:?}");
}

#[tokio::test]
async fn rollback_is_a_new_revision_with_the_old_objects() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let changed = object("OriginGroup", "shop", json!({ "origins": [{ "url": "https://other.internal" }] }));
    publish(&ops, vec![changed, object("Listener", "second", json!({ "port": 9000 }))]).await.unwrap();
    let back = ops.rollback(1, &operator(), PublishOptions::default()).await.unwrap();
    assert_eq!(back.revision, 3);
    let actions: Vec<(Action, &str)> = back.changes.iter().map(|c| (c.action, c.object.as_str())).collect();
    assert!(actions.contains(&(Action::Remove, "Listener/second")), "{actions:?}");
    assert!(actions.contains(&(Action::Change, "OriginGroup/shop")), "{actions:?}");
    assert!(ops.compare(1, 3).await.unwrap().is_empty());
    assert_eq!(ops.compare(2, 3).await.unwrap().len(), 2);
    let row = ops.revision(3).await.unwrap().unwrap();
    assert_eq!(row.message, "back to revision 1");
    assert!(matches!(
        ops.rollback(9, &operator(), PublishOptions::default()).await,
        Err(OpsError::NotFound(_))
    ));
}

#[tokio::test]
async fn prune_removes_what_is_not_named() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let changes = Changes {
        put: vec![object("Listener", "only", json!({ "port": 1 }))],
        prune: true,
        ..Changes::default()
    };
    let review = ops.plan(&changes, &operator()).await.unwrap();
    assert_eq!(review.changes.iter().filter(|line| line.action == Action::Remove).count(), 4);
    ops.publish(changes, &operator(), PublishOptions::default()).await.unwrap();
    assert_eq!(ops.current().objects.len(), 1);
}

#[tokio::test]
async fn keys_are_sealed_kept_and_never_given_back() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = rcgen::CertificateParams::new(vec!["a.example.com".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap()
        .pem();
    let pem = key.serialize_pem();
    let whole = object("Certificate", "a", json!({ "chain": chain, "privateKey": pem }));
    publish(&ops, vec![whole]).await.unwrap();
    let Spec::Certificate(stored) = ops.get(Kind::Certificate, "a").await.unwrap().unwrap().object.spec
    else {
        panic!()
    };
    assert_eq!(stored.private_key, None);
    let digest = stored.private_key_ref.clone().unwrap().parse().unwrap();
    assert_eq!(ops.private_key(&digest).await.unwrap().unwrap().as_slice(), key.serialize_der());
    let exported = serde_json::to_string(&ops.export(None, None).await.unwrap()).unwrap();
    assert!(!exported.contains("PRIVATE KEY"));
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(40).any(|part| key.serialize_der().windows(40).any(|secret| secret == part)));
    }
    // Applied again without its key, it keeps the stored one.
    let without = object("Certificate", "a", json!({ "chain": chain }));
    assert_eq!(publish(&ops, vec![without]).await.unwrap().changes, []);
    // Another's key is refused, and so is a chain whose key nobody has.
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let wrong = object("Certificate", "a", json!({ "chain": chain, "privateKey": other }));
    assert_eq!(codes(publish(&ops, vec![wrong]).await.unwrap_err())[0].1, Code::KeyMismatch);
    let strange = rcgen::generate_simple_self_signed(vec!["b.example.com".to_owned()]).unwrap();
    let keyless = object("Certificate", "b", json!({ "chain": strange.cert.pem() }));
    assert_eq!(codes(publish(&ops, vec![keyless]).await.unwrap_err())[0].1, Code::KeyMissing);
    // A form sends the key first and its digest later.
    let digest = ops.stage_key(&strange.signing_key.serialize_pem(), &operator()).await.unwrap();
    let staged = object(
        "Certificate",
        "b",
        json!({ "chain": strange.cert.pem(), "privateKeyRef": digest.to_string() }),
    );
    publish(&ops, vec![staged]).await.unwrap();
    assert!(ops.private_key(&digest).await.unwrap().is_some());
}

#[tokio::test]
async fn shutting_out_the_administrator_or_a_node_needs_a_second_word() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let found = codes(publish(&ops, vec![filter("192.0.2.0/24")]).await.unwrap_err());
    assert_eq!(found, [("spec.rules".to_owned(), Code::NeedsConfirmation)]);
    ops.links().opened("n1", ["198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap()]);
    let error = publish(&ops, vec![filter("198.51.100.2/32")]).await.unwrap_err();
    assert!(error.needs_confirmation() && error.to_string().contains("n1"), "{error}");
    let review = ops.plan(&Changes::put(filter("192.0.2.10/32")), &operator()).await.unwrap();
    assert_eq!((review.problems.len(), review.confirmations.len()), (0, 1));
    publish(&ops, vec![filter("203.0.113.0/24")]).await.unwrap();
    let confirmed = PublishOptions { confirm: true, ..PublishOptions::default() };
    ops.publish(Changes::put(filter("192.0.2.10/32")), &operator(), confirmed).await.unwrap();
    // What is so already does not ask again.
    publish(&ops, vec![filter("192.0.2.0/24")]).await.unwrap();
}

#[tokio::test]
async fn a_rule_asks_for_a_second_word_where_it_shuts_out_and_only_there() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    // The operator is at 192.0.2.10.
    for (rule, expected) in [
        (
            json!({ "action": "Deny", "prefixes": ["192.0.2.0/24"], "ports": ["22"] }),
            Some("port 22 from your own"),
        ),
        (
            json!({ "action": "Deny", "prefixes": ["192.0.2.0/24"], "ports": ["9000-9500"] }),
            Some("port 9000 from"),
        ),
        (
            json!({ "action": "Allow", "prefixes": ["198.51.100.0/24"], "ports": ["22"] }),
            Some("reach port 22"),
        ),
        (json!({ "action": "Deny", "prefixSets": ["bogons"] }), Some("your own address 192.0.2.10")),
        (json!({ "action": "Deny", "prefixes": ["192.0.2.0/24"], "mode": "Observe" }), None),
        (json!({ "action": "Deny", "prefixes": ["192.0.2.0/24"], "ports": ["8443"] }), None),
        (
            json!({ "action": "Deny", "prefixes": ["192.0.2.0/24"], "protocols": ["UDP"], "ports": ["22"] }),
            None,
        ),
        (json!({ "action": "Allow", "prefixes": ["192.0.2.0/24"], "ports": ["22"] }), None),
    ] {
        let mut rule = rule;
        rule["name"] = json!("r");
        let review = ops
            .plan(&Changes::put(object("PacketFilter", "f", json!({ "rules": [rule] }))), &operator())
            .await;
        let review = review.unwrap();
        assert_eq!(review.problems, []);
        let asked: Vec<&str> = review.confirmations.iter().map(|problem| &*problem.message).collect();
        match expected {
            Some(part) => assert!(asked.len() == 1 && asked[0].contains(part), "{rule}: {asked:?}"),
            None => assert_eq!(asked, [""; 0], "{rule}"),
        }
    }
}

#[tokio::test]
async fn what_another_node_lets_through_does_not_hide_that_this_one_shuts_out() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let of = |role: &str, rule: serde_json::Value| {
        let selector = json!({ "matchLabels": { "role": role } });
        object("PacketFilter", role, json!({ "nodeSelector": selector, "rules": [rule] }))
    };
    let allow = json!({ "name": "r", "action": "Allow", "prefixes": ["192.0.2.0/24"], "priority": 10 });
    publish(&ops, vec![of("a", allow)]).await.unwrap();
    let deny = json!({ "name": "r", "action": "Deny", "prefixes": ["192.0.2.10/32", "203.0.113.0/24"] });
    let review = ops.plan(&Changes::put(of("b", deny)), &operator()).await.unwrap();
    let asked: Vec<&str> = review.confirmations.iter().map(|problem| &*problem.message).collect();
    assert!(asked.len() == 1 && asked[0].contains("your own address 192.0.2.10"), "{asked:?}");
}

#[tokio::test]
async fn a_prefix_set_in_use_stays() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let set = object("PrefixSet", "cloud", json!({ "prefixes": ["203.0.113.0/24"] }));
    let rules = json!({ "rules": [{ "name": "r", "action": "Deny", "prefixSets": ["cloud"] }] });
    publish(&ops, vec![set, object("PacketFilter", "f", rules)]).await.unwrap();
    let remove = || Changes::remove(Kind::PrefixSet, "cloud");
    let error = ops.publish(remove(), &operator(), PublishOptions::default()).await.unwrap_err();
    assert_eq!(codes(error), [("spec.rules[0].prefixSets[0]".to_owned(), Code::UnknownReference)]);
    let users = ops.used_by(Kind::PrefixSet, "cloud").await.unwrap();
    assert_eq!(users, [(Kind::PacketFilter, "f".to_owned())]);
    // Its prefixes are in what nodes get.
    let current = ops.current();
    let rule = current.compiled.as_ref().unwrap().filter_rules().next().unwrap().clone();
    assert_eq!(rule.prefixes, ["203.0.113.0/24".parse().unwrap()]);
}

#[tokio::test]
async fn a_list_of_protocols_without_what_nodes_need_is_told_in_the_review() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let list = |name: &str, allow: &[&str], mode: &str| {
        object("PacketFilter", name, json!({ "protocols": { "allow": allow, "mode": mode } }))
    };
    let told = async |put: Vec<model::draft::Object>| {
        let review = ops.plan(&Changes { put, ..Changes::default() }, &operator()).await.unwrap();
        assert_eq!((review.problems, review.confirmations), (Vec::new(), Vec::new()));
        review.touches
    };
    let [udp, icmp] = &told(vec![list("f", &["TCP", "ICMPv6"], "Enforce")]).await[..] else { panic!() };
    assert!(
        udp.starts_with(
            "UDP is not in the list of protocols of packet filter f: the replies of name servers"
        ),
        "{udp}"
    );
    assert!(icmp.starts_with("ICMP is not in the list of protocols of packet filter f: pings"), "{icmp}");
    assert_eq!(told(vec![list("f", &["TCP"], "Observe")]).await, [""; 0]);
    assert_eq!(told(vec![list("f", &["TCP", "UDP", "ICMP", "ICMPv6"], "Enforce")]).await, [""; 0]);
    // Lists add up.
    let other = list("g", &["TCP", "UDP", "ICMP", "ICMPv6"], "Enforce");
    publish(&ops, vec![other]).await.unwrap();
    assert_eq!(told(vec![list("f", &["TCP"], "Enforce")]).await, [""; 0]);
}

#[tokio::test]
async fn rules_keep_their_number() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, vec![filter("203.0.113.0/24")]).await.unwrap();
    let number = |ops: &Ops| ops.current().rules["edge/bad"];
    let first = number(&ops);
    ops.publish(Changes::remove(Kind::PacketFilter, "edge"), &operator(), PublishOptions::default())
        .await
        .unwrap();
    let more = object(
        "PacketFilter",
        "aaa",
        json!({ "rules": [{ "name": "x", "action": "Deny", "prefixes": ["203.0.113.9/32"] }] }),
    );
    publish(&ops, vec![more, filter("203.0.113.0/24")]).await.unwrap();
    drop(ops);
    let ops = directory.open().await;
    assert_eq!(number(&ops), first);
    assert_ne!(ops.current().rules["aaa/x"], first);
}

#[tokio::test]
async fn an_unconfirmed_revision_goes_back_by_itself_also_after_a_restart() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let try_it =
        PublishOptions { rollback_after: Some(Duration::from_secs(60)), ..PublishOptions::default() };
    let second = || Changes::put(object("Listener", "second", json!({ "port": 9000 })));
    let published = ops.publish(second(), &operator(), try_it.clone()).await.unwrap();
    let late = published.rollback_at.unwrap() + Duration::from_secs(1);
    ops.roll_back_unconfirmed(OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(ops.current().id.revision, 2);
    drop(ops);
    let ops = directory.open().await;
    ops.roll_back_unconfirmed(late).await.unwrap();
    assert_eq!(ops.current().id.revision, 3);
    assert!(ops.compare(1, 3).await.unwrap().is_empty());
    // Confirmed, it stays.
    let published = ops.publish(second(), &operator(), try_it).await.unwrap();
    let newcomer = Actor { connection: Some(Connection::accepted()), ..operator() };
    ops.confirm(published.revision, &newcomer).await.unwrap();
    ops.roll_back_unconfirmed(late + Duration::from_secs(999)).await.unwrap();
    assert_eq!(ops.current().id.revision, published.revision);
    assert_eq!(codes(ops.confirm(published.revision, &newcomer).await.unwrap_err())[0].1, Code::Conflict);
}

#[tokio::test]
async fn while_a_revision_waits_nothing_else_is_published() {
    let directory = Directory::new();
    let mut ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    publish(&ops, vec![object("Listener", "second", json!({ "port": 9000 }))]).await.unwrap();
    let try_it =
        PublishOptions { rollback_after: Some(Duration::from_secs(60)), ..PublishOptions::default() };
    let risky = || Changes::put(object("Listener", "risky", json!({ "port": 9001 })));
    let innocent = || Changes::put(object("PrefixSet", "other", json!({ "prefixes": ["192.0.2.0/24"] })));
    let waiting = ops.publish(risky(), &operator(), try_it.clone()).await.unwrap();
    assert_eq!(waiting.revision, 3);
    let until = ops.revision(3).await.unwrap().unwrap().rollback_at.unwrap();
    let forbidden = |error: OpsError| {
        let text = error.to_string();
        let said = ["revision 3", &operator().name, "sallyport confirm 3", "rollback 2", "/changes/3"];
        assert!(said.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(codes(error), [(String::new(), Code::Conflict)]);
    };
    // Also over another start of the console, and for changes that change nothing.
    for restart in [false, true] {
        if restart {
            drop(ops);
            ops = directory.open().await;
        }
        forbidden(ops.publish(innocent(), &operator(), PublishOptions::default()).await.unwrap_err());
        forbidden(ops.publish(innocent(), &operator(), try_it.clone()).await.unwrap_err());
        forbidden(ops.publish(risky(), &operator(), PublishOptions::default()).await.unwrap_err());
        forbidden(ops.rollback(1, &operator(), PublishOptions::default()).await.unwrap_err());
        forbidden(ops.rollback(2, &operator(), try_it.clone()).await.unwrap_err());
        forbidden(OpsError::Problems(ops.plan(&innocent(), &operator()).await.unwrap().problems));
        forbidden(OpsError::Problems(ops.plan_rollback(1, &operator()).await.unwrap().problems));
        assert_eq!(ops.plan_rollback(2, &operator()).await.unwrap().problems, []);
    }
    assert_eq!(ops.revision(3).await.unwrap().unwrap().rollback_at, Some(until));
    // A new number for the same objects takes the wait along, and where it goes back to.
    ops.renumber("other labels".to_owned()).await.unwrap();
    let renumbered = ops.revision(4).await.unwrap().unwrap();
    assert_eq!((renumbered.rollback_at, renumbered.rollback_to), (Some(until), Some(2)));
    assert!(ops.publish(innocent(), &operator(), PublishOptions::default()).await.is_err());
    // Going back now ends it.
    assert_eq!(ops.rollback(2, &operator(), PublishOptions::default()).await.unwrap().revision, 5);
    assert!(ops.compare(2, 5).await.unwrap().is_empty());
    ops.publish(innocent(), &operator(), PublishOptions::default()).await.unwrap();
    // So does a confirmation.
    let waiting = ops.publish(risky(), &operator(), try_it).await.unwrap();
    let newcomer = Actor { connection: Some(Connection::accepted()), ..operator() };
    ops.confirm(waiting.revision, &newcomer).await.unwrap();
    publish(&ops, vec![object("Listener", "second", json!({ "port": 9002 }))]).await.unwrap();
}

#[tokio::test]
async fn two_editors_of_one_revision_and_a_viewer() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let based = |revision| PublishOptions { base_revision: Some(revision), ..PublishOptions::default() };
    let listener = |port| Changes::put(object("Listener", "https", json!({ "port": port })));
    ops.publish(listener(1), &operator(), based(1)).await.unwrap();
    let error = ops.publish(listener(2), &operator(), based(1)).await.unwrap_err();
    assert_eq!(codes(error)[0].1, Code::Conflict);
    let viewer = Actor { role: Role::Viewer, ..operator() };
    assert!(matches!(
        ops.publish(listener(3), &viewer, PublishOptions::default()).await,
        Err(OpsError::Forbidden(_))
    ));
}

#[tokio::test]
async fn publishing_at_once_loses_nothing() {
    let directory = Directory::new();
    let ops = directory.open().await;
    publish(&ops, shop()).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let ops = ops.clone();
            tokio::spawn(async move {
                publish(&ops, vec![object("Listener", &format!("l{n}"), json!({ "port": 9000 + n }))]).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(ops.current().id.revision, 21);
    assert_eq!(ops.store().objects_at(21).await.unwrap().len(), 24);
    for revision in 1..=21 {
        assert_eq!(ops.store().objects_at(revision).await.unwrap().len() as u64, 3 + revision);
    }
}
