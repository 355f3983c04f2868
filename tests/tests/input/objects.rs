//! What people and programs write.

use sallyport_tests::objects::{certificate, object, origin_group, packet_filter, route};
use sallyport_tests::stage::{HOST, ORIGIN_NAME};
use serde_json::json;

use crate::place::Place;

#[test]
fn certificates_are_refused_alike() {
    let place = Place::new("inputpem");
    let browser = place.administrator();
    let ca = &place.stage.front_ca;
    let (pair, other, old) =
        (ca.issue(&["bad.walk.test"]), ca.issue(&["bad.walk.test"]), ca.issue_expired(&["bad.walk.test"]));
    let mut mixed = certificate("bad", &pair);
    mixed["spec"]["privateKey"] = json!(other.key);
    let rubbish = "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n";
    let mut half = certificate("bad", &pair);
    half["spec"]["chain"] = json!(rubbish);
    for (what, object, chain, key, code) in [
        ("malformed PEM", half, rubbish, pair.key.as_str(), "invalid"),
        ("key of another certificate", mixed, pair.chain.as_str(), other.key.as_str(), "key-mismatch"),
        ("expired", certificate("bad", &old), old.chain.as_str(), old.key.as_str(), "expired"),
    ] {
        let fields = [("name", "bad"), ("source", "upload"), ("chain", chain), ("private_key", key)];
        let form = Some((&browser, ("/certificates/new", &fields[..])));
        place.refused(what, &[object], (code, "Certificate/bad"), form);
    }
}

#[test]
fn fetched_prefix_sets_are_refused_alike() {
    let place = Place::new("inputsets");
    let browser = place.administrator();
    for (what, source, field, control, typed) in [
        ("clear text", json!({ "url": "http://lists.example/a" }), "url", "url", "http://lists.example/a"),
        (
            "a password",
            json!({ "url": "https://me:x@lists.example/" }),
            "url",
            "url",
            "https://me:x@lists.example/",
        ),
        (
            "too often",
            json!({ "url": "https://lists.example/a", "intervalSeconds": 5 }),
            "intervalSeconds",
            "interval_seconds",
            "5",
        ),
        (
            "an unknown bundle",
            json!({ "url": "https://lists.example/a", "trustBundle": "nobody" }),
            "trustBundle",
            "trust_bundle",
            "nobody",
        ),
    ] {
        let fields = [("name", "bad"), ("url", "https://lists.example/a"), (control, typed)];
        let fields: Vec<_> =
            fields.into_iter().filter(|(name, value)| *name != control || *value == typed).collect();
        let code = if control == "trust_bundle" { "unknown-reference" } else { "invalid" };
        let object = object("PrefixSet", "bad", json!({ "source": source }));
        let place_of = format!("PrefixSet/bad spec.source.{field}");
        let form = Some((&browser, ("/prefix-sets/new", &fields[..])));
        place.refused(what, &[object], (code, &place_of), form);
    }
}

#[test]
fn rules_with_ports_and_sets_are_refused_alike() {
    let place = Place::new("inputports");
    let browser = place.administrator();
    for (what, more, code, field, control, typed) in [
        ("no port", json!({ "ports": ["70000"] }), "invalid", "ports[0]", "rule.0.ports", "70000"),
        (
            "a set nobody wrote",
            json!({ "prefixSets": ["nobody"] }),
            "unknown-reference",
            "prefixSets[0]",
            "rule.0.sets",
            "nobody",
        ),
    ] {
        let mut rule = json!({ "name": "rule", "action": "Deny", "prefixes": ["192.0.2.0/24"] });
        more.as_object().unwrap().iter().for_each(|(name, value)| rule[name] = value.clone());
        let fields = [
            ("name", "bad"),
            ("rule.0.name", "rule"),
            ("rule.0.action", "Deny"),
            ("rule.0.prefixes", "192.0.2.0/24"),
            (control, typed),
        ];
        let object = object("PacketFilter", "bad", json!({ "rules": [rule] }));
        let place_of = format!("PacketFilter/bad spec.rules[0].{field}");
        place.refused(
            what,
            &[object],
            (code, &place_of),
            Some((&browser, ("/packet-filter/new", &fields[..]))),
        );
    }
}

