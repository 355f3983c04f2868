use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::draft::{API_VERSION, parse};
use crate::name::{HostName, HostPattern};
use crate::route::{NormalPath, Table};
use crate::snapshot::{PathMatch, Snapshot, SnapshotId};

fn object(kind: &str, name: &str, spec: Value) -> Object {
    parse(json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})).unwrap()
}

fn pem(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/golden/pem/{name}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn keys() -> BTreeSet<Digest> {
    ["shop", "wild", "other", "ended"].iter().map(|name| Facts::of_chain(&pem(name)).unwrap().key).collect()
}

static NOTHING: BTreeSet<(Kind, String)> = BTreeSet::new();

fn input<'a>(
    objects: &'a [Object],
    keys: &'a BTreeSet<Digest>,
    rule_ids: &'a BTreeMap<String, u32>,
) -> Input<'a> {
    Input {
        objects,
        keys,
        internal_ca: "CA",
        rule_ids,
        removed: &NOTHING,
        refused: &NOTHING,
        now: datetime!(2026-06-01 00:00 UTC),
    }
}

fn compiled(objects: &[Object]) -> Result<Compiled, Vec<Problem>> {
    compile(input(objects, &keys(), &BTreeMap::new()))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn texts<'a>(names: impl IntoIterator<Item = &'a Name>) -> Vec<&'a str> {
    names.into_iter().map(Name::as_str).collect()
}

fn cut(compiled: &Compiled) -> Snapshot {
    compiled.snapshot_for(&name("node"), &BTreeMap::new(), SnapshotId { epoch: 1, revision: 1 })
}

#[test]
fn an_end_that_came_after_publishing_blocks_no_other_change() {
    let objects = [object("Certificate", "ended", json!({"chain": pem("ended")}))];
    let (keys, rule_ids) = (keys(), BTreeMap::new());
    let problems = compile(input(&objects, &keys, &rule_ids)).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::Expired]);
    let in_force = BTreeSet::from(["Certificate/ended".to_owned()]);
    let mut cache = FactsCache::default();
    let compiled = compile_with(input(&objects, &keys, &rule_ids), &mut cache, &in_force).unwrap();
    assert!(compiled.facts(&name("ended")).is_some());
    cache.keep_only(&compiled);
    assert_eq!(cache.facts.len(), 1);
    cache.keep_only(&compile(input(&[], &keys, &rule_ids)).unwrap());
    assert!(cache.facts.is_empty());
}

#[test]
fn a_rule_without_a_number_is_refused() {
    let objects = [object(
        "PacketFilter",
        "f",
        json!({"rules": [{"name": "r", "action": "Deny", "prefixes": ["192.0.2.7"]}]}),
    )];
    let problems = compiled(&objects).unwrap_err();
    assert_eq!(problems[0].code, Code::Conflict);
    let ids = BTreeMap::from([("f/r".to_owned(), 3)]);
    assert_eq!(compile(input(&objects, &keys(), &ids)).unwrap().filter_rules().next().unwrap().id, 3);
}

