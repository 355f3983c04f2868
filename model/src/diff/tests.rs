use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::draft::{API_VERSION, parse};

fn object(kind: &str, name: &str, spec: Value) -> Object {
    parse(json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})).unwrap()
}

fn words(old: &[Object], new: &[Object]) -> Vec<String> {
    changes(old, new).into_iter().map(|change| change.words).collect()
}

/// One object changes from `old` to `new`: that is told as `expected`, and no change as nothing.
fn says(kind: &str, old: Value, new: Value, expected: &str) {
    let (old, new) = (object(kind, "x", old), object(kind, "x", new));
    let found = words(std::slice::from_ref(&old), &[new]);
    assert!(found.len() == 1 && found[0].ends_with(&format!(" x: {expected}")), "{found:?}");
    assert!(words(std::slice::from_ref(&old), std::slice::from_ref(&old)).is_empty());
}

fn pem(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/golden/pem/{name}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn new_and_gone_objects_say_what_they_are() {
    let objects = [
        object("Listener", "https", json!({"port": 443})),
        object("Listener", "inside", json!({"port": 8443, "addresses": ["192.0.2.1", "2001:db8::1"]})),
        object(
            "Listener",
            "mesh",
            json!({"port": 80, "protocol": "HTTP",
                "http": {"h2cPrefixes": ["10.0.0.0/8", "2001:db8::/32"], "clearText": "allow"}}),
        ),
        object("Route", "shop", json!({"hostnames": ["shop.example.com"], "originGroup": "shop-origin"})),
        object(
            "Route",
            "api",
            json!({
            "hostnames": ["a.test", "b.test", "*.c.test"], "originGroup": "o", "enabled": false,
            "matches": [{"path": {"value": "/api"}}, {"path": {"type": "Exact", "value": "/x"}}]}),
        ),
        object(
            "OriginGroup",
            "o",
            json!({"origins": [{"url": "https://a.test"}, {"url": "https://[2001:db8::1]"}]}),
        ),
        object("Certificate", "ca", json!({"internalCa": {"hostnames": ["a.test"]}})),
        object(
            "PacketFilter",
            "edge",
            json!({"rules": [
            {"name": "abuse", "action": "Deny", "prefixes": ["192.0.2.0/24", "2001:db8::/32"]}]}),
        ),
    ];
    let added = words(&[], &objects);
    assert_eq!(
        added,
        [
            "+ listener https: port 443 on every address",
            "+ listener inside: port 8443 on 192.0.2.1, 2001:db8::1",
            "+ listener mesh: port 80 on every address, clear text, redirected to HTTPS, routes in clear text (h2c) for 10.0.0.0/8, 2001:db8::/32",
            "+ route api: a.test/api, a.test/x (exact), b.test/api, b.test/x (exact) and 2 more → o (disabled)",
            "+ route shop: shop.example.com/ → shop-origin",
            "+ origin group o: https://a.test, https://[2001:db8::1]",
            "+ certificate ca: to be issued by the internal CA for a.test",
            "+ packet filter edge: deny abuse (192.0.2.0/24, 2001:db8::/32)",
        ]
    );
    let removed: Vec<String> = added.iter().map(|words| words.replacen('+', "-", 1)).collect();
    assert_eq!(words(&objects, &[]), removed);
}

#[test]
fn changes_say_the_fields() {
    for (kind, old, new, expected) in [
        ("Listener", json!({"port": 443}), json!({"port": 8443}), "port 443 → 8443"),
        (
            "Listener",
            json!({"port": 443}),
            json!({"port": 443, "tls": {"minVersion": "1.3"}, "limits": {"streams": 5}}),
            "limits.streams 128 → 5; tls.minVersion 1.2 → 1.3",
        ),
        (
            "Listener",
            json!({"port": 443, "takeOver": true}),
            json!({"port": 443, "addresses": ["2001:db8::1"]}),
            "addresses +2001:db8::1; takeOver true → false",
        ),
        (
            "Listener",
            json!({"port": 80, "protocol": "HTTP"}),
            json!({"port": 80, "protocol": "HTTP",
                "http": {"h2cPrefixes": ["10.0.0.0/8"], "clearText": "allow"}}),
            "http.clearText refused → allow; http.h2cPrefixes +10.0.0.0/8",
        ),
        (
            "Route",
            json!({"hostnames": ["a.test", "b.test"], "originGroup": "o"}),
            json!({"hostnames": ["b.test", "c.test"], "originGroup": "p", "matches": [{"path": {"value": "/x"}}]}),
            "hostnames +c.test, -a.test; matches +/x; originGroup o → p",
        ),
        (
            "OriginGroup",
            json!({"origins": [{"url": "https://a.test"}, {"url": "https://b.test"}]}),
            json!({"origins": [{"url": "https://b.test"}, {"url": "https://a.test"}]}),
            "origins in another order: https://b.test, https://a.test",
        ),
        (
            "PacketFilter",
            json!({"rules": [{"name": "walkers", "action": "Deny", "prefixes": ["192.0.2.0/24"], "mode": "Observe"}]}),
            json!({"rules": [{"name": "walkers", "action": "Deny", "prefixes": ["192.0.2.0/24"]}]}),
            "rule walkers.mode Observe → Enforce",
        ),
        (
            "OriginGroup",
            json!({"origins": [{"url": "https://a.test"}]}),
            json!({"origins": [{"url": "http://a.test"}], "clearText": "allow", "tls": {"verify": "none"}}),
            "clearText refused → allow; origins +http://a.test, -https://a.test; tls.verify on → none",
        ),
    ] {
        says(kind, old, new, expected);
    }
}

#[test]
fn what_is_on_by_being_there_is_told_as_on_or_off() {
    let off = json!({"origins": [{"url": "https://a.test"}]});
    let with_path = json!({"path": "/healthz"});
    for (probe, fields) in [(json!({}), ""), (with_path, "; probe.path (default) → /healthz")] {
        let on = json!({"origins": [{"url": "https://a.test"}], "probe": probe});
        says("OriginGroup", off.clone(), on.clone(), &format!("probe off → on{fields}"));
        says("OriginGroup", on, off.clone(), "probe on → off");
    }
}

#[test]
fn rules_and_budgets_that_are_new_or_gone_are_told_as_a_whole() {
    for (old, new, expected) in [
        (
            json!({"rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"]}]}),
            json!({"rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24", "2001:db8::/32"]},
                {"name": "s", "action": "Allow", "prefixes": ["198.51.100.7"]}]}),
            "rule s added: allow (198.51.100.7); rule r.prefixes +2001:db8::/32",
        ),
        (
            json!({"rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"]},
                {"name": "edge", "action": "Allow", "prefixSets": ["cloud"], "ports": ["443"], "mode": "Observe"}],
                "budgets": {"synPressure": {"rate": 3000}, "udpPerSource": {"rate": 50},
                    "synPerPort": [{"name": "web", "ports": ["80", "443"], "rate": 7},
                        {"name": "ssh", "ports": ["22"], "rate": 5}]}}),
            json!({"rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"]}],
                "budgets": {"synPerSource": {"rate": 9, "burst": 20}, "udpPerSource": {"rate": 60},
                    "synPerPort": [{"name": "ssh", "ports": ["22", "2222"], "rate": 5}]}}),
            "rule edge removed: allow (set cloud to TCP 443, observed only); \
             budget synPressure removed: 3000/s, 3000 at once; \
             budget web of ports 80, 443 removed: 7/s, 7 at once; \
             budget synPerSource added: 9/s, 20 at once; \
             budget ssh.ports +2222; budget udpPerSource.rate 50 → 60",
        ),
        (
            json!({"budgets": {"synPressure": {"rate": 3000}}}),
            json!({"rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"]}]}),
            "budget synPressure removed: 3000/s, 3000 at once; rule r added: deny (192.0.2.0/24)",
        ),
    ] {
        let filter = |spec| [object("PacketFilter", "x", spec)];
        assert_eq!(words(&filter(old), &filter(new)), [format!("~ packet filter x: {expected}")]);
    }
}

