use std::time::Duration;

use model::draft::Kind;
use model::report::{Drops, Feature, Histogram, Leg, ListenerReport, Place, Report, RouteReport};
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnectOptions;

use super::{CaptureQuery, FlowQuery, ListQuery, Node, OpenError, OpsError, Role, Severity, Sort};
use crate::clock;
use crate::testing::{Directory, object, operator, publish, shop};

#[tokio::test]
async fn lists_are_paged_searched_and_sorted() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let origins: Vec<_> = (0..30)
        .map(|n| {
            object(
                "OriginGroup",
                &format!("group{n:02}"),
                json!({ "origins": [{ "url": format!("https://Host{n:02}.internal") }] }),
            )
        })
        .collect();
    publish(&ops, origins).await.unwrap();
    publish(&ops, shop()).await.unwrap();
    let names = |page: super::Page<super::Stored>| -> Vec<String> {
        page.items.into_iter().map(|stored| stored.object.metadata.name).collect()
    };
    let query = ListQuery { kind: Some(Kind::OriginGroup), page: 4, per_page: 10, ..ListQuery::default() };
    let last = ops.list(&query).await.unwrap();
    assert_eq!((last.total, last.pages()), (31, 4));
    assert_eq!(names(last), ["shop"]);
    let search = |search: &str| ListQuery { search: search.to_owned(), ..ListQuery::default() };
    assert_eq!(names(ops.list(&search("HOST07")).await.unwrap()), ["group07"]);
    assert_eq!(ops.list(&search("host internal 1")).await.unwrap().total, 12);
    assert_eq!(ops.list(&search("100%_")).await.unwrap().total, 0);
    // A certificate is found by its host, not by its PEM.
    assert_eq!(ops.list(&search("shop.example.com")).await.unwrap().total, 2);
    assert_eq!(ops.list(&search("BEGIN CERTIFICATE")).await.unwrap().total, 0);
    let newest =
        ListQuery { kind: Some(Kind::OriginGroup), sort: Sort::Changed, per_page: 1, ..ListQuery::default() };
    assert_eq!(names(ops.list(&newest).await.unwrap()), ["shop"]);
    let down = ListQuery {
        kind: Some(Kind::OriginGroup),
        sort: Sort::NameDown,
        per_page: 1,
        page: 2,
        ..ListQuery::default()
    };
    assert_eq!(names(ops.list(&down).await.unwrap()), ["group29"]);
    assert_eq!(ops.used_by(Kind::OriginGroup, "shop").await.unwrap(), [(Kind::Route, "shop".to_owned())]);
}

fn report() -> Report {
    let leg = Leg { version: "TLSv1.3".to_owned(), verified: "shop.internal".to_owned(), ..empty_leg() };
    let route = RouteReport {
        route: "shop".parse().unwrap(),
        responses: [3, 0, 1, 0],
        added: Histogram(vec![(10, 4)]),
        total: Histogram(vec![(20, 4)]),
        client: None,
        origin: Some(leg),
    };
    let drops = Drops { place: Place::Kernel, reason: "denied".to_owned(), rule: 1, count: 7 };
    Report { routes: vec![route], drops: vec![drops], ..Report::default() }
}

fn empty_leg() -> Leg {
    let none = String::new;
    Leg { version: none(), suite: none(), group: none(), sni: none(), verified: none() }
}

#[tokio::test]
async fn figures_are_summed_written_and_read_back_once() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let deny = json!({ "rules": [{ "name": "bad", "action": "Deny", "prefixes": ["203.0.113.0/24"] }] });
    publish(&ops, vec![object("PacketFilter", "edge", deny)]).await.unwrap();
    let hour = Duration::from_secs(3600);
    let now = clock::now();
    for _ in 0..2 {
        ops.figures().add(&report(), now);
    }
    for pass in 0..3 {
        let sum = ops.traffic(hour).await.unwrap().sum;
        assert_eq!(sum.responses, [6, 0, 2, 0], "pass {pass}");
        let routes = ops.route_traffic(&["shop".to_owned(), "none".to_owned()], hour).await.unwrap();
        assert_eq!(routes["shop"].sum.added.count(), 8);
        assert_eq!(routes["shop"].origin.as_ref().unwrap().leg.verified, "shop.internal");
        assert_eq!((routes["none"].sum.requests(), routes["none"].client.is_none()), (0, true));
        let drops = ops.drops(hour).await.unwrap();
        assert_eq!((drops[0].count, drops[0].rule.as_deref()), (14, Some("edge/bad")));
        // Twice: what was written is not written again, nor lost.
        ops.figures().write(ops.store()).await.unwrap();
    }
    drop(ops);
    let ops = directory.open().await;
    ops.figures().add(&report(), now);
    ops.figures().write(ops.store()).await.unwrap();
    assert_eq!(ops.traffic(hour).await.unwrap().sum.responses, [9, 0, 3, 0]);
}