#[test]
fn the_console_can_ask_who_uses_what() {
    let objects = [
        object("Listener", "public", json!({"port": 443, "certificates": ["wild"]})),
        object("Listener", "inside", json!({"port": 8443, "defaultCertificate": "other"})),
        object("Certificate", "wild", json!({"chain": pem("wild")})),
        object("Certificate", "shop", json!({"chain": pem("shop")})),
        object("Certificate", "other", json!({"chain": pem("other")})),
        object("TrustBundle", "corp", json!({"certificates": pem("ca")})),
        object(
            "OriginGroup",
            "a",
            json!({"origins": [{"url": "https://a.test"}], "tls": {"trustBundle": "corp"}}),
        ),
        object(
            "OriginGroup",
            "b",
            json!({"origins": [{"url": "https://b.test"}], "tls": {"trustBundle": "internal"}}),
        ),
        object(
            "Route",
            "shop",
            json!({"hostnames": ["shop.example.com"], "certificate": "shop", "originGroup": "a"}),
        ),
        object("Route", "rest", json!({"hostnames": ["*.example.com"], "originGroup": "b"})),
        object("Route", "off", json!({"hostnames": ["x.test"], "originGroup": "b", "enabled": false})),
    ];
    let compiled = compiled(&objects).unwrap();
    assert_eq!(texts(compiled.listeners_of_route(&name("shop"))), ["inside", "public"]);
    assert_eq!(texts(compiled.certificates_of_route(&name("shop"))), ["shop"]);
    assert_eq!(texts(compiled.certificates_of_route(&name("rest"))), ["other", "wild"]);
    assert_eq!(texts(compiled.routes_of_certificate(&name("wild"))), ["rest"]);
    assert_eq!(texts(compiled.routes_of_certificate(&name("other"))), ["rest"]);
    assert_eq!(texts(compiled.listeners_of_certificate(&name("shop"))), ["inside", "public"]);
    assert_eq!(texts(compiled.routes_of_origin_group(&name("b"))), ["off", "rest"]);
    assert_eq!(texts(compiled.origin_groups_of_trust_bundle(&name("internal"))), ["b"]);
    assert_eq!(texts(compiled.routes_of_trust_bundle(&name("corp"))), ["shop"]);
    assert_eq!(compiled.authorities(&name("corp")).unwrap().len(), 1);
    for (listener, host, expected) in [
        ("public", "shop.example.com", Some("shop")),
        ("public", "www.shop.example.com", Some("shop")),
        ("public", "www.example.com", Some("wild")),
        ("public", "a.b.example.com", None),
        ("inside", "a.b.example.com", Some("other")),
        ("inside", "www.example.com", Some("other")),
    ] {
        let host: HostPattern = host.parse().unwrap();
        let found = compiled.certificate_for(&name(listener), &host).map(Name::as_str);
        assert_eq!(found, expected, "{listener} {host}");
    }
}

/// Small words, so that objects meet: right and wrong references, claims and shapes alike.
#[expect(clippy::too_many_lines, reason = "one strategy per kind; apart they would say less")]
fn objects() -> impl Strategy<Value = Vec<Object>> {
    let word = || prop::sample::select(vec!["a", "b", "c"]);
    let host = prop::sample::select(vec![
        "shop.example.com",
        "*.example.com",
        "x.example.com",
        "other.example.net",
        "-",
    ]);
    let path = prop::sample::select(vec!["/", "/a", "/a/", "/a/%2e%2E/b", "/%7e", "/a%2Fb", "x"]);
    let prefixes = prop::sample::select(vec!["192.0.2.0/24", "192.0.2.1/24", "2001:db8::/32", "2001:db8::7"]);
    let chain = prop::sample::select(vec!["shop", "wild", "other", "ended", "cut"]);
    let url = prop::sample::select(vec![
        "https://a.test",
        "http://a.test",
        "https://[2001:db8::1]",
        "https://192.0.2.1:8443",
    ]);
    let listener =
        (word(), prop::sample::select(vec![443, 8443, 0]), prop::option::of(word()), any::<bool>()).prop_map(
            |(name, port, default, v6)| {
                let addresses = if v6 { json!(["2001:db8::1", "192.0.2.1"]) } else { json!([]) };
                object(
                    "Listener",
                    name,
                    json!({"port": port, "defaultCertificate": default, "addresses": addresses}),
                )
            },
        );
    let route =
        (word(), prop::collection::vec(host, 0..3), path, prop::option::of(word()), word(), any::<bool>())
            .prop_map(|(name, hosts, path, certificate, group, enabled)| {
                object(
                    "Route",
                    name,
                    json!({"hostnames": hosts, "matches": [{"path": {"value": path}}],
                "certificate": certificate, "originGroup": group, "enabled": enabled}),
                )
            });
    let group = (word(), prop::collection::vec(url, 0..3), any::<bool>(), prop::option::of(word())).prop_map(
        |(name, urls, clear, trust)| {
            let origins: Vec<Value> = urls.into_iter().map(|url| json!({"url": url})).collect();
            let clear = clear.then_some("allow");
            object(
                "OriginGroup",
                name,
                json!({"origins": origins, "clearText": clear, "tls": {"trustBundle": trust}}),
            )
        },
    );
    let certificate =
        (word(), chain).prop_map(|(name, chain)| object("Certificate", name, json!({"chain": pem(chain)})));
    let bundle = word().prop_map(|name| object("TrustBundle", name, json!({"certificates": pem("ca")})));
    let filter = (word(), prefixes).prop_map(|(name, prefix)| {
        object(
            "PacketFilter",
            name,
            json!({"rules": [{"name": "r", "action": "Deny", "prefixes": [prefix]}]}),
        )
    });
    prop::collection::vec(
        prop_oneof![3 => listener, 4 => route, 3 => group, 3 => certificate, 1 => bundle, 1 => filter],
        0..9,
    )
}