#[test]
fn pem_is_told_by_names_dates_and_fingerprints_and_keys_not_at_all() {
    let certificate =
        |pem: &str, key: &str| object("Certificate", "c", json!({"chain": pem, "privateKey": key}));
    let old = certificate(&pem("shop"), "hunter2");
    let new = certificate(&pem("wild"), "hunter3");
    let bundle = |pem: &str| object("TrustBundle", "t", json!({"certificates": pem}));
    let found = [
        words(&[], std::slice::from_ref(&old)),
        words(std::slice::from_ref(&old), &[new]),
        words(&[], &[certificate("-----BEGIN PRIVATE KEY-----\nhunter2", "hunter2")]),
        words(&[bundle(&pem("ca"))], &[bundle(&pem("old-ca"))]),
    ]
    .concat();
    let text = found.join("\n");
    assert!(!text.contains("hunter") && !text.contains("BEGIN"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_default_that_is_written_is_no_change() {
    let rule = |mode: Value| {
        let rule = json!({"name": "walkers", "action": "Deny", "prefixes": ["192.0.2.0/24"], "mode": mode});
        object("PacketFilter", "edge", json!({ "rules": [rule] }))
    };
    let (written, not) = (rule("Enforce".into()), rule(Value::Null));
    for (old, new) in [(&written, &not), (&not, &written)] {
        let said = words(std::slice::from_ref(old), std::slice::from_ref(new));
        assert_eq!(said, ["~ packet filter edge: written differently, same meaning"]);
    }
    let listener = |spec: Value| object("Listener", "l", spec);
    let old = listener(json!({"port": 443}));
    let new = listener(json!({"port": 443, "limits": {"streams": 128}, "tls": {"minVersion": "1.3"}}));
    assert_eq!(words(&[old], &[new]), ["~ listener l: tls.minVersion 1.2 → 1.3"]);
}

#[test]
fn labels_count() {
    let old = object("Listener", "l", json!({"port": 443}));
    let mut new = old.clone();
    new.metadata.labels.insert("team".to_owned(), "web".to_owned());
    assert_eq!(words(&[old], &[new]), ["~ listener l: labels.team (default) → web"]);
}

#[test]
fn filters_in_words() {
    let route = |spec| object("Route", "r", spec);
    let plain = route(json!({"hostnames": ["a.test"], "originGroup": "o"}));
    let changed = route(json!({"hostnames": ["a.test"], "originGroup": "o", "filters": {
        "requestHeaderModifier": {"set": [{"name": "X-A", "value": "1"}], "remove": ["Cookie"]},
        "urlRewrite": {"hostname": "in.test", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}}}}));
    let moved = route(json!({"hostnames": ["a.test"], "filters": {
        "requestRedirect": {"hostname": "b.test", "port": 8443, "statusCode": 308}}}));
    let fixed = route(
        json!({"hostnames": ["a.test"], "filters": {"directResponse": {"statusCode": 404, "body": "gone"}}}),
    );
    assert_eq!(
        words(&[], std::slice::from_ref(&moved)),
        ["+ route r: a.test/ → redirect 308 to b.test:8443"]
    );
    assert_eq!(
        words(std::slice::from_ref(&plain), &[changed]),
        [
            "~ route r: request header +set X-A: 1, remove Cookie; rewrite (default) → host in.test, path prefix → /v2"
        ]
    );
    assert_eq!(
        words(&[plain], std::slice::from_ref(&moved)),
        ["~ route r: answer (default) → redirect 308 to b.test:8443; originGroup o → (default)"]
    );
    assert_eq!(
        words(&[moved], &[fixed]),
        ["~ route r: answer redirect 308 to b.test:8443 → fixed response 404; body (default) → gone"]
    );
}

proptest! {
    #[test]
    fn equal_sets_have_no_changes_and_others_one_each(
        old in prop::collection::btree_map("[a-d]", 1_u16..5, 0..4), new in prop::collection::btree_map("[a-d]", 1_u16..5, 0..4)
    ) {
        let objects = |ports: &BTreeMap<String, u16>| -> Vec<Object> {
            ports.iter().map(|(name, port)| object("Listener", name, json!({"port": port}))).collect()
        };
        let found = changes(&objects(&old), &objects(&new));
        let expect = |action| match action {
            Action::Add => new.keys().filter(|name| !old.contains_key(*name)).count(),
            Action::Remove => old.keys().filter(|name| !new.contains_key(*name)).count(),
            Action::Change => old.iter().filter(|(name, port)| new.get(*name).is_some_and(|other| other != *port)).count(),
        };
        for action in [Action::Add, Action::Change, Action::Remove] {
            prop_assert_eq!(found.iter().filter(|change| change.action == action).count(), expect(action));
        }
        let mut reversed = objects(&new);
        reversed.reverse();
        prop_assert_eq!(changes(&objects(&old), &reversed), found);
        prop_assert!(changes(&objects(&new), &reversed).is_empty());
    }
}
