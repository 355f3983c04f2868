use proptest::prelude::*;

use super::conditions::tests::Plain;
use super::*;
use crate::snapshot::{FORMAT, RouteMatch, SnapshotId};
use crate::transform::Transform;

fn route(name: &str, listeners: &[&str], hosts: &[&str], paths: &[PathMatch]) -> Route {
    Route {
        name: name.parse().unwrap(),
        listeners: listeners.iter().map(|name| name.parse().unwrap()).collect(),
        hostnames: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        passthrough: false,
        paths: paths.to_vec(),
        matches: Vec::new(),
        certificate: None,
        origin_group: Some("origin".parse().unwrap()),
        allow_encoded_slash: false,
        response_timeout_ms: 60_000,
        transform: Transform::default(),
        upgrades: crate::upgrade::usual(),
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
        filter_protocols: Vec::new(),
        filter_budgets: Default::default(),
        trial_ms: None,
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
    ask(table, host, path, &Plain::default())
}

fn ask<'a>(table: &'a Table<String>, host: &str, path: &str, asked: &Plain) -> Option<&'a str> {
    table.find(&host.parse().unwrap(), &NormalPath::parse(path).unwrap(), asked).map(String::as_str)
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
fn conditions_decide_between_equal_paths_and_leave_the_rest_to_shorter_ones() {
    let with = |name: &str, path: PathMatch, conditions: Conditions| {
        let mut route = route(name, &["https"], &["a.test"], &[]);
        route.matches = vec![RouteMatch { path, conditions }];
        route
    };
    let header = |name: &str, value: &str| HeaderIs { name: name.parse().unwrap(), value: value.to_owned() };
    let query = |name: &str, value: &str| QueryIs { name: name.to_owned(), value: value.to_owned() };
    let get = Conditions { method: Some(Verb::Get), ..Conditions::default() };
    let canary = Conditions { headers: vec![header("x-canary", "1")], ..Conditions::default() };
    let preview = Conditions { query: vec![query("p", "1"), query("q", "1")], ..Conditions::default() };
    let table = table(vec![
        route("all", &["https"], &["a.test"], &[prefix("/")]),
        with("canary", prefix("/api"), canary),
        with("get", prefix("/api"), get.clone()),
        with("one", exact("/api/one"), get),
        with("preview", prefix("/api"), preview),
    ]);
    for (path, method, headers, query, expected) in [
        ("/api", "GET", &[("X-Canary", "1")][..], None, "get"),
        ("/api", "POST", &[("X-Canary", "1")], Some("p=1&q=1"), "canary"),
        ("/api", "POST", &[], Some("q=1&p=1"), "preview"),
        ("/api", "POST", &[], Some("q=1"), "all"),
        ("/api/one", "GET", &[], None, "one"),
        ("/api/one", "POST", &[("X-Canary", "1")], None, "canary"),
        ("/api/one", "POST", &[("X-Canary", "2")], None, "all"),
    ] {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let asked = Plain {
            method: method.to_owned(),
            headers: headers.iter().map(pair).collect(),
            query: query.map(str::to_owned),
        };
        assert_eq!(ask(&table, "a.test", path, &asked), Some(expected), "{path} {asked:?}");
    }
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

fn conditions() -> impl Strategy<Value = Conditions> {
    let pick = |names: &'static [&'static str]| {
        prop::collection::btree_map(prop::sample::select(names), prop::sample::select(vec!["1", "2"]), 0..3)
    };
    (
        prop::sample::select(vec![None, Some(Verb::Get), Some(Verb::Post)]),
        pick(&["x-a", "x-b"]),
        pick(&["p", "q"]),
    )
        .prop_map(|(method, headers, query)| Conditions {
            method,
            headers: headers
                .iter()
                .map(|(name, value)| HeaderIs { name: name.parse().unwrap(), value: (*value).to_owned() })
                .collect(),
            query: query
                .iter()
                .map(|(name, value)| QueryIs { name: (*name).to_owned(), value: (*value).to_owned() })
                .collect(),
        })
}