#[tokio::test]
async fn needs_name_clear_text_and_an_empty_console() {
    let directory = Directory::new();
    let ops = directory.open().await;
    assert!(ops.needs().await.unwrap().iter().any(|need| need.link == "/routes/new"));
    let mut objects = shop();
    objects[2] = object(
        "OriginGroup",
        "shop",
        json!({ "origins": [{ "url": "http://shop.internal" }], "clearText": "allow" }),
    );
    let http = json!({ "h2cPrefixes": ["10.0.0.0/8"], "clearText": "allow" });
    objects.push(object("Listener", "mesh", json!({ "port": 80, "protocol": "HTTP", "http": http })));
    objects.push(object("Listener", "open", json!({ "port": 81, "protocol": "HTTP" })));
    publish(&ops, objects).await.unwrap();
    let needs = ops.needs().await.unwrap();
    for link in ["/origins/shop", "/listeners/mesh"] {
        let clear = needs.iter().find(|need| need.link == link).unwrap();
        assert_eq!(clear.severity, Severity::Warning);
        assert!(clear.message.contains("clear text"));
    }
    assert!(!needs.iter().any(|need| need.link == "/listeners/open"));
}

/// A node `n1` of this site, with its packet filter on or off.
fn node(site: &str, on: bool) -> Node {
    Node {
        name: "n1".to_owned(),
        labels: [("site".to_owned(), site.to_owned())].into(),
        said_labels: std::collections::BTreeMap::new(),
        enrolled: true,
        revoked: false,
        drained: false,
        connected: None,
        last_seen: None,
        version: String::new(),
        applied: None,
        refused: None,
        certificate_ends: None,
        features: vec![Feature { name: "xdp".to_owned(), on, detail: "--no-kernel".to_owned() }],
        listeners: Vec::new(),
        connections: 0,
        threads: 1,
        overload: None,
        syn_pressure: None,
    }
}

#[tokio::test]
async fn what_keeps_listeners_from_accepting_is_said_once() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let listener = |name: &str, problem: &str| ListenerReport {
        listener: name.parse().unwrap(),
        mode: "steered".to_owned(),
        addresses: Vec::new(),
        ranges: Vec::new(),
        left_out: Vec::new(),
        connections: 0,
        problem: Some(problem.to_owned()),
    };
    let mut node = node("a", true);
    node.listeners =
        vec![listener("a", "no steering"), listener("b", "port taken"), listener("c", "no steering")];
    let needs = ops.needs_of(&[node]).await.unwrap();
    let bad = needs.iter().filter(|need| need.severity == Severity::Bad);
    let said: Vec<(&str, &str)> = bad.map(|need| (&*need.message, &*need.link)).collect();
    let expected = [
        ("2 listeners do not accept on node n1: no steering", "/nodes/n1"),
        ("Listener b does not accept on node n1: port taken", "/listeners/b"),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn rules_that_a_node_does_not_enforce_are_needed() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let rules = json!({ "rules": [{ "name": "bad", "action": "Deny", "prefixes": ["203.0.113.0/24"] }],
        "nodeSelector": { "matchLabels": { "site": "a" } } });
    publish(&ops, vec![object("PacketFilter", "edge", rules)]).await.unwrap();
    let need = ops.unfiltered(&node("a", false)).unwrap();
    let said = "Node n1 does not enforce its 1 packet filter rule, so every packet passes until it runs as root, without --no-kernel (xdp: --no-kernel)";
    assert_eq!(need.message, said);
    assert!(ops.unfiltered(&node("a", true)).is_none());
    // On some interfaces it is: what passes is said of the others alone.
    let on = |name: &str, on, detail: &str| Feature { name: name.to_owned(), on, detail: detail.to_owned() };
    let missing = "there is no interface edge9: name another with --interface";
    let mut some = node("a", true);
    some.features = vec![
        on("xdp:edge0", true, "native"),
        on("xdp:edge1", true, "native"),
        on("xdp:edge9", false, missing),
    ];
    assert_eq!(
        ops.unfiltered(&some).unwrap().message,
        format!("Node n1 enforces its 1 packet filter rule on edge0, edge1, and not on edge9: {missing}")
    );
    some.features = vec![on("xdp:edge9", false, missing)];
    // The flag is nothing to do with it.
    let said = format!(
        "Node n1 does not enforce its 1 packet filter rule, so every packet passes (xdp:edge9: {missing})"
    );
    assert_eq!(ops.unfiltered(&some).unwrap().message, said);
    assert!(ops.unfiltered(&node("b", false)).is_none());
    // Without a rule it is said of interfaces that the node was to filter on, once for all of them.
    let mut idle = node("b", true);
    let (busy, none) =
        (on("xdp:edge8", false, "another program is attached"), on("xdp:edge9", false, missing));
    idle.features = vec![on("xdp:edge0", true, "native"), busy, none];
    let need = ops.unfiltered(&idle).unwrap();
    assert_eq!((need.severity, &*need.link), (Severity::Warning, "/nodes/n1"));
    let said = format!("off on edge8 (another program is attached), edge9 ({missing})");
    assert!(need.message.ends_with(&said), "{}", need.message);
    idle.features.truncate(1);
    assert!(ops.unfiltered(&idle).is_none());
    // A budget alone is something to enforce too.
    let budget = json!({ "budgets": { "udpPerSource": { "rate": 5 } }, "nodeSelector": { "matchLabels": { "site": "c" } } });
    publish(&ops, vec![object("PacketFilter", "budget", budget)]).await.unwrap();
    assert_eq!(ops.unfiltered(&node("c", false)).unwrap().severity, Severity::Bad);
}

