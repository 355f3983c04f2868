use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::problem::Code;

fn problems(value: &Value) -> Vec<String> {
    parse(value).unwrap_err().iter().map(|p| format!("{:?} {p}", p.code)).collect()
}

#[test]
fn a_document_comes_back_as_it_was() {
    let document = json!({
        "apiVersion": API_VERSION,
        "kind": "OriginGroup",
        "metadata": {"name": "shop", "labels": {"team": "web"}},
        "spec": {
            "origins": [{"url": "https://[2001:db8::1]:8443"}, {"url": "https://192.0.2.1"}],
            "tls": {"trustBundle": "internal"},
        },
    });
    let object = parse(&document).unwrap();
    assert_eq!((object.kind(), object.name()), (Kind::OriginGroup, "shop"));
    assert_eq!(object.label(), "OriginGroup/shop");
    assert_eq!(object.to_value(), document);
    let text = serde_json::to_string(&object).unwrap();
    assert!(
        text.starts_with(r#"{"apiVersion":"sallyport.dev/v1alpha1","kind":"OriginGroup","metadata":"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Object>(&text).unwrap(), object);
}

#[test]
fn every_fault_is_named_with_its_path() {
    let found = problems(&json!({
        "apiVersion": API_VERSION,
        "kind": "OriginGroup",
        "metadata": {"name": "shop", "labels": {"a/b": 1}, "uid": "x"},
        "spec": {
            "origins": [{"url": "https://a.test"}, {"urll": "https://b.test"}, "https://c.test", {"url": null}],
            "tls": {"verify": false, "trustbundle": "x"},
            "connectTimeoutMs": "5000",
        },
        "status": {},
    }));
    assert_eq!(
        found,
        [
            "UnknownField OriginGroup/shop status: there is no such field; known here: apiVersion, kind, metadata, spec",
            "UnknownField OriginGroup/shop metadata.uid: there is no such field; known here: name, labels",
            "Invalid OriginGroup/shop metadata.labels[\"a/b\"]: must be text, not the number 1; for text put it in quotes",
            "UnknownField OriginGroup/shop spec.origins[1].urll: there is no such field; did you mean `url`?",
            "Missing OriginGroup/shop spec.origins[1].url: is required; add it",
            "Invalid OriginGroup/shop spec.origins[2]: must be an object with url, weight, priority, enabled, not text",
            "Missing OriginGroup/shop spec.origins[3].url: is required; add it",
            "UnknownField OriginGroup/shop spec.tls.trustbundle: there is no such field; did you mean `trustBundle`?",
            "Invalid OriginGroup/shop spec.tls.verify: must be text, not false; for text put it in quotes",
            "Invalid OriginGroup/shop spec.connectTimeoutMs: must be a whole number of 0 or more, \
         not the text \"5000\"; for a number remove the quotes",
        ]
    );
}

#[test]
fn the_envelope_is_checked_first() {
    assert_eq!(
        problems(&json!([])),
        ["Malformed a document is an object with apiVersion, kind, metadata and spec"]
    );
    assert_eq!(
        problems(&json!({"apiVersion": "v1", "kind": "Routes", "metadata": {}, "spec": {}})),
        [
            "UnknownVersion apiVersion: this release reads only sallyport.dev/v1alpha1; write that",
            "UnknownKind kind: there is no such kind; did you mean `Route`?",
            "Missing metadata.name: is required; add it",
        ]
    );
    assert_eq!(
        problems(&json!({"kind": "Listener"})),
        [
            "Missing Listener apiVersion: is required; write `apiVersion: sallyport.dev/v1alpha1`",
            "Missing Listener metadata: is required; add it",
            "Missing Listener spec: is required; add it",
        ]
    );
}

#[test]
fn numbers_and_lists_are_what_they_are() {
    let listener = |spec: Value| json!({"apiVersion": API_VERSION, "kind": "Listener", "metadata": {"name": "l"}, "spec": spec});
    for (port, message) in [
        (json!(-1), "not the number -1"),
        (json!(1.5), "not the number 1.5"),
        (json!(4_294_967_296_u64), "not the number 4294967296"),
        (json!([443]), "not a list"),
    ] {
        let found = problems(&listener(json!({"port": port})));
        assert!(
            found.len() == 1 && found[0].contains("spec.port") && found[0].contains(message),
            "{found:?}"
        );
    }
    let found =
        problems(&listener(json!({"port": 443, "addresses": "192.0.2.1", "takeOver": "yes", "tls": "1.2"})));
    assert_eq!(
        found,
        [
            "Invalid Listener/l spec.addresses: must be a list, not text",
            "Invalid Listener/l spec.tls: must be an object with minVersion, not the text \"1.2\"; for a number remove the quotes",
            "Invalid Listener/l spec.takeOver: must be true or false, not text",
        ]
    );
    let bare = parse(listener(json!({"port": 443, "tls": null, "limits": null, "defaultCertificate": null})))
        .unwrap();
    assert_eq!(bare.spec, Spec::Listener(ListenerSpec { port: 443.into(), ..ListenerSpec::default() }));
}

#[test]
fn many_missing_fields_end() {
    let origins = vec![json!({}); 1000];
    let document = json!({"apiVersion": API_VERSION, "kind": "OriginGroup", "metadata": {"name": "o"}, "spec": {"origins": origins}});
    let found = parse(&document).unwrap_err();
    assert_eq!(found.len(), 51);
    assert!(found.iter().all(|problem| problem.code == Code::Missing));
}

#[test]
fn a_private_key_is_never_printed() {
    let spec = CertificateSpec { private_key: Some("hunter2".to_owned()), ..CertificateSpec::default() };
    let object = Object::new("c", Spec::Certificate(spec));
    assert!(!format!("{object:?}").contains("hunter2"));
    let mut document = object.to_value();
    document["spec"]["privateKey"] = json!(["hunter2"]);
    document["metadata"] = json!("hunter2");
    assert!(!problems(&document).concat().contains("hunter2"));
}

#[test]
fn kinds_have_one_spelling_each_and_people_more() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Ok(kind));
        assert_eq!(Kind::parse(kind.segment()), Ok(kind));
        assert_eq!(Kind::parse(&kind.words().replace(' ', "-")), Ok(kind));
        assert_eq!(json!(kind), json!(kind.to_string()));
    }
    assert_eq!(
        Kind::parse("roote").unwrap_err().to_string(),
        "there is no kind \"roote\"; did you mean `Route`?"
    );
}

