mod queries;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use model::flow::{FlowCounts, FlowMessage};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::router;
use crate::ops::{Actor, Ops, Role};
use crate::testing::{Directory, dropped, shop};

struct Api {
    router: Router,
    ops: Ops,
    token: String,
    _directory: Directory,
}

impl Api {
    async fn new(role: Role) -> Self {
        let directory = Directory::new();
        let ops = directory.open().await;
        let token = ops.make_token("test", role, &Actor::console()).await.unwrap();
        Self { router: router(ops.clone()), ops, token, _directory: directory }
    }

    async fn raw(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        self.raw(request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).unwrap())
            .await
    }

    async fn apply(&self, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, "/api/v1/apply", Some(body)).await
    }
}

fn documents() -> Vec<Value> {
    shop().iter().map(model::draft::Object::to_value).collect()
}

fn first(answer: &Value) -> (&str, &str) {
    let problem = &answer["problems"][0];
    (problem["field"].as_str().unwrap(), problem["code"].as_str().unwrap())
}

#[tokio::test]
async fn without_a_right_token_there_is_one_sentence() {
    let api = Api::new(Role::Operator).await;
    for header in [None, Some("Bearer wrong"), Some("Basic eDp5")] {
        for path in ["/api/v1/status", "/api/v1/objects", "/api/v1/openapi.json", "/api/nowhere"] {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let (status, answer) = api.raw(request.body(Body::empty()).unwrap()).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(first(&answer), ("", "unauthorized"));
            assert_eq!(answer["problems"].as_array().unwrap().len(), 1);
        }
    }
    for path in ["/healthz", "/readyz"] {
        let (status, _) = api.raw(Request::builder().uri(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn objects_come_and_go() {
    let api = Api::new(Role::Operator).await;
    let (status, answer) = api.apply(json!({ "objects": documents(), "message": "first" })).await;
    assert_eq!((status, answer["revision"].as_u64()), (StatusCode::OK, Some(1)), "{answer}");
    assert_eq!(answer["changes"].as_array().unwrap().len(), 4);
    let (_, listed) = api.call(Method::GET, "/api/v1/objects?kind=Route", None).await;
    assert_eq!(listed["items"][0]["metadata"]["name"], "shop");
    let (_, route) = api.call(Method::GET, "/api/v1/routes/shop", None).await;
    assert_eq!(route["spec"]["originGroup"], "shop");
    let mut off = route.clone();
    off["spec"]["enabled"] = json!(false);
    let (status, answer) = api.call(Method::PUT, "/api/v1/routes/shop", Some(off)).await;
    assert_eq!((status, answer["revision"].as_u64()), (StatusCode::OK, Some(2)), "{answer}");
    let (status, _) = api.call(Method::PUT, "/api/v1/routes/other", Some(route)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, answer) = api.call(Method::DELETE, "/api/v1/origin-groups/shop", None).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let (status, _) = api.call(Method::DELETE, "/api/v1/routes/shop", None).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = api.call(Method::GET, "/api/v1/routes/shop", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, back) = api.call(Method::POST, "/api/v1/revisions/1/rollback", None).await;
    assert_eq!(back["revision"], 4);
    let (_, revisions) = api.call(Method::GET, "/api/v1/revisions?perPage=2", None).await;
    assert_eq!((revisions["total"].as_u64(), revisions["items"].as_array().unwrap().len()), (Some(4), 2));
    // What was exported and is applied again changes nothing.
    let (_, all) = api.call(Method::GET, "/api/v1/objects", None).await;
    let (_, same) = api.apply(json!({ "objects": all["items"], "prune": true })).await;
    assert_eq!((same["revision"].as_u64(), same["changes"].as_array().unwrap().len()), (Some(4), 0));
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_does_nothing() {
    let api = Api::new(Role::Operator).await;
    api.apply(json!({ "objects": documents() })).await;
    let (status, answer) = api.apply(json!({ "objects": [], "prune": true, "dryRun": true })).await;
    assert_eq!((status, answer["changes"].as_array().unwrap().len()), (StatusCode::OK, 4));
    assert_eq!(api.ops.current().id.revision, 1);
}

#[tokio::test]
async fn bad_input_is_named_with_its_place() {
    let api = Api::new(Role::Operator).await;
    let mut documents = documents();
    documents[3]["spec"]["orginGroup"] = json!("x");
    let (status, answer) = api.apply(json!({ "objects": documents })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(first(&answer), ("spec.orginGroup", "unknown-field"));
    assert!(answer["problems"][0]["message"].as_str().unwrap().contains("originGroup"), "{answer}");
    let (_, answer) = api.apply(json!({ "object": [] })).await;
    assert_eq!(first(&answer), ("object", "unknown-field"));
    let (_, answer) = api.apply(json!({ "objects": [{ "kind": 7 }] })).await;
    assert!(
        answer["problems"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| p["field"].as_str().unwrap().starts_with("objects[0]")),
        "{answer}"
    );
    let bearer = format!("Bearer {}", api.token);
    let request = |kind: &str, body: Vec<u8>| {
        let builder =
            Request::post("/api/v1/apply").header("authorization", &bearer).header("content-type", kind);
        builder.body(Body::from(body)).unwrap()
    };
    let (status, _) = api.raw(request("application/json", b"{".to_vec())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = api.raw(request("text/yaml", b"a: 1".to_vec())).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, answer) = api.raw(request("application/json", vec![b' '; super::BODY + 1])).await;
    assert_eq!((status, first(&answer).1), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    let (status, _) = api.call(Method::PATCH, "/api/v1/status", None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _) = api.call(Method::GET, "/api/v1/nowhere/at/all", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(api.ops.current().id.revision, 0);
}

#[tokio::test]
async fn a_second_word_is_asked_for_with_409() {
    let api = Api::new(Role::Operator).await;
    api.ops.links().opened("n", ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
    let filter = json!({ "apiVersion": model::draft::API_VERSION, "kind": "PacketFilter", "metadata": { "name": "f" },
        "spec": { "rules": [{ "name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"] }] } });
    let (status, answer) = api.apply(json!({ "objects": [filter] })).await;
    assert_eq!((status, first(&answer).1), (StatusCode::CONFLICT, "needs-confirmation"));
    let (status, _) = api.apply(json!({ "objects": [filter], "confirm": true })).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_viewer_looks_and_does_not_touch() {
    let api = Api::new(Role::Viewer).await;
    assert_eq!(api.call(Method::GET, "/api/v1/status", None).await.0, StatusCode::OK);
    for (method, path) in [
        (Method::POST, "/api/v1/apply"),
        (Method::POST, "/api/v1/nodes/a/enrol"),
        (Method::POST, "/api/v1/nodes/a/revoke"),
        (Method::POST, "/api/v1/revisions/1/rollback"),
        (Method::POST, "/api/v1/users/a/reset"),
        (Method::POST, "/api/v1/captures/1/stop"),
    ] {
        let (status, answer) = api.call(method, path, Some(json!({}))).await;
        assert_eq!((status, first(&answer).1), (StatusCode::FORBIDDEN, "forbidden"), "{path}");
    }
    // Who captured what, and of whom, is for those who may.
    let (status, answer) = api.call(Method::GET, "/api/v1/captures", None).await;
    assert_eq!((status, first(&answer).1), (StatusCode::FORBIDDEN, "forbidden"));
    let api = Api::new(Role::Operator).await;
    assert_eq!(
        api.call(Method::GET, "/api/v1/captures", None).await,
        (StatusCode::OK, json!({ "items": [] }))
    );
}

#[tokio::test]
async fn only_administrators_enrol_and_label() {
    let labels = json!({ "labels": { "zone": "a" } });
    for (role, status) in [(Role::Operator, StatusCode::FORBIDDEN), (Role::Administrator, StatusCode::OK)] {
        let api = Api::new(role).await;
        assert_eq!(api.call(Method::POST, "/api/v1/nodes/a/enrol", Some(labels.clone())).await.0, status);
        if role == Role::Administrator {
            let other = json!({ "labels": { "zone": "b" } });
            assert_eq!(api.call(Method::PUT, "/api/v1/nodes/a/labels", Some(other)).await.0, status);
            let (_, nodes) = api.call(Method::GET, "/api/v1/nodes", None).await;
            assert_eq!(nodes["items"][0]["labels"]["zone"], "b");
            let wrong = json!({ "labels": { "zo ne": "b" } });
            let (status, answer) = api.call(Method::PUT, "/api/v1/nodes/a/labels", Some(wrong)).await;
            assert_eq!((status, first(&answer)), (StatusCode::UNPROCESSABLE_ENTITY, ("labels", "invalid")));
        } else {
            assert_eq!(api.call(Method::PUT, "/api/v1/nodes/a/labels", Some(labels.clone())).await.0, status);
            assert_eq!(api.call(Method::POST, "/api/v1/nodes/a/drain", None).await.0, StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn labels_that_shut_out_are_asked_about_with_409() {
    let api = Api::new(Role::Administrator).await;
    let filter = json!({ "apiVersion": model::draft::API_VERSION, "kind": "PacketFilter", "metadata": { "name": "f" },
        "spec": { "nodeSelector": { "matchLabels": { "role": "b" } }, "rules": [{ "name": "r", "action": "Deny", "prefixes": ["10.0.0.0/8"] }] } });
    assert_eq!(api.apply(json!({ "objects": [filter] })).await.0, StatusCode::OK);
    assert_eq!(api.call(Method::POST, "/api/v1/nodes/x/enrol", Some(json!({}))).await.0, StatusCode::OK);
    api.ops.links().opened("x", ["10.1.2.3".parse().unwrap(), "203.0.113.1".parse().unwrap()]);
    let body = |more: Value| {
        let mut body = json!({ "labels": { "role": "b" } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(body)
    };
    for (method, path) in [(Method::PUT, "/api/v1/nodes/x/labels"), (Method::POST, "/api/v1/nodes/x/enrol")] {
        let (status, answer) = api.call(method, path, body(json!({}))).await;
        assert_eq!(
            (status, first(&answer).1),
            (StatusCode::CONFLICT, "needs-confirmation"),
            "{path}: {answer}"
        );
    }
    let (status, review) = api
        .call(Method::PUT, "/api/v1/nodes/x/labels", body(json!({ "dryRun": true, "confirm": true })))
        .await;
    assert_eq!((status, &review["confirmations"][0]["code"]), (StatusCode::OK, &json!("needs-confirmation")));
    let (_, nodes) = api.call(Method::GET, "/api/v1/nodes", None).await;
    assert_eq!(nodes["items"][0]["labels"], json!({}));
    let (status, _) = api.call(Method::PUT, "/api/v1/nodes/x/labels", body(json!({ "confirm": true }))).await;
    assert_eq!(status, StatusCode::OK);
    // A token is made or not.
    let (status, answer) =
        api.call(Method::POST, "/api/v1/nodes/x/enrol", body(json!({ "dryRun": true }))).await;
    assert_eq!((status, first(&answer)), (StatusCode::UNPROCESSABLE_ENTITY, ("dryRun", "unknown-field")));
}

#[tokio::test]
async fn the_description_lists_every_url() {
    let api = Api::new(Role::Viewer).await;
    let (_, description) = api.call(Method::GET, "/api/v1/openapi.json", None).await;
    let paths = description["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for method in operations
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "put", "post", "delete"].contains(&key.as_str()))
        {
            let url = path.replace("{kind}", "routes").replace("{name}", "x").replace("{number}", "1");
            let method = method.to_uppercase().parse().unwrap();
            let (status, answer) = api.call(method, &url, None).await;
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert!(!answer.to_string().contains("nothing at this URL"), "{path}: {answer}");
        }
    }
    assert_eq!(paths.len(), 24);
}

#[tokio::test]
async fn a_node_that_nobody_knows_is_named_wherever_it_is_asked_for() {
    let api = Api::new(Role::Administrator).await;
    let wrong = "there is no node named nope; `sallyport node list` shows them";
    let capture = json!({ "node": "nope", "reason": "denied" });
    for (method, path, body) in [
        (Method::GET, "/api/v1/sources?node=nope", None),
        (Method::GET, "/api/v1/flows?node=nope&seconds=1", None),
        (Method::POST, "/api/v1/captures", Some(capture)),
    ] {
        let (status, answer) = api.call(method, path, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {answer}");
        assert_eq!((first(&answer).0, &answer["problems"][0]["message"]), ("node", &json!(wrong)), "{path}");
    }
    // One that is known and has recorded nothing says why.
    api.call(Method::POST, "/api/v1/nodes/a/enrol", Some(json!({}))).await;
    let (status, answer) = api.call(Method::GET, "/api/v1/sources?node=a", None).await;
    assert_eq!((status, &answer["total"]), (StatusCode::OK, &json!(0)), "{answer}");
    let [node] = &answer["nodes"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!(node["why"], "it is revoked, or was never enrolled");
}

#[tokio::test]
async fn a_rule_that_is_published_during_an_export_has_its_label() {
    let api = Api::new(Role::Operator).await;
    let (connection, orders) = api.ops.flows().connected("edge");
    let request = Request::get("/api/v1/flows?limit=2&seconds=60")
        .header("authorization", format!("Bearer {}", api.token))
        .body(Body::empty());
    let answer = api.router.clone().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let filter = json!({ "apiVersion": model::draft::API_VERSION, "kind": "PacketFilter", "metadata": { "name": "f" },
        "spec": { "rules": [{ "name": "r", "action": "Deny", "prefixes": ["192.0.2.0/24"] }] } });
    let (status, published) = api.apply(json!({ "objects": [filter] })).await;
    assert_eq!(status, StatusCode::OK, "{published}");
    let (watch, rule) = (orders.borrow()[0].id, api.ops.rules()[0].id);
    let (events, captured, counts) =
        (vec![dropped(rule), dropped(rule + 1)], Vec::new(), FlowCounts::default());
    api.ops.flows().heard("edge", connection, FlowMessage::Flows { watch, events, captured, counts });
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let lines: Vec<Value> =
        body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let told = |line: &Value| (line["rule"].clone(), line["ruleId"].clone());
    assert_eq!(told(&lines[0]), (json!("f/r"), json!(rule)), "{lines:?}");
    assert_eq!(told(&lines[1]), (Value::Null, json!(rule + 1)), "{lines:?}");
}

#[tokio::test]
async fn a_capture_is_stopped_by_its_number() {
    let api = Api::new(Role::Administrator).await;
    api.call(Method::POST, "/api/v1/nodes/edge/enrol", Some(json!({}))).await;
    let begin = json!({ "node": "edge", "reason": "denied" });
    let (_, begun) = api.call(Method::POST, "/api/v1/captures", Some(begin)).await;
    let stop = format!("/api/v1/captures/{}/stop", begun["id"]);
    for running in ["stopped", "stopped again"] {
        let (status, capture) = api.call(Method::POST, &stop, None).await;
        assert_eq!(
            (status, &capture["id"], &capture["running"]),
            (StatusCode::OK, &begun["id"], &json!(false)),
            "{running}"
        );
    }
    for nothing in ["7", "x"] {
        let (status, _) = api.call(Method::POST, &format!("/api/v1/captures/{nothing}/stop"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{nothing}");
    }
}

#[tokio::test]
async fn a_wrong_field_is_no_conflict() {
    let api = Api::new(Role::Operator).await;
    let document = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": model::draft::API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec });
    let budget =
        |name: &str| document("PacketFilter", name, json!({ "budgets": { "udpPerSource": { "rate": 5 } } }));
    for (objects, field, code) in [
        (
            json!([document(
                "Listener",
                "any",
                json!({ "port": "any", "addresses": ["192.0.2.1"], "takeOver": true })
            )]),
            "spec.takeOver",
            "invalid",
        ),
        (json!([budget("a"), budget("b")]), "spec.budgets.udpPerSource", "duplicate"),
    ] {
        let (status, answer) = api.apply(json!({ "objects": objects })).await;
        let expected = (StatusCode::UNPROCESSABLE_ENTITY, (field, code));
        assert_eq!((status, first(&answer)), expected, "{answer}");
    }
}

#[tokio::test]
async fn a_dry_run_refuses_what_publishing_would_and_everything_waits_for_a_trial() {
    let api = Api::new(Role::Operator).await;
    let listener = |name: &str, port: u16| json!({ "apiVersion": model::draft::API_VERSION, "kind": "Listener", "metadata": { "name": name }, "spec": { "port": port } });
    assert_eq!(api.apply(json!({ "objects": [listener("https", 8443)] })).await.0, StatusCode::OK);
    let wrong = async |extra: (&str, Value), expected: (StatusCode, (&str, &str))| {
        for dry_run in [true, false] {
            let mut body = json!({ "objects": [listener("more", 9000)], "dryRun": dry_run });
            body[extra.0] = extra.1.clone();
            let (status, answer) = api.apply(body).await;
            assert_eq!((status, first(&answer)), expected, "{answer}");
        }
    };
    for base in [0, 9] {
        wrong(("baseRevision", json!(base)), (StatusCode::CONFLICT, ("", "conflict"))).await;
    }
    for after in [4, 86_401] {
        let expected = (StatusCode::UNPROCESSABLE_ENTITY, ("rollbackAfterSeconds", "invalid"));
        wrong(("rollbackAfterSeconds", json!(after)), expected).await;
    }
    let risky = json!({ "objects": [listener("risky", 9001)], "rollbackAfterSeconds": 60 });
    assert_eq!(api.apply(risky).await.0, StatusCode::OK);
    wrong(("message", json!("innocent")), (StatusCode::CONFLICT, ("", "conflict"))).await;
    let put = api.call(Method::PUT, "/api/v1/listeners/more", Some(listener("more", 9000))).await;
    let delete = api.call(Method::DELETE, "/api/v1/listeners/https", None).await;
    for (status, answer) in [put, delete] {
        assert_eq!((status, first(&answer)), (StatusCode::CONFLICT, ("", "conflict")), "{answer}");
    }
    let (_, waiting) = api.call(Method::GET, "/api/v1/revisions/2", None).await;
    assert_eq!(waiting["rollbackTo"], 1, "{waiting}");
    let back = api.call(Method::POST, "/api/v1/revisions/1/rollback", Some(json!({}))).await;
    assert_eq!((back.0, &back.1["revision"]), (StatusCode::OK, &json!(3)), "{}", back.1);
    assert_eq!(api.apply(json!({ "objects": [listener("more", 9000)] })).await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_still_used_says_by_whom_when_it_is_removed() {
    let api = Api::new(Role::Operator).await;
    let document = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": model::draft::API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec });
    let rule = json!({ "name": "threats", "action": "Deny", "prefixSets": ["feed"] });
    let filter = document("PacketFilter", "front", json!({ "rules": [rule] }));
    let set = document("PrefixSet", "feed", json!({ "prefixes": ["198.51.100.0/24"] }));
    assert_eq!(api.apply(json!({ "objects": [filter, set] })).await.0, StatusCode::OK);
    let by_apply = api.apply(json!({ "remove": ["PrefixSet/feed"], "dryRun": true })).await;
    for (status, answer) in [api.call(Method::DELETE, "/api/v1/prefix-sets/feed", None).await, by_apply] {
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let problem = &answer["problems"][0];
        assert_eq!(problem["object"], "PacketFilter/front");
        let message = problem["message"].as_str().unwrap();
        assert!(
            message.starts_with("rule threats uses prefix set feed, and this change removes it"),
            "{message}"
        );
    }
    let both = json!({ "remove": ["PrefixSet/feed", "PacketFilter/front"] });
    assert_eq!(api.apply(both).await.0, StatusCode::OK);
}

#[tokio::test]
async fn rules_are_listed_with_the_numbers_that_metrics_have() {
    let api = Api::new(Role::Operator).await;
    let filter = |rule: &str| {
        json!({ "apiVersion": model::draft::API_VERSION, "kind": "PacketFilter", "metadata": { "name": "edge" },
            "spec": { "rules": [{ "name": rule, "action": "Deny", "prefixes": ["192.0.2.0/24"] }] } })
    };
    for rule in ["old", "bad"] {
        let (status, answer) = api.apply(json!({ "objects": [filter(rule)] })).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let (status, answer) = api.call(Method::GET, "/api/v1/rules", None).await;
    assert_eq!(status, StatusCode::OK);
    let items = answer["items"].as_array().unwrap();
    let told = |item: &Value| (item["rule"].as_str().unwrap().to_owned(), item["removed"] == true);
    assert_eq!(
        items.iter().map(told).collect::<Vec<_>>(),
        [("edge/old".to_owned(), true), ("edge/bad".to_owned(), false)]
    );
    assert!(items[0]["id"].as_u64() < items[1]["id"].as_u64());
}
