use proptest::prelude::*;

use super::*;
use crate::snapshot::{FORMAT, SnapshotId};

fn route(name: &str, listeners: &[&str], hosts: &[&str], paths: &[PathMatch]) -> Route {
    Route {
        name: name.parse().unwrap(),
        listeners: listeners.iter().map(|name| name.parse().unwrap()).collect(),
        hostnames: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        paths: paths.to_vec(),
        certificate: None,
        origin_group: "origin".parse().unwrap(),
        allow_encoded_slash: false,
        response_timeout_ms: 60_000,
    }
}

fn table(routes: Vec<Route>) -> Table<String> {
    let snapshot = Snapshot {
        format: FORMAT,
        node: "node".parse().unwrap(),
        id: SnapshotId::default(),
        listeners: Vec::new(),
        certificates: Vec::new(),
        routes,
        origin_groups: Vec::new(),
        trust_bundles: Vec::new(),
        filter: Vec::new(),
    };
    Table::build(&snapshot, &"https".parse().unwrap(), |route| route.name.to_string())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.to_owned())
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.to_owned())
}

fn find<'a>(table: &'a Table<String>, host: &str, path: &str) -> Option<&'a str> {
    table.find(&host.parse().unwrap(), &NormalPath::parse(path).unwrap()).map(String::as_str)
}

#[test]
fn hosts_by_precision_then_paths_by_precision() {
    let table = table(vec![
        route("shop", &["https"], &["shop.example.com"], &[prefix("/")]),
        route("api", &["https"], &["shop.example.com"], &[prefix("/api")]),
        route("health", &["https"], &["shop.example.com"], &[exact("/api"), exact("/api/")]),
        route("near", &["https"], &["*.example.com"], &[prefix("/")]),
        route("far", &["https"], &["*.com"], &[prefix("/")]),
        route("other", &["elsewhere"], &["only.test"], &[prefix("/")]),
    ]);
    for (host, path, expected) in [
        ("shop.example.com", "/", Some("shop")),
        ("shop.example.com", "/apis", Some("shop")),
        ("shop.example.com", "/api/v1", Some("api")),
        ("shop.example.com", "/api//", Some("api")),
        ("shop.example.com", "/api", Some("health")),
        ("shop.example.com", "/api/", Some("health")),
        ("www.example.com", "/api", Some("near")),
        ("a.b.example.com", "/", Some("near")),
        ("example.com", "/", Some("far")),
        ("com", "/", None),
        ("only.test", "/", None),
    ] {
        assert_eq!(find(&table, host, path), expected, "{host}{path}");
    }
    assert!(table.knows(&"x.y.com".parse().unwrap()));
    assert!(!table.knows(&"only.test".parse().unwrap()));
    assert_eq!(table.routes().len(), 5);
}

#[test]
fn a_host_without_the_path_leaves_the_request_to_the_wildcards() {
    let table = table(vec![
        route("exact", &["https"], &["shop.example.com"], &[prefix("/api")]),
        route("near", &["https"], &["*.example.com"], &[exact("/cart")]),
        route("far", &["https"], &["*.com"], &[prefix("/")]),
    ]);
    assert_eq!(find(&table, "shop.example.com", "/api/1"), Some("exact"));
    assert_eq!(find(&table, "shop.example.com", "/cart"), Some("near"));
    assert_eq!(find(&table, "shop.example.com", "/else"), Some("far"));
}

#[test]
fn ten_thousand_routes_and_a_path_of_slashes_are_quick() {
    let names: Vec<String> = (0..10_000).map(|n| format!("r{n}")).collect();
    let routes = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            route(
                name,
                &["https"],
                &["one.example.com", &format!("h{n}.example.com")],
                &[prefix(&format!("/p{n}"))],
            )
        })
        .collect();
    let table = table(routes);
    let slashes = "/".repeat(8000);
    let start = std::time::Instant::now();
    for (n, name) in names.iter().enumerate() {
        let path = format!("/p{n}/x");
        assert_eq!(find(&table, "one.example.com", &path), Some(name.as_str()));
        assert_eq!(find(&table, &format!("h{n}.example.com"), &path), Some(name.as_str()));
    }
    for _ in 0..100 {
        assert_eq!(find(&table, "one.example.com", &slashes), None);
    }
    // Generous for a debug build on a busy machine; a scan of 10,000 routes per request would take minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|labels| labels.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    (any::<bool>(), host()).prop_map(|(wildcard, host)| if wildcard { format!("*.{host}") } else { host })
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["x", "y", "xy", ""]), 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    (any::<bool>(), path()).prop_map(|(whole, path)| {
        if whole {
            return PathMatch::Exact(path);
        }
        let trimmed = path.trim_end_matches('/');
        PathMatch::Prefix(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let one = (
        prop::collection::vec(pattern(), 1..3),
        prop::collection::vec(path_match(), 1..3),
        prop::bool::weighted(0.9),
    );
    prop::collection::vec(one, 0..10).prop_map(|routes| {
        let named = routes.into_iter().enumerate();
        named
            .map(|(n, (hosts, paths, here))| {
                let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
                route(&format!("r{n}"), &[if here { "https" } else { "elsewhere" }], &hosts, &paths)
            })
            .collect()
    })
}

/// Exact host, its length, exact path, its length.
type Rank = (bool, usize, bool, usize);

/// Ranks every rule that matches; the greatest rank wins, the first route among equals.
fn slow(routes: &[Route], host: &str, path: &str) -> Option<String> {
    let mut best: Option<(Rank, &Route)> = None;
    for route in routes.iter().filter(|route| route.listeners[0].as_str() == "https") {
        for pattern in &route.hostnames {
            let pattern = pattern.to_string();
            let matches = match pattern.strip_prefix('*') {
                Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                None => host == pattern,
            };
            for path_match in route.paths.iter().filter(|_| matches) {
                let (whole, text) = match path_match {
                    PathMatch::Exact(text) => (true, text.as_str()),
                    PathMatch::Prefix(text) => (false, text.as_str()),
                };
                let inside = text == "/" || path == text || path.starts_with(&format!("{text}/"));
                if if whole { path == text } else { inside } {
                    let rank = (!pattern.starts_with('*'), pattern.len(), whole, text.len());
                    if best.is_none_or(|(present, _)| rank > present) {
                        best = Some((rank, route));
                    }
                }
            }
        }
    }
    best.map(|(_, route)| route.name.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn agrees_with_the_slow_reference(
        routes in routes(), requests in prop::collection::vec((host(), path()), 1..20)
    ) {
        let expected: Vec<_> = requests.iter().map(|(host, path)| slow(&routes, host, path)).collect();
        let table = table(routes);
        for ((host, path), expected) in requests.iter().zip(expected) {
            prop_assert_eq!(find(&table, host, path), expected.as_deref(), "{}{}", host, path);
        }
    }
}