#[test]
fn routes_and_filters_are_refused_alike() {
    let place = Place::new("input");
    let browser = place.administrator();
    let fields = |host, group| {
        let existing = [("source", "existing"), ("certificate", "front"), ("origin_source", "existing")];
        let own =
            [("name", "bad"), ("host", host), ("path", "/"), ("origin_group", group), ("enabled", "on")];
        [&existing[..], &own[..]].concat()
    };
    place.refused(
        "the same host and path again",
        &[route("bad", &[HOST], "front", "group")],
        ("duplicate", "Route/"),
        Some((&browser, ("/routes/new", &fields(HOST, "group")))),
    );
    place.refused(
        "unknown origin group",
        &[route("bad", &["bad.walk.test"], "front", "nobody")],
        ("unknown-reference", "Route/bad spec.originGroup"),
        Some((&browser, ("/routes/new", &fields("bad.walk.test", "nobody")))),
    );
    let rule = [
        ("name", "bad"),
        ("rule.0.name", "rule"),
        ("rule.0.action", "Deny"),
        ("rule.0.prefixes", "192.0.2.1/24"),
    ];
    place.refused(
        "host bits",
        &[packet_filter("bad", "Deny", &["192.0.2.1/24".to_owned()])],
        ("invalid", "PacketFilter/bad"),
        Some((&browser, ("/packet-filter/new", &rule))),
    );
    let six = [&rule[..3], &[("rule.0.prefixes", "2001:db8::1/32")]].concat();
    place.refused(
        "host bits, IPv6",
        &[packet_filter("bad", "Deny", &["2001:db8::1/32".to_owned()])],
        ("invalid", "PacketFilter/bad"),
        Some((&browser, ("/packet-filter/new", &six))),
    );
    let listener = [("name", "bad"), ("port", "70000"), ("certificates", "front")];
    place.refused(
        "not a port",
        &[object("Listener", "bad", json!({ "port": 70000, "certificates": ["front"] }))],
        ("invalid", "spec.port"),
        Some((&browser, ("/listeners/new", &listener))),
    );
    // No form can say these.
    let mut typo = route("bad", &["bad.walk.test"], "front", "group");
    typo["spec"]["orignGroup"] = json!("group");
    place.refused("unknown field", &[typo], ("unknown-field", "orignGroup"), None);
    place.refused("unknown kind", &[object("Rout", "bad", json!({}))], ("unknown-kind", ""), None);
    place.refused(
        "not a URL",
        &[origin_group("bad", &["ftp://x".to_owned()], "origins", ORIGIN_NAME)],
        ("invalid", "OriginGroup/bad"),
        None,
    );
}

#[test]
fn not_json_and_not_our_token() {
    let place = Place::new("inputtoken");
    let (status, answer) = place.api.call_text("POST", "/api/v1/apply", Some("{ not json")).unwrap();
    assert!(status == 400 || status == 422, "{status} {answer}");
    assert!(answer["problems"][0]["message"].is_string(), "{answer}");
    for token in ["", "wrong", "sp_0000000000000000"] {
        let (status, answer) =
            place.api.clone().with_token(token).call("GET", "/api/v1/status", None).unwrap();
        assert_eq!(status, 401, "{token:?}: {answer}");
        assert!(answer["problems"][0]["message"].is_string(), "{answer}");
    }
    let server = ["--server", "https://127.0.0.1:9443", "--token", "wrong"];
    let (ok, _, err) = place.product.cli(&[&["status"][..], &server].concat());
    assert!(!ok && err.to_lowercase().contains("token"), "{err}");
    let (status, page) = place.api.browser().set_up("wrong").expect_err("a link with another token");
    assert!(status == 403 && page.contains("sallyport user reset"), "{status} {page}");
    place.administrator();
    place.served();
}