/// Sets without a problem: each host's paths are shared out among two routes, enabled or not.
fn right_objects() -> impl Strategy<Value = Vec<Object>> {
    const HOSTS: [&str; 4] = ["shop.example.com", "*.example.com", "x.example.com", "other.example.net"];
    const PATHS: [(&str, &str); 6] = [
        ("PathPrefix", "/"),
        ("PathPrefix", "/a/"),
        ("Exact", "/a"),
        ("Exact", "/a/"),
        ("PathPrefix", "/a/b"),
        ("Exact", "/"),
    ];
    let owner = prop::option::of(0..2_usize);
    let shares = prop::collection::vec(owner, HOSTS.len() * PATHS.len());
    (shares, any::<[bool; 8]>(), any::<bool>()).prop_map(|(shares, enabled, default)| {
        let mut objects = vec![
            object("Listener", "one", json!({"port": 443, "defaultCertificate": default.then_some("other"), "certificates": ["wild", "other"]})),
            object("Listener", "two", json!({"port": 443, "addresses": ["192.0.2.1", "2001:db8::1"], "certificates": ["wild", "shop", "other"]})),
            object("OriginGroup", "g0", json!({"origins": [{"url": "https://a.test"}], "tls": {"trustBundle": "internal"}})),
            object("OriginGroup", "g1", json!({"origins": [{"url": "https://[2001:db8::1]"}]})),
        ];
        for name in ["shop", "wild", "other"] {
            objects.push(object("Certificate", name, json!({"chain": pem(name)})));
        }
        for (route, enabled) in enabled.into_iter().enumerate() {
            let (host, share) = (route / 2, route % 2);
            let matches: Vec<Value> = PATHS
                .iter()
                .enumerate()
                .filter(|(path, _)| shares[host * PATHS.len() + path] == Some(share))
                .map(|(_, (kind, path))| json!({"path": {"type": kind, "value": path}}))
                .collect();
            if !matches.is_empty() {
                let spec = json!({"hostnames": [HOSTS[host]], "matches": matches, "originGroup": format!("g{share}"), "enabled": enabled});
                objects.push(object("Route", &format!("r{route}"), spec));
            }
        }
        objects
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn equal_inputs_give_equal_bytes_in_any_order(objects in objects(), seed in any::<usize>()) {
        let (keys, rule_ids) = (keys(), ["a", "b", "c"].map(|name| format!("{name}/r")).into_iter().zip(1..).collect());
        let mut shuffled = objects.clone();
        shuffled.reverse();
        let middle = seed % shuffled.len().max(1);
        shuffled.rotate_left(middle);
        let labels: BTreeSet<String> = objects.iter().map(Object::label).collect();
        match (compile(input(&objects, &keys, &rule_ids)), compile(input(&shuffled, &keys, &rule_ids))) {
            (Ok(one), Ok(other)) => prop_assert_eq!(cut(&one).to_canonical_json().unwrap(), cut(&other).to_canonical_json().unwrap()),
            (Err(one), Err(other)) => {
                prop_assert!(!one.is_empty() && one.iter().all(|problem| !problem.message.is_empty()));
                // Of two objects with one name, which is the second depends on the order.
                prop_assert!(one == other || labels.len() < objects.len(), "{:?} {:?}", one, other);
            }
            (one, other) => prop_assert!(false, "{:?} {:?}", one.is_ok(), other.is_ok()),
        }
    }

    #[test]
    fn a_snapshot_is_whole(objects in right_objects()) {
        let compiled = compiled(&objects).map_err(|problems| TestCaseError::fail(format!("{problems:#?}")))?;
        let snapshot = cut(&compiled);
        prop_assert_eq!(&Snapshot::from_verified_json(&snapshot.to_canonical_json().unwrap()).unwrap(), &snapshot);
        let certificates: BTreeSet<&Name> = snapshot.certificates.iter().map(|certificate| &certificate.name).collect();
        let groups: BTreeSet<&Name> = snapshot.origin_groups.iter().map(|group| &group.name).collect();
        let used: BTreeSet<&Name> = snapshot.routes.iter().filter_map(|route| route.origin_group.as_ref()).collect();
        prop_assert_eq!(groups, used);
        let served: BTreeSet<&Name> = snapshot.listeners.iter().flat_map(|listener| &listener.certificates).collect();
        prop_assert_eq!(certificates, served);
        let enabled = objects.iter().filter(|object| matches!(&object.spec, Spec::Route(spec) if spec.enabled)).count();
        prop_assert_eq!(snapshot.routes.len(), enabled);
        for listener in &snapshot.listeners {
            prop_assert!(listener.certificates.is_sorted());
            let table = Table::build(&snapshot, &listener.name, |route| route.name.clone());
            for route in snapshot.routes.iter().filter(|route| route.listeners.contains(&listener.name)) {
                // No route is shadowed whole: each host and path of its own leads back to it.
                for host in &route.hostnames {
                    let host: HostName = host.to_string().replace('*', "any").parse().unwrap();
                    for path in &route.paths {
                        let (PathMatch::Exact(text) | PathMatch::Prefix(text)) = path;
                        let found = table.find(&host, &NormalPath::parse(text).unwrap(), &());
                        // The exact match of a path comes before the prefix that equals it.
                        let whole = PathMatch::Exact(text.clone());
                        let rival = snapshot.routes.iter().find(|other| other.hostnames == route.hostnames && other.paths.contains(&whole));
                        prop_assert_eq!(found, Some(&rival.unwrap_or(route).name));
                    }
                }
            }
        }
    }
}

#[test]
fn ten_thousand_routes_and_certificates_compile_quickly() {
    let chain = pem("wild");
    let mut objects = vec![
        object("Listener", "https", json!({"port": 443})),
        object("OriginGroup", "o", json!({"origins": [{"url": "https://o.test"}]})),
    ];
    for n in 0..10_000 {
        // Text before the first block is a comment, and makes each chain another one to the cache.
        objects.push(object("Certificate", &format!("c{n}"), json!({"chain": format!("# {n}\n{chain}")})));
        objects.push(object(
            "Route",
            &format!("r{n}"),
            json!({"hostnames": [format!("h{n}.example.com")], "certificate": format!("c{n}"), "originGroup": "o"}),
        ));
    }
    let (keys, rule_ids, mut cache) = (keys(), BTreeMap::new(), FactsCache::default());
    let mut time = || {
        let start = std::time::Instant::now();
        let compiled = compile_with(input(&objects, &keys, &rule_ids), &mut cache, &BTreeSet::new()).unwrap();
        assert_eq!(compiled.routes_by_certificate().len(), 10_000);
        (start.elapsed(), compiled)
    };
    let (first, _) = time();
    let (second, compiled) = time();
    let start = std::time::Instant::now();
    let bytes = cut(&compiled).to_canonical_json().unwrap().len();
    println!(
        "first {first:?}, with known chains {second:?}, snapshot of {bytes} bytes {:?}",
        start.elapsed()
    );
    // Debug builds on busy machines are slow; quadratic work would take minutes.
    assert!(first + second < std::time::Duration::from_secs(20), "{first:?} {second:?}");
}

#[test]
fn ten_thousand_wrong_references_are_refused_quickly() {
    let mut objects = vec![object("Listener", "https", json!({"port": 443}))];
    for n in 0..10_000 {
        objects.push(object(
            "OriginGroup",
            &format!("origin-{n}"),
            json!({"origins": [{"url": "https://o.test"}]}),
        ));
        let spec = json!({"hostnames": [format!("h{n}.test")], "originGroup": format!("orgin-{n}")});
        objects.push(object("Route", &format!("r{n}"), spec));
    }
    let start = std::time::Instant::now();
    let problems = compiled(&objects).unwrap_err();
    assert_eq!(problems.len(), 10_000);
    assert!(problems[0].message.ends_with("did you mean `origin-0`?"), "{}", problems[0].message);
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
}