/// Any JSON, with the words of documents among its keys.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9./:*-]{0,12}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "name",
        "labels",
        "port",
        "origins",
        "url",
        "tls",
        "matches",
        "path",
        "type",
        "value",
        "hostnames",
        "originGroup",
        "rules",
        "action",
        "prefixes",
        "limits",
        "x y",
    ]);
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_spec_is_read_or_has_problems(spec in json(), metadata in json(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let document = json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec});
        match parse(&document) {
            Ok(object) => {
                let written = object.to_value();
                prop_assert_eq!(parse(&written).unwrap(), object);
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| !problem.field.is_empty() && !problem.message.is_empty()));
            }
        }
    }

    #[test]
    fn any_json_is_no_panic(document in json()) {
        prop_assert!(parse(&document).is_err());
    }
}

#[test]
fn a_number_that_does_not_fit_is_not_taken_for_a_text() {
    let found = problems(&json!({
        "apiVersion": API_VERSION,
        "kind": "PacketFilter",
        "metadata": {"name": "edge"},
        "spec": {"budgets": {"synPressure": {"rate": -5}}},
    }));
    assert_eq!(
        found,
        [
            "Invalid PacketFilter/edge spec.budgets.synPressure.rate: must be a whole number of 0 or more, not the number -5"
        ]
    );
}