#[tokio::test]
async fn a_damaged_database_is_named_and_left_alone() {
    let directory = Directory::new();
    let path = directory.path().join("console.sqlite");
    std::fs::write(&path, "this is no database, however long one looks at it").unwrap();
    let error = super::Ops::open(directory.path(), "").await.unwrap_err();
    let sentence = error.to_string();
    assert!(
        sentence.contains("console.sqlite is damaged") && sentence.contains("put a backup"),
        "{sentence}"
    );
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is no database"));
}

#[tokio::test]
async fn a_lost_or_wrong_master_key_is_named_and_no_new_one_is_made() {
    let directory = Directory::new();
    directory.open().await.store().close().await;
    let key = directory.path().join("master.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let error = super::Ops::open(directory.path(), "").await.unwrap_err();
    assert!(error.to_string().contains("master.key is missing"), "{error}");
    assert!(!key.exists());
    let other = Directory::new();
    other.open().await.store().close().await;
    std::fs::copy(other.path().join("master.key"), &key).unwrap();
    let error = super::Ops::open(directory.path(), "").await.unwrap_err();
    assert!(matches!(error, OpenError::Seal(_)) && error.to_string().contains("does not belong"), "{error}");
    std::fs::write(&key, right).unwrap();
    directory.open().await;
}

/// The audit log has whoever stopped a capture: while it cannot be written, nobody does.
#[tokio::test]
async fn a_stop_that_is_in_no_audit_log_is_none() {
    let directory = Directory::new();
    let ops = directory.open().await;
    ops.enrol_node("n1", &model::labels::Labels::default(), false, &super::Actor::console()).await.unwrap();
    let flows = FlowQuery { node: "n1".to_owned(), reason: "denied".to_owned(), ..FlowQuery::default() };
    let query = CaptureQuery { flows, ..CaptureQuery::default() };
    let id = ops.capture(&query, &operator()).await.unwrap().leave();
    let file = SqliteConnectOptions::new().filename(directory.path().join("console.sqlite"));
    let mut database = sqlx::SqliteConnection::connect_with(&file).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(full).execute(&mut database).await.unwrap();
    let refused = ops.stop_capture(id, &operator()).await.unwrap_err();
    assert!(matches!(refused, OpsError::Store(_)), "{refused}");
    let [going_on] = &ops.captures(&operator()).unwrap()[..] else { panic!() };
    assert_eq!((going_on.running, &going_on.stopped), (true, &None));
    sqlx::query("DROP TRIGGER full").execute(&mut database).await.unwrap();
    for actor in [operator(), super::Actor { name: "ben".to_owned(), ..operator() }] {
        let stopped = ops.stop_capture(id, &actor).await.unwrap();
        assert_eq!((stopped.running, stopped.stopped.as_deref()), (false, Some("olga")));
    }
    let acts = "SELECT actor || ' ' || act FROM audit WHERE act LIKE 'stopped%'";
    let acts: Vec<String> = sqlx::query_scalar(acts).fetch_all(&mut database).await.unwrap();
    assert_eq!(acts, [format!("olga stopped capture {id} of node n1: reason denied")]);
}

#[tokio::test]
async fn users_and_tokens() {
    let directory = Directory::new();
    let ops = directory.open().await;
    let root = super::Actor::console();
    assert!(ops.put_user("ann", "too short", Role::Viewer, &root).await.is_err());
    assert!(ops.put_user("a/b", "long enough for this", Role::Viewer, &root).await.is_err());
    assert!(ops.put_user("ann", "long enough for this", Role::Viewer, &operator()).await.is_err());
    ops.put_user("ann", "long enough for this", Role::Viewer, &root).await.unwrap();
    // A reset keeps the role; a new user becomes administrator.
    ops.reset_user("ann", false, &root).await.unwrap();
    // A slip of the pen makes nobody an administrator.
    assert!(matches!(ops.reset_user("bob", false, &root).await, Err(OpsError::NotFound(_))));
    ops.reset_user("bob", true, &root).await.unwrap();
    let roles: Vec<_> = ops.users().await.unwrap().into_iter().map(|user| (user.name, user.role)).collect();
    assert_eq!(roles, [("ann".to_owned(), Role::Viewer), ("bob".to_owned(), Role::Administrator)]);
    let token = ops.make_token("cli", Role::Operator, &root).await.unwrap();
    assert_eq!(ops.token(&token).await.unwrap(), Some(("cli".to_owned(), Role::Operator)));
    let renewed = ops.make_token("cli", Role::Operator, &root).await.unwrap();
    assert_eq!(ops.token(&token).await.unwrap(), None);
    assert!(ops.token(&renewed).await.unwrap().is_some());
}