fn asked() -> impl Strategy<Value = Plain> {
    let pairs = |names: &'static [&'static str]| {
        prop::collection::vec((prop::sample::select(names), prop::sample::select(vec!["1", "2"])), 0..4)
    };
    (prop::sample::select(vec!["GET", "POST", "PUT"]), pairs(&["X-A", "x-b"]), pairs(&["p", "q"])).prop_map(
        |(method, headers, query)| Plain {
            method: method.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            query: Some(
                query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"),
            ),
        },
    )
}

/// The conditions, in other words than the table's.
fn slow_holds(conditions: &Conditions, asked: &Plain) -> bool {
    let header = |name: &str| {
        let values: Vec<&str> = asked
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    let query = |name: &str| {
        asked.query.as_deref().unwrap_or_default().split('&').find_map(|pair| {
            pair.split_once('=').filter(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
        })
    };
    conditions.method.is_none_or(|verb| verb.as_str() == asked.method)
        && conditions.headers.iter().all(|one| header(one.name.as_str()).as_ref() == Some(&one.value))
        && conditions.query.iter().all(|one| query(&one.name).as_ref() == Some(&one.value))
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let one = (
        prop::collection::vec(pattern(), 1..3),
        prop::collection::vec((path_match(), prop_oneof![Just(Conditions::default()), conditions()]), 1..4),
        prop::bool::weighted(0.9),
    );
    prop::collection::vec(one, 0..10).prop_map(|routes| {
        let named = routes.into_iter().enumerate();
        named
            .map(|(n, (hosts, matches, here))| {
                let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
                let (plain, demanding): (Vec<_>, Vec<_>) =
                    matches.into_iter().partition(|(_, conditions)| conditions.is_empty());
                let paths: Vec<PathMatch> = plain.into_iter().map(|(path, _)| path).collect();
                let listener = if here { "https" } else { "elsewhere" };
                let mut route = route(&format!("r{n}"), &[listener], &hosts, &paths);
                route.matches =
                    demanding.into_iter().map(|(path, conditions)| RouteMatch { path, conditions }).collect();
                route
            })
            .collect()
    })
}

/// Exact host, its length, exact path, its length, a method, header fields, query parameters.
type Rank = (bool, usize, bool, usize, bool, usize, usize);

/// Ranks every rule that matches; the greatest rank wins, the first route among equals.
fn slow(routes: &[Route], host: &str, path: &str, asked: &Plain) -> Option<String> {
    let mut best: Option<(Rank, &Route)> = None;
    for route in routes.iter().filter(|route| route.listeners[0].as_str() == "https") {
        for pattern in &route.hostnames {
            let pattern = pattern.to_string();
            let matches = match pattern.strip_prefix('*') {
                Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                None => host == pattern,
            };
            let none = Conditions::default();
            let plain = route.paths.iter().map(|path| (path, &none));
            let demanding = route.matches.iter().map(|one| (&one.path, &one.conditions));
            for (path_match, conditions) in plain.chain(demanding).filter(|_| matches) {
                let (whole, text) = match path_match {
                    PathMatch::Exact(text) => (true, text.as_str()),
                    PathMatch::Prefix(text) => (false, text.as_str()),
                };
                let inside = text == "/" || path == text || path.starts_with(&format!("{text}/"));
                if if whole { path == text } else { inside } && slow_holds(conditions, asked) {
                    let (headers, query) = (conditions.headers.len(), conditions.query.len());
                    let host = (!pattern.starts_with('*'), pattern.len());
                    let rank =
                        (host.0, host.1, whole, text.len(), conditions.method.is_some(), headers, query);
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
        routes in routes(), requests in prop::collection::vec((host(), path(), asked()), 1..20)
    ) {
        let expected: Vec<_> =
            requests.iter().map(|(host, path, asked)| slow(&routes, host, path, asked)).collect();
        let table = table(routes);
        for ((host, path, asked), expected) in requests.iter().zip(expected) {
            prop_assert_eq!(ask(&table, host, path, asked), expected.as_deref(), "{}{} {:?}", host, path, asked);
        }
    }
}
